"""Markdown to paste, CSV to compute with."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from report.hostile import HOSTILE

from kdrun.markdown import escaped
from kdrun.report.content import Report
from kdrun.report.files import write_csv, write_markdown, write_runs_csv

Make = Callable[..., Path]


def test_the_csv_has_the_table_unrounded(
    sweep: Path, tmp_path: Path, report_of: Callable[..., Report]
) -> None:
    report = report_of(sweep)
    write_csv(tmp_path / "report.csv", report)
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert [(row["T"], row["alpha"]) for row in rows] == [
        ("4", "0.9"), ("4", "0.1"), ("1", "0.9"), ("1", "0.1")]  # fmt: skip
    best = report.grouped.groups[0]
    assert best.test is not None
    assert float(rows[0]["test top-1 %"]) == best.test.mean
    assert float(rows[0]["test top-1 % std"]) == best.test.sd
    assert rows[0]["test top-1 % n"] == "3"
    assert float(rows[0]["p"]) == best.p
    assert rows[0]["params"] == "438"


def test_the_runs_csv_has_every_run(
    make: Make, outputs: Path, tmp_path: Path, report_of: Callable[..., Report]
) -> None:
    make(test=95.5, seed=3, T=2.0)
    make(T=8.0)
    make(status="failed", T=8.0)
    write_runs_csv(tmp_path / "runs.csv", report_of(outputs))
    rows = list(csv.DictReader((tmp_path / "runs.csv").open()))
    assert [row["status"] for row in rows] == ["completed", "completed", "failed"]
    assert rows[0]["T"] == "2"
    assert rows[0]["seed"] == "3"
    assert rows[0]["test top-1 %"] == "95.5"
    assert rows[0]["command"] == "kdrun distill T=2.0 seed=3"
    assert rows[2]["test top-1 %"] == ""


@pytest.mark.parametrize("start", ["=1+1", "+A1", "-A1", "@SUM(A1)"])
def test_a_text_is_no_formula(
    make: Make, tmp_path: Path, start: str, report_of: Callable[..., Report]
) -> None:
    folder = make()
    (folder / "command.txt").write_text(start)
    write_runs_csv(tmp_path / "runs.csv", report_of(folder))
    (row,) = csv.DictReader((tmp_path / "runs.csv").open())
    assert row["command"] == f"'{start}"


def test_negative_numbers_stay_numbers(
    make: Make, tmp_path: Path, report_of: Callable[..., Report]
) -> None:
    write_csv(tmp_path / "report.csv", report_of(make(test=90.0, alone=92.0)))
    (row,) = csv.DictReader((tmp_path / "report.csv").open())
    assert float(row["gain points"]) == -2.0


def test_the_markdown_names_what_is_not_finished(
    make: Make, outputs: Path, tmp_path: Path, report_of: Callable[..., Report]
) -> None:
    make()
    failed = make(status="failed", T=9.0)
    write_markdown(tmp_path / "report.md", report_of(outputs))
    text = (tmp_path / "report.md").read_text()
    assert "## Not finished" in text
    assert escaped(str(failed)) in text
    assert "the loss became infinite" in text


@pytest.mark.parametrize("word", HOSTILE)
def test_strangers_texts_break_no_markdown_table(
    make: Make, outputs: Path, tmp_path: Path, word: str, report_of: Callable[..., Report]
) -> None:
    word = word.replace("${", "{")  # a run with an interpolation is damaged
    make(changes={"student.name": word})
    make(changes={"student.name": "plain"})
    write_markdown(tmp_path / "report.md", report_of(outputs))
    lines = (tmp_path / "report.md").read_text().splitlines()
    table = [line.replace("\\\\", "").replace("\\|", "") for line in lines if line[:1] == "|"]
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    assert "<script" not in "".join(lines)
    assert "<img" not in "".join(lines)


def test_no_finished_run_gives_files_without_rows(
    make: Make, tmp_path: Path, report_of: Callable[..., Report]
) -> None:
    report = report_of(make(status="running"))
    write_csv(tmp_path / "report.csv", report)
    write_markdown(tmp_path / "report.md", report)
    assert (tmp_path / "report.csv").read_text().strip() == ""
    assert "1 run, 0 finished." in (tmp_path / "report.md").read_text()


def test_names_in_markdown_stay_readable() -> None:
    assert escaped("wrn_40_2") == "wrn_40_2"
    assert escaped("_x_ __y") == r"\_x\_ \_\_y"
    assert escaped("a|b *c* [d](e) <f>") == r"a\|b \*c\* \[d\](e) &lt;f&gt;"
