"""Build networks from their configuration."""

import torch
from torch import Tensor, nn

from kdrun.config.build import call
from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError, KdrunError
from kdrun.models.dry_run import logits_once
from kdrun.models.quantisation.quantise import quantise
from kdrun.types import InputInfo
from kdrun.user_code import user_code_error


def build_network(config: NetworkConfig, info: InputInfo, where: str = "student") -> nn.Module:
    """Build the network of `config` for the images and classes of `info`, in train mode.

    Calls the target with its configured arguments and those of `num_classes`, `in_channels` and
    `image_size` that it accepts. Only the construction draws from the global random state.
    where: the setting, for error messages.
    Raises ConfigError if the target is not a network or does not fit the images or classes.
    """
    network = _instantiate(config, info, where)
    check_network(network, config.name, info, where)
    _quantise(network, config, info)
    network.train()  # a network of the user's own may forget to return itself
    return network


def _quantise(network: nn.Module, config: NetworkConfig, info: InputInfo) -> None:
    """Quantise the network if `quantize` is set."""
    if config.quantize is not None:
        quantise(network, config.quantize, sample_images(network, info), config.name)


def build_with_outputs(config: NetworkConfig, info: InputInfo, where: str) -> tuple[nn.Module, int]:
    """(network in train mode, number of its outputs); the outputs need not match the classes.

    Arguments and errors as for `build_network`.
    """
    network = _instantiate(config, info, where)
    logits = _try_forward(network, config.name, info, where)
    if logits.dim() != 2:
        raise _wrong_logits(logits, config.name, info, where)
    _quantise(network, config, info)
    network.train()
    return network, logits.shape[1]


def _instantiate(config: NetworkConfig, info: InputInfo, where: str) -> nn.Module:
    network = call(
        config.target,
        config.kwargs,
        where,
        num_classes=info.num_classes,
        in_channels=info.in_channels,
        image_size=info.image_size,
    )
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{where}._target_={config.target} returns a {type(network).__name__}, not a network: "
            "use a torch.nn.Module class, or a function that returns one."
        )
    if isinstance(network, torch.jit.ScriptModule):
        raise ConfigError(
            f"{where}._target_={config.target} returns a TorchScript module, whose layers cannot "
            "be read: return the module as it is before torch.jit.script or torch.jit.trace."
        )
    return network


def check_network(network: nn.Module, name: str, info: InputInfo, where: str) -> None:
    """Run two black images through the network. Raises ConfigError on failure.

    The network must return logits `[2, num_classes]`.
    """
    logits = _try_forward(network, name, info, where)
    if logits.shape != (2, info.num_classes):
        raise _wrong_logits(logits, name, info, where)


def _try_forward(network: nn.Module, name: str, info: InputInfo, where: str) -> Tensor:
    """The network's output for two black images."""
    height, width = info.image_size
    size = f"{info.in_channels}x{height}x{width} images"
    try:
        return logits_once(network, sample_images(network, info))
    except KdrunError as error:
        raise ConfigError(f"The {where} {name} cannot be used: {error}") from None
    except Exception as error:  # user networks may raise anything
        user_error = user_code_error(error)
        if user_error is not None:
            raise ConfigError(f"The {where} {name} cannot take {size}. {user_error}") from error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"The {where} {name} cannot take {size}: {reason.rstrip('.')}. Choose another network "
            "or another image size."
        ) from error


def _wrong_logits(logits: Tensor, name: str, info: InputInfo, where: str) -> ConfigError:
    shape = "x".join(str(n) for n in logits.shape)
    return ConfigError(
        f"The {where} {name} returns {shape} logits for 2 images, but the data set has "
        f"{info.num_classes} classes: it must return 2x{info.num_classes}."
    )


def sample_images(network: nn.Module, info: InputInfo, count: int = 2) -> Tensor:
    """Black images `[count, in_channels, H, W]` on the device of the network's parameters."""
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    return torch.zeros(count, info.in_channels, *info.image_size, device=device)
