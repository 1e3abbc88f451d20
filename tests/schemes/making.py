"""Schemes put together as the stages do it, on networks small enough for milliseconds."""

from typing import Any

import torch

from kdrun.config.schema import LossConfig, NetworkConfig
from kdrun.losses.objective import Objective, build_objective
from kdrun.models.build import build_network
from kdrun.models.features.taps import tap_paths
from kdrun.schemes.context import SchemeContext, TrainableNetwork
from kdrun.types import Batch, InputInfo, Normalisation

INFO = InputInfo(num_classes=5, in_channels=1, image_size=(8, 8))
SAME = Normalisation((0.5,), (0.5,))
KD = LossConfig("kd", "kdrun.losses.kd.SoftTargets", 1.0, {"temperature": 2.0})
SP = LossConfig("sp", "kdrun.losses.sp.SimilarityPreserving", 3.0, {"taps": ["last_stage"]})
FITNET = LossConfig("fitnet", "kdrun.losses.fitnet.FitNet", 2.0, {"taps": ["stage1"]})


def convnet(*widths: int) -> NetworkConfig:
    return NetworkConfig("convnet", "kdrun.models.cnn.ConvNet", {"widths": list(widths)})


def mlp(*hidden: int) -> NetworkConfig:
    return NetworkConfig("mlp", "kdrun.models.mlp.MLP", {"hidden": list(hidden)})


def learner(
    config: NetworkConfig, seed: int, dtype: torch.dtype = torch.float32
) -> TrainableNetwork:
    torch.manual_seed(seed)
    network = build_network(config, INFO).to(dtype)
    paths = tap_paths(network, torch.zeros(2, 1, 8, 8, dtype=dtype), config.taps)
    return TrainableNetwork(network, config, paths, (SAME, SAME), seed)


def objective(*terms: LossConfig, **changes: float | None) -> Objective:
    settings: dict[str, Any] = {"T": None, "alpha": None, "ce": 1.0, **changes}
    return build_objective({t.id: t for t in terms or (KD,)}, **settings)


def given(
    *terms: LossConfig,
    student: NetworkConfig | None = None,
    peers: tuple[NetworkConfig, ...] = (),
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
    **changes: float | None,
) -> SchemeContext:
    """What the stages would give; dtype: of the networks and images."""
    own = student or convnet(4, 8)
    return SchemeContext(
        student=learner(own, 0, dtype),
        peers=tuple(learner(peer, number, dtype) for number, peer in enumerate(peers, 1)),
        another=lambda number: learner(own, 100 + number, dtype),
        objective=objective(*terms, **changes),
        new_objective=lambda: objective(*terms, **changes),
        sample=torch.zeros(2, 1, 8, 8, dtype=dtype),
        num_classes=5,
        targets=torch.arange(40) % 5,
        batch_size=6,
        seed=0,
        compiled=compiled,
    )


def batch(size: int = 6, dtype: torch.dtype = torch.float32) -> Batch:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(size, 1, 8, 8, generator=draw, dtype=torch.float64).to(dtype)
    return Batch(images, torch.randint(5, (size,), generator=draw), torch.arange(size))
