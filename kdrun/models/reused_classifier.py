"""A student that reuses the teacher's classifier: Chen et al., CVPR 2022, arXiv 2203.14001."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.config import build
from kdrun.config.schema import NetworkConfig
from kdrun.losses.adapters import AdapterNorm
from kdrun.losses.shapes import pooled
from kdrun.models.dry_run import logits_of, run_with_hook
from kdrun.models.features.hooks import INPUT_SUFFIX, Record, attach
from kdrun.models.layers import conv1x1, conv3x3
from kdrun.models.pretrained import untrained
from kdrun.types import InputInfo, Normalisation, Outputs

MAP = "map"
PROJECTED = "projected"
TOLERANCE = 1e-4


class ReusedClassifier(nn.Module):
    """The student's backbone, a projector to the teacher's width, and the teacher's classifier.

    images `[B, in_channels, H, W]` → logits `[B, num_classes]`. The backbone's map `[B, channels,
    H, W]` is average-pooled to `size`, projected to `[B, width, *size]`, globally averaged and
    classified. The classifier is frozen.

    student_target, student_kwargs: configuration of the student. feature: path of the module whose
    output is used, or `PATH:in`. classifier: path of the student's classifier, which is removed;
    empty for none. size: (H, W), at most the size of the map. reduction: `width` divided by the
    projector's inner width. rectified: whether the projector ends in a ReLU, like the teacher's
    features. backbone_taps: the student's tap names → module paths.
    backbone: an existing student to use instead of building one.
    Taps: the student's; `projected` `[B, width, *size]`; `embedding` `[B, width]`.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        *,
        student_target: str,
        student_kwargs: dict[str, Any],
        feature: str,
        classifier: str,
        channels: int,
        width: int,
        size: list[int],
        reduction: int = 2,
        rectified: bool = True,
        backbone_taps: dict[str, str] | None = None,
        backbone: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if backbone is None:
            info = InputInfo(num_classes, in_channels, image_size)
            backbone = _build(student_target, student_kwargs, info)
        if classifier:
            parent, _, name = classifier.rpartition(".")
            setattr(backbone.get_submodule(parent), name, nn.Identity())
        self.backbone = backbone
        self.size = (size[0], size[1])
        self.projector = projector(channels, width, max(width // reduction, 1), rectified)
        self.classifier = nn.Linear(width, num_classes).requires_grad_(False)
        self.taps = _taps(backbone_taps or {})
        self.normalisation: Normalisation | None = getattr(backbone, "normalisation", None)
        self._record = Record()
        attach(backbone, {MAP: feature}, self._record)

    def forward(self, images: Tensor) -> Tensor:
        self._record.start()
        try:
            self.backbone(images)
            features = _as_map(self._record.take()[MAP])
        finally:
            self._record.stop()
        projected = self.projector(pooled(features, self.size))
        logits: Tensor = self.classifier(projected.mean(dim=(2, 3)))
        return logits


@dataclass(frozen=True)
class InspectedNetwork:
    """Result of inspecting a network with one forward pass.

    outputs: logits and embedding. path: the module (or `PATH:in`) with the largest map
    `[B, D, H, W]` whose average is the embedding. shape: of that map.
    """

    outputs: Outputs
    path: str
    shape: tuple[int, int, int]

    @property
    def has_places(self) -> bool:
        """Whether the map has more than one position."""
        return self.shape[1] * self.shape[2] > 1

    @property
    def is_rectified(self) -> bool:
        """Whether no feature is negative, as after a ReLU."""
        assert self.outputs.embedding is not None
        return bool((self.outputs.embedding >= 0).all())


def reuse_classifier(
    student: nn.Module,
    config: NetworkConfig,
    paths: Mapping[str, str],
    inspected: tuple[InspectedNetwork, InspectedNetwork],
    classifier: nn.Linear | nn.Conv2d,
    reduction: int,
    info: InputInfo,
) -> tuple[ReusedClassifier, NetworkConfig]:
    """The student with the teacher's `classifier`, and the configuration that builds it.

    student, config, paths: the student, which becomes part of the new network, its configuration
    and its taps. inspected: (student, teacher). classifier: a linear layer or a 1×1 convolution.
    """
    student_map, teacher_map = inspected
    removed = paths["embedding"]
    kwargs: dict[str, Any] = {
        "student_target": config.target,
        "student_kwargs": config.kwargs,
        "feature": student_map.path,
        "classifier": removed.removesuffix(INPUT_SUFFIX) if INPUT_SUFFIX in removed else "",
        "channels": student_map.shape[0],
        "width": teacher_map.shape[0],
        "size": [
            min(sides) for sides in zip(student_map.shape[1:], teacher_map.shape[1:], strict=True)
        ],
        "reduction": reduction,
        "rectified": teacher_map.is_rectified,
        "backbone_taps": {name: path for name, path in paths.items() if name != "embedding"},
    }
    network = ReusedClassifier(
        info.num_classes, info.in_channels, info.image_size, backbone=student, **kwargs
    )
    with torch.no_grad():
        network.classifier.weight.copy_(classifier.weight.flatten(1))
        if classifier.bias is None:
            network.classifier.bias.zero_()
        else:
            network.classifier.bias.copy_(classifier.bias)
    target = f"{ReusedClassifier.__module__}.{ReusedClassifier.__qualname__}"
    return network, NetworkConfig(config.name, target, kwargs)


def inspect_network(network: nn.Module, embedding: str, info: InputInfo) -> InspectedNetwork:
    """Inspect a network with random images. embedding: path of its embedding tap."""
    images = torch.randn(2, info.in_channels, *info.image_size, generator=_generator())
    averages: dict[str, Tensor] = {}
    shapes: dict[str, tuple[int, int, int]] = {}
    paths = {module: path for path, module in network.named_modules() if path}

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            _, channels, height, width = output.shape
            averages[paths[module]] = output.mean(dim=(2, 3))  # before an in-place change
            shapes[paths[module]] = (channels, height, width)

    record = Record()
    handles = attach(network, {"embedding": embedding}, record)
    try:
        record.start()
        logits = logits_of(run_with_hook(network, images, keep, paths))
        embedding_map = _as_map(record.take()["embedding"])
    finally:
        record.stop()
        for handle in handles:
            handle.remove()
    rows = embedding_map.mean(dim=(2, 3))
    fitting = {path: shapes[path] for path in shapes if _equal(averages[path], rows)}
    _, channels, height, width = embedding_map.shape
    fitting[embedding] = (channels, height, width)
    path = max(fitting, key=lambda name: fitting[name][1] * fitting[name][2])
    return InspectedNetwork(Outputs(logits, embedding=rows), path, fitting[path])


def _equal(average: Tensor, rows: Tensor) -> bool:
    if average.shape != rows.shape:
        return False
    return float((average - rows).abs().max()) <= TOLERANCE * float(rows.abs().max())


def _build(target: str, kwargs: dict[str, Any], info: InputInfo) -> nn.Module:
    """A new student without pretrained weights, which are loaded afterwards."""
    student = build.call(
        target,
        untrained(kwargs),
        "student",
        num_classes=info.num_classes,
        in_channels=info.in_channels,
        image_size=info.image_size,
    )
    assert isinstance(student, nn.Module)
    return student


def projector(channels: int, width: int, inner: int, rectified: bool) -> nn.Sequential:
    """Bottleneck of 1×1, 3×3 and 1×1 convolutions, each with batch normalisation."""
    layers: list[nn.Module] = [
        conv1x1(channels, inner),
        AdapterNorm(inner),
        nn.ReLU(),
        conv3x3(inner, inner),
        AdapterNorm(inner),
        nn.ReLU(),
        conv1x1(inner, width),
        AdapterNorm(width),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if rectified else []))


def _taps(backbone: Mapping[str, str]) -> dict[str, str]:
    inner = {name: f"backbone.{path}" for name, path in backbone.items()}
    return inner | {PROJECTED: "projector", "embedding": f"classifier{INPUT_SUFFIX}"}


def _as_map(features: Tensor) -> Tensor:
    """Maps unchanged; anything else flattened to `[B, D, 1, 1]`."""
    return features if features.dim() == 4 else features.flatten(1)[:, :, None, None]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
