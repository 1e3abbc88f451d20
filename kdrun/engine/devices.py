"""Choice of the device, its precision and the number of CPU threads."""

import itertools
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from kdrun.errors import ConfigError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_resets = itertools.count()  # calls of `reset_process_state`


def available_devices() -> list[str]:
    """Values that `device=` accepts on this machine, fastest first."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is the fastest available one.

    Raises ConfigError listing the available devices.
    """
    available = available_devices()
    if name == "auto":
        return torch.device(available[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in available:
        if wanted.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(
                f"device={name} is not on this machine: PyTorch finds no CUDA GPU. Leave device "
                f"out, or type device={available[-1]}."
            )
        raise ConfigError(f"device={name} is not on this machine. It has: {', '.join(available)}.")
    return torch.device(wanted)


def spread(number: int) -> str:
    """The device of parallel job `number`: round-robin over the GPUs, or `auto` without several."""
    gpus = torch.cuda.device_count()
    return f"cuda:{number % gpus}" if gpus > 1 else "auto"


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ConfigError if the device does not support the precision."""
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(f"precision=bf16 is not supported by {device}: use fp16 or fp32.")
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError("precision=tf32 is for NVIDIA GPUs; on a CPU use bf16 or fp32.")
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("precision=fp16 is for GPUs; on a CPU use bf16 or fp32.")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Autocast context for `precision` (fp32 | tf32 | bf16 | fp16); no-op for fp32 and tf32."""
    if precision not in DTYPES:
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def use_precision(precision: str, device: torch.device) -> None:
    """Check the precision, and switch TF32 matrix products and convolutions on or off."""
    check_precision(precision, device)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # torch's default is on


@contextmanager
def deterministic_kernels(on: bool) -> Iterator[None]:
    """Allow only deterministic kernels in the block; `on=False` leaves torch's settings alone.

    cuBLAS reads its workspace setting when it starts, so the first run of a process decides.
    """
    if not on:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def set_threads(threads: int | None) -> int:
    """Set the number of CPU threads (None: torch's default); returns the number in use."""
    if threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def describe_device(device: torch.device) -> str:
    """Product name of the GPU or CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()


def cpu_name() -> str:
    """Product name of the CPU as reported by the operating system."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or f"{os.cpu_count()} processors"


def reset_process_state() -> None:
    """Clear compiler and memory state of earlier runs in this process."""
    import gc

    if next(_resets):  # before its first run, a process has only modules, and a look takes long
        gc.collect()
    if "torch._dynamo" in sys.modules:  # importing it takes longer than a small command
        torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
