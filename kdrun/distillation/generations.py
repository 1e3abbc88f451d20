"""The generations of a scheme: teacher assistants, and students that teach the next student.

A generation is a plain distillation with its own configuration. All but the last are child runs
(`earlier_generations`); the last one is the run that was asked for. A scheme without generations
has one: the run itself.

chain: Mirzadeh et al. 2020, arXiv 1902.03393. born_again: Furlanello et al. 2018, arXiv 1805.04770.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdrun.config.schema import (
    DistillConfig,
    EnsembleConfig,
    NetworkConfig,
    SchemeConfig,
    TeacherConfig,
)

OFFLINE = SchemeConfig("offline", "kdrun.schemes.offline.Offline")
# Generations take seeds this far apart, so that they do not collide with the seeds of a sweep.
SEED_STEP = 1000


@dataclass(frozen=True)
class Generation:
    """One student and its teachers.

    config: a plain distillation. num_given_teachers: its first teachers are those of the whole run;
    the student of the previous generation may follow them. title: for the screen. number: from 1.
    """

    config: DistillConfig
    num_given_teachers: int
    title: str
    number: int


def plan_generations(config: DistillConfig) -> list[Generation]:
    """All generations of a run, in training order."""
    scheme = config.scheme.rounds
    if scheme is None:
        return [Generation(config, len(config.teachers), "", 1)]
    generations: list[Generation] = []
    for student, seed, title in _students(config):
        teachers, ensemble = config.teachers, config.ensemble
        if generations:
            previous = generations[-1].config
            first = config.teachers if scheme.keep_first else ()
            teachers = (
                *first,
                TeacherConfig(previous.student, config.schedule, previous.seed),
            )
            ensemble = EnsembleConfig(average=config.ensemble.average)
        num_given = len(teachers) - bool(generations)
        plain = replace(
            config,
            scheme=OFFLINE,
            student=student,
            seed=seed,
            teachers=teachers,
            ensemble=ensemble,
            alone=False,
            start=config.start if student is config.student else None,  # not for assistants
        )
        number = len(generations) + 1 + scheme.first_on_labels
        generations.append(Generation(plain, num_given, title, number))
    return generations


def _students(config: DistillConfig) -> list[tuple[NetworkConfig, int, str]]:
    """(student, seed, title) of each generation."""
    scheme = config.scheme.rounds
    assert scheme is not None
    if scheme.assistants:
        titles = [*(f"assistant {n}" for n in range(1, len(scheme.assistants) + 1)), "student"]
        students = [*scheme.assistants, config.student]
        return [(s, config.seed, title) for s, title in zip(students, titles, strict=True)]
    first = 2 if scheme.first_on_labels else 1
    return [
        (
            config.student,
            config.seed + SEED_STEP * (number - 1),
            f"generation {number} of {scheme.generations}",
        )
        for number in range(first, scheme.generations + 1)
    ]


def format_generations(config: DistillConfig, generations: Sequence[Generation]) -> list[str]:
    """Describe the generations for the run header; empty for schemes without generations."""
    scheme = config.scheme.rounds
    if scheme is None:
        return []
    if scheme.assistants:
        names = [generation.config.student.name for generation in generations]
        return [f"chain: teacher → {' → '.join(names)}"]
    plural = "s" * (len(config.teachers) > 1)
    first = "labels only" if scheme.first_on_labels else f"the teacher{plural}"
    also = f" together with the first teacher{plural}" if scheme.keep_first else ""
    return [
        f"born_again: {scheme.generations} generations; the first learns from {first}, each later "
        f"one from the previous student{also}"
    ]
