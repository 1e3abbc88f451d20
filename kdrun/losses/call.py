"""Call a loss, which may be the user's own, and check what it does."""

from collections.abc import Iterator

import torch
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss
from kdrun.types import Batch, Outputs


def call_loss(
    loss: DistillationLoss, name: str, student: Outputs, teacher: Outputs, batch: Batch
) -> Tensor:
    """The scalar that `loss` returns.

    Raises ConfigError for another value, and for a loss that changes what it is given: the other
    losses of the objective read the same tensors.
    """
    if torch.compiler.is_compiling():
        return scalar(loss(student, teacher, batch), loss, name)
    before = _versions(student, teacher)
    value = scalar(loss(student, teacher, batch), loss, name)
    if _versions(student, teacher) != before:
        raise ConfigError(
            f"loss.{name}: {type(loss).__name__} changes its logits or features in place, and "
            "other losses read them: write x = x / T instead of x /= T."
        )
    return value


def _versions(*outputs: Outputs) -> list[int]:
    """How often each tensor was changed in place."""
    return [
        tensor._version for one in outputs for tensor in _tensors(one) if not tensor.is_inference()
    ]


def _tensors(outputs: Outputs) -> Iterator[Tensor]:
    yield outputs.logits
    yield from outputs.features.values()
    yield from outputs.distillation
    if outputs.embedding is not None:
        yield outputs.embedding
    if outputs.strong is not None:
        yield from _tensors(outputs.strong)


def all_trainable(student: Outputs) -> bool:
    """Whether each of the student's outputs has a gradient."""
    return torch.is_grad_enabled() and all(tensor.requires_grad for tensor in _tensors(student))


def require_gradient(value: Tensor, loss: DistillationLoss, name: str) -> None:
    """Raise ConfigError for a value through which nothing can be trained."""
    if not value.requires_grad:
        raise ConfigError(
            f"loss.{name}: {type(loss).__name__} returned a value without a gradient, so the "
            "student cannot learn from it: compute it from the student's outputs without "
            "detach(), .data, .item(), argmax or NumPy. A loss that has nothing to compare in a "
            f"batch returns student.logits.sum() * 0; loss.{name}.weight=0 only logs it."
        )


def scalar(value: object, loss: DistillationLoss, name: str) -> Tensor:
    """`value`, returned by `loss`. Raises ConfigError unless it is a scalar tensor."""
    if isinstance(value, Tensor) and value.dim() == 0:
        return value
    returned = (
        f"a tensor of shape {list(value.shape)}"
        if isinstance(value, Tensor)
        else f"a {type(value).__name__}"
    )
    raise ConfigError(
        f"loss.{name}: {type(loss).__name__} returned {returned}: return a scalar tensor, e.g. "
        "the mean over the batch (.mean())."
    )
