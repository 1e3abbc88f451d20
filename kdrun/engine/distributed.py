"""Data-parallel training over several processes; with one process every function is a no-op.

Each process runs the networks on its share of every batch. The outputs are gathered with
gradients, and every process computes the objective of the whole batch, so losses need no special
code: batch similarities, memory banks and adapters see the same tensors as in one process. Batch
normalisation uses the statistics of the whole batch. Gradients are averaged.
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
# Long, because the main process may wait for a teacher that another run is training.
TIMEOUT = datetime.timedelta(days=7)


def init() -> None:
    """Initialise the process group, once; each process uses the GPU of its local rank."""
    if world().size == 1 or dist.is_initialized():
        return
    gpus = torch.cuda.device_count()
    if gpus > world().local:
        torch.cuda.set_device(world().local)
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)


def shutdown() -> None:
    """Wait for the other processes, then destroy the process group.

    Without the barrier torchrun would kill the others when the first process fails.
    """
    if world().size > 1 and dist.is_initialized():
        with suppress(RuntimeError):
            barrier()
        dist.destroy_process_group()


def broadcast_from_main(decide: Callable[[], T]) -> T:
    """Call `decide` on the main process; all processes return its result or raise its error."""
    if world().size == 1:
        return decide()
    outcome: list[Any] = [None]
    if world().is_main:
        try:
            outcome = [(True, decide())]
        except KdrunError as error:
            outcome = [(False, error)]
    dist.broadcast_object_list(outcome, device=torch.device("cpu"))
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    return value


def local_device(name: str) -> str:
    """The device of this process for the value of `device=`, which is the same for all processes.

    Raises ConfigError if processes would have to share a device.
    """
    if world().size == 1 or name == "cpu":
        return name
    gpus, processes = torch.cuda.device_count(), world().local_size
    if name == "auto" and not gpus:
        return "cpu"
    if name not in ("auto", "cuda"):
        raise ConfigError(
            f"device={name} is a single device: with several processes use cuda or cpu."
        )
    if processes > gpus:
        raise ConfigError(
            f"This machine has {gpus} GPUs for {processes} processes: start torchrun with "
            f"--nproc-per-node={max(gpus, 1)}, or set device=cpu."
        )
    return f"cuda:{world().local}"


@contextmanager
def main_first() -> Iterator[None]:
    """Run the block on the main process first: it may write files that the others read."""
    if not world().is_main:
        barrier()
    yield
    if world().is_main:
        barrier()


def barrier() -> None:
    """Barrier."""
    if world().size > 1:
        _all_reduce_max(0)


def all_reduce_max(number: int) -> int:
    """The maximum over all processes, exchanged on the CPU without synchronising the device."""
    return _all_reduce_max(int(number)) if world().size > 1 else number


def _all_reduce_max(number: int) -> int:
    tensor = torch.tensor([number])
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor.item())


# Size of the whole batch while it is split over the processes; None while it is not split.
_total: int | None = None


@contextmanager
def split_batch(batch: Batch) -> Iterator[None]:
    """Context in which the networks run on this process's share of `batch`."""
    global _total
    _total = len(batch) if len(batch.images) < len(batch) else None
    try:
        yield
    finally:
        _total = None


def wrap_modules(*modules: nn.Module) -> None:
    """Make every `FeatureExtractor` in `modules` return the outputs of the whole batch.

    Its batch normalisation uses the whole batch, too. Only within `split_batch`.
    """
    if world().size == 1:
        return
    for module in modules:
        for extractor in [m for m in module.modules() if isinstance(m, FeatureExtractor)]:
            gather_from(extractor)
            for norm in extractor.network.modules():
                if isinstance(norm, _BatchNorm):
                    norm.forward = MethodType(_whole_batch_norm, norm)  # type: ignore[method-assign]


def gather_from(*networks: nn.Module) -> None:
    """Make networks (images → `Outputs`) return the outputs of the whole batch in `split_batch`."""
    if world().size > 1:
        for network in networks:
            network.register_forward_hook(_gather_outputs)


def _gather_outputs(_module: nn.Module, _images: Any, outputs: Outputs) -> Outputs:
    """Forward hook: rows of this process → rows of all processes, in batch order."""
    if _total is None or len(outputs.logits) == _total:  # not split, or already gathered
        return outputs
    names = outputs.__dataclass_fields__
    return replace(outputs, **{name: _gather(getattr(outputs, name)) for name in names})


def _gather(value: Any) -> Any:
    """Gather the rows of all processes for a tensor, or for the tensors of a dict or tuple."""
    if isinstance(value, Tensor):
        return _Gather.apply(value, _total)
    if isinstance(value, dict):
        return {name: _gather(item) for name, item in value.items()}
    return tuple(map(_gather, value)) if isinstance(value, tuple) else value


class _Gather(torch.autograd.Function):
    """Rows of all processes, `[local, ...]` → `[total, ...]`, in batch order.

    Every process computes the same loss from them. The gradient of the local rows is multiplied by
    the number of processes, because parameter gradients are averaged afterwards.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, total: int) -> Tensor:
        ctx.share = world().share(total)
        return _all_rows(local, [_size(rank, total) for rank in range(world().size)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        start, end = ctx.share
        return gradients[0][start:end] * world().size, None


def _size(rank: int, total: int) -> int:
    start, end = replace(world(), rank=rank).share(total)
    return end - start


def _all_rows(local: Tensor, sizes: list[int]) -> Tensor:
    """Concatenate the rows of all processes; they are padded to equal length for the exchange."""
    longest = max(sizes)
    padded = local.new_zeros((longest, *local.shape[1:]))
    padded[: len(local)] = local
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def all_rows(logits: Tensor, targets: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of all processes sorted by `index` `[local]`, without duplicate indices."""
    if world().size == 1:
        return logits, targets
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(world().size)]
    dist.all_gather(lengths, torch.tensor([len(index)]))
    sizes = [int(length.item()) for length in lengths]
    all_indices = _all_rows(index, sizes)
    order = torch.argsort(all_indices, stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = all_indices[order][1:] != all_indices[order][:-1]
    unique = order[first]
    return _all_rows(logits, sizes)[unique], _all_rows(targets, sizes)[unique]


def average_gradients(optimizer: optim.Optimizer) -> None:
    """Average the gradients over the processes, with one all-reduce per dtype."""
    if world().size == 1:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    average([p.grad for p in parameters if p.grad is not None])


def average(gradients: list[Tensor]) -> None:
    """Average tensors over the processes, in place."""
    if world().size == 1:
        return
    for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
        same = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = torch.cat([gradient.reshape(-1) for gradient in same])
        dist.all_reduce(flat)
        flat /= world().size
        parts = flat.split([gradient.numel() for gradient in same])
        for gradient, part in zip(same, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


class _Sum(torch.autograd.Function):
    """Differentiable all-reduce: sums the tensor forward and its gradient backward."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _whole_batch_norm(self: _BatchNorm, images: Tensor) -> Tensor:
    """Batch normalisation of `[B, C, ...]` with mean and variance over all processes."""
    if not self.training or _total is None:
        return type(self).forward(self, images)
    x = images.float()
    dims = [dim for dim in range(x.dim()) if dim != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    count = x.new_tensor([x.numel() / x.shape[1]])
    sums = _Sum.apply(torch.cat([x.sum(dims), count]))
    number = sums[-1].detach()
    mean = sums[:-1] / number
    centred = x - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(dims)) / number
    if self.track_running_stats and self.running_mean is not None:
        _update_running_stats(self, mean.detach(), variance.detach() * number / (number - 1))
    result = centred * (variance + self.eps).rsqrt().view(shape)
    if self.weight is not None:
        result = result * self.weight.view(shape) + self.bias.view(shape)
    return result.to(images.dtype)


@torch.no_grad()
def _update_running_stats(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Update the running statistics as torch's batch normalisation does."""
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
