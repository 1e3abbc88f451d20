"""Gradient norms of CE and of every loss in the student: measured weights, and a warning.

A loss whose gradient is a hundred times that of CE leaves the labels without influence, and the
weight at which that happens depends on the networks and the image size.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor, nn

from kdrun.engine import distributed
from kdrun.engine.devices import autocast
from kdrun.engine.freezing import freeze_statistics
from kdrun.engine.loop import TrainBatches
from kdrun.engine.random_state import random_state, set_random_state
from kdrun.losses.objective import Objective
from kdrun.runs.result import ResultFile
from kdrun.schemes.base import StudentScheme
from kdrun.seeds import derive
from kdrun.types import Batch, StepOutput
from kdrun.ui.reporter import Reporter

MOST = 100.0  # gradient norm of a loss as a multiple of CE's, above which a run warns
FP16_SCALE = 1024.0  # keeps small gradients representable

Norms = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class LossWeights:
    """Measures the weights that are `auto` before the first step, and warns of a dominant loss.

    batches: of the training. The student, the losses and all random numbers stay as they are.
    freeze_bn_stats: as in the schedule.
    """

    scheme: StudentScheme
    batches: TrainBatches
    device: torch.device
    precision: str
    seed: int
    reporter: Reporter
    result: ResultFile
    freeze_bn_stats: bool = False

    def on_start(self, step: int) -> None:
        """Measure, or report what the checkpoint holds. step: number of steps done."""
        objective = self.scheme.objective
        if not objective.auto:
            return
        if objective.unmeasured:
            count = max(auto.batches for auto in objective.auto.values())
            set_auto_weights(self.scheme, self._norms(islice(self.batches.epoch(0), count)))
        entries = objective.auto_entries()
        for name, entry in entries.items():
            self.reporter.say(
                f"  loss.{name}.weight=auto: {entry['weight']:g} (gradient norm "
                f"{entry['ratio']:g} times CE's, mean of {entry['batches']:g} batches)"
            )
        self.result.update(
            objective=self.scheme.describe(),
            alpha=objective.alpha,
            ce=objective.ce_weight,
            auto_weights=entries,
        )

    def on_first_batch(self, batch: Batch) -> None:
        """Warn of losses whose gradient is more than `MOST` times that of CE."""
        objective = self.scheme.objective
        if objective.auto or self.scheme.compiled or not objective.ce_weight:
            return  # without CE there is nothing to outweigh, and no forward pass to spend
        for name, ratio in dominant_losses(self._norms([batch])):
            self.reporter.warn(
                f"The gradient of loss={name} in the student is {ratio:,.0f} times that of CE, so "
                f"the labels have almost no influence: set loss.{name}.weight=auto, or a smaller "
                "number."
            )

    def _norms(self, batches: Iterable[Batch]) -> Norms:
        return gradient_norms(
            self.scheme, batches, self.device, self.precision, self.seed, self.freeze_bn_stats
        )


def dominant_losses(norms: Norms) -> list[tuple[str, float]]:
    """(loss, gradient norm as a multiple of CE's) of the losses above `MOST`."""
    return [(name, norm / ce) for name, (ce, norm) in norms.items() if norm > MOST * ce > 0]


def set_auto_weights(scheme: StudentScheme, norms: Norms) -> None:
    """Set the measured weights in every objective of the scheme."""
    for objective in _objectives(scheme):
        objective.set_measured(norms)


def gradient_norms(
    scheme: StudentScheme,
    batches: Iterable[Batch],
    device: torch.device,
    precision: str = "fp32",
    seed: int = 0,
    freeze_bn_stats: bool = False,
) -> Norms:
    """Loss → (gradient norm of CE, of the loss), both weighted, as means over `batches`.

    The norms are over the parameters of the student that both reach; adapters do not count.
    Changes over the epochs (`warmup_epochs`) are left out. The first batches decide over losses
    with a count of their own (`auto_batches`). Nothing in the scheme changes.
    """
    rows: list[Norms] = []
    limits = {name: auto.batches for name, auto in scheme.objective.auto.items()}
    for number, batch in enumerate(batches):
        with _unchanged(scheme, device), _full_weights(scheme):
            scheme.train()
            if freeze_bn_stats:
                freeze_statistics(scheme.network)
            torch.manual_seed(derive(seed, "gradient norms", number))
            rows.append(_batch_norms(scheme, batch, device, precision))
    means = {}
    for name in rows[0] if rows else ():
        columns = zip(*(row[name] for row in rows[: limits.get(name)]), strict=True)
        ce_norm, norm = (sum(column) / len(column) for column in columns)
        means[name] = (ce_norm, norm)
    return means


def _batch_norms(
    scheme: StudentScheme, batch: Batch, device: torch.device, precision: str
) -> Norms:
    parameters = [p for p in scheme.network.parameters() if p.requires_grad]
    # a copy without keys: neither a teacher cache nor a shared forward takes it for the step's
    batch = replace(batch, images=batch.images.clone(), keys=None)
    scale = FP16_SCALE if precision == "fp16" else 1.0

    def forward() -> dict[str, Tensor]:
        with autocast(device, precision), distributed.split_batch(batch):
            output: StepOutput = scheme(batch)
        return output.losses

    losses = forward()
    names = [name for name in scheme.objective.weighted if name in losses]
    if "ce" not in losses:
        return {}
    ce = _gradients(losses["ce"] * scale, parameters, keep=not scheme.compiled)
    norms = {}
    for name in names:
        if scheme.compiled:  # a compiled graph frees its buffers
            losses = forward()
        gradients = _gradients(losses[name] * scale, parameters, keep=not scheme.compiled)
        shared = [(a, b) for a, b in zip(ce, gradients, strict=True) if None not in (a, b)]
        norms[name] = (
            _norm([a for a, _ in shared]) / scale,
            _norm([b for _, b in shared]) / scale,
        )
    return norms


def _gradients(loss: Tensor, parameters: Sequence[nn.Parameter], keep: bool) -> list[Tensor | None]:
    """The gradient of each parameter, averaged over the processes; None where there is none."""
    if not loss.requires_grad:
        return [None] * len(parameters)
    gradients = torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True)
    distributed.average([gradient for gradient in gradients if gradient is not None])
    return list(gradients)


def _norm(gradients: Sequence[Tensor | None]) -> float:
    present = [gradient.float() for gradient in gradients if gradient is not None]
    if not present:
        return 0.0
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(present))))


@contextmanager
def _unchanged(scheme: StudentScheme, device: torch.device) -> Iterator[None]:
    """Restore buffers (running statistics, memories), modes and random states at the end."""
    buffers = [(buffer, buffer.clone()) for buffer in scheme.buffers()]
    state = random_state(device)
    modes = [(module, module.training) for module in scheme.modules()]
    try:
        yield
    finally:
        for module, training in modes:  # one by one: frozen statistics stay in evaluation mode
            module.training = training
        set_random_state(state, device)
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)


@contextmanager
def _full_weights(scheme: StudentScheme) -> Iterator[None]:
    """Every objective with the full weights of its losses."""
    objectives = _objectives(scheme)
    current = [objective.weights for objective in objectives]
    for objective in objectives:
        objective.weights = objective.full_weights()
    try:
        yield
    finally:
        for objective, weights in zip(objectives, current, strict=True):
            objective.weights = weights


def _objectives(scheme: StudentScheme) -> list[Objective]:
    return [module for module in scheme.modules() if isinstance(module, Objective)]
