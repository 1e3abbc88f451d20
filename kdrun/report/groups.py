"""Runs that differ in their seed alone, as one row: what was measured, with its spread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdrun.report.records import Run, find, number, read_run
from kdrun.report.settings import NONE, Settings, differing, settings_of
from kdrun.report.statistics import Mean, mean_of, paired_p, significant

DISTILL = "distill"
VAL = "val/top1_percent"


@dataclass(frozen=True)
class Group:
    """Finished runs of one configuration, one per seed.

    repeats: further runs of a seed that is there already; they would pretend to a larger n.
    alone: seed → the same student and recipe on labels only, where it was measured.
    """

    settings: Settings
    runs: list[Run]
    alone: dict[int | None, dict[str, Any]] = field(default_factory=dict)
    repeats: int = 0

    def mean(self, read: Callable[[Run], float | None]) -> Mean | None:
        """Over the seeds."""
        return mean_of([read(run) for run in self.runs])

    @property
    def test(self) -> Mean | None:
        """Test top-1 of the last epoch, percent."""
        return self.mean(test_top1)

    @property
    def best_val(self) -> Mean | None:
        """Validation top-1 of the best epoch, percent: chooses the winner."""
        return self.mean(best_val_top1)

    @property
    def last_val(self) -> Mean | None:
        """Validation top-1 of the last epoch, percent."""
        return self.mean(last_val_top1)

    @property
    def teacher(self) -> Mean | None:
        """Test top-1 of the teacher, of several the best, percent."""
        return self.mean(teacher_top1)

    @property
    def alone_test(self) -> Mean | None:
        """Test top-1 of the student alone, percent."""
        return mean_of([number(self.alone.get(run.seed), "test", "top1") for run in self.runs])

    @property
    def pairs(self) -> list[tuple[float, float, float | None]]:
        """(distilled, alone, teacher) of each seed that has the first two, percent."""
        found = []
        for run in self.runs:
            test, alone = test_top1(run), number(self.alone.get(run.seed), "test", "top1")
            if test is not None and alone is not None:
                found.append((test, alone, teacher_top1(run)))
        return found

    @property
    def gain(self) -> Mean | None:
        """Distilled minus alone, points, paired by seed."""
        return mean_of([test - alone for test, alone, _ in self.pairs])

    @property
    def p(self) -> float | None:
        """Of the gain; see `paired_p`."""
        return paired_p([test - alone for test, alone, _ in self.pairs])

    @property
    def gap_closed(self) -> float | None:
        """Percent of the mean gap between student alone and teacher; None where there is none."""
        triples = [(t, a, r) for t, a, r in self.pairs if r is not None]
        gap = sum(teacher - alone for _, alone, teacher in triples)
        gain = sum(test - alone for test, alone, _ in triples)
        return 100.0 * gain / gap if gap > 0 else None


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
    used = {str(find(run.result, "alone", "run")) for run in finished}
    places = {Path(name).resolve() for name in used if name != "None"}
    baselines = [
        run for run in finished if run.result.get("baseline") and run.folder.resolve() in places
    ]
    hidden = {id(run) for run in baselines}
    shown = [run for run in finished if id(run) not in hidden]
    settings = {id(run): settings_of(run) for run in finished}
    alone = {_recipe(settings[id(run)], run): run.result["student"] for run in finished
             if _labels_only(settings[id(run)]) and find(run.result, "student")}  # fmt: skip
    by_settings: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in shown:
        by_settings.setdefault(tuple(sorted(settings[id(run)].items())), []).append(run)
    groups = [_group(dict(key), found, alone) for key, found in by_settings.items()]
    groups.sort(key=_rank)
    tests = {str(position): group.p for position, group in enumerate(groups)}
    names = differing([group.settings for group in groups])
    return Grouped(groups, names, {int(name) for name in significant(tests)}, baselines)


def test_top1(run: Run) -> float | None:
    """Test top-1 of the student's last epoch, percent."""
    return number(run.result, "student", "test", "top1")


def best_val_top1(run: Run) -> float | None:
    """Validation top-1 of the student's best epoch, percent."""
    return number(run.result, "student", "best_val", "val_top1")


def last_val_top1(run: Run) -> float | None:
    """Validation top-1 of the student's last epoch, percent."""
    values = [number(row, VAL) for row in run.metrics]
    return next((value for value in reversed(values) if value is not None), None)


def teacher_top1(run: Run) -> float | None:
    """Test top-1 of the best of its teachers, percent."""
    teachers = run.result.get("teachers")
    found = [number(one, "test", "top1") for one in teachers or ()]
    return max((value for value in found if value is not None), default=None)


def alone_of(run: Run) -> Run | None:
    """The run of its student alone, where the folder is still there."""
    folder = find(run.result, "alone", "run")
    found = read_run(Path(folder)) if isinstance(folder, str) else None
    return found if found is not None and found.finished else None


def _group(settings: Settings, runs: list[Run], alone: dict[Any, dict[str, Any]]) -> Group:
    newest: dict[int | None, Run] = {}
    for run in runs:
        newest[run.seed] = run  # runs come in the order of their stamps
    kept = [newest[seed] for seed in sorted(newest, key=lambda seed: (seed is None, seed or 0))]
    measured = {}
    for run in kept:
        own = run.result.get("alone")
        found = own if isinstance(own, dict) else alone.get(_recipe(settings, run))
        if found is not None and not _labels_only(settings):
            measured[run.seed] = found
    return Group(settings, kept, measured, len(runs) - len(kept))


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


def _rank(one: Group) -> tuple[float, str]:
    """Highest validation accuracy (best epoch) first, groups without one last."""
    val = one.best_val
    return (-val.mean if val else 1.0, str(sorted(one.settings.items())))
