"""The constants that a teacher's weights expect: stated, checked, or in common use."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from kdrun.config.readers import Constants
from kdrun.config.schema import NetworkConfig, TeacherInput
from kdrun.data.constants import check_scale, format_constants
from kdrun.errors import CheckpointError, ConfigError
from kdrun.models.normalise import LUMA, can_convert
from kdrun.models.pretrained import published_constants
from kdrun.teachers.formats import LoadedWeights
from kdrun.types import Normalisation

UINT8 = "uint8"
LARGE = 10.0  # std of float images that are pixels from 0 to 255 rather than from 0 to 1
# Published weights are normalised with one of these, of pixels scaled to 0..1.
COMMON: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "pixels from -1 to 1": ((0.5,), (0.5,)),
    "pixels from 0 to 1": ((0.0,), (1.0,)),
    "pixels from 0 to 255": ((0.0,), (1 / 255,)),
    "MNIST": ((0.1307,), (0.3081,)),
}


def constants_of(
    given: TeacherInput, default: Normalisation, channels: int, pixel_type: str, where: str
) -> Normalisation:
    """What the teacher's images are normalised with: as given, or the default in its channels.

    default: of the data set, or of the network's own pretrained weights. pixel_type: of the data
    set; `uint8` pixels are scaled to 0..1 before.
    Raises ConfigError for another number of channels, and for constants of another scale.
    """
    if given.mean is None or given.std is None:
        return _default(default, channels, where)
    mean = _per_channel(given.mean, channels, f"{where}.mean")
    std = _per_channel(given.std, channels, f"{where}.std")
    if pixel_type == UINT8:
        check_scale(mean, std, where)
    elif max(default.std) > LARGE and max(map(abs, mean)) <= 1 and max(std) <= 1:
        raise ConfigError(
            f"{where}.mean and {where}.std are those of pixels from 0 to 1, and the images are "
            f"floats with a std of {max(default.std):.3g}: scale the images to 0..1, or give "
            "constants of their range."
        )
    return Normalisation(mean, std)


@dataclass(frozen=True)
class Expected:
    """What a file without a card says of its normalisation.

    constants: used unless the settings name others; None if it says nothing usable. source: their
    place in the file.
    """

    constants: Normalisation | None = None
    source: str = ""
    notes: tuple[str, ...] = ()


def known_constants(
    loaded: LoadedWeights, config: NetworkConfig, network: nn.Module
) -> Mapping[str, Normalisation]:
    """Place → constants that the file states, or that torchvision publishes with this very file."""
    return published_constants(config, network, loaded.path) or loaded.stated.constants


def stated_constants(
    stated: Mapping[str, Normalisation],
    given: TeacherInput,
    channels: int,
    pixel_type: str,
    what: str,
) -> Expected:
    """The stated constants for images of so many channels; what: setting and file, for messages.

    Raises CheckpointError if the file states several and the settings name none.
    """
    where = what.partition(":")[0]
    fitting = {
        place: Normalisation(_repeated(one.mean, channels), _repeated(one.std, channels))
        for place, one in stated.items()
        if len(one.mean) in (1, channels)
    }
    if not fitting:
        return Expected()
    (place, constants), *others = fitting.items()
    typed = format_constants(constants, where)
    if given.mean is not None and given.std is not None:
        mean, std = (_per_channel(value, channels, where) for value in (given.mean, given.std))
        chosen = Normalisation(mean, std)
        if any(_close(chosen, one) for one in fitting.values()):
            return Expected()
        return Expected(notes=(f"the file states other constants ({place}): {typed}",))
    if pixel_type != UINT8:
        return Expected(notes=(f"the file states constants of pixels ({place}): {typed}",))
    if any(not _close(constants, one) for _, one in others):
        other, second = next(pair for pair in others if not _close(constants, pair[1]))
        raise CheckpointError(
            f"{what} states two normalisations, {place} and {other}: type the right one, {typed} "
            f"or {format_constants(second, where)}."
        )
    return Expected(constants, place)


def transform_note(network: nn.Module, used: Normalisation, where: str) -> list[str]:
    """A note for torchvision's GoogLeNet and Inception v3, whose published weights expect more.

    Their `transform_input` turns ImageNet's constants into 0.5, and no file says whether it was on.
    """
    half = Normalisation((0.5,) * len(used.mean), (0.5,) * len(used.std))
    if getattr(network, "transform_input", None) is not False or _close(used, half):
        return []
    return [
        f"weights that torchvision published for a {type(network).__name__}, or that were trained "
        f"from these, expect {format_constants(half, where)} (its transform_input)"
    ]


def _close(one: Normalisation, other: Normalisation) -> bool:
    """Whether they differ only by rounding."""
    pairs = zip((*one.mean, *one.std), (*other.mean, *other.std), strict=True)
    return all(abs(a - b) < 0.006 for a, b in pairs)


def channels_of(given: TeacherInput, data_channels: int, where: str) -> int:
    """The channels of the teacher's images.

    Raises ConfigError for images that cannot be converted to them.
    """
    channels = given.channels or data_channels
    if not can_convert(data_channels, channels):
        raise ConfigError(
            f"{where}.channels={channels}: only grey and colour images are converted into each "
            f"other, and these have {data_channels} channels."
        )
    return channels


def common_constants(channels: int) -> dict[str, Normalisation]:
    """The constants in common use by name, for images of so many channels."""
    found = {}
    for name, (mean, std) in COMMON.items():
        if channels in (len(mean), 3) and len(mean) in (1, channels):
            found[name] = Normalisation(_repeated(mean, channels), _repeated(std, channels))
        elif channels == 1 and len(mean) == len(LUMA):  # of colour weights made grey
            grey = tuple(sum(values) / len(values) for values in (mean, std))
            found[f"the mean of {name}'s"] = Normalisation((grey[0],), (grey[1],))
    return found


def _default(default: Normalisation, channels: int, where: str) -> Normalisation:
    if len(default.mean) == channels:
        return default
    if len(default.mean) == 1:  # a grey image, repeated, has its constants in every channel
        return Normalisation(default.mean * channels, default.std * channels)
    raise ConfigError(
        f"{where}.channels={channels} makes the images grey: give the constants of the grey images "
        f"the teacher was trained on, {where}.mean=... {where}.std=..."
    )


def _per_channel(value: Constants, channels: int, setting: str) -> tuple[float, ...]:
    if not isinstance(value, tuple):
        return (value,) * channels
    if len(value) != channels:
        word = "channel" if channels == 1 else "channels"
        raise ConfigError(
            f"{setting} has {len(value)} values, and the teacher takes images of {channels} "
            f"{word}: give {channels}, or one number for all; a teacher of {len(value)} channels "
            f"also needs {setting.rpartition('.')[0]}.channels={len(value)}."
        )
    return value


def _repeated(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if len(values) == channels else values * channels
