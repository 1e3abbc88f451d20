"""The pictures of docs/results.md show what the runs measured."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from matplotlib.figure import Figure

from kdrun.errors import ConfigError
from kdrun.report.figures.drawing import THEMES
from kdrun.report.groups import group
from kdrun.report.records import collect

Make = Callable[..., Path]
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "draw_results.py"
SP = {"sp": {"_target_": "a.SP", "weight": 3000.0}}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_results", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def painted(script: ModuleType, kind: str, folder: Path) -> Figure:
    _, inches, paint = script.KINDS[kind](group(collect([folder]).runs).groups)
    figure = Figure(figsize=inches)
    paint(figure, THEMES["light"])
    return figure


def curve(axes: Any, label: str) -> list[tuple[float, float]]:
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    bars = {str(bar.get_label()): bar.lines[0] for bar in axes.containers}
    line = {**lines, **bars}[label]
    return [
        (round(float(x), 3), round(float(y), 3))
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def test_temperatures_by_student(script: ModuleType, make: Make, outputs: Path) -> None:
    for student, offset in (("mlp30", 0.0), ("mlp800", 2.0)):
        for T, top1 in ((1.0, 95.0), (4.0, 96.0)):
            for seed in (0, 1):
                make(test=top1 + offset + seed, alone=90.0, T=T, seed=seed,
                     changes={"student.name": student})  # fmt: skip
    narrow, wide = painted(script, "temperature", outputs).axes
    assert "mlp30" in narrow.get_title()
    assert curve(narrow, "distilled") == [(1.0, 4.5), (4.0, 3.5)]
    assert curve(wide, "distilled") == [(1.0, 2.5), (4.0, 1.5)]
    assert {y for _, y in curve(narrow, "student alone")} == {10.0}


def test_weights_of_sp(script: ModuleType, make: Make, outputs: Path) -> None:
    for weight, top1 in ((10.0, 50.0), (1000.0, 55.0)):
        terms = {"sp": {**SP["sp"], "weight": weight}}
        make(test=top1, alone=48.0, changes={"loss": terms})
    (axes,) = painted(script, "gamma", outputs).axes
    assert curve(axes, "distilled") == [(10.0, 50.0), (1000.0, 45.0)]
    assert [round(x) for x in axes.xaxis.get_major_locator()()] == [10, 1000]


def test_sp_loss_against_error(script: ModuleType, make: Make, outputs: Path) -> None:
    for weight, top1, loss in ((0.0, 50.0, 2e-3), (3000.0, 55.0, 5e-4)):
        folder = make(test=top1, changes={"loss": {"sp": {**SP["sp"], "weight": weight}}})
        rows = [{"epoch": 1, "train/sp": 9.0}, {"epoch": 2, "train/sp": loss}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (axes,) = painted(script, "loss-error", outputs).axes
    assert curve(axes, "cnn_tiny, γ=0") == [(0.002, 50.0)]
    assert curve(axes, "cnn_tiny, γ=3000")[0][1] == 45.0


def test_bias_against_error(script: ModuleType, make: Make, outputs: Path) -> None:
    for seed, errors in ((0, [206, 109]), (1, [210, 113])):
        shifts = {"shift": [0.0, 3.5], "errors": errors, "errors_left_out": [133, 14]}
        student = {"test": {"top1": 98.0}, "bias_curve": shifts, "bias_corrected": {"shift": 3.0}}
        transfer = {"classes_left_out": ["3"]}
        make(seed=seed, outcome={"student": student, "transfer": transfer})
    (axes,) = painted(script, "bias", outputs).axes
    assert axes.get_title() == "without 3"
    assert curve(axes, "all test images") == [(0.0, 208.0), (3.5, 111.0)]
    assert curve(axes, "images of left-out classes") == [(0.0, 133.0), (3.5, 14.0)]
    assert {x for x, _ in curve(axes, "match")} == {3.0}


@pytest.mark.parametrize("kind", ["temperature", "gamma", "loss-error", "bias"])
def test_runs_that_do_not_fit_are_named(
    script: ModuleType, make: Make, outputs: Path, kind: str
) -> None:
    make()
    with pytest.raises(ConfigError, match="These folders hold no"):
        painted(script, kind, outputs)


def test_the_script_writes_a_picture(
    script: ModuleType, make: Make, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for T in (1.0, 4.0):
        make(T=T)
    words = ["draw_results.py", "temperature", str(outputs), "--to", str(outputs / "pictures")]
    monkeypatch.setattr(sys, "argv", words)
    script.main()
    written = (outputs / "pictures" / "results_temperature.png").read_bytes()
    assert written.startswith(b"\x89PNG")
