"""The one list of metrics: what is in it is in every table."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.report.aggregate import group_by_settings, ranked
from kdrun.report.compare import compare, one_run
from kdrun.report.content import Report
from kdrun.report.files import write_csv, write_runs_csv
from kdrun.report.metrics_table import (
    COMPARE,
    GAIN,
    METRICS,
    RANKING,
    REPORT,
    TEST,
    WINNER,
    Metric,
    metrics_of,
)
from kdrun.report.records import read_run
from kdrun.sweeps.ranking import Row, rank, write_files

Make = Callable[..., Path]


def test_a_new_metric_takes_one_line_and_is_in_every_table(
    make: Make, tmp_path: Path, report_of: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    sharpness = Metric("sharpness", "A test.", lambda run: run.result.extra.get("s"))
    monkeypatch.setattr("kdrun.report.metrics_table.METRICS", [*METRICS, sharpness])
    runs = [make(seed=seed, outcome={"s": 2.0 + seed}) for seed in range(2)]

    ranking = rank(
        [Row(n, {"T": "4", "seed": str(n)}, read_run(run)) for n, run in enumerate(runs)]
    )
    (group,) = ranking.groups
    assert (
        dict(zip(ranking.columns, ranking.cells(group), strict=True))["sharpness"] == "2.50 ± 0.71"
    )
    write_files(tmp_path, [Row(0, {"T": "4"}, read_run(runs[0]))], ranking)
    (line,) = csv.DictReader((tmp_path / "ranking.csv").open())
    assert line["sharpness mean"] == "2.5"
    (line,) = csv.DictReader((tmp_path / "summary.csv").open())
    assert line["sharpness"] == "2.0"

    write_csv(tmp_path / "report.csv", report_of(*runs))
    (line,) = csv.DictReader((tmp_path / "report.csv").open())
    assert (line["sharpness"], line["sharpness n"]) == ("2.5", "2")
    write_runs_csv(tmp_path / "runs.csv", report_of(*runs))
    assert [line["sharpness"] for line in csv.DictReader((tmp_path / "runs.csv").open())] == [
        "2",
        "3",
    ]

    results = {line.name: line for line in compare(*map(one_run, runs)).parts["results"]}
    assert (results["sharpness"].a, results["sharpness"].difference) == ("2.00", "+1.00")


def test_a_name_is_used_once_and_the_winner_is_shown_everywhere() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert len({metric.option for metric in METRICS}) == len(names)
    assert (TEST.option, GAIN.option) == ("test_top1", "gain_points")
    for table in (RANKING, REPORT, COMPARE):
        assert WINNER in metrics_of(table, [])


def test_a_sweep_and_a_report_choose_the_same_winner(
    make: Make, report_of: Callable[..., Report]
) -> None:
    """The last epoch and the test split favour T=1, the best epoch T=4."""
    one = make(T=1.0, val=96.0, best_val=96.0, test=99.0)
    four = make(T=4.0, val=90.0, best_val=97.0, test=90.0)
    ranking = rank([Row(0, {"T": "1"}, read_run(one)), Row(1, {"T": "4"}, read_run(four))])
    report = report_of(one, four)
    assert [group.settings["T"] for group in ranking.groups] == ["4", "1"]
    assert [group.settings["T"] for group in report.grouped.groups] == ["4", "1"]
    column = next(one for one in report.sections[0].columns if one.name == WINNER.name)
    shown = [dict(zip(ranking.columns, ranking.cells(g), strict=True)) for g in ranking.groups]
    assert [row[WINNER.name] for row in shown] == [cell.text for cell in column.cells]


def test_groups_without_validation_come_last(make: Make) -> None:
    student = {"name": "cnn_tiny", "test": {"top1": 99.0}, "best_val": None}
    runs = [read_run(make(T=1.0, outcome={"student": student})), read_run(make(T=2.0))]
    groups = group_by_settings(({"T": str(run.config["T"])}, run) for run in runs)
    assert [one.settings["T"] for one in ranked(groups)] == ["2.0", "1.0"]
