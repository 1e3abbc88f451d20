"""The rows of a report: finished `kdrun distill` runs grouped by settings, with their baselines.

Runs that only served another one (baselines, assistants, generations) are no rows: kdrun marks them
when it starts them, and the run they served names their folder.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdrun.report.aggregate import Group, group_by_settings, ranked
from kdrun.report.records import Run, read_run
from kdrun.report.settings import NONE, Settings, settings_of
from kdrun.runs.result import NetworkResult

DISTILL = "distill"
TEACHER_SEED = "teacher.seed"
# What identifies a run folder wherever the output root was moved: `<networks>-<loss>/<stamp>`.
FolderKey = tuple[str, ...]


@dataclass(frozen=True)
class Grouped:
    """All groups, highest validation accuracy (best epoch) first.

    members: for each group its run folders, resolved, repeats included. served: runs that only
    served another one.
    """

    groups: list[Group]
    members: list[frozenset[Path]]
    served: list[Run]


def group(runs: Sequence[Run]) -> Grouped:
    """Group the finished `kdrun distill` runs among `runs`."""
    finished = [run for run in runs if run.finished and run.verb == DISTILL]
    named = {key for run in finished for key in _served_by(run)}
    served = [run for run in finished if is_part(run) and folder_key(run.folder) in named]
    by_folder = {folder_key(run.folder): run for run in finished}
    settings = _without_paired_seeds(finished, {id(run): settings_of(run) for run in finished})
    labels_only = {
        _recipe(settings[id(run)], run): run
        for run in finished
        if _labels_only(settings[id(run)]) and run.result.student
    }
    hidden = {id(run) for run in served}
    shown = ((settings[id(run)], run) for run in finished if id(run) not in hidden)
    rows = []
    for repeated in group_by_settings(shown):
        members = frozenset(run.folder.resolve() for run in repeated.runs)
        row = _with_baselines(_newest_of_each_seed(repeated), labels_only, by_folder)
        rows.append((row, members))
    rows.sort(key=lambda item: str(sorted(item[0].settings.items())))
    members_of = {id(row): members for row, members in rows}
    groups = ranked([row for row, _ in rows])
    return Grouped(groups, [members_of[id(row)] for row in groups], served)


def baseline_runs(group: Group) -> list[Run]:
    """The runs of a group's baselines: of the report, or else where their runs name them."""
    if group.baseline_runs:
        return group.baseline_runs
    folders = [run.result.alone.run for run in group.runs]
    runs = [read_run(Path(folder)) for folder in folders if folder is not None]
    return [run for run in runs if run.finished]


def is_part(run: Run) -> bool:
    """Whether kdrun started this run for another one."""
    return bool(run.result.baseline or run.result.round)


def folder_key(folder: str | Path) -> FolderKey:
    """The folder's name and its parent's."""
    return Path(folder).parts[-2:]


def _without_paired_seeds(
    runs: Sequence[Run], settings: dict[int, dict[str, str]]
) -> dict[int, dict[str, str]]:
    """Without the teacher's seed where it follows the run's: such runs are repetitions.

    settings: of each run, by its id.
    """
    others = {
        key: {name: value for name, value in each.items() if name != TEACHER_SEED}
        for key, each in settings.items()
    }
    pairs = {
        (str(sorted(others[id(run)].items())), run.seed, settings[id(run)].get(TEACHER_SEED))
        for run in runs
    }
    several = Counter((rest, seed) for rest, seed, _ in pairs)
    unpaired = {rest for (rest, _), count in several.items() if count > 1}
    return {
        key: settings[key] if str(sorted(rest.items())) in unpaired else rest
        for key, rest in others.items()
    }


def _served_by(run: Run) -> Iterable[FolderKey]:
    """The run folders that this run names: its baseline, and the generations before it."""
    names = [run.result.alone.run, *(part.run for part in run.result.generations)]
    keys = {folder_key(name) for name in names if name}
    return keys - {folder_key(run.folder)}


def _newest_of_each_seed(group: Group) -> Group:
    newest = {run.seed: run for run in group.runs}  # runs come in the order of their stamps
    runs = [newest[seed] for seed in sorted(newest, key=lambda seed: (seed is None, seed or 0))]
    return replace(group, runs=runs, repeats=len(group.runs) - len(runs))


def _with_baselines(
    group: Group, labels_only: dict[Any, Run], by_folder: dict[FolderKey, Run]
) -> Group:
    """Each seed's baseline: the one its run trained, or a labels-only run in the report."""
    if _labels_only(group.settings):
        return group
    baselines: dict[int | None, NetworkResult] = {}
    runs = []
    for run in group.runs:
        other = labels_only.get(_recipe(group.settings, run))
        if run.result.alone:
            baselines[run.seed] = run.result.alone
            other = by_folder.get(folder_key(run.result.alone.run or ""))
        elif other is not None:
            baselines[run.seed] = other.result.student
        runs += [other] if other is not None else []
    return replace(group, baselines=baselines, baseline_runs=runs)


def _labels_only(settings: Settings) -> bool:
    """Whether the student learns from labels only."""
    given = {"scheme": "offline", "ce": "1", **settings}
    expected = {"teacher": NONE, "loss": "ce", "scheme": "offline", "ce": "1"}
    return all(given.get(name) == value for name, value in expected.items())


def _recipe(settings: Settings, run: Run) -> tuple[Any, ...]:
    """Equal for a distilled student and its baseline: settings without those of distillation."""
    recipe = {name: value for name, value in settings.items() if not _of_distillation(name)}
    return run.seed, tuple(sorted(recipe.items()))


def _of_distillation(name: str) -> bool:
    """Whether a setting has no influence on the student alone."""
    first = name.split(".")[0]
    return (
        first in ("loss", "T", "alpha", "ce", "scheme")
        or first.startswith("teacher")
        or name in ("transfer.bias", "augment.teacher_view", "augment.strong")
    )
