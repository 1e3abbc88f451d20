"""Measured peak throughput of this machine: a large matrix product and a convolution."""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

MATRIX = 2048
CONVOLUTION = (64, 64, 32)  # images, channels in and out, side: typical of CIFAR networks
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matrix_product(device: torch.device, precision: str) -> tuple[Callable[[], Tensor], float]:
    """(a product of two square matrices, its floating-point operations)."""
    left, right = (
        torch.randn(MATRIX, MATRIX, device=device, dtype=DTYPES[precision]) for _ in range(2)
    )
    return lambda: left @ right, 2.0 * MATRIX**3


def convolution(device: torch.device, precision: str) -> tuple[Callable[[], Tensor], float]:
    """(a 3x3 convolution, channels last, its floating-point operations)."""
    images, channels, side = CONVOLUTION
    dtype = DTYPES[precision]
    maps = torch.randn(images, channels, side, side, device=device, dtype=dtype)
    weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
    maps = maps.to(memory_format=torch.channels_last)
    weight = weight.to(memory_format=torch.channels_last)
    flops = 2.0 * images * side**2 * channels**2 * 9
    return lambda: F.conv2d(maps, weight, padding=1), flops


def flops_per_second(
    operation: Callable[[], Tensor], flops: float, device: torch.device, calls: int = 3
) -> float:
    """Floating-point operations per second over `calls` calls."""
    began = time.perf_counter()
    for _ in range(calls):
        operation()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return flops * calls / (time.perf_counter() - began)


def precisions(device: torch.device) -> list[str]:
    """The precisions to measure: bf16 only with hardware support, as emulation takes seconds."""
    if device.type == "cuda":
        return ["fp32", "bf16"] if torch.cuda.is_bf16_supported() else ["fp32"]
    return ["fp32", "bf16"] if has_fast_bf16(device) else ["fp32"]


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device computes bf16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        check = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return bool(check is not None and check()) and _cpu_flag("avx512_bf16", "amx_bf16", "bf16")
    return device.type == "mps"


def _cpu_flag(*names: str) -> bool:
    """Whether Linux lists one of these CPU features; True if the list is not available."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith(("flags", "Features")):
                    return not set(names).isdisjoint(line.split())
    except OSError:
        pass
    return True
