"""A trained network on disk: weights in `<stem>.safetensors`, card in `<stem>.json`.

The card suffices to rebuild the network: class path and arguments, classes, normalisation, input
size, and the checksum of the weights.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from kdrun.checksums import find_fault
from kdrun.config import trust
from kdrun.config.plain import require_plain
from kdrun.config.schema import NetworkConfig
from kdrun.errors import CheckpointError
from kdrun.files import read_json, sha256_of, write_atomically, write_json
from kdrun.models.build import build_network
from kdrun.models.pretrained import untrained
from kdrun.models.quantisation.ranges import WEIGHT_BITS
from kdrun.own_code import edited_sentence
from kdrun.types import InputInfo, Normalisation

SCHEMA = 1
INTERRUPTED_AT = "interrupted_at"  # in `extra`: the epoch of an unfinished training
LARGEST_SIDE = 2**16  # plausible pixels or channels
T = TypeVar("T")


@dataclass(frozen=True)
class NetworkCard:
    """How to rebuild a network, and its expected inputs.

    params: trainable parameters. flops: per image in a forward pass; a multiply-add counts as 2.
    normalisation: constants of its training images.
    resize: resize images of any size to `info.image_size`.
    outputs: indices of the network's outputs that are `classes`, in order; None: all outputs.
    num_outputs: number of the network's outputs if `outputs` selects among them.
    quantize: of the network's configuration; None: full precision.
    code: the user's own targets → digest of their code when it was trained (`kdrun.own_code`).
    extra: further data of the writer (recipe, metrics).
    """

    name: str
    target: str
    kwargs: dict[str, Any]
    taps: dict[str, str]
    classes: tuple[str, ...]
    info: InputInfo
    normalisation: Normalisation
    params: int
    flops: int
    sha256: str = ""
    resize: bool = False
    outputs: tuple[int, ...] | None = None
    num_outputs: int | None = None
    quantize: str | None = None
    code: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def data_fingerprint(self) -> str | None:
        """Of the data set that the network was trained on; None if the card does not say."""
        recipe = self.extra.get("recipe")  # of a teacher
        value = recipe.get("dataset") if isinstance(recipe, dict) else self.extra.get("fingerprint")
        return value if isinstance(value, str) else None

    @property
    def resized(self) -> tuple[int, int] | None:
        """Target size of the images; None: no resizing."""
        return self.info.image_size if self.resize else None

    @property
    def built_for(self) -> InputInfo:
        """`info` with the number of all outputs, for building the network."""
        count = self.num_outputs or self.info.num_classes
        return replace(self.info, num_classes=count)

    @property
    def edited(self) -> str | None:
        """A warning if the user's code has changed since the training."""
        sentence = edited_sentence(self.code, "these weights were trained")
        return None if sentence is None else f"{sentence} It may now compute something else."

    @property
    def network(self) -> NetworkConfig:
        """The configuration that builds it, without downloading pretrained weights."""
        kwargs = untrained(self.kwargs)
        return NetworkConfig(self.name, self.target, kwargs, self.taps, self.quantize)


def save_network(folder: Path, stem: str, network: nn.Module, card: NetworkCard) -> NetworkCard:
    """Write weights and card. Returns the card with the checksum of the weights."""
    return save_weights(folder, stem, network.state_dict(), card)


def save_weights(
    folder: Path, stem: str, weights: Mapping[str, Tensor], card: NetworkCard
) -> NetworkCard:
    """`save_network` for a state dict."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    path = folder / f"{stem}.safetensors"
    write_atomically(path, save(weights))
    write_card(folder / f"{stem}.json", replace(card, sha256=sha256_of(path)))
    return read_card(folder / f"{stem}.json")


def write_card(path: Path, card: NetworkCard) -> None:
    """Write a card as JSON for `read_card`."""
    values = asdict(card)
    if card.outputs is None:  # same bytes as cards from before these fields existed
        del values["outputs"], values["num_outputs"]
    if card.quantize is None:
        del values["quantize"]
    if not card.code:
        del values["code"]
    write_json(path, {"schema": SCHEMA, "kind": "network", **values})


def read_card(path: Path) -> NetworkCard:
    """Read a card.

    Raises CheckpointError for a damaged or invalid card, ConfigError for untrusted network code.
    """
    require_listed(path)
    try:
        values = read_json(path)
        if values["schema"] != SCHEMA:
            raise CheckpointError(
                f"{path} has schema {str(values['schema'])[:20]}; this kdrun reads {SCHEMA}."
            )
        card = _card(values)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist.") from None
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a network card of kdrun ({type(error).__name__}: {error})."
        ) from None
    require_plain(
        {
            "name": card.name,
            "target": card.target,
            "kwargs": card.kwargs,
            "taps": card.taps,
            "extra": card.extra,
        },
        str(path),
    )
    trust.require({"target": card.target, "kwargs": card.kwargs}, str(path))
    return card


def require_listed(path: Path) -> None:
    """Raise CheckpointError for a file that differs from its folder's `SHA256SUMS`."""
    fault = find_fault(path.parent, [path.name])
    if fault:
        raise CheckpointError(fault)


def _card(values: Any) -> NetworkCard:
    """Parse a JSON value. Raises KeyError, TypeError or ValueError for an invalid card."""
    info, constants = values["info"], values["normalisation"]
    classes = tuple(_a(str, name) for name in values["classes"])
    shape = [_a(int, n) for n in (info["in_channels"], *info["image_size"])]
    mean, std = (tuple(float(_a((int, float), x)) for x in constants[k]) for k in ("mean", "std"))
    if info["num_classes"] != len(classes) or len(classes) < 2:
        raise ValueError(f"{info['num_classes']} classes with {len(classes)} names")
    if len(shape) != 3 or not all(1 <= n <= LARGEST_SIDE for n in shape):
        raise ValueError(f"images of {shape}")
    if not len(mean) == len(std) == shape[0] or not all(map(math.isfinite, mean + std)):
        raise ValueError(f"normalisation {mean}, {std} of {shape[0]} channels")
    if not all(x > 0 for x in std):
        raise ValueError(f"a standard deviation of {min(std)}")
    outputs, num_outputs = _outputs(values, len(classes))
    if not re.fullmatch("[0-9a-f]{64}", _a(str, values["sha256"])):
        raise ValueError("no SHA-256 of the weights")
    return NetworkCard(
        name=_a(str, values["name"]),
        target=_a(str, values["target"]),
        kwargs={_a(str, k): v for k, v in values["kwargs"].items()},
        taps={_a(str, k): _a(str, v) for k, v in values["taps"].items()},
        classes=classes,
        info=InputInfo(len(classes), shape[0], (shape[1], shape[2])),
        normalisation=Normalisation(mean, std),
        params=_a(int, values["params"]),
        flops=_a(int, values["flops"]),
        sha256=values["sha256"],
        resize=_a(bool, values.get("resize", False)),
        outputs=outputs,
        num_outputs=num_outputs,
        quantize=_quantize(values.get("quantize")),
        code={_a(str, k): _a(str, v) for k, v in values.get("code", {}).items()},
        extra=dict(values.get("extra", {})),
    )


def _quantize(kind: Any) -> str | None:
    """A known kind or None. Raises ValueError for another."""
    if kind is not None and kind not in WEIGHT_BITS:
        raise ValueError(f"quantize {str(kind)[:20]}")
    return None if kind is None else str(kind)


def _outputs(values: Any, classes: int) -> tuple[tuple[int, ...] | None, int | None]:
    """(outputs that are the classes, number of outputs). Raises ValueError if inconsistent."""
    if values.get("outputs") is None:
        return None, None
    outputs = tuple(_a(int, number) for number in values["outputs"])
    count = _a(int, values["num_outputs"])
    fitting = len(outputs) == len(set(outputs)) == classes and min(outputs) >= 0
    if not fitting or max(outputs) >= count:
        raise ValueError(f"{len(outputs)} of {count} outputs for {classes} classes")
    return outputs, count


def _a(kind: type[T] | tuple[type[T], ...], value: Any) -> T:
    """The value if it has that type, else TypeError. Bools do not count as numbers."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{str(value)[:40]!r} is a {type(value).__name__}")
    return value


def read_weights(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Verifies the checksum if given."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.")
    if sha256 and sha256_of(path) != sha256:
        raise CheckpointError(
            f"{path} does not match its card: its SHA-256 differs. "
            "Delete the entry to train it again, or restore the file."
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None


def load_network(folder: Path, stem: str) -> tuple[nn.Module, NetworkCard]:
    """The network that `save_network` wrote, in training mode on the CPU."""
    card = read_card(folder / f"{stem}.json")
    network = build_network(card.network, card.built_for, stem)
    weights = read_weights(folder / f"{stem}.safetensors", card.sha256)
    load_weights(network, weights, f"{folder / stem}.safetensors")
    return network, card


def load_weights(network: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copy `weights` into `network`. Raises CheckpointError naming what does not fit."""
    state = network.state_dict()
    shapes = [
        f"{name} is {list(weights[name].shape)} in the file and {list(state[name].shape)} here"
        for name in state
        if name in weights and weights[name].shape != state[name].shape
    ]
    missing = [name for name in state if name not in weights]
    unexpected = [name for name in weights if name not in state]
    problems = shapes[:2]
    if missing:
        problems.append(f"{len(missing)} tensors are missing from it, e.g. {missing[0]}")
    if unexpected:
        problems.append(f"{len(unexpected)} are unknown to the network, e.g. {unexpected[0]}")
    if problems:
        raise CheckpointError(
            f"{source} does not fit the network {type(network).__name__}: {'; '.join(problems)}."
        )
    network.load_state_dict(weights)
