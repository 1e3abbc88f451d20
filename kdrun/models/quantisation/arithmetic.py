"""How the quantised operations of a network compute, in training and in evaluation."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.models.quantisation.ranges import (
    WEIGHT_BITS,
    ActivationRange,
    fake_quantise_weight,
    integer_layer,
    multiples,
)

# Share of the training after which ranges and batch statistics no longer move, so that the network
# adapts to the constants that are deployed.
FREEZE_AFTER = 0.75


class Arithmetic(Protocol):
    """How quantised operations compute."""

    def tensor(self, quantisers: "Quantisers", name: str, values: Tensor) -> Any:
        """A quantised tensor in the form that `layer` reads. name: of its range."""

    def as_float(self, quantised: Any) -> Tensor:
        """A quantised tensor for operations other than layers."""

    def layer(
        self, quantisers: "Quantisers", key: str, run: Callable[..., Tensor], args: list[Any]
    ) -> Tensor:
        """A convolution or linear layer. args: of `run`; the first is a quantised tensor."""


class Quantisers(nn.ModuleDict):
    """The activation ranges of a network, and what its forward passes need to know.

    kind: a key of `WEIGHT_BITS`. calls: names of the quantised calls. weights: call of a layer →
    name of its weight. norms: path of a convolution → path of the batch normalisation that is
    folded into it. done: share of the training that is done. statistics_after: share after which
    batch normalisation uses its running statistics. arithmetic: None: by training mode.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.weight_bits = WEIGHT_BITS[kind]
        self.calls: set[str] = set()
        self.weights: dict[str, str] = {}
        self.norms: dict[str, str] = {}
        self.modules_by_path: dict[str, nn.Module] = {}  # not registered as children
        self.done = 0.0
        self.statistics_after = FREEZE_AFTER
        self.arithmetic: Arithmetic | None = None
        self.is_active = True
        self.forward_pass: Any = None  # set by the hooks of `quantise`

    @property
    def are_ranges_frozen(self) -> bool:
        """Whether the ranges no longer move."""
        return self.done >= FREEZE_AFTER

    def range_of(self, name: str) -> ActivationRange:
        """The range of an activation."""
        its_range = self[name]
        assert isinstance(its_range, ActivationRange)
        return its_range

    def norm_of(self, key: str) -> nn.Module | None:
        """The batch normalisation that is folded into the layer of a call."""
        path = self.norms.get(self.weights[key].rpartition(".")[0])
        return None if path is None else self.modules_by_path[path]

    def current_arithmetic(self) -> Arithmetic:
        """The arithmetic of a forward pass in the current mode."""
        if self.arithmetic is not None:
            return self.arithmetic
        return TrainingArithmetic() if self.training else IntegerArithmetic()


class TrainingArithmetic:
    """Fake quantisation with gradients."""

    def tensor(self, quantisers: Quantisers, name: str, values: Tensor) -> Tensor:
        its_range = quantisers.range_of(name)
        if not quantisers.are_ranges_frozen or not its_range.is_observed:
            its_range.observe(values)
        return its_range.fake_quantise(values) if its_range.is_observed else values

    def as_float(self, quantised: Tensor) -> Tensor:
        return quantised

    def layer(
        self, quantisers: Quantisers, key: str, run: Callable[..., Tensor], args: list[Any]
    ) -> Tensor:
        weight = fake_quantise_weight(args[1], quantisers.weight_bits)
        return run(args[0], weight, *args[2:])


class IntegerArithmetic:
    """Batch normalisation folded; layers multiply integers and rescale the sums, as kernels do.

    float32 holds sums of integers exactly up to 2^24.
    """

    def tensor(
        self, quantisers: Quantisers, name: str, values: Tensor
    ) -> tuple[Tensor, Tensor | float]:
        its_range = quantisers.range_of(name)
        if not its_range.is_observed:
            return values, 1.0
        scale, zero = its_range.grid()
        return multiples(values, scale, zero), scale

    def as_float(self, quantised: tuple[Tensor, Tensor | float]) -> Tensor:
        integers, scale = quantised
        return integers * scale

    def layer(
        self, quantisers: Quantisers, key: str, run: Callable[..., Tensor], args: list[Any]
    ) -> Tensor:
        (integers, scale), weight, bias, *rest = args if len(args) > 2 else [*args, None]
        norm = quantisers.norm_of(key)
        constants = integer_layer(weight, bias, norm, quantisers.weight_bits)
        sums = run(integers, constants.weight, None, *rest)
        rounded = constants.bias_integers(scale)
        if rounded is not None:
            sums = sums + along_channels(rounded, sums, run)
        return sums * along_channels(constants.scale * scale, sums, run)


def along_channels(values: Tensor, output: Tensor, run: Callable[..., Tensor]) -> Tensor:
    """One value per output channel `[C]` in a shape that broadcasts over a layer's output."""
    if run is F.linear:
        return values
    return values.view(-1, *[1] * (output.dim() - 2))  # a convolution's output has a batch axis


def unquantised(module: nn.Module, names: set[str]) -> list[str]:
    """Paths of the layers whose weights are not in `names`."""
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return [
        path
        for path, child in module.named_modules()
        if isinstance(child, layers) and f"{path}.weight" not in names
    ]
