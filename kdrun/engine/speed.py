"""Resolve `precision=auto` for this machine, and warn about slow settings.

bf16 is measured against fp32 once per machine, PyTorch version and number of threads; the result is
cached in `~/.local/state/kdrun/speed.json` (or below XDG_STATE_HOME).
"""

import contextlib
import json
import statistics
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from kdrun.config.precision import holds_auto, with_precision
from kdrun.config.schema import RuntimeConfig, ScheduleConfig
from kdrun.config.trust import state_folder
from kdrun.engine import peak
from kdrun.engine.devices import describe_device, pick_device
from kdrun.files import write_json

ConfigT = TypeVar("ConfigT")
# bf16 is chosen where both a matrix product and a convolution are faster by this factor.
LEAST_GAIN = 1.1
ROUNDS = 3
COMPILE_SECONDS = 20  # typical, for teacher and student
SLOWEST_RATE = 20e9  # FLOP/s of one slow core, for an upper bound on the training time

_notes: dict[str, str] = {}  # device → how `auto` was decided in this process


def resolve_precision(config: ConfigT, runtime: RuntimeConfig) -> ConfigT:
    """Replace every `precision: auto` in the configuration by bf16 or fp32.

    Run folders and fingerprints record the resolved value. Raises ConfigError for an unavailable
    device.
    """
    if not holds_auto(config):
        return config
    device = pick_device(runtime.device)
    threads = runtime.threads if runtime.threads is not None else torch.get_num_threads()
    gain = bf16_gain(str(device), threads)
    chosen = "bf16" if gain >= LEAST_GAIN else "fp32"
    measured = f"bf16 is {gain:.1f} times as fast as fp32" if gain else "no bf16 instructions"
    _notes[str(device)] = f"precision=auto: {chosen} ({measured} on this {_kind(device)})"
    return with_precision(config, chosen)


def auto_note(device: torch.device) -> list[str]:
    """One sentence on how `precision=auto` was resolved in this process; empty if it was not."""
    return [_notes[str(device)]] if str(device) in _notes else []


@cache
def bf16_gain(device_name: str, threads: int) -> float:
    """Speed-up of bf16 over fp32: the smaller of a matrix product's and a convolution's.

    0 if the device has no bf16 instructions.
    """
    device = torch.device(device_name)
    if not peak.has_fast_bf16(device):
        return 0.0
    key = f"{describe_device(device)}, {threads} threads, PyTorch {torch.__version__}"
    path = state_folder() / "speed.json"
    cached = _read(path)
    if key in cached:
        return cached[key]
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        gain = round(min(_gain(device, "product"), _gain(device, "convolution")), 2)
    finally:
        torch.set_num_threads(threads_before)
    with contextlib.suppress(OSError):  # not writable: measured again next time
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(path, cached | {key: gain})
    return gain


def slow_settings(
    precision: str, runtime: RuntimeConfig, device: torch.device, flops: float
) -> list[str]:
    """One warning for each setting that slows this run down.

    flops: of the whole training, forward and backward passes.
    """
    warnings = []
    if precision == "bf16" and not peak.has_fast_bf16(device):
        warnings.append(
            f"precision=bf16 slows this run down: this {_kind(device)} has no bf16 instructions; "
            "precision=auto or fp32 is faster"
        )
    seconds = flops / SLOWEST_RATE
    if runtime.compile and device.type == "cpu" and seconds < COMPILE_SECONDS:
        warnings.append(
            f"compile=true slows this run down: compiling takes about {COMPILE_SECONDS} s, the "
            f"whole training at most {max(1, round(seconds))} s; leave it out"
        )
    return warnings


def images_seen(schedule: ScheduleConfig, train_images: int) -> int:
    """Number of training images processed, counting repeats."""
    if schedule.steps is not None:
        return schedule.steps * schedule.batch_size * schedule.accumulate
    return schedule.epochs * train_images


def _gain(device: torch.device, what: str) -> float:
    """Median ratio of the bf16 rate to the fp32 rate, measured alternately."""
    make = peak.matrix_product if what == "product" else peak.convolution
    operations = {name: make(device, name) for name in ("fp32", "bf16")}
    for operation, _ in operations.values():
        operation()  # warm-up
    ratios = []
    for _ in range(ROUNDS):
        rates = {
            name: peak.flops_per_second(operation, flops, device, calls=1)
            for name, (operation, flops) in operations.items()
        }
        ratios.append(rates["bf16"] / rates["fp32"])
    return statistics.median(ratios)


def _read(path: Path) -> dict[str, float]:
    try:
        cached = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(cached, dict):
        return {}
    return {key: gain for key, gain in cached.items() if isinstance(gain, float) and gain < 1e6}


def _kind(device: torch.device) -> str:
    return "CPU" if device.type == "cpu" else "GPU"
