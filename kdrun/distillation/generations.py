"""Schemes of several rounds: teacher assistants, and students that teach the next one.

A round is a distillation like any other, with a configuration of its own. All but the last are runs
of their own as well: found again by what they compute, continued when they were interrupted. The
last one is the run that was asked for.

chain: Mirzadeh et al. 2020, arXiv 1902.03393. born_again: Furlanello et al. 2018, arXiv 1805.04770.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdrun.config.schema import (
    DistillConfig,
    EnsembleConfig,
    SchemeConfig,
    TeacherConfig,
)
from kdrun.data.dataset import Dataset
from kdrun.distillation.ensemble import answer_together, facts
from kdrun.distillation.metrics import Taught
from kdrun.distillation.session import Session
from kdrun.distillation.teacher import Teacher, get_or_train_teacher
from kdrun.engine.metrics import Evaluation
from kdrun.files import held
from kdrun.runs.folder import RunFolder
from kdrun.runs.reading import read_result
from kdrun.runs.search import find_run

OFFLINE = SchemeConfig("offline", "kdrun.schemes.offline.Offline")
# Seeds of successive generations lie so far apart that those of a sweep never meet them.
SEEDS_APART = 1000


@dataclass(frozen=True)
class Round:
    """One student and its teachers.

    config: a plain distillation. given: how many of its first teachers are those of the whole run;
    one more, if there is one more, is the student of the round before. title: for the screen.
    number: of the generation, from 1.
    """

    config: DistillConfig
    given: int
    title: str
    number: int


@dataclass(frozen=True)
class EarlierGenerations:
    """What the rounds before the last one left.

    config, teachers: of the last round. generations: entries of `result.json`.
    students: their answers on the test split.
    """

    config: DistillConfig
    teachers: list[Teacher]
    generations: list[dict[str, Any]]
    students: list[Evaluation]


def rounds_of(config: DistillConfig) -> list[Round]:
    """The rounds of a configuration; a scheme of one round has itself."""
    plan = config.scheme.rounds
    if plan is None:
        return [Round(config, len(config.teachers), "", 1)]
    plain = replace(config, scheme=OFFLINE)
    if plan.assistants:
        students = [*plan.assistants, config.student]
        seeds = [config.seed] * len(students)
        titles = [*(f"assistant {n}" for n in range(1, len(students))), "student"]
    else:
        first = 2 if plan.first_on_labels else 1
        numbers = range(first, plan.generations + 1)
        students = [config.student for _ in numbers]
        seeds = [config.seed + SEEDS_APART * (number - 1) for number in numbers]
        titles = [f"generation {number} of {plan.generations}" for number in numbers]
    found: list[Round] = []
    for student, seed, title in zip(students, seeds, titles, strict=True):
        teachers, ensemble = config.teachers, config.ensemble
        if found:
            kept = config.teachers if plan.keep_first else ()
            before = found[-1].config
            teachers = (*kept, TeacherConfig(before.student, config.schedule, before.seed))
            ensemble = EnsembleConfig(average=config.ensemble.average)
        given = len(teachers) - bool(found)
        one = replace(
            plain,
            student=student,
            seed=seed,
            teachers=teachers,
            ensemble=ensemble,
            alone=False,
            start=config.start if student is config.student else None,  # not of an assistant
        )
        number = len(found) + 1 + plan.first_on_labels
        found.append(Round(one, given, title, number))
    return found


def run_earlier(
    rounds: Sequence[Round],
    teachers: list[Teacher],
    alone: dict[str, Any] | None,
    group_of: Callable[[DistillConfig], Path],
    identity: Callable[[DistillConfig], str],
    train: Callable[[DistillConfig, RunFolder, list[Teacher]], None],
    dataset: Dataset,
    session: Session,
) -> EarlierGenerations:
    """Find or train the students of all rounds but the last.

    teachers: those of the run. alone: the student trained on labels, where it is the first
    generation. group_of, identity, train: where a distillation's runs lie, what it computes, and
    doing it with teachers that are ready.
    """
    ready = teachers
    generations = [_entry(1, "labels only", Path(alone["run"]))] if alone else []
    students = [teacher.test for teacher in teachers] if alone else []
    for one in rounds[:-1]:
        session.reporter.heading(f"{one.title.capitalize()}: distil {one.config.student.name}")
        config = _with_checkpoints(one, ready, alone)
        run = _find_or_train(config, ready, group_of(config), identity(config), train, session)
        entry = _entry(one.number, one.title, run)
        generations.append(entry)
        next_config = TeacherConfig(
            config.student, config.schedule, config.seed, checkpoint=str(run)
        )
        student = get_or_train_teacher(
            next_config, config.dataset, config.val_fraction, dataset, session
        )
        students.append(student.test)
        kept = rounds[-1].given
        ready = [*teachers[:kept], student]
    last = _with_checkpoints(rounds[-1], ready, alone)
    return EarlierGenerations(last, ready, generations, students)


def rounds_facts(
    config: DistillConfig,
    earlier: EarlierGenerations,
    taught: Taught,
    folder: RunFolder,
    dataset: Dataset,
) -> dict[str, Any]:
    """What the rounds add to the result of the run, whose own figures it has already.

    Generations of one network also answer together; assistants are of unlike sizes.
    """
    plan = config.scheme.rounds
    if plan is None:
        return {}
    one = rounds_of(config)[-1]
    result = {**folder.result.values, "seed": one.config.seed}
    last = _facts(one.number, one.title, result, folder.path)
    found: dict[str, Any] = {"generations": [*earlier.generations, last]}
    students = [*earlier.students, taught.trained.test]
    if len(students) > 1 and not plan.assistants:
        joint = answer_together(students, dataset)
        found["ensemble_of_generations"] = facts(len(students), joint)
    return found


def rounds_words(config: DistillConfig, rounds: Sequence[Round]) -> list[str]:
    """What a scheme of several rounds does, for the head of a run."""
    plan = config.scheme.rounds
    if plan is None:
        return []
    if plan.assistants:
        names = [one.config.student.name for one in rounds]
        return [f"chain: the teacher → {' → '.join(names)}"]
    several = len(config.teachers) > 1
    first = "labels only" if plan.first_on_labels else f"the teacher{'s' * several}"
    beside = f", the first teacher{'s' * several} beside it" if plan.keep_first else ""
    return [
        f"born_again: {plan.generations} generations, the first from {first}, "
        f"each later one from the student before{beside}"
    ]


def _with_checkpoints(
    one: Round, ready: Sequence[Teacher], alone: dict[str, Any] | None
) -> DistillConfig:
    """The round's configuration with every student among its teachers named by its folder."""
    teachers = [
        replace(teacher, checkpoint=str(found.path.parent))
        if alone is not None or number >= one.given
        else teacher
        for number, (teacher, found) in enumerate(zip(one.config.teachers, ready, strict=True))
    ]
    return replace(one.config, teachers=tuple(teachers))


def _find_or_train(
    config: DistillConfig,
    ready: list[Teacher],
    group: Path,
    key: str,
    train: Callable[[DistillConfig, RunFolder, list[Teacher]], None],
    session: Session,
) -> Path:
    """The folder of a finished run of this round; one process trains, others wait for it."""

    def find(warn: Callable[[str], None]) -> Path | None:
        return find_run(group, "identity", key, True, warn, weights=True)

    found = find(session.reporter.warn)
    if found is None:
        lock = session.output_root / "distill" / ".locks" / f"round-{key[:16]}.lock"
        with held(lock, lambda: session.reporter.say("  another run is training it; waiting")):
            found = find(lambda fault: None)  # it was said above
            if found is None:
                # a run of the user's own that was interrupted is left to the user
                begun = find_run(group, "round", key, finished=False)
                whole = begun is not None and (begun / "config.yaml").exists()
                folder = RunFolder(begun) if begun and whole else RunFolder.new_in(group)
                train(config, folder, ready)
                found = folder.path
    return found


def _entry(number: int, title: str, run: Path) -> dict[str, Any]:
    result = read_result(run)
    assert result is not None
    return _facts(number, title, result, run)


def _facts(number: int, title: str, result: dict[str, Any], run: Path) -> dict[str, Any]:
    """One line of `generations` in `result.json`."""
    student = result["student"]
    kept = {key: student[key] for key in student if key.startswith("test")}
    return {
        "generation": number,
        "role": title,
        "name": student["name"],
        "params": student["params"],
        "flops": student["flops"],
        "seed": result["seed"],
        **kept,
        "best_val": student["best_val"],
        "seconds": result["time"]["seconds"],
        "run": str(run),
    }
