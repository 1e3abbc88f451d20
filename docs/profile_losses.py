"""Where a step's time goes: teacher, student, term; one row per loss. Writes losses_profile.md.

    python docs/profile_losses.py --teacher resnet32x4 --student resnet8x4 --batch 64 --repeats 7

Teacher: one forward pass without a graph. Student: forward, cross-entropy, backward, SGD step.
Term: its forward and backward down to the student's outputs and its own adapters; of a term that
only works before the main phase, its pre-training loss; of one that gives the student other layers
(simkd), without those. All parts of all
losses take turns within each repeat, so that a slow moment of the machine hits them alike; the
table has the medians of the repeats after one that is not counted. Data are made up; taps cost
nothing (a hook keeps a reference).
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.config.schema import NetworkConfig
from kdrun.data.dataset import Dataset
from kdrun.data.images import Split
from kdrun.losses.catalogue import entries
from kdrun.losses.ce import CrossEntropy
from kdrun.losses.objective import Objective, WeightedTerm
from kdrun.stages.networks import Member, final_student, new_network, tap_networks
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
    medians, refused = measure(options)
    options.out.write_text(table(options, medians, refused), encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


def measure(options: argparse.Namespace) -> tuple[dict[str, float], dict[str, str]]:
    """(median seconds of `teacher`, `student` and each term, losses that refuse the pair)."""
    device = torch.device(options.device)
    dataset = made_up_data()
    batch = Batch(
        torch.randn(options.batch, 3, SIZE, SIZE),
        torch.randint(CLASSES, (options.batch,)),
        torch.randperm(IMAGES)[: options.batch],
    )
    batch = Batch(*(t.to(device) for t in (batch.images, batch.targets, batch.index)))
    teacher = network(options.teacher, dataset, "teacher").to(device).eval()
    student = network(options.student, dataset, "student").to(device).train()
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
    return {name: statistics.median(found) for name, found in times.items()}, refused


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
    term = entries()[name].term
    objective = Objective(CrossEntropy(), 1.0, {name: WeightedTerm(term, 1.0)})
    plain, *teachers = (
        Member(network(which, dataset, where), config_of(which), dataset.normalisation)
        for which, where in ((options.student, "student"), (options.teacher, "teacher"))
    )
    final = final_student(objective, plain, teachers, dataset, 0)
    tapped, (teacher,) = tap_networks(objective, final, teachers, dataset, options.batch, 0)
    objective.to(batch.images.device).train()
    objective.start_epoch(0, 240)
    with torch.no_grad():
        device = batch.images.device
        student_outputs = leaves(tapped.to(device).train()(batch.images))
        teacher_outputs = teacher.to(device).eval()(batch.images)
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


def table(options: argparse.Namespace, medians: dict[str, float], refused: dict[str, str]) -> str:
    """The measured shares as Markdown."""
    device = (
        torch.cuda.get_device_name() if options.device == "cuda" else f"{options.threads} threads"
    )
    lines = [
        "# What a loss costs\n",
        f"One training step, {options.teacher} → {options.student}, batch of {options.batch}, "
        f"{SIZE}×{SIZE} pixels, {CLASSES} classes, {IMAGES:,} images; {platform.machine()} "
        f"{options.device} ({device}), torch {torch.__version__}, float32, medians of "
        f"{options.repeats} interleaved repeats. Written by `docs/profile_losses.py`, which says "
        "what is counted.\n",
        "| loss | teacher ms | student ms | term ms | teacher | student | term |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in entries().items():
        if name in refused:
            lines.append(f"| `{name}` | - | - | - | - | - | refused: {refused[name]} |")
            continue
        views = 2 if entry.cls.reads_strong_view else 1
        parts = [views * medians["teacher"], views * medians["student"], medians[name]]
        if name == "ce":  # it asks no teacher, and the student's part holds it
            parts = [0.0, medians["student"], 0.0]
        shares = [f"{100 * part / sum(parts):.1f} %" for part in parts]
        cells = [f"{1000 * part:.1f}" for part in parts] + shares
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
