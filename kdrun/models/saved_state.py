"""Whether a network's state dict holds all that it computes with."""

import torch
from torch import Tensor, nn

from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError
from kdrun.models.build import build_network, sample_images
from kdrun.models.dry_run import dry_run, logits_of
from kdrun.types import InputInfo

TOLERANCE = 1e-3  # of the largest logit
REMEDY = (
    "it keeps random or trained values outside of its state_dict, e.g. in a plain tensor, a buffer "
    "with persistent=False or layers in a Python list. Make them an nn.Parameter, a buffer or an "
    "nn.ModuleList"
)


def require_complete_state(
    network: nn.Module, config: NetworkConfig, info: InputInfo, where: str
) -> None:
    """Raise ConfigError for a network that computes something else once it is saved and loaded.

    Also for one whose logits in eval mode are random, or that returns none in training mode.
    where: the setting of the network, for the message.
    """
    images = _images(network, info)
    once, again = _logits(network, images, 1), _logits(network, images, 2)
    if not torch.allclose(once, again, rtol=0, atol=0, equal_nan=True):
        raise ConfigError(
            f"The {where} {config.name} returns different logits for the same images in eval "
            "mode: dropout and noise belong to the training, as in F.dropout(x, 0.5, "
            "training=self.training)."
        )
    twin = _twin(network, config, info)
    if twin is None or not _same_logits(network, twin, images):
        raise ConfigError(
            f"The {where} {config.name} would not be the same after its weights are saved and "
            f"loaded: {REMEDY}."
        )
    _require_logits_in_training(twin, images, f"The {where} {config.name}")


def is_complete(network: nn.Module, config: NetworkConfig, info: InputInfo) -> bool:
    """Whether a new network with the same state dict gives the same logits."""
    twin = _twin(network, config, info)
    return twin is not None and _same_logits(network, twin, _images(network, info))


def _same_logits(network: nn.Module, twin: nn.Module, images: Tensor) -> bool:
    logits, others = _logits(network, images), _logits(twin, images)
    scale = float(logits.abs().max().clamp(min=1e-6))
    return bool(torch.allclose(logits, others, rtol=0, atol=TOLERANCE * scale, equal_nan=True))


def _require_logits_in_training(twin: nn.Module, images: Tensor, what: str) -> None:
    """twin: a copy, whose running statistics do not matter."""
    twin.train()
    try:
        output = twin(images)
    except Exception:
        return
    try:
        logits_of(output, training=True)
    except ConfigError as error:
        raise ConfigError(f"{what} cannot be used: {error}") from None


def _twin(network: nn.Module, config: NetworkConfig, info: InputInfo) -> nn.Module | None:
    """A new network with the same state dict; None if it has other layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        twin = build_network(config, info).to(sample_images(network, info).device)
    try:
        twin.load_state_dict(network.state_dict())
    except RuntimeError:
        return None
    return twin


def _images(network: nn.Module, info: InputInfo) -> Tensor:
    """Two images of noise."""
    images = sample_images(network, info)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return noise.to(images.device)


def _logits(network: nn.Module, images: Tensor, seed: int = 0) -> Tensor:
    with dry_run(network):
        torch.manual_seed(seed)
        return logits_of(network(images)).float()
