"""Metrics of a split, and the running sums of a training epoch.

The sums stay on the device; reading them as Python numbers synchronises.
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
from kdrun.models.dry_run import logits_of
from kdrun.types import Batch, SplitMetric, StepOutput

ECE_BINS = 15


@dataclass(frozen=True)
class Metrics:
    """Metrics of one split. top1, top5, ece: percent. errors: misclassified. loss: mean CE."""

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
    """A network's results on one split. logits: `[N, C]`, on the CPU.

    extra: name → metrics specific to the data set.
    """

    metrics: Metrics
    logits: Tensor
    extra: dict[str, dict[str, float | int]] = field(default_factory=dict)

    @property
    def predictions(self) -> Tensor:
        """Predicted classes `[N]`, the argmax of the logits."""
        return self.logits.argmax(dim=1)

    def to_dict(self, split: str = "test") -> dict[str, Any]:
        """For JSON: `{"test": {"top1", ...}, "test_words": {...}}`: extra metrics last."""
        extra = {f"{split}_{name}": values for name, values in self.extra.items()}
        return {split: self.metrics.as_dict(), **extra}


def measure(logits: Tensor, targets: Tensor) -> Metrics:
    """Metrics from all logits `[N, C]` and labels `[N]` of a split.

    With fewer than five classes top-5 is 100 %. ECE: expected calibration error with 15 equal-width
    confidence bins (Guo et al. 2017, arXiv 1706.04599, eq. 3).
    """
    logits = logits.float()
    # argmax resolves ties to the first class, as everywhere else; topk does not
    right = logits.argmax(dim=1) == targets
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
    in_top5 = (ranked == targets[:, None]).any(dim=1) | right
    errors = int(targets.shape[0] - right.sum().item())
    total = targets.shape[0]
    return Metrics(
        top1=100.0 * (total - errors) / total,
        top5=100.0 * int(in_top5.sum().item()) / total,
        errors=errors,
        loss=float(nn.functional.cross_entropy(logits.double(), targets).item()),
        ece=calibration_error(logits, targets),
    )


def errors_per_class(
    predictions: Tensor, targets: Tensor, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """One row `{"class", "images", "errors"}` per class, in order, for JSON.

    predictions, targets: `[N]` class numbers.
    """
    images = targets.bincount(minlength=len(classes)).tolist()
    errors = targets[predictions != targets].bincount(minlength=len(classes)).tolist()
    rows = zip(classes, images, errors, strict=True)
    return [{"class": name, "images": count, "errors": wrong} for name, count, wrong in rows]


def calibration_error(logits: Tensor, targets: Tensor) -> float:
    """ECE in percent of logits `[N, C]` against labels `[N]`."""
    confidence, prediction = logits.double().softmax(dim=1).max(dim=1)
    correct = (prediction == targets).double()
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
    """Run `model` in eval mode over all batches, then restore its training mode.

    extra_metrics: the metrics that the data set adds.
    """
    logits, targets = collect_logits(model, batches, device, precision)
    return evaluation(logits, targets, extra_metrics)


def evaluation(
    logits: Tensor, targets: Tensor, extra_metrics: Sequence[SplitMetric] = ()
) -> Evaluation:
    """Compute all metrics from logits `[N, C]` and labels `[N]` of a split.

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

    In distributed training they are gathered from all processes. Raises NonFiniteError for logits
    that are NaN or infinite.
    """
    was_training = model.training
    model.eval()
    logits, targets, index = [], [], []
    try:
        for batch in batches:
            with autocast(device, precision):
                output = model(batch.images)
            logits.append(logits_of(output).float())
            targets.append(batch.targets)
            index.append(batch.index)
    finally:
        model.train(was_training)
    all_logits, labels = all_rows(
        torch.cat(logits).cpu(), torch.cat(targets).cpu(), torch.cat(index).cpu()
    )
    require_finite(all_logits)
    return all_logits, labels


class EpochSums:
    """Running sums over the images of one training epoch: loss, its parts, correct predictions.

    A prediction for a mixed image is correct if it is the label with the larger share.

    tracker: the same values per step, to find the first non-finite one.
    """

    def __init__(self, device: torch.device, start: dict[str, float] | None = None) -> None:
        # float64 makes the sums independent of when a checkpoint is saved; MPS lacks it
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.device = device
        self.sums: dict[str, Tensor] = {
            name: torch.tensor(value, dtype=self.dtype, device=device)
            for name, value in (start or {}).items()
        }
        self.tracker = NonFiniteTracker()

    @torch.no_grad()
    def add(self, output: StepOutput, batch: Batch) -> None:
        """Add one batch without synchronising the device."""
        images = len(batch)
        values = {"loss": output.loss.detach() * images}
        for name, value in output.parts.items():
            values[f"{PART}{name}"] = value.detach() * images
        for name, value in values.items():
            self._add(name, value)
        predictions = output.logits.detach().argmax(dim=1)
        self._add("correct", (predictions == batch.dominant_targets).sum())
        self.tracker.add(values)

    def _add(self, name: str, value: Tensor) -> None:
        if name in self.sums:
            self.sums[name] += value
        else:
            self.sums[name] = value.to(self.dtype).clone()

    def totals(self) -> dict[str, float]:
        """The sums as Python numbers; synchronises the device."""
        return {name: float(value.item()) for name, value in self.sums.items()}
