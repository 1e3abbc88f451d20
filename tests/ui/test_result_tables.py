"""Tables of heads, classes and transfer sets, from typed results."""

from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from kdrun.runs.benchmark_result import BenchmarkResult
from kdrun.runs.result import RunResult, TransferResult
from kdrun.ui import bench_tables
from kdrun.ui.head_tables import error_table
from kdrun.ui.transfer_tables import class_table, format_transfer


def lines(table: Table) -> list[str]:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    return [" ".join(line.split()) for line in capture.get().splitlines() if line.strip()]


def test_errors_by_head() -> None:
    heads = {"class": {"top1": 90.0, "top5": 99.0, "params": 12},
             "both": {"top1": 91.5, "top5": 99.5, "params": 1300}}  # fmt: skip
    test = {"top1": 80.0, "top5": 95.0}
    result = {
        "teachers": [{"name": "cnn", "test": {"top1": 95.0, "top5": None}, "params": 7}],
        "student": {"name": "deit", "params": 12, "inference": "both", "heads": heads},
        "alone": {"test": test},
    }
    typed = RunResult.from_dict(result)
    assert typed.to_dict() == result
    assert lines(error_table(typed))[2:] == [
        "teacher cnn 5.00 7",
        "student alone deit 20.00 5.00 12",
        "student deit, class head 10.00 1.00 12",
        "student deit, all heads together (used for inference) 8.50 0.50 1,300",
    ]


@pytest.mark.parametrize("many", [False, True])
def test_errors_per_class(many: bool) -> None:
    rows = [{"class": str(n), "images": 10 + n, "errors": n} for n in range(30 if many else 3)]
    corrected = {"shift": 1.0, "errors_per_class": [{**row, "errors": 0} for row in rows]}
    values: dict[str, Any] = {
        "student": {"errors_per_class": rows, "bias_corrected": corrected},
        "transfer": {"classes_left_out": ["2"], "labels": True},
    }
    typed = RunResult.from_dict(values)
    table = class_table(typed)
    assert table is not None
    shown = lines(table)
    assert shown[0] == "class test images errors bias corrected"
    assert shown[2:] == (
        ["2 (left out) 12 2 0", "all others 723 433 0"]
        if many
        else ["0 10 0 0", "1 11 1 0", "2 (left out) 12 2 0"]
    )
    assert typed.student.errors_in(["1", "2"]) == 3
    assert typed.student.bias_corrected.errors_in(["1", "2"]) == 0
    assert class_table(RunResult()) is None


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"size": 48526, "train_size": 54000, "classes_left_out": ["3"], "fraction": 1.0,
          "labels": True}, "48,526 of the 54,000 training images, without class 3"),
        ({"size": 9, "train_size": 90, "fraction": 0.1, "seed": 2, "labels": False},
         "9 of the 90 training images, 10 % drawn with transfer.seed=2; no labels"),
        ({"size": 9, "folder": "img", "fraction": 1, "labels": False,
          "classes_left_out": ["a", "b"]}, "9 images of img, without classes a, b; no labels"),
    ],
)  # fmt: skip
def test_a_transfer_set_in_words(values: dict[str, Any], text: str) -> None:
    assert format_transfer(TransferResult.from_dict(values)) == text


def test_a_benchmark() -> None:
    spread = {"median": 2.0, "low": 1.5, "high": 2.5, "rounds": 3}
    variant = {"step_ms": spread, "images_per_second": 5971.5, "gflops": 7.53, "times_this": spread,
               "first_block_seconds": 0.04}  # fmt: skip
    values = {
        "rounds": 3, "steps_per_round": 4, "variants": {"this configuration": variant},
        "bare_over_whole": spread, "phases_ms": {"data": 0.5, "whole": 2.0},
        "usual_phases_ms": None, "peak_gflops": {"fp32 product": 114.1},
        "memory": {"process_peak_mib": 541.8, "resident_images_mib": 0.1},
    }  # fmt: skip
    result = BenchmarkResult.from_dict(values)
    assert result.to_dict() == values
    assert result.this.images_per_second == 5971.5

    class Reporter:
        said: list[str] = []  # noqa: RUF012

        def say(self, text: str) -> None:
            self.said.append(" ".join(text.split()))

        heading = say

        def show(self, table: Table) -> None:
            self.said.extend(lines(table))

    bench_tables.show(result, Reporter())  # type: ignore[arg-type]
    assert "this configuration 2.00 1.50 to 2.50 5,972 7.5 2.00 0.0" in Reporter.said
    assert "data 0.500 25.00" in Reporter.said
    assert "bare compute / whole step: 2.000 (1.500 to 2.500)" in Reporter.said
    assert "peak memory: 542 MiB in this process, training images 0.1 MiB" in Reporter.said
