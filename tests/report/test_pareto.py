"""Fronts of size and accuracy: in the charts over the drawn values, in the table on validation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdrun.report.charts.sizes import size_charts
from kdrun.report.pareto import front
from kdrun.runs.footprint import (
    Conditions,
    Footprint,
    RunFootprint,
    read_latencies,
    write_footprint,
)

HERE = Conditions("PyTorch", 1, 1, "CPU")


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([], set()),
        ([(1.0, 50.0)], {0}),
        ([(1.0, 50.0), (2.0, 60.0), (3.0, 55.0)], {0, 1}),
        ([(1.0, 50.0), (1.0, 50.0), (1.0, 49.0)], {0, 1}),  # equal points stay
        ([(2.0, 60.0), (1.0, 60.0)], {1}),
    ],
)
def test_a_front_has_what_nothing_dominates(
    points: list[tuple[float, float]], best: set[int]
) -> None:
    assert front(points) == best


def size(name: str, params: int, test: float) -> dict[str, Any]:
    student = {"name": name, "params": params, "flops": 2 * params, "test": {"top1": test}}
    return {"student": {**student, "best_val": {"epoch": 1, "val_top1": test - 1}}}


def measured(folder: Path, params: int, ms: float, conditions: Conditions = HERE) -> None:
    student, teacher = Footprint(params, 2 * params, 4 * params, ms), Footprint(9, 9, 9, 50.0)
    write_footprint(folder, RunFootprint(student, (teacher,), conditions))


def test_the_table_and_the_charts_mark_the_front(
    make: Callable[..., Path], outputs: Path, report_of: Callable[..., Any]
) -> None:
    for seed in (0, 1):
        for name, params, test, ms in (
            ("a", 10, 90.0, 1.0),
            ("b", 20, 80.0, 0.5),
            ("c", 30, 95, 2),
        ):
            folder = make(
                changes={"student.name": name, "seed": seed},
                outcome=size(name, params, test + seed),
                alone=None,
            )
            if name != "c":
                measured(folder, params, ms)
    report = report_of(outputs)
    (table,) = report.sections
    columns = {column.name: [cell.text for cell in column.cells] for column in table.columns}
    assert columns["setting"] == ["student=c", "student=a", "student=b"]
    assert columns["Pareto front"] == ["params, FLOPs", "params, FLOPs, bytes, latency", "latency"]
    assert columns["latency ms"] == ["", "1", "0.5"]
    charts = size_charts(table.section.groups, columns["setting"])
    assert [chart.title for chart in charts] == [
        "Accuracy against parameters",
        "Accuracy against FLOPs per image",
        "Accuracy against latency in ms (PyTorch)",
    ]
    drawn = charts[2].drawing
    assert "teacher cnn_large: 50, 99.00 %" in drawn
    assert "distilled a student=a: 1, 90.50 %" in drawn  # two seeds, one point
    assert "student=c" not in drawn  # not measured
    front_of = drawn.split("Pareto front: ")[1].split(". ")[0].split(".<")[0]
    assert front_of.startswith("b student=b (distilled), a student=a (distilled), cnn_large")
    assert 'class="front"' in drawn
    assert "PyTorch, one image, 1 thread, CPU" in charts[2].caption


def test_one_run_has_no_front_column(
    make: Callable[..., Path], outputs: Path, report_of: Callable[..., Any]
) -> None:
    measured(make(), 438, 1.0)
    (table,) = report_of(outputs).sections
    assert "Pareto front" not in {column.name for column in table.columns}
    assert len(size_charts(table.section.groups, ["x"])) == 3


def test_latencies_come_from_the_sweep_and_the_export(tmp_path: Path) -> None:
    measured(tmp_path, 438, 1.5)
    rows = [
        {"network": "teacher t", "program": "PyTorch", "latency": [cell(1, 4.0), cell(128, 9.0)]},
        {"network": "student s", "program": "PyTorch", "latency": [cell(1, 0.6)]},
        {"network": "student s int8", "program": "ONNX Runtime", "latency": [cell(1, 0.4)]},
        {"network": "student s w4a8", "program": "ONNX Runtime", "latency": [cell(1, 0.3)]},
    ]
    (tmp_path / "export").mkdir()
    file = tmp_path / "export" / "export.json"

    def found(quantize: str | None) -> list[tuple[str, float]]:
        read = read_latencies(tmp_path, "s", ["t"], quantize)
        return [(one.network, one.latency_ms) for one in read]

    file.write_text(json.dumps({"timing": {"processor": "CPU", "threads": 2, "rows": rows}}))
    of_the_sweep = [("student", 1.5), ("t", 50.0)]
    assert found(None) == [*of_the_sweep, ("t", 4.0), ("student", 0.6)]
    assert found("int8") == [*of_the_sweep, ("t", 4.0), ("student", 0.4)]
    assert found("w4a8") == [*of_the_sweep, ("t", 4.0), ("student", 0.3)]
    file.write_text(json.dumps({"timing": {"rows": 3}}))
    assert found(None) == of_the_sweep


def test_the_latency_of_an_integer_student_is_that_of_its_file(
    make: Callable[..., Path], outputs: Path, report_of: Callable[..., Any]
) -> None:
    """In PyTorch it only simulates the integers, which is slow."""
    run = make(changes={"student.quantize": "w4a8"})
    rows = [
        {"network": "student cnn_tiny", "program": "PyTorch", "latency": [cell(1, 72.0)]},
        {"network": "student cnn_tiny w4a8", "program": "ONNX Runtime", "latency": [cell(1, 0.5)]},
    ]
    (run / "export").mkdir()
    timing = {"processor": "CPU", "threads": 1, "rows": rows}
    (run / "export" / "export.json").write_text(json.dumps({"timing": timing}))
    (table,) = report_of(outputs).sections
    columns = {column.name: [cell.text for cell in column.cells] for column in table.columns}
    assert columns["latency ms"] == ["0.5"]


def cell(batch_size: int, ms: float) -> dict[str, Any]:
    return {"batch_size": batch_size, "p50_ms": ms}
