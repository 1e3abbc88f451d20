"""Count parameters and FLOPs of a network."""

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdrun.models.dry_run import dry_run


def count_parameters(network: nn.Module) -> int:
    """Number of parameters, trainable or frozen, without buffers such as running means."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_flops(network: nn.Module, sample: Tensor) -> int:
    """Floating-point operations per image of one forward pass in eval mode.

    A multiplication with its addition counts as 2. Matrix products, convolutions and attention
    are counted; biases, normalisation and activations, a few per cent, are not.
    sample: `[B, C, H, W]`, any B.
    """
    counter = FlopCounterMode(display=False)
    # The counter ignores the CPU's fused attention; the math backend uses two matrix products.
    with dry_run(network), sdpa_kernel(SDPBackend.MATH), counter:
        network(sample)
    return int(counter.get_total_flops()) // len(sample)
