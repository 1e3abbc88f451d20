"""Time of a training step by teacher, student and loss; one row per loss. Writes losses_profile.md.

    python benchmarks/profile_losses.py --teacher resnet32x4 --student resnet8x4 --repeats 7

Teacher: one forward pass without a graph. Student: forward, cross-entropy, backward, SGD step.
Loss: its forward and backward passes down to the student's outputs and its own adapters. For a loss
that is active only before the main phase, its pre-training loss; for one that adds layers to the
student (simkd), without those layers. All parts of all losses take turns within each repeat, so
that load on the machine affects them alike. The table has the medians of the repeats after one
warm-up repeat. All tensors are channels-last, as in a run. GFLOP: matrix products and convolutions
of the loss, forward and backward, a multiply-add counted as 2. GFLOP/s: the resulting rate, to
compare with the student's. Data are synthetic; taps cost nothing (a hook keeps a reference).
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kdrun.config.schema import NetworkConfig
from kdrun.data.dataset import Dataset
from kdrun.data.images import Split
from kdrun.distillation.connect import final_student, tap_networks
from kdrun.distillation.networks import Member, new_network
from kdrun.engine.allocator import keep_freed_memory
from kdrun.losses.catalogue import entries
from kdrun.losses.ce import CrossEntropy
from kdrun.losses.objective import Objective, WeightedLoss
from kdrun.types import Batch, Normalisation, Outputs

ROOT = Path(__file__).resolve().parents[1]
SIZE, CLASSES, IMAGES = 32, 100, 50_000


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--teacher", default="resnet32x4")
    parser.add_argument("--student", default="resnet8x4")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "losses_profile.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    measured = measure(options)
    options.out.write_text(table(options, measured), encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Measured:
    """Of `teacher`, `student` and each loss: median seconds, arithmetic in FLOP; who refuses."""

    seconds: dict[str, float]
    flop: dict[str, int]
    refused: dict[str, str]


def measure(options: argparse.Namespace) -> Measured:
    """Time every part of a step, all in turn, `options.repeats` times."""
    device = torch.device(options.device)
    dataset = made_up_data()
    batch = Batch(
        torch.randn(options.batch, 3, SIZE, SIZE),
        torch.randint(CLASSES, (options.batch,)),
        torch.randperm(IMAGES)[: options.batch],
    )
    batch = Batch(*(t.to(device) for t in (batch.images, batch.targets, batch.index)))
    batch.images = batch.images.to(memory_format=torch.channels_last)
    teacher = place(network(options.teacher, dataset, "teacher"), device).eval()
    student = place(network(options.student, dataset, "student"), device).train()
    actions: dict[str, Callable[[], object]] = {
        "teacher": lambda: forward(teacher, batch.images),
        "student": step(student, batch),
    }
    refused = {}
    for name in entries():
        try:
            actions[name] = term_step(name, options, dataset, batch)
        except Exception as error:  # a pair that a method cannot do is a row of its own
            refused[name] = str(error).partition(":")[0]
    times: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(options.repeats + 1):
        for name, action in actions.items():
            seconds = timed(action, device)
            if repeat:
                times[name].append(seconds)
    seconds = {name: statistics.median(found) for name, found in times.items()}
    return Measured(seconds, {name: flop(action) for name, action in actions.items()}, refused)


def place(module: nn.Module, device: torch.device) -> nn.Module:
    """The module on the device in the layout of a run."""
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def flop(action: Callable[[], object]) -> int:
    """Matrix products and convolutions of one call, a multiply-add counted as 2."""
    with FlopCounterMode(display=False) as counter:
        action()
    return int(counter.get_total_flops())


def timed(action: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, with the device's queue empty before and after."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - start


def made_up_data() -> Dataset:
    """A data set of CIFAR-100's shape whose images share one pixel."""
    pixels = torch.zeros(1, dtype=torch.uint8).expand(IMAGES, 3, SIZE, SIZE)
    split = Split(pixels, torch.arange(IMAGES) % CLASSES)
    names = tuple(str(number) for number in range(CLASSES))
    normalisation = Normalisation((0.5,) * 3, (0.25,) * 3)
    index = torch.arange(IMAGES)
    return Dataset("made-up", names, split, None, split, normalisation, "0", index)


def config_of(name: str) -> NetworkConfig:
    """The network of configs/model."""
    node = yaml.safe_load((ROOT / "configs" / "model" / f"{name}.yaml").read_text())
    kwargs = {key: value for key, value in node.items() if key not in ("name", "_target_")}
    return NetworkConfig(name, node["_target_"], kwargs)


def network(name: str, dataset: Dataset, where: str) -> nn.Module:
    """A network with random weights."""
    return new_network(config_of(name), dataset, 0, where)


def forward(teacher: nn.Module, images: Tensor) -> object:
    """The teacher's part of a step."""
    with torch.no_grad():
        return teacher(images)


def step(student: nn.Module, batch: Batch) -> Callable[[], None]:
    """The student's part of a step."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(student(batch.images), batch.targets).backward()
        optimizer.step()

    return run


def term_step(
    name: str, options: argparse.Namespace, dataset: Dataset, batch: Batch
) -> Callable[[], None]:
    """A term's part of a step, on the outputs that a real pair gives for the batch."""
    term = entries()[name].loss
    objective = Objective(CrossEntropy(), 1.0, {name: WeightedLoss(term, 1.0)})
    plain, *teachers = (
        Member(network(which, dataset, where), config_of(which), dataset.normalisation)
        for which, where in ((options.student, "student"), (options.teacher, "teacher"))
    )
    final = final_student(objective, plain, teachers, dataset, 0)
    extractor, (teacher,) = tap_networks(objective, final, teachers, dataset, options.batch, 0)
    device = batch.images.device
    place(objective, device).train()
    objective.start_epoch(0, 240)
    with torch.no_grad():
        student_outputs = leaves(place(extractor, device).train()(batch.images))
        teacher_outputs = place(teacher, device).eval()(batch.images)
    if term.reads_strong_view:
        student_outputs.strong, teacher_outputs.strong = student_outputs, teacher_outputs
    with torch.no_grad():  # a term that works before the main phase is 0 in it
        before = term.pretraining() is not None and not term(
            student_outputs, teacher_outputs, batch
        )
    loss = term.pretrain_loss if before else term

    def run() -> None:
        loss(student_outputs, teacher_outputs, batch).backward()
        term.after_step()

    return run


def leaves(outputs: Outputs) -> Outputs:
    """Copies that ask for gradients."""
    fresh = outputs.detached()
    for tensor in (fresh.logits, fresh.embedding, *fresh.features.values()):
        if tensor is not None:
            tensor.requires_grad_()
    return fresh


def table(options: argparse.Namespace, measured: Measured) -> str:
    """The result as Markdown."""
    device = (
        torch.cuda.get_device_name() if options.device == "cuda" else f"{options.threads} threads"
    )
    rate = measured.flop["student"] / measured.seconds["student"] / 1e9
    lines = [
        "# What a loss costs\n",
        f"One training step, {options.teacher} → {options.student}, batch of {options.batch}, "
        f"{SIZE}×{SIZE} pixels, {CLASSES} classes, {IMAGES:,} images; {platform.machine()} "
        f"{options.device} ({device}), torch {torch.__version__}, float32, medians of "
        f"{options.repeats} interleaved repeats. Written by `benchmarks/profile_losses.py`, which "
        f"defines what is counted. The student's own step runs at {rate:.0f} GFLOP/s.\n",
        "| loss | teacher ms | student ms | loss ms | teacher | student | loss | loss GFLOP "
        "| GFLOP/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in entries().items():
        if name in measured.refused:
            lines.append(f"| `{name}` |" + " - |" * 8 + f" refused: {measured.refused[name]}")
            continue
        lines.append(row(name, measured, views=2 if entry.cls.reads_strong_view else 1))
    return "\n".join(lines) + "\n"


def row(name: str, measured: Measured, views: int) -> str:
    """One loss: milliseconds of each part, their shares, and the FLOPs of the loss."""
    seconds, flop = measured.seconds, measured.flop
    parts = [views * seconds["teacher"], views * seconds["student"], seconds[name]]
    gflop = flop[name] / 1e9
    if name == "ce":  # it uses no teacher, and the student's part includes it
        parts, gflop = [0.0, seconds["student"], 0.0], 0.0
    shares = [f"{100 * part / sum(parts):.1f} %" for part in parts]
    busy = [f"{gflop:.2f}", f"{gflop / parts[2]:.0f}" if gflop >= 1 else "-"]
    cells = [f"{1000 * part:.1f}" for part in parts] + shares + busy
    return f"| `{name}` | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
