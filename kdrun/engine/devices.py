"""The device that computes, its precision and its threads."""

import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from kdrun.errors import ConfigError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def available_devices() -> list[str]:
    """Names that `device=` accepts on this machine, the fastest first."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` takes the fastest there is.

    Raises ConfigError listing what this machine has.
    """
    there = available_devices()
    if name == "auto":
        return torch.device(there[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in there:
        if wanted.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(
                f"device={name} is not on this machine: PyTorch finds no CUDA GPU. Leave device "
                f"out, or type device={there[-1]}."
            )
        raise ConfigError(f"device={name} is not on this machine. It has: {', '.join(there)}.")
    return torch.device(wanted)


def spread(number: int) -> str:
    """The device of job `number` where several run at once: the GPUs in turn, else `auto`."""
    gpus = torch.cuda.device_count()
    return f"cuda:{number % gpus}" if gpus > 1 else "auto"


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ConfigError where the device cannot compute in that precision."""
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(f"precision=bf16 is not supported by {device}: use fp16 or fp32.")
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError("precision=tf32 is for NVIDIA GPUs; on a CPU use bf16 or fp32.")
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("precision=fp16 is for GPUs; on a CPU use bf16 or fp32.")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Run what is inside in `precision`: fp32 | tf32 | bf16 | fp16."""
    if precision not in DTYPES:
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def use_precision(precision: str, device: torch.device) -> None:
    """`check_precision`; with tf32 a GPU rounds the factors of float32 products to 10 bits."""
    check_precision(precision, device)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def set_threads(threads: int | None) -> int:
    """Use that many processor threads (None: torch's choice); returns the number in use."""
    if threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def describe_device(device: torch.device) -> str:
    """The processor's or GPU's product name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name()


def processor_name() -> str:
    """The processor's product name, as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or f"{os.cpu_count()} processors"


def fresh_start() -> None:
    """Forget what an earlier run in this process left behind, so that each starts alike."""
    import gc

    gc.collect()
    if "torch._dynamo" in sys.modules:  # importing it takes longer than a small command
        torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
