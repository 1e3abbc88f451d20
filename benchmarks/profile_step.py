"""What a small student's step is made of, for docs/performance.md.

    python benchmarks/profile_step.py

ResNet-8: one forward and backward pass and update of 64 images of 3 × 32 × 32, eager and compiled,
and the share of each kind of operation by torch's profiler. Then nine ResNet-8 in turns, each in a
separate thread and all in one thread. Nothing else should run meanwhile; a minute on two cores.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from kdrun.engine.allocator import keep_freed_memory
from kdrun.models.resnet import ResNet

ROUNDS, STUDENTS = 12, 9
KINDS = {
    "convolutions, backward": ("aten::convolution_backward",),
    "convolutions, forward": ("aten::mkldnn_convolution",),
    "batch normalisation": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "ReLU": ("aten::clamp_min", "aten::threshold_backward"),
}


def network(depth: int) -> nn.Module:
    return ResNet(100, depth=depth, widths=[16, 16, 32, 64]).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


IMAGES = torch.randn(64, 3, 32, 32).to(memory_format=torch.channels_last)
TARGETS = torch.arange(64)


def step_of(student: nn.Module) -> Callable[[], None]:
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(student(IMAGES), TARGETS).backward()
        optimizer.step()

    return step


def milliseconds(variants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Medians of blocks of five calls that take turns."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(ROUNDS):
        for name in variants if number % 2 else reversed(variants):
            variants[name]()
            began = time.perf_counter()
            for _ in range(5):
                variants[name]()
            found[name].append((time.perf_counter() - began) * 200)
    return {name: statistics.median(values) for name, values in found.items()}


def student() -> None:
    plain = step_of(network(8))
    for name, ms in milliseconds({"eager": plain, "compiled": _compiled()}).items():
        print(f"ResNet-8, a step, {name}: {ms:.1f} ms")
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(10):
            plain()
    spent = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    rest = 100.0
    for kind, names in KINDS.items():
        share = 100 * sum(spent.get(name, 0) for name in names) / sum(spent.values())
        rest -= share
        print(f"| {kind} | {share:.0f} % |")
    print(f"| all else | {rest:.0f} % |")


def _compiled() -> Callable[[], None]:
    compiled: nn.Module = torch.compile(network(8))  # type: ignore[assignment]
    return step_of(compiled)


def turns() -> None:
    steps = [step_of(network(8)) for _ in range(STUDENTS)]

    def one_thread() -> None:
        for step in steps:
            step()

    def own_threads() -> None:
        changed, current = threading.Condition(), [0]

        def work(place: int) -> None:
            for _ in range(ROUNDS):
                with changed:
                    changed.wait_for(lambda: current[0] == place)
                steps[place]()
                with changed:
                    current[0] = (place + 1) % STUDENTS
                    changed.notify_all()

        threads = [threading.Thread(target=work, args=(place,)) for place in range(STUDENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for name, run, count in (("one", one_thread, STUDENTS), ("each its own", own_threads, 0)):
        began = time.perf_counter()
        for _ in range(ROUNDS if count else 1):
            run()
        ms = 1000 * (time.perf_counter() - began) / ROUNDS / STUDENTS
        print(f"nine ResNet-8 in turns, threads: {name}: {ms:.1f} ms a step")


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.manual_seed(0)
    keep_freed_memory()
    student()
    turns()


if __name__ == "__main__":
    main()
