"""A frozen teacher's forward pass: as it is, folded, folded and compiled.

    python benchmarks/measure_frozen.py                     resnet56 wrn_40_2 resnet32x4
    python benchmarks/measure_frozen.py resnet56            some networks of configs/model

Milliseconds of CPU time on one thread for 64 images of 3 × 32 × 32, in fp32 and bf16; medians of
blocks of four passes, in turn. CPU time hardly depends on other processes.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from kdrun.engine.allocator import keep_freed_memory
from kdrun.models.fold import fold_batchnorm
from kdrun.teachers.frozen import compile_frozen, convert_weights

MODELS = Path(__file__).resolve().parents[1] / "configs" / "model"
NETWORKS = ("resnet56", "wrn_40_2", "resnet32x4")
DTYPES = (torch.float32, torch.bfloat16)
ROUNDS, PASSES = 12, 4


def network(name: str) -> nn.Module:
    """The network of `configs/model/NAME.yaml` for 100 classes, with random weights."""
    settings = yaml.safe_load((MODELS / f"{name}.yaml").read_text())
    module, _, attribute = settings.pop("_target_").rpartition(".")
    del settings["name"]
    built: nn.Module = getattr(import_module(module), attribute)(num_classes=100, **settings)
    return built.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def frozen(name: str, dtype: torch.dtype, images: Tensor) -> dict[str, nn.Module]:
    """The variants of one network."""
    plain = network(name)
    plain(images)  # statistics for batch normalisation
    plain.requires_grad_(False).eval()
    folded = copy.deepcopy(plain)
    fold_batchnorm(folded, images)
    for variant in (plain, folded):
        if dtype != torch.float32:
            convert_weights(variant, dtype)
    compiled = compile_frozen(copy.deepcopy(folded), torch.device("cpu"))
    return {"as it is": plain, "folded": folded, "folded, compiled": compiled}


def milliseconds(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU time of one call each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(ROUNDS):
        for name in runs if number % 2 else reversed(runs):
            runs[name]()
            began = time.process_time()
            for _ in range(PASSES):
                runs[name]()
            times[name].append(1000 * (time.process_time() - began) / PASSES)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print a row for each network and type."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help="names of configs/model")
    chosen = parser.parse_args().networks or NETWORKS
    torch.manual_seed(0)
    torch.set_num_threads(1)
    keep_freed_memory()
    images = torch.randn(64, 3, 32, 32).to(memory_format=torch.channels_last)
    print("| network | type | as it is, ms | folded | folded, compiled |\n|---|---|---|---|---|")
    for name in chosen:
        for dtype in DTYPES:
            half = dtype != torch.float32
            variants = frozen(name, dtype, images)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                runs = {key: lambda run=run: run(images) for key, run in variants.items()}
                found = milliseconds(runs)
            kind = "bf16" if half else "fp32"
            print(f"| {name} | {kind} | " + " | ".join(f"{ms:.0f}" for ms in found.values()) + " |")


if __name__ == "__main__":
    main()
