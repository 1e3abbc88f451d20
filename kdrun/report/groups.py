"""The rows of a report: finished `kdrun distill` runs, grouped, with their baselines."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdrun.report.aggregate import Group, group_by_settings, ranked
from kdrun.report.records import Run, read_run
from kdrun.report.settings import NONE, Settings, differing, settings_of
from kdrun.report.statistics import significant
from kdrun.runs.result import NetworkResult

DISTILL = "distill"


@dataclass(frozen=True)
class Grouped:
    """All groups, highest validation accuracy (best epoch) first, and the settings they differ in.

    significant: numbers of the groups whose gain holds after the correction for all tests.
    baselines: folders of students trained alone for another run; they are in its `alone`.
    """

    groups: list[Group]
    names: list[str]
    significant: set[int]
    baselines: list[Run]

    @property
    def tested(self) -> int:
        """How many gains were tested."""
        return sum(group.p is not None for group in self.groups)


def group(runs: Sequence[Run]) -> Grouped:
    """Group the finished `kdrun distill` runs among `runs`."""
    finished = [run for run in runs if run.finished and run.verb == DISTILL]
    used = {run.result.alone.run for run in finished}
    places = {Path(name).resolve() for name in used if name is not None}
    baselines = [run for run in finished if run.result.baseline and run.folder.resolve() in places]
    hidden = {id(run) for run in baselines}
    shown = [run for run in finished if id(run) not in hidden]
    settings = {id(run): settings_of(run) for run in finished}
    alone: dict[Any, NetworkResult] = {
        _recipe(settings[id(run)], run): run.result.student
        for run in finished
        if _labels_only(settings[id(run)]) and run.result.student
    }
    by_settings = group_by_settings((settings[id(run)], run) for run in shown)
    groups = [_with_baselines(_newest_of_each_seed(one), alone) for one in by_settings]
    groups = ranked(sorted(groups, key=lambda one: str(sorted(one.settings.items()))))
    tests = {str(position): group.p for position, group in enumerate(groups)}
    names = differing([group.settings for group in groups])
    return Grouped(groups, names, {int(name) for name in significant(tests)}, baselines)


def alone_of(run: Run) -> Run | None:
    """The run of its student alone, where the folder is still there."""
    folder = run.result.alone.run
    found = read_run(Path(folder)) if folder is not None else None
    return found if found is not None and found.finished else None


def _newest_of_each_seed(group: Group) -> Group:
    newest = {run.seed: run for run in group.runs}  # runs come in the order of their stamps
    runs = [newest[seed] for seed in sorted(newest, key=lambda seed: (seed is None, seed or 0))]
    return replace(group, runs=runs, repeats=len(group.runs) - len(runs))


def _with_baselines(group: Group, alone: dict[Any, NetworkResult]) -> Group:
    """Each seed's baseline: as the run noted it, or a run on labels only in the report."""
    if _labels_only(group.settings):
        return group
    measured: dict[int | None, NetworkResult] = {}
    for run in group.runs:
        found = run.result.alone or alone.get(_recipe(group.settings, run))
        if found:
            measured[run.seed] = found
    return replace(group, alone=measured)


def _labels_only(settings: Settings) -> bool:
    """Whether the student learnt from nothing but the labels."""
    without_teacher = settings.get("teacher") == NONE and settings.get("loss") == "ce"
    return without_teacher and settings.get("scheme", "offline") == "offline"


def _recipe(settings: Settings, run: Run) -> tuple[Any, ...]:
    """Equal for a distilled student and the same one on labels only."""
    other = ("teacher", "loss", "T", "alpha", "ce", "scheme")
    return run.seed, tuple(
        sorted((k, v) for k, v in settings.items() if k.split(".")[0] not in other)
    )
