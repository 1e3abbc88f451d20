"""Run a network once for inspection, without side effects."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError

Hook = Callable[[nn.Module, tuple[Any, ...], Any], None]  # module, positional arguments, output


@contextmanager
def dry_run(network: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; restores modes and the CPU's random state afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def run_with_hook(
    network: nn.Module, images: Tensor, hook: Hook, modules: Iterable[nn.Module]
) -> Any:
    """The network's output in a dry run that calls `hook` after each of `modules`."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        with dry_run(network):
            return network(images)
    finally:
        for handle in handles:
            handle.remove()


def logits_once(network: nn.Module, images: Tensor) -> Tensor:
    """The network's logits for `images`, in a dry run.

    Raises ConfigError for a network that changes its input or returns something else, even
    probabilities.
    """
    images = images.clone()
    untouched = images._version
    with dry_run(network):
        logits = logits_of(network(images))
    if images._version != untouched:
        raise ConfigError(
            "it changes its input in place, and other networks read the same images: write "
            "x = x.sub(...) instead of x.sub_(...), and no inplace=True in the first layer."
        )
    if _are_probabilities(logits):
        raise ConfigError(
            "it returns probabilities (each row sums to 1), and losses need logits: remove the "
            "softmax at its end."
        )
    return logits


def _are_probabilities(logits: Tensor) -> bool:
    """Whether no value is negative and each row sums to 1; False on the meta device."""
    if logits.is_meta or logits.dim() != 2:
        return False
    return bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-4).all())


def logits_of(output: Any, training: bool = False) -> Tensor:
    """The logits `[B, C]` of a network's output: a tensor, or an object with `.logits`.

    training: whether the network is in training mode, for the error.
    """
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        mode = " in training mode" if training else ""
        raise ConfigError(
            f"The network returns a {type(output).__name__}{mode}: it must return the logits, a "
            "tensor [batch, classes], or an object with .logits."
        )
    return logits
