"""`kdrun benchmark` end to end: what it writes and shows, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import SMALL, results

from kdrun.engine import measured_loop, peak

Run = Callable[..., int]


@pytest.fixture(autouse=True)
def _little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small matrix product for the peak, and a schedule of no more steps than are measured."""
    monkeypatch.setattr(peak, "MATRIX", 256)
    monkeypatch.setattr(peak, "CONVOLUTION", (8, 16, 16))
    monkeypatch.setattr(measured_loop, "ENOUGH_STEPS", 10_000)


def test_a_benchmark_says_where_the_time_goes(kdrun: Run, workdir: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    words = [word for word in SMALL if word != "ui=quiet"]
    assert kdrun("benchmark", *words, "ui=plain", "rounds=2", "steps=1") == 0
    (result,) = results(workdir, verb="benchmark")
    found = json.loads((result["folder"] / "benchmark.json").read_text())
    assert result["status"] == "completed"
    assert result["benchmark"] == found
    assert set(found["variants"]) == {"this configuration", "bare compute", "usual"}
    assert all(v["step_ms"]["rounds"] == 2 for v in found["variants"].values())
    assert all(v["images_per_second"] > 0 for v in found["variants"].values())
    phases = found["phases_ms"]
    assert abs(sum(phases.values()) - 2 * phases["whole"]) < 1e-6 * phases["whole"]
    assert min(phases[name] for name in ("teacher forward", "student forward", "backward")) > 0
    assert found["peak_gflops"]["fp32 product"] > 0
    assert found["memory"]["process_peak_mib"] > 0
    screen = capsys.readouterr().out
    assert "bare compute / whole step" in screen
    assert "teacher forward" in screen


def test_labels_alone_are_measured_too(kdrun: Run, workdir: Path) -> None:
    assert kdrun("benchmark", *SMALL, "loss=ce", "rounds=1", "steps=1", "compare=[]") == 0
    (result,) = results(workdir, verb="benchmark")
    assert result["benchmark"]["teachers"] == []


def test_unknown_comparisons_are_refused(refused: Callable[..., str]) -> None:
    assert "Did you mean 'usual'" in refused("benchmark", *SMALL, "compare=[ussual]")
    assert "rounds=0 must be at least 1" in refused("benchmark", *SMALL, "rounds=0")


def test_a_sweep_of_benchmarks_ends_in_a_table(kdrun: Run, workdir: Path) -> None:
    words = ["rounds=1", "steps=1", "compare=[]", "batch_size=16,32"]
    assert kdrun("benchmark", "-m", *SMALL, *words) == 0
    (summary,) = workdir.glob("outputs/sweeps/*/summary.csv")
    assert len(summary.read_text().splitlines()) == 3
