"""Count parameters, bytes and FLOPs of a network."""

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import flop_counter

from kdrun.models.dry_run import dry_run
from kdrun.models.quantisation.quantise import SUBMODULE, quantisers_of
from kdrun.uncompiled import leave_alone

if hasattr(flop_counter, "_FlopCounterMode"):  # private: another version may name it differently
    leave_alone(flop_counter._FlopCounterMode.__torch_dispatch__)


def count_parameters(network: nn.Module) -> int:
    """Number of parameters, trainable or frozen, without buffers such as running means."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_bytes(network: nn.Module) -> int:
    """Bytes of the weights that are deployed.

    Full precision: the tensors of the state dict. Quantised: a weight of a quantised layer takes 1
    byte, the step and the bias of each of its output channels 4 each; folded normalisations take
    none.
    """
    state = network.state_dict()
    quantisers = quantisers_of(network)
    if quantisers is None:
        return sum(tensor.nbytes for tensor in state.values())
    layers = {name: quantisers.norm_of(key) for key, name in quantisers.weights.items()}
    skipped = (*(f"{path}." for path in quantisers.norms.values()), f"{SUBMODULE}.")
    total = 0
    for name, tensor in state.items():
        if name in layers:
            has_bias = name.removesuffix("weight") + "bias" in state
            adds_bias = layers[name] is not None and not has_bias
            total += tensor.numel() + 4 * len(tensor) * (1 + adds_bias)
        elif not name.startswith(skipped):
            total += tensor.nbytes
    return total


def count_flops(network: nn.Module, sample: Tensor) -> int:
    """Floating-point operations per image of one forward pass in eval mode.

    A multiplication with its addition counts as 2. Matrix products, convolutions and attention
    are counted; biases, normalisation and activations, a few per cent, are not.
    sample: `[B, C, H, W]`, any B.
    """
    counter = flop_counter.FlopCounterMode(display=False)
    # The counter ignores the CPU's fused attention; the math backend uses two matrix products.
    with dry_run(network), sdpa_kernel(SDPBackend.MATH), counter:
        network(sample)
    return int(counter.get_total_flops()) // len(sample)
