"""Runs with the same settings as one group, its metrics averaged over seeds; groups are ranked."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from kdrun.report.metrics_table import (
    BASELINE,
    GAIN,
    TEACHER,
    TEST,
    WINNER,
    Metric,
    teacher_top1,
)
from kdrun.report.records import Run
from kdrun.report.settings import Settings
from kdrun.report.statistics import Mean, mean_of, paired_p
from kdrun.report.verdict import Verdict, verdict_by_seed
from kdrun.runs.result import NetworkResult


@dataclass(frozen=True)
class Group:
    """Finished runs with the same settings, one per seed.

    baselines: seed → the baseline, where it was measured. baseline_runs: their runs, as far as they
    are part of the report. repeats: number of further runs of a seed, which do not count.
    """

    settings: Settings
    runs: list[Run]
    baselines: dict[int | None, NetworkResult] = field(default_factory=dict)
    baseline_runs: list[Run] = field(default_factory=list)
    repeats: int = 0

    def mean(self, metric: Metric | Callable[[Run], float | None]) -> Mean | None:
        """A metric over the seeds; None where no run has it."""
        if metric is BASELINE and self.baselines:
            return self.baseline
        if metric is GAIN and self.baselines:
            return self.gain
        if metric is TEACHER:
            return self.teacher
        read = metric.read if isinstance(metric, Metric) else metric
        return mean_of([read(run) for run in self.runs])

    @property
    def rank(self) -> float | None:
        """What groups are ranked by: mean validation accuracy of the best epochs, percent."""
        mean = self.best_val
        return None if mean is None else mean.mean

    @property
    def best_val(self) -> Mean | None:
        """Validation top-1 of the best epoch, percent."""
        return self.mean(WINNER)

    @property
    def test(self) -> Mean | None:
        """Test top-1 of the last epoch, percent."""
        return self.mean(TEST)

    @property
    def teacher(self) -> Mean | None:
        """Test top-1 of the best teacher, percent; no spread where all seeds share the teachers."""
        mean = self.mean(lambda run: teacher_top1(run.result))
        shared = len({tuple(t.sha256 for t in run.result.teachers) for run in self.runs}) == 1
        return replace(mean, sd=None) if mean and shared else mean

    @property
    def baseline(self) -> Mean | None:
        """Test top-1 of the baseline, percent."""
        return mean_of([self._baseline_top1(run) for run in self.runs])

    @property
    def pairs(self) -> list[tuple[float, float, float | None]]:
        """(student, baseline, teacher) of each seed that has the first two, percent."""
        pairs = []
        for run in self.runs:
            test, baseline = TEST.read(run), self._baseline_top1(run)
            if test is not None and baseline is not None:
                pairs.append((test, baseline, teacher_top1(run.result)))
        return pairs

    @property
    def gain(self) -> Mean | None:
        """Student minus baseline, points, paired by seed."""
        return mean_of([test - baseline for test, baseline, _ in self.pairs])

    @property
    def p(self) -> float | None:
        """Of the gain; see `paired_p`."""
        return paired_p([test - baseline for test, baseline, _ in self.pairs])

    @cached_property
    def verdict(self) -> Verdict:
        """Whether distillation helps with these settings; see `kdrun.report.verdict`."""
        gains: list[tuple[int | None, float]] = []
        for run in self.runs:
            test, baseline = TEST.read(run), self._baseline_top1(run)
            gain = run.result.gain
            if test is not None and baseline is not None:
                gain = test - baseline
            if gain is not None:
                gains.append((run.seed, gain))
        sizes = [size for run in self.runs if (size := run.result.dataset.test_size)]
        return verdict_by_seed(gains, 100.0 / min(sizes) if sizes else 0.0)

    @property
    def gap_closed(self) -> float | None:
        """Percent of the mean gap between baseline and teacher; None where there is no gap."""
        triples = [(t, a, r) for t, a, r in self.pairs if r is not None]
        gap = sum(teacher - baseline for _, baseline, teacher in triples)
        gain = sum(test - baseline for test, baseline, _ in triples)
        return 100.0 * gain / gap if gap > 0 else None

    def _baseline_top1(self, run: Run) -> float | None:
        baseline = self.baselines.get(run.seed)
        return baseline.test.top1 if baseline else None


def group_by_settings(runs: Iterable[tuple[Settings, Run]]) -> list[Group]:
    """A group per distinct settings, in the order of their first runs."""
    groups: dict[tuple[tuple[str, str], ...], Group] = {}
    for settings, run in runs:
        key = tuple(sorted(settings.items()))
        groups.setdefault(key, Group(settings, [])).runs.append(run)
    return list(groups.values())


def ranked(groups: Sequence[Group]) -> list[Group]:
    """Highest validation accuracy (best epoch) first, groups without one last; ties keep order."""
    sign = -1.0 if WINNER.better == "higher" else 1.0
    return sorted(groups, key=lambda group: (group.rank is None, sign * (group.rank or 0.0)))
