"""Train the generations before the last one, and report all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from kdrun.config.schema import DistillConfig, TeacherConfig
from kdrun.distillation.child_run import ChildRecipe
from kdrun.distillation.ensemble import ensemble_entry, mean_answer
from kdrun.distillation.generations import Generation
from kdrun.distillation.get_or_train import get_or_train
from kdrun.distillation.metrics import TrainedStudent
from kdrun.distillation.prepare import PreparedRun
from kdrun.distillation.run_identity import identity
from kdrun.distillation.teacher import Teacher, get_or_train_teacher
from kdrun.distillation.teacher_recipe import TeacherRecipe
from kdrun.engine.metrics import Evaluation
from kdrun.files import canonical_hash
from kdrun.runs.reading import read_run
from kdrun.runs.result import RunResult


@dataclass(frozen=True)
class GenerationRecipe(ChildRecipe):
    """A generation is identified by its configuration, its teachers' checkpoints and its images."""

    KEY: ClassVar[str] = "round"
    MARKER: ClassVar[str] = "round"
    LOCK: ClassVar[str] = "round"


@dataclass(frozen=True)
class EarlierGenerations:
    """The trained generations before the last one.

    config, teachers: of the last generation. entries: of `generations` in `result.json`.
    students: of each earlier generation, on the test split.
    """

    config: DistillConfig
    teachers: list[Teacher]
    entries: list[dict[str, Any]]
    students: list[Evaluation]


def train_earlier_generations(
    run: PreparedRun, teachers: list[Teacher], baseline: dict[str, Any] | None
) -> EarlierGenerations:
    """Find or train the students of all generations but the last.

    teachers: of the run. baseline: its entry in `result.json` if it is the first generation.
    """
    current = teachers
    images = (run.dataset.fingerprint, run.transfer.dataset.fingerprint)
    entries = [_entry(1, "labels only", Path(baseline["run"]))] if baseline else []
    students = [teacher.test for teacher in teachers] if baseline else []
    for generation in run.generations[:-1]:
        name = generation.config.student.name
        run.session.reporter.heading(f"{generation.title.capitalize()}: distil {name}")
        config = _with_checkpoints(generation, current, baseline)
        digest = canonical_hash([identity(config), *images])
        recipe = GenerationRecipe(
            config, digest, run.dataset, run.session, run.argv, tuple(current)
        )
        folder = get_or_train(recipe, run.session.reporter).folder
        entries.append(_entry(generation.number, generation.title, folder))
        student = _load(config, folder, run)
        students.append(student.test)
        current = [*teachers[: run.generations[-1].num_given_teachers], student]
    last = _with_checkpoints(run.generations[-1], current, baseline)
    return EarlierGenerations(last, current, entries, students)


def generation_entries(
    run: PreparedRun, earlier: EarlierGenerations, trained: TrainedStudent
) -> dict[str, Any]:
    """Entries that generations add to the `result.json` of `run`, given its measured student.

    Generations of one architecture also form an ensemble; assistants differ in size.
    """
    scheme = run.config.scheme.rounds
    if scheme is None:
        return {}
    last = run.generations[-1]
    result = RunResult.from_dict(
        {**run.folder.result.values, "seed": last.config.seed}, check=False
    )
    last_entry = _entry_of(last.number, last.title, result, run.folder.path)
    entries: dict[str, Any] = {"generations": [*earlier.entries, last_entry]}
    students = [*earlier.students, trained.training.test]
    if len(students) > 1 and not scheme.assistants:
        answer = mean_answer(students, run.dataset)
        entries["ensemble_of_generations"] = ensemble_entry(len(students), answer)
    return entries


def _load(config: DistillConfig, folder: Path, run: PreparedRun) -> Teacher:
    """A generation's student as the next generation's teacher."""
    teacher = TeacherConfig(config.student, config.schedule, config.seed, checkpoint=str(folder))
    return get_or_train_teacher(
        TeacherRecipe(teacher, config.dataset, config.val_fraction, run.dataset, run.session)
    )


def _with_checkpoints(
    generation: Generation, teachers: Sequence[Teacher], baseline: dict[str, Any] | None
) -> DistillConfig:
    """The generation's configuration, with the run folders of the students it uses as teachers."""
    configs = [
        replace(config, checkpoint=str(teacher.path.parent))
        if baseline is not None or number >= generation.num_given_teachers
        else config
        for number, (config, teacher) in enumerate(
            zip(generation.config.teachers, teachers, strict=True)
        )
    ]
    return replace(generation.config, teachers=tuple(configs))


def _entry(number: int, title: str, folder: Path) -> dict[str, Any]:
    return _entry_of(number, title, read_run(folder).result, folder)


def _entry_of(number: int, title: str, result: RunResult, folder: Path) -> dict[str, Any]:
    """One element of `generations` in `result.json`."""
    student = result.student
    return {
        "generation": number,
        "role": title,
        "name": student.name,
        "params": student.params,
        "flops": student.flops,
        "seed": result.seed,
        **student.test_entries(),
        "best_val": student.best_val.to_dict() if student.best_val else None,
        "seconds": result.time.seconds,
        "run": str(folder),
    }
