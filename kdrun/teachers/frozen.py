"""A frozen teacher as it runs during distillation: folded, in its own precision, compiled."""

import copy
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from kdrun.config.schema import TeacherRuntimeConfig
from kdrun.models.compiled import TimedFirst
from kdrun.models.features.taps import FeatureExtractor
from kdrun.models.fold import fold_batchnorm
from kdrun.types import Outputs

HALF_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Exactly these: a subclass may compute something else with its weights.
CONVERTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class FrozenTeacher(nn.Module):
    """images `[B, C, H, W]` → `Outputs`, in `precision` whatever the loop around it uses.

    extractor: the frozen network with its taps. precision: fp32 | bf16 | fp16.
    """

    def __init__(self, extractor: FeatureExtractor, precision: str) -> None:
        super().__init__()
        self.extractor = extractor
        self.precision = precision

    def forward(self, images: Tensor) -> Outputs:
        with self._autocast(images.device.type):
            outputs: Outputs = self.extractor(images)
        return outputs

    def _autocast(self, device: str) -> AbstractContextManager[object]:
        if self.precision in HALF_TYPES:
            return torch.autocast(device, HALF_TYPES[self.precision])
        # also where the loop has autocast on: teacher.precision=fp32 beside precision=bf16
        return torch.autocast(device, enabled=False) if autocast_is_on(device) else nullcontext()


def autocast_is_on(device: str) -> bool:
    """Whether autocast is active for that kind of device."""
    return torch.is_autocast_enabled(device)


def make_frozen(
    extractor: FeatureExtractor, runtime: TeacherRuntimeConfig, precision: str, sample: Tensor
) -> tuple[nn.Module, int]:
    """(the teacher as configured in `runtime`, how many BatchNorms were folded).

    extractor: the teacher with its taps, frozen; it is left as it is where something changes.
    precision: of the training, which is the teacher's unless it has its own.
    sample: `[B, C, H, W]`, a dry batch on the network's device.
    Nothing changed: `extractor` itself is returned.
    """
    effective = runtime.precision or precision
    folded = 0
    if runtime.fold or effective in HALF_TYPES:
        extractor = copy.deepcopy(extractor)  # losses may hold modules of the network
    if runtime.fold:
        folded = fold_batchnorm(extractor.network, sample, extractor.places)
        extractor.reattach()
    if effective in HALF_TYPES:
        convert_weights(extractor.network, HALF_TYPES[effective])
    if effective == precision == "fp32":
        return extractor, folded
    return FrozenTeacher(extractor, effective), folded


def convert_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Convolutions and linear layers in `dtype`, once, instead of by autocast at every step.

    Autocast keeps its converted copies only of weights that are trained.
    """
    for module in network.modules():
        if type(module) in CONVERTED:
            module.to(dtype)


def compile_frozen(teacher: nn.Module, device: torch.device) -> nn.Module:
    """The teacher through the compiler, its weights as constants on a CPU.

    On a GPU with CUDA graphs, so that many small kernels are started as one.
    """
    if device.type == "cuda":
        return TimedFirst(torch.compile(teacher, mode="reduce-overhead"))
    return TimedFirst(torch.compile(teacher, options={"freezing": True}))
