"""The places where the processes of one training meet; alone, all of them do nothing.

Each process computes its share of every batch. What the networks give is gathered, with
gradients, and every process computes the whole objective of the whole batch from it, so that no
loss has to know: similarities within a batch, memories and adapters see what they would see in one
process. Batch normalisation takes its statistics from the whole batch. Gradients are averaged.
"""

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _BatchNorm

from kdrun.errors import ConfigError, KdrunError
from kdrun.models.features.taps import FeatureExtractor
from kdrun.types import Batch, Outputs
from kdrun.world import world

T = TypeVar("T")
# Others may wait this long for the first one, which may wait for another run's teacher.
PATIENCE = datetime.timedelta(days=7)


def join() -> None:
    """Meet the others, once; each process takes the GPU of its number on the machine."""
    if world().size == 1 or dist.is_initialized():
        return
    gpus = torch.cuda.device_count()
    if gpus > world().local:
        torch.cuda.set_device(world().local)
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)


def leave() -> None:
    """Wait for the others before this process ends: torchrun stops all when the first one fails."""
    if world().size > 1 and dist.is_initialized():
        with suppress(RuntimeError):
            wait()
        dist.destroy_process_group()


def broadcast_from_main(decide: Callable[[], T]) -> T:
    """What the first process finds; the others take it over, an error included."""
    if world().size == 1:
        return decide()
    box: list[Any] = [None]
    if world().is_main:
        try:
            box = [(True, decide())]
        except KdrunError as error:
            box = [(False, error)]
    dist.broadcast_object_list(box, device=torch.device("cpu"))
    good, value = box[0]
    if not good:
        raise value
    return value


def own_device(name: str) -> str:
    """The device of this process for the one that was asked for, the same name for all.

    Raises ConfigError where the processes of a machine would have to share one.
    """
    if world().size == 1 or name == "cpu":
        return name
    gpus, here = torch.cuda.device_count(), world().local_size
    if name == "auto" and not gpus:
        return "cpu"
    if name not in ("auto", "cuda"):
        raise ConfigError(
            f"device={name} is a single device: with several processes use cuda or cpu."
        )
    if here > gpus:
        raise ConfigError(
            f"This machine has {gpus} GPUs for {here} processes: start torchrun with "
            f"--nproc-per-node={max(gpus, 1)}, or set device=cpu."
        )
    return f"cuda:{world().local}"


@contextmanager
def main_first() -> Iterator[None]:
    """The first process does the block before the others: it may write what they read."""
    if not world().is_main:
        wait()
    yield
    if world().is_main:
        wait()


def wait() -> None:
    """Until all processes have come here."""
    if world().size > 1:
        _small(0)


def all_reduce_max(number: int) -> int:
    """The highest of the processes' numbers; waits for all of them, not for the device."""
    return _small(int(number)) if world().size > 1 else number


def _small(number: int) -> int:
    box = torch.tensor([number])
    dist.all_reduce(box, op=dist.ReduceOp.MAX)
    return int(box.item())


# The size of the batch in hand while it is shared out; None when every process has all of it.
_total: int | None = None


@contextmanager
def split_batch(batch: Batch) -> Iterator[None]:
    """While the networks run on this process's share of `batch`."""
    global _total
    _total = len(batch) if len(batch.images) < len(batch) else None
    try:
        yield
    finally:
        _total = None


def wrap_modules(*modules: nn.Module) -> None:
    """Let every `FeatureExtractor` network in `modules` give what all processes' images give.

    Its batch normalisation sees the whole batch as well. Outside `sharing` it is as it was.
    """
    if world().size == 1:
        return
    for module in modules:
        for extractor in [one for one in module.modules() if isinstance(one, FeatureExtractor)]:
            gather_from(extractor)
            for norm in extractor.network.modules():
                if isinstance(norm, _BatchNorm):
                    norm.forward = MethodType(_whole_batch_norm, norm)  # type: ignore[method-assign]


def gather_from(*networks: nn.Module) -> None:
    """Let networks, images → `Outputs`, give what all processes' images give, within `sharing`."""
    if world().size > 1:
        for network in networks:
            network.register_forward_hook(_gather_outputs)


def _gather_outputs(_module: nn.Module, _images: Any, outputs: Outputs) -> Outputs:
    """The forward hook: rows of this process → rows of all, in the order of the batch."""
    if _total is None or len(outputs.logits) == _total:  # all of them are there
        return outputs
    names = outputs.__dataclass_fields__
    return replace(outputs, **{name: _each(getattr(outputs, name)) for name in names})


def _each(value: Any) -> Any:
    """`value` with the rows of all processes: a tensor, or tensors in a dict or a tuple."""
    if isinstance(value, Tensor):
        return _Gather.apply(value, _total)
    if isinstance(value, dict):
        return {name: _each(item) for name, item in value.items()}
    return tuple(map(_each, value)) if isinstance(value, tuple) else value


class _Gather(torch.autograd.Function):
    """Rows of all processes, `[own, ...]` → `[total, ...]`, in the order of the batch.

    Every process computes the same loss from them; the gradient of its own rows is multiplied by
    the number of processes, because gradients of parameters are averaged afterwards.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, total: int) -> Tensor:
        ctx.share = world().share(total)
        return _all_rows(own, [_size(rank, total) for rank in range(world().size)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        first, behind = ctx.share
        return gradients[0][first:behind] * world().size, None


def _size(rank: int, total: int) -> int:
    first, behind = replace(world(), rank=rank).share(total)
    return behind - first


def _all_rows(own: Tensor, sizes: list[int]) -> Tensor:
    """Concatenated rows of all processes; shorter ones are filled up for the exchange."""
    longest = max(sizes)
    padded = own.new_zeros((longest, *own.shape[1:]))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def all_rows(logits: Tensor, targets: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of all processes in the order of `index` `[own]`, each index once."""
    if world().size == 1:
        return logits, targets
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(world().size)]
    dist.all_gather(lengths, torch.tensor([len(index)]))
    sizes = [int(length.item()) for length in lengths]
    where = _all_rows(index, sizes)
    order = torch.argsort(where, stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = where[order][1:] != where[order][:-1]
    kept = order[first]
    return _all_rows(logits, sizes)[kept], _all_rows(targets, sizes)[kept]


def average_gradients(optimizer: optim.Optimizer) -> None:
    """Replace every gradient by its mean over the processes, in one exchange for each dtype."""
    if world().size == 1:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
        same = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = torch.cat([gradient.reshape(-1) for gradient in same])
        dist.all_reduce(flat)
        flat /= world().size
        parts = flat.split([gradient.numel() for gradient in same])
        for gradient, part in zip(same, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


class _Sum(torch.autograd.Function):
    """The sum over the processes; the gradient is summed as well."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _whole_batch_norm(self: _BatchNorm, images: Tensor) -> Tensor:
    """Batch normalisation of `[B, C, ...]` with the mean and variance of all processes' images."""
    if not self.training or _total is None:
        return type(self).forward(self, images)
    x = images.float()
    places = [dim for dim in range(x.dim()) if dim != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    count = x.new_tensor([x.numel() / x.shape[1]])
    sums = _Sum.apply(torch.cat([x.sum(places), count]))
    number = sums[-1].detach()
    mean = sums[:-1] / number
    centred = x - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(places)) / number
    if self.track_running_stats and self.running_mean is not None:
        _follow(self, mean.detach(), variance.detach() * number / (number - 1))
    result = centred * (variance + self.eps).rsqrt().view(shape)
    if self.weight is not None:
        result = result * self.weight.view(shape) + self.bias.view(shape)
    return result.to(images.dtype)


@torch.no_grad()
def _follow(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics as torch does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if factor is None:
            factor = 1.0 / float(norm.num_batches_tracked)
    assert factor is not None
    norm.running_mean.lerp_(mean, factor)
    norm.running_var.lerp_(variance, factor)
