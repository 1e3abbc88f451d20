"""Runs as rows: what differs, what is averaged, what is compared with what."""

from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from kdrun.report.content import Report, best_lines, notes, summary
from kdrun.report.groups import Grouped, group
from kdrun.report.metrics_table import last_val_top1
from kdrun.report.records import collect
from kdrun.report.sections import Section
from kdrun.report.settings import differing

Make = Callable[..., Path]


def grouped(*folders: Path) -> Grouped:
    return group(collect(folders).runs)


@pytest.fixture
def section_of(report_of: Callable[..., Report]) -> Callable[..., Section]:
    """The only section of a report."""

    def read(*folders: Path) -> Section:
        (one,) = report_of(*folders).sections
        return one.section

    return read


def test_seeds_are_averaged_and_the_rest_told_apart(
    sweep: Path, section_of: Callable[..., Section]
) -> None:
    found = section_of(sweep)
    assert found.names == found.labels == ["T", "alpha"]
    assert [len(one.runs) for one in found.groups] == [3, 3, 3, 3]
    values = [(one.settings["T"], one.settings["alpha"]) for one in found.groups]
    assert values == [("4", "0.9"), ("4", "0.1"), ("1", "0.9"), ("1", "0.1")]


@pytest.mark.parametrize(
    "outcome",
    [
        lambda digest: {"teacher_files": {"teacher.checkpoint": digest}},
        lambda digest: {"code": {"my_nets.Mine": digest}},
        lambda digest: {"transfer": {"folder": "photos", "fingerprint": digest}},
    ],
)
def test_runs_with_other_contents_behind_a_name_are_not_pooled(
    make: Make, outputs: Path, outcome: Callable[[str], dict[str, object]]
) -> None:
    for seed, digest in enumerate(("a" * 64, "b" * 64, "b" * 64)):
        make(seed=seed, outcome=outcome(digest))
    assert sorted(len(one.runs) for one in grouped(outputs).groups) == [1, 2]


def test_rows_are_ranked_by_validation_and_not_by_test(make: Make, outputs: Path) -> None:
    make(test=99.0, val=90.0, T=1.0)
    make(test=91.0, val=95.0, T=4.0)
    make(test=99.9, val=90.0, T=8.0, changes={}, outcome={})
    tops = [one.settings["T"] for one in grouped(outputs).groups]
    assert tops[0] == "4"


def test_the_best_epoch_chooses_the_winner_and_not_the_last(make: Make, outputs: Path) -> None:
    make(val=95.0, best_val=96.0, T=1.0)  # val: of the last epoch
    make(val=90.0, best_val=97.0, T=4.0)
    first, second = grouped(outputs).groups
    assert first.settings["T"] == "4"
    assert [one.best_val.mean for one in (first, second) if one.best_val] == [97.0, 96.0]
    last = [one.mean(last_val_top1) for one in (first, second)]
    assert [mean.mean for mean in last if mean] == [90.0, 95.0]


def test_the_figures_of_a_row(make: Make, outputs: Path) -> None:
    distilled, alone = [95.0, 96.0, 94.5], [92.0, 92.5, 93.0]
    for seed, (x, y) in enumerate(zip(distilled, alone, strict=True)):
        make(test=x, alone=y, seed=seed)
    (row,) = grouped(outputs).groups
    assert row.test is not None
    assert row.gain is not None
    assert row.test.mean == pytest.approx(sum(distilled) / 3)
    assert row.gain.mean == pytest.approx((3.0 + 3.5 + 1.5) / 3)
    assert row.p == pytest.approx(stats.ttest_rel(distilled, alone).pvalue)
    # teacher 99 in all runs: the gap from 92.5 on average, of which 8/3 points are closed
    assert row.gap_closed == pytest.approx(100 * (8 / 3) / (99 - 92.5))


def test_without_a_gap_none_is_closed(make: Make) -> None:
    (row,) = grouped(make(test=99.5, alone=99.2)).groups
    assert row.gap_closed is None


def test_the_same_configuration_and_seed_counts_once(make: Make, outputs: Path) -> None:
    make(test=90.0, seed=0)
    make(test=94.0, seed=0)
    make(test=95.0, seed=1)
    (row,) = grouped(outputs).groups
    assert [run.seed for run in row.runs] == [0, 1]
    assert row.repeats == 1
    assert row.test is not None
    assert row.test.mean == 94.5  # the newest of the two, 94


def test_what_changes_nothing_learnt_makes_no_row(make: Make, outputs: Path) -> None:
    make(seed=0, threads=1, ui="rich", output_root="a")
    make(seed=1, threads=4, ui="plain", output_root="b", changes={"dataset.workers": 4})
    assert len(grouped(outputs).groups) == 1


def test_a_deep_setting_makes_a_row(
    make: Make, outputs: Path, section_of: Callable[..., Section]
) -> None:
    make(changes={"schedule.warmup_epochs": 0})
    make(changes={"schedule.warmup_epochs": 5})
    found = section_of(outputs)
    assert found.names == ["schedule.warmup_epochs"]
    labels = {found.row_label(place) for place in range(2)}
    assert labels == {"schedule.warmup_epochs=0", "schedule.warmup_epochs=5"}


def test_t_given_or_built_in_is_the_same(make: Make, outputs: Path) -> None:
    make(T=4.0, seed=0)
    make(T=4.0, seed=1, changes={"loss.kd.temperature": 1.0})  # replaced by T
    assert len(grouped(outputs).groups) == 1


def test_a_network_s_own_settings_are_compared_within_it() -> None:
    other = {"student": "resnet8", "student.depth": "8", "lr": "0.1"}
    tiny = {"student": "cnn_tiny", "student.widths": "[4,8]", "lr": "0.1"}
    assert differing([other, tiny]) == ["student"]
    wide = {**tiny, "student.widths": "[8,16]"}
    assert differing([other, tiny, wide]) == ["student", "student.widths"]


def test_several_teachers_are_one_column(
    make: Make, outputs: Path, section_of: Callable[..., Section]
) -> None:
    teacher = {"name": "cnn_large", "schedule": {"epochs": 9}, "seed": 0}
    two = {"teachers": ["a", "b"], "teacher2": {**teacher, "name": "mlp", "widths": [3]}}
    entries = [{"name": name, "test": {"top1": top1}} for name, top1 in (("a", 98.0), ("b", 99.0))]
    make(changes=two, outcome={"teachers": entries})
    make()
    found = section_of(outputs)
    assert found.names == ["teacher"]
    assert {one.settings["teacher"] for one in found.groups} == {"a+b", "cnn_large"}
    assert [one.teacher.mean for one in found.groups if one.teacher] == [99.0, 99.0]


def test_settings_that_say_the_same_are_shown_once() -> None:
    rows = [{"epochs": n, "schedule.warmup_epochs": n} for n in ("5", "10")]
    assert differing(rows) == ["epochs"]


def test_a_student_alone_among_the_runs_is_compared_with(make: Make, outputs: Path) -> None:
    for seed in range(2):
        make(seed=seed, alone=None)
        make(seed=seed, test=90.0, val=80.0, teacher=None, loss={"ce": {"weight": 1.0}})
    found = grouped(outputs)
    assert [one.settings["loss"] for one in found.groups] == ["kd", "ce"]
    gain = found.groups[0].gain
    assert gain is not None
    assert (gain.mean, gain.n) == (5.0, 2)


@pytest.mark.parametrize(
    ("seeds", "rows"), [([0, 1, 2], 1), ([0, 0, 0], 1), ([5, 5, 6], 1), (None, 3)]
)
def test_a_teachers_seed_that_follows_the_runs_is_a_repetition(
    make: Make, outputs: Path, seeds: list[int] | None, rows: int
) -> None:
    for number in range(3):
        seed = {"seed": 0, "teacher.seed": number}
        make(**(seed if seeds is None else {"seed": number, "teacher.seed": seeds[number]}))
    groups = grouped(outputs).groups
    assert len(groups) == rows
    assert ("teacher.seed" in groups[0].settings) == (rows > 1)


def test_labels_with_a_small_weight_are_no_baseline(make: Make, outputs: Path) -> None:
    make(alone=None)
    make(alone=None, test=90.0, teacher=None, loss={"ce": {"weight": 1.0}}, ce=0.1)
    assert [one.gain for one in grouped(outputs).groups] == [None, None]


def test_baselines_of_other_runs_are_no_rows(make: Make, outputs: Path) -> None:
    labels = {"teacher": None, "loss": {"ce": {"weight": 1.0}}}
    alone = make(test=92.0, outcome={"baseline": "d"}, **labels)
    own = make(test=92.0, outcome={"baseline": None}, seed=7, **labels)
    entry = {"run": str(alone), "test": {"top1": 92.0}}
    make(test=95.0, outcome={"alone": entry})
    found = grouped(outputs)
    assert [run.folder for run in found.served] == [alone]
    assert {run.folder for one in found.groups for run in one.runs} >= {own}
    assert len(found.groups) == 2


def test_the_summary_says_what_a_person_asks(sweep: Path, report_of: Callable[..., Report]) -> None:
    report = report_of(sweep)
    assert summary(report) == "12 runs, 12 finished."
    best, verdict = best_lines(report.sections[0].section)
    assert best.startswith("best on validation: T=4 alpha=0.9, test 94.10 ± 0.46 %, baseline 92.20")
    assert best.endswith("teacher 99.00 % (n=3)")
    assert verdict.startswith("verdict: helps, gain +1.90 points (95 % interval")
    assert "paired t-test over seeds" in " ".join(notes(report))


def test_few_seeds_are_not_tested(make: Make, report_of: Callable[..., Report]) -> None:
    report = report_of(make())
    (one,) = report.sections
    assert all(column.name != "p" for column in one.columns)
    assert best_lines(one.section)[1] == "n=1: no verdict; repeat with -m seed=0,1,2"
