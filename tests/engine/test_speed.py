"""precision=auto, and settings that slow a machine down."""

import json
from pathlib import Path

import pytest
import torch

from kdrun.config.precision import holds_auto, with_precision
from kdrun.config.schema import (
    NetworkConfig,
    RuntimeConfig,
    ScheduleConfig,
    TeacherConfig,
    TeacherRuntimeConfig,
)
from kdrun.engine import peak, speed

CPU = torch.device("cpu")
AUTO = ScheduleConfig(precision="auto")
TEACHER = TeacherConfig(NetworkConfig("a", "b.C"), AUTO)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(speed, "_notes", {})
    speed.bf16_gain.cache_clear()


def measured(
    monkeypatch: pytest.MonkeyPatch, gains: dict[str, float], fast: bool = True
) -> list[str]:
    """Replace the measurement; returns the list of what was measured."""
    calls: list[str] = []

    def gain(device: torch.device, what: str) -> float:
        calls.append(what)
        return gains[what]

    monkeypatch.setattr(peak, "has_fast_bf16", lambda device: fast)
    monkeypatch.setattr(speed, "_gain", gain)
    return calls


@pytest.mark.parametrize(
    ("gains", "fast", "expected"),
    [
        ({"product": 2.0, "convolution": 3.0}, True, "bf16"),
        ({"product": 2.0, "convolution": 1.0}, True, "fp32"),
        ({"product": 0.9, "convolution": 3.0}, True, "fp32"),
        ({"product": 2.0, "convolution": 3.0}, False, "fp32"),
    ],
)
def test_auto_is_bf16_only_where_it_is_faster(
    gains: dict[str, float], fast: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, gains, fast)
    resolved = speed.resolve_precision(TEACHER, RuntimeConfig(device="cpu"))
    assert resolved.schedule.precision == expected
    assert not holds_auto(resolved)
    (note,) = speed.auto_note(CPU)
    assert f"precision=auto: {expected}" in note


def test_it_is_measured_once_per_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = measured(monkeypatch, {"product": 2.0, "convolution": 3.0})
    assert speed.bf16_gain("cpu", 1) == 2.0
    speed.bf16_gain.cache_clear()  # as in another process
    assert speed.bf16_gain("cpu", 1) == 2.0
    assert calls == ["product", "convolution"]
    assert list(json.loads((tmp_path / "kdrun" / "speed.json").read_text()).values()) == [2.0]


@pytest.mark.parametrize("text", ["", "[1]", "{broken", '{"x": NaN}'])
def test_a_damaged_file_is_measured_again(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, {"product": 1.5, "convolution": 3.0})
    (tmp_path / "kdrun").mkdir()
    (tmp_path / "kdrun" / "speed.json").write_text(text)
    assert speed.bf16_gain("cpu", 1) == 1.5


def test_other_precisions_stay_and_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = measured(monkeypatch, {})
    config = TeacherConfig(NetworkConfig("a", "b.C"), ScheduleConfig(precision="bf16"))
    assert speed.resolve_precision(config, RuntimeConfig(device="cpu")) is config
    assert (calls, speed.auto_note(CPU)) == ([], [])


def test_every_auto_is_replaced() -> None:
    teacher = TeacherConfig(
        NetworkConfig("a", "b.C"), AUTO, runtime=TeacherRuntimeConfig(precision="auto")
    )
    (resolved,) = with_precision((teacher,), "fp32")
    assert (resolved.schedule.precision, resolved.runtime.precision) == ("fp32", "fp32")


def test_the_measurement_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "MATRIX", 32)
    monkeypatch.setattr(peak, "CONVOLUTION", (2, 4, 8))
    assert speed._gain(CPU, "product") > 0
    assert speed._gain(CPU, "convolution") > 0


def test_slow_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "has_fast_bf16", lambda device: False)
    compiled = RuntimeConfig(compile=True)
    slow = speed.slow_settings("bf16", compiled, CPU, flops=1e9)
    assert [note.split("=")[0] for note in slow] == ["precision", "compile"]
    assert speed.slow_settings("fp32", compiled, CPU, flops=1e15) == []
    monkeypatch.setattr(peak, "has_fast_bf16", lambda device: True)
    assert speed.slow_settings("bf16", RuntimeConfig(), CPU, flops=1e9) == []


def test_images_seen() -> None:
    assert speed.images_seen(ScheduleConfig(epochs=3), 100) == 300
    assert speed.images_seen(ScheduleConfig(steps=5, batch_size=8), 100) == 40
