"""Numbers as people read them, tables, and what a pipe gets."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from kdrun.recipes.lr_schedules import TrainingLength
from kdrun.runs.result import RunResult
from kdrun.ui import console, format, tables
from kdrun.ui.reporter import Reporter, epoch_line


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (42.4, "42 s"), (83, "1m 23s"), (3600 * 2 + 300, "2h 05m"),
     (59.6, "1m 00s")],
)  # fmt: skip
def test_seconds(value: float, text: str) -> None:
    assert format.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.2345678, "1.235"), (123.456, "123.5"), (0.00123456, "0.001235"),
     (1.5e-9, "1.500e-09"), (float("inf"), "inf")],
)  # fmt: skip
def test_losses_have_four_digits(value: float, text: str) -> None:
    assert format.loss(value) == text


def test_counts_flops_percent() -> None:
    assert format.count(1233540) == "1,233,540"
    assert format.flops(2.166e9) == "2.17 G"
    assert format.flops(950) == "950"
    assert format.percent(93.104) == "93.10"
    assert format.points(1.4) == "+1.40"


def result(**changes: Any) -> dict[str, Any]:
    def test(top1: float) -> dict[str, Any]:
        return {"top1": top1, "top5": 100.0, "errors": 5, "loss": 0.1, "ece": 1.0}

    return {
        "loss": ["kd"],
        "seed": 0,
        "dataset": {"test_size": 100},
        "teachers": [{"name": "big", "params": 1000, "flops": 10, "test": test(95.0)}],
        "student": {"name": "small", "params": 10, "flops": 1, "test": test(93.0),
                    "best_val": {"epoch": 3, "val_top1": 94.0, "test": test(92.0)}},
        "alone": {"test": test(91.0), "run": "x"},
        "agreement": 94.0,
        "gain": 2.0,
        **changes,
    }  # fmt: skip


def drawn(table: Any) -> str:
    screen = Console(file=io.StringIO(), width=120)
    screen.print(table)
    return screen.file.getvalue()  # type: ignore[attr-defined]


def test_the_final_table_has_every_row() -> None:
    text = drawn(tables.result_table(RunResult.from_dict(result())))
    for words in (
        "teacher  big",
        "student alone  small",
        "student distilled  small",
        "best validation epoch (3)",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "gap closed: 50 % of the 4.00 points"),
        ({"alone": None, "gain": None}, "student alone: not measured"),
        ({"gain": -1.0}, "gap closed: -25 %"),
        ({"gain": -1.0}, "worse than the student alone: try another T or alpha"),
        ({"gain": -1.0, "loss": ["sp"]}, "a smaller loss.sp.weight, or 'loss=[kd,sp]'"),
    ],
)
def test_the_gap_in_words(changes: dict[str, Any], text: str) -> None:
    assert any(
        text in line for line in tables.format_summary(RunResult.from_dict(result(**changes)))
    )


def test_an_early_end_is_said() -> None:
    stopped = result()
    stopped["student"]["stopped_early"] = {
        "epoch": 9, "epochs": 60, "not_better_since": 4, "metric": "validation loss",
    }  # fmt: skip
    (line,) = [
        line for line in tables.format_summary(RunResult.from_dict(stopped)) if "stopped" in line
    ]
    assert "after epoch 9 of 60: best validation loss in epoch 4" in line
    assert not any(
        "stopped" in line for line in tables.format_summary(RunResult.from_dict(result()))
    )


def test_brackets_in_a_row_are_not_markup() -> None:
    table = tables.new_table("setting", "value")
    tables.add_row(table, "loss", "[kd,sp]")
    assert "[kd,sp]" in drawn(table)


def scheme_result() -> dict[str, Any]:
    """A result of a scheme without a teacher, with a peer and an ensemble."""
    test = result()["student"]["test"]
    peer = {"name": "peer 2", "network": "mlp30", "test": test, "params": 20, "flops": 2}
    mean = {"name": "ensemble of 2 peers", "test": test}
    changes = {"teachers": [], "agreement": None, "peers": [peer], "ensemble": [mean]}
    return result(scheme="online", **changes)


def test_what_a_scheme_trained_beside_the_student_is_shown() -> None:
    text = drawn(tables.result_table(RunResult.from_dict(scheme_result())))
    for row in ("student (online)", "peer 2  mlp30", "ensemble of 2 peers"):
        assert row in text
    lines = tables.format_summary(RunResult.from_dict(scheme_result()))
    assert any(line.startswith("gain over the student alone") for line in lines)
    assert any(line.startswith("peer: ") for line in lines)
    assert any(line.startswith("ensemble: ") for line in lines)
    assert tables.row_notes(RunResult.from_dict(result())) == []


def test_without_a_gap_no_share_is_claimed() -> None:
    strong = result()
    strong["alone"]["test"]["top1"] = 96.0
    assert any(
        "no gap to close: the baseline beats the teacher" in line
        for line in tables.format_summary(RunResult.from_dict(strong))
    )


ROW = {
    "epoch": 3, "step": 30, "lr": 0.05, "train/loss": 0.5, "train/top1_percent": 80.0,
    "val/top1_percent": 75.0, "epoch_seconds": 4.0, "images_per_second": 1234.5,
}  # fmt: skip


def test_an_epochs_line_has_units_and_time_left() -> None:
    line = epoch_line(ROW, TrainingLength(100, 10, 10), 65.0)
    assert "epoch  3/10" in line
    assert "val 75.00 %" in line
    assert "1,234 img/s" in line
    assert "left 1m 05s" in line
    assert "left" not in epoch_line({**ROW, "step": 100}, TrainingLength(100, 10, 10), 0.0)


def test_every_line_is_in_the_log_and_a_quiet_screen_stays_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Reporter("quiet")
    with reporter.logging_to(tmp_path / "run.log"):
        reporter.heading("Stage 1")
        reporter.warn("careful")
        reporter.epoch_done(ROW, TrainingLength(100, 10, 10))
        reporter.show(tables.result_table(RunResult.from_dict(result())))
    text = (tmp_path / "run.log").read_text()
    for words in ("Stage 1", "warning: careful", "epoch  3/10", "teacher  big"):
        assert words in text
    assert capsys.readouterr().out == ""


def test_a_notebook_gets_plain_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jupyter's kernel sets FORCE_COLOR and TERM, and rich would write HTML."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-color")
    console.console.cache_clear()
    try:
        reporter = Reporter("auto")
        assert not reporter.live
        reporter.heading("student")
        reporter.warn("few images")
        with reporter.logging_to(tmp_path / "run.log"):
            reporter.show(Table("top-1 %"))
        console.error("no such file")
    finally:
        console.console.cache_clear()
    written = capsys.readouterr()
    log = (tmp_path / "run.log").read_text()
    assert "top-1 %" in log
    assert written.out == "\nstudent\nwarning: few images\n" + log
    assert written.err == "error: no such file\n"
