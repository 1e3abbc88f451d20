"""Pair taps of the student with taps of the teacher."""

import re
from collections.abc import Mapping, Sequence
from itertools import product

from kdrun.errors import ConfigError
from kdrun.models.features.taps import TapPaths, unknown_tap

# Symbolic requests: name → suffix of the stage taps that it selects.
PLURAL = {"stages": "", "stages_pre": "_pre"}
FIRST = {"first_stage": "", "first_stage_pre": "_pre"}
LAST = {"last_stage": "", "last_stage_pre": "_pre"}
CROSSED = {"stages_crossed": "stages", "stages_crossed_pre": "stages_pre"}


def pair_taps(
    requested: Sequence[str | Sequence[str]],
    student_paths: Mapping[str, str],
    teacher_paths: Mapping[str, str],
) -> list[tuple[str, str]]:
    """(student tap, teacher tap) for each request, in order and without repetition.

    A request is `stages` or `stages_pre` (all stages, aligned at the last one if the networks have
    different numbers of stages), `stages_crossed` (all combinations of stages), `first_stage`,
    `last_stage`, `last_stage_pre`, a tap name or module path of both networks, or
    `[student tap, teacher tap]`.
    Raises ConfigError that lists the available taps for an unknown one.
    """
    pairs: list[tuple[str, str]] = []
    for request in [requested] if isinstance(requested, str) else requested:
        if isinstance(request, str) and request in CROSSED:
            name = CROSSED[request]
            students = expand_tap(name, student_paths, "student")
            pairs += product(students, expand_tap(name, teacher_paths, "teacher"))
            continue
        student_name, teacher_name = _as_pair(request)
        student = expand_tap(student_name, student_paths, "student")
        teacher = expand_tap(teacher_name, teacher_paths, "teacher")
        if (student_name in PLURAL) != (teacher_name in PLURAL):
            raise ConfigError(
                f"taps=[{student_name}, {teacher_name}] pairs several taps with one: give one of "
                "each, e.g. [stage2, stage3]."
            )
        count = min(len(student), len(teacher))
        pairs += zip(student[-count:], teacher[-count:], strict=True)
    return list(dict.fromkeys(pairs))


def expand_tap(name: str, paths: Mapping[str, str], who: str) -> list[str]:
    """The taps that `name` selects in one network; `who` names the network in errors."""
    for symbols, selection in ((PLURAL, slice(None)), (FIRST, slice(1)), (LAST, slice(-1, None))):
        if name in symbols:
            stages = _stages(paths, symbols[name])
            if not stages:
                raise unknown_tap(who, name, paths)
            return stages[selection]
    known = paths if isinstance(paths, TapPaths) else TapPaths(paths)
    if not known.has(name):
        raise unknown_tap(who, name, paths)
    return [name]


def _stages(paths: Mapping[str, str], suffix: str) -> list[str]:
    """The names `stage1`, `stage2`, ... with this suffix, by number."""
    numbers = [int(m[1]) for name in paths if (m := re.fullmatch(rf"stage(\d+){suffix}", name))]
    return [f"stage{number}{suffix}" for number in sorted(numbers)]


def _as_pair(request: str | Sequence[str]) -> tuple[str, str]:
    if isinstance(request, str):
        return request, request
    if len(request) != 2 or not all(isinstance(name, str) for name in request):
        raise ConfigError(f"taps: {list(request)} must be one name, or [student tap, teacher tap].")
    return request[0], request[1]
