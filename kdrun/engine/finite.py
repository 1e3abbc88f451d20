"""Detection of NaN or infinite outputs, with the tensor that causes them.

The caller decides what it means: a teacher is rejected, a student has diverged.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kdrun.errors import CheckpointError, KdrunError, TrainingError


class NonFiniteError(KdrunError):
    """A network's outputs are NaN or infinite for `images` of `total` images."""

    def __init__(self, images: int, total: int) -> None:
        super().__init__(f"The network outputs NaN or infinity for {images:,} of {total:,} images.")
        self.images = images
        self.total = total

    @property
    def share(self) -> str:
        """The affected images as text: `3 of 60`."""
        return f"{self.images:,} of {self.total:,}"


def require_finite(outputs: Tensor) -> None:
    """Raise NonFiniteError if an output of `[N, ...]` is NaN or infinite."""
    finite = outputs.isfinite()
    if bool(finite.all()):
        return
    finite_rows = int(finite.flatten(1).all(dim=1).sum().item())
    raise NonFiniteError(len(outputs) - finite_rows, len(outputs))


def damaged_tensor(network: nn.Module) -> str | None:
    """Describe the first tensor with NaN, infinite or impossible values; None if there is none."""
    for name, tensor in network.state_dict().items():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        bad = int(tensor.isfinite().logical_not().sum().item())
        if bad:
            return f"{name} has {bad:,} NaN or infinite values (of {tensor.numel():,})"
        if name.endswith("running_var") and bool((tensor < 0).any()):
            return f"{name} has {int((tensor < 0).sum().item()):,} negative variances"
    return None


def damaged_weight(network: nn.Module) -> str | None:
    """Like `damaged_tensor`, for parameters only: a buffer may hold infinity on purpose."""
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, tensor in parameters.items():
            bad = int(tensor.isfinite().logical_not().sum().item())
            if bad:
                return f"{name} has {bad:,} NaN or infinite values (of {tensor.numel():,})"
    return None


@contextmanager
def refusing(what: str, network: nn.Module, images: str, remedy: str) -> Iterator[None]:
    """Raise CheckpointError if the block finds non-finite outputs, or a weight is not finite.

    what: the network and its file, for the message. images: the split, e.g. `test`. remedy: a
    complete sentence.
    """
    try:
        yield
    except NonFiniteError as error:
        cause = damaged_tensor(network) or "its weights are finite, so its activations overflow"
        raise CheckpointError(
            f"{what} outputs NaN or infinity for {error.share} {images} images: {cause}. {remedy}"
        ) from None
    damaged = damaged_weight(network)
    if damaged is not None:
        raise CheckpointError(f"{what} is damaged: {damaged}. {remedy}")


@contextmanager
def diverging(what: str, images: str, settings: str = "schedule.") -> Iterator[None]:
    """Raise TrainingError with remedies if the outputs of a network in training are not finite.

    settings: prefix of its schedule's settings on the command line.
    """
    try:
        yield
    except NonFiniteError as error:
        lr = "lr" if settings == "schedule." else f"{settings}lr"
        raise TrainingError(
            f"Diverged: {what} outputs NaN or infinity for {error.share} {images} images. Try a "
            f"lower {lr}, {settings}grad_clip=1, or more epochs or steps, so that the running "
            "statistics of batch normalisation settle. metrics.jsonl keeps the history."
        ) from None
