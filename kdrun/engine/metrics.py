"""What is measured on a split, and the running sums of a training epoch.

Sums live on the device that computes; they become Python numbers only when somebody looks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.engine.devices import autocast
from kdrun.engine.diagnostics import NonFiniteTracker
from kdrun.engine.distributed import all_rows
from kdrun.engine.finite import require_finite
from kdrun.engine.state import PART
from kdrun.types import Batch, Outputs, SplitMetric, StepOutput

ECE_BINS = 15


@dataclass(frozen=True)
class Metrics:
    """A network on a split. top1, top5, ece: percent. errors: wrong answers. loss: mean CE."""

    top1: float
    top5: float
    errors: int
    loss: float
    ece: float

    def as_dict(self) -> dict[str, float | int]:
        """The fields by name, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """A network on one split. logits: `[N, C]`, on the CPU.

    extra: name → metrics that only this data set has.
    """

    metrics: Metrics
    logits: Tensor
    extra: dict[str, dict[str, float | int]] = field(default_factory=dict)

    @property
    def predictions(self) -> Tensor:
        """The class of the largest logit `[N]`."""
        return self.logits.argmax(dim=1)

    def to_dict(self, split: str = "test") -> dict[str, Any]:
        """For JSON: `{"test": {"top1", ...}, "test_words": {...}}`: extra metrics last."""
        extra = {f"{split}_{name}": values for name, values in self.extra.items()}
        return {split: self.metrics.as_dict(), **extra}


def measure(logits: Tensor, targets: Tensor) -> Metrics:
    """Metrics from all logits `[N, C]` and labels `[N]` of a split.

    Top-5 with fewer than five classes counts as right whatever is among all of them. ECE: expected
    calibration error with 15 equal bins of confidence (Guo et al. 2017, arXiv 1706.04599, eq. 3).
    """
    logits = logits.float()
    # of equal logits the first answers, as wherever else an answer is taken; topk takes any of them
    right = logits.argmax(dim=1) == targets
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
    among = (ranked == targets[:, None]).any(dim=1) | right
    errors = int(targets.shape[0] - right.sum().item())
    total = targets.shape[0]
    return Metrics(
        top1=100.0 * (total - errors) / total,
        top5=100.0 * int(among.sum().item()) / total,
        errors=errors,
        loss=float(nn.functional.cross_entropy(logits.double(), targets).item()),
        ece=calibration_error(logits, targets),
    )


def errors_per_class(
    predictions: Tensor, targets: Tensor, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """For JSON, in the order of the classes: `{"class", "images", "errors"}`.

    predictions, targets: `[N]` class numbers.
    """
    images = targets.bincount(minlength=len(classes)).tolist()
    errors = targets[predictions != targets].bincount(minlength=len(classes)).tolist()
    rows = zip(classes, images, errors, strict=True)
    return [{"class": name, "images": count, "errors": wrong} for name, count, wrong in rows]


def calibration_error(logits: Tensor, targets: Tensor) -> float:
    """ECE in percent of logits `[N, C]` against labels `[N]`."""
    confidence, answer = logits.double().softmax(dim=1).max(dim=1)
    correct = (answer == targets).double()
    bins = (confidence * ECE_BINS).ceil().long().sub(1).clamp(0, ECE_BINS - 1)
    # per bin, count · |accuracy - confidence| is the absolute sum of the differences
    gaps = torch.zeros(ECE_BINS, dtype=torch.float64).index_add(0, bins, correct - confidence)
    return 100.0 * float(gaps.abs().sum().item()) / targets.shape[0]


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    precision: str,
    extra_metrics: Sequence[SplitMetric] = (),
) -> Evaluation:
    """Run `model` in eval mode over all batches; its training mode is put back afterwards.

    extra_metrics: of the split that the batches are from.
    """
    logits, targets = collect_logits(model, batches, device, precision)
    return evaluation(logits, targets, extra_metrics)


def evaluation(
    logits: Tensor, targets: Tensor, extra_metrics: Sequence[SplitMetric] = ()
) -> Evaluation:
    """All metrics from the logits `[N, C]` and labels `[N]` of a split.

    Raises NonFiniteError for logits that are NaN or infinite.
    """
    require_finite(logits)
    extra = {metric.name: metric.measure(logits, targets) for metric in extra_metrics}
    return Evaluation(measure(logits, targets), logits, extra)


@torch.no_grad()
def collect_logits(
    model: nn.Module, batches: Iterable[Batch], device: torch.device, precision: str
) -> tuple[Tensor, Tensor]:
    """(logits `[N, C]` float32, labels `[N]`) of all batches, on the CPU.

    With several processes, of the batches of all of them. Raises NonFiniteError for logits that
    are NaN or infinite.
    """
    was_training = model.training
    model.eval()
    logits, targets, index = [], [], []
    try:
        for batch in batches:
            with autocast(device, precision):
                output = model(batch.images)
            answer = output.logits if isinstance(output, Outputs) else output
            logits.append(answer.float())
            targets.append(batch.targets)
            index.append(batch.index)
    finally:
        model.train(was_training)
    answers, labels = all_rows(
        torch.cat(logits).cpu(), torch.cat(targets).cpu(), torch.cat(index).cpu()
    )
    require_finite(answers)
    return answers, labels


class EpochSums:
    """Running sums over the images of one training epoch: loss, its parts, right answers.

    trail: the same of each step, to find the first that is not finite.
    """

    def __init__(self, device: torch.device, start: dict[str, float] | None = None) -> None:
        # MPS has no float64; elsewhere it makes the sums independent of when they are saved
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.device = device
        self.sums: dict[str, Tensor] = {
            name: torch.tensor(value, dtype=self.dtype, device=device)
            for name, value in (start or {}).items()
        }
        self.trail = NonFiniteTracker()

    @torch.no_grad()
    def add(self, output: StepOutput, batch: Batch) -> None:
        """Add one batch; nothing is read back from the device."""
        images = len(batch)
        values = {"loss": output.loss.detach() * images}
        for name, value in output.parts.items():
            values[f"{PART}{name}"] = value.detach() * images
        for name, value in values.items():
            self._add(name, value)
        self._add("correct", (output.logits.detach().argmax(dim=1) == batch.targets).sum())
        self.trail.add(values)

    def _add(self, name: str, value: Tensor) -> None:
        if name in self.sums:
            self.sums[name] += value
        else:
            self.sums[name] = value.to(self.dtype).clone()

    def totals(self) -> dict[str, float]:
        """The sums as Python numbers; waits for the device."""
        return {name: float(value.item()) for name, value in self.sums.items()}
