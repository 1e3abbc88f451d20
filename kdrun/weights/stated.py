"""What a weights file states besides the weights: order of its outputs, normalisation, image size.

Order: `class_to_idx` as torchvision's ImageFolder has it, `classes`, `id2label` as in a
`config.json` of the Hugging Face hub. Normalisation: `mean` and `std` or `image_mean` and
`image_std`, as in timm's `pretrained_cfg` and the hub's `preprocessor_config.json`. Both are looked
for in the file itself, in its safetensors metadata and next to it.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kdrun.files import read_json
from kdrun.types import Normalisation
from kdrun.weights.inert import Inert
from kdrun.weights.lazy import UnreadableError, is_tensor, loaded

NUMBER_OF_NAME = ("class_to_idx", "label2id", "label_to_idx")
ORDERS = (
    *("classes", "class_names", "label_names", "labels", "categories", "names"),
    *("idx_to_class", "id2label", "idx_to_label", *NUMBER_OF_NAME),
)
MEAN = re.compile(r"((?:image|img|pixel|norm|normali[sz]e|data|dataset|rgb|input)_)?mean")
PAIR = re.compile(r"normali[sz](e|ation|er)|norm")
CONFIGS = ("pretrained_cfg", "default_cfg", "data_preprocessor")
# Mappings in which a single number called `mean` is one of pixels, not of accuracies as it may be
# at the top of a file.
OF_PIXELS = re.compile(
    r"args|hparams|hyper_parameters|(.*_)?(config|cfg)|.*normali[sz].*|.*transforms?.*"
    r"|.*preprocess.*"
)
BESIDE = ("config.json", "preprocessor_config.json")
SIZES = ("input_size", "img_size", "image_size", "crop_size", "val_crop_size")
MOST_DEPTH = 5  # Lightning's hyper_parameters, mmlab's meta.dataset_meta, pickled transforms
MOST_LISTED = 32  # members of a list that are looked into
# Arguments of torchvision's reference script, which normalises with ImageNet's constants.
REFERENCE_SCRIPT = {"train_crop_size", "val_crop_size", "val_resize_size", "ra_sampler"}
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Stated:
    """Place in the file → what it states; places that state the same are listed once.

    class_orders: the names of all outputs, in order. constants: of pixels from 0 to 1, for one
    channel or for each. sizes: (height, width) of its images.
    """

    class_orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    constants: Mapping[str, Normalisation] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def stated_in(values: Any, path: Path) -> Stated:
    """What a file and the files next to it state.

    values: the content of the file. path: of the file, or of the index of its shards.
    """
    orders: dict[str, tuple[str, ...]] = {}
    constants: dict[str, Normalisation] = {}
    sizes: dict[str, tuple[int, int]] = {}
    sources = [values, _metadata(path)] + [_read(path.with_name(name)) for name in BESIDE]
    for source, name in zip(sources, ("", "", *BESIDE), strict=True):
        for place, mapping in _mappings(source, name, {}):
            for key, order in _orders(mapping):
                if order not in orders.values():
                    orders[_below(place, key)] = order
            for key, pair in _constants(mapping, place):
                if pair not in constants.values():
                    constants[_below(place, key)] = pair
            for key in SIZES:
                size = _size(mapping.get(key))
                if size is not None and size not in sizes.values():
                    sizes[_below(place, key)] = size
    if any(not _only_numbers(order) for order in orders.values()):
        orders = {place: order for place, order in orders.items() if not _only_numbers(order)}
    return Stated(orders, constants, sizes)


def _mappings(
    value: Any, place: str, visited: dict[int, Any], depth: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(dotted place, members) of each mapping, placeholder or short list of a file's content."""
    if depth > MOST_DEPTH or id(value) in visited:
        return
    visited[id(value)] = value  # kept, or another object may get its id
    if isinstance(value, Inert):
        pairs = [item for item in value.items if isinstance(item, tuple) and len(item) == 2]
        value = {key: member for key, member in pairs if isinstance(key, str)} | (
            value.state if isinstance(value.state, dict) else {}
        )
    elif isinstance(value, list | tuple) and len(value) <= MOST_LISTED:
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return
    members = {str(key): _unpacked(str(key), member) for key, member in value.items()}
    yield place, members
    for key, member in members.items():
        if isinstance(member, dict | list | tuple | Inert):
            yield from _mappings(member, _below(place, key), visited, depth + 1)


def _unpacked(key: str, member: Any) -> Any:
    """The member, parsed if it is JSON: safetensors metadata are texts."""
    name = key.lower()
    known = (*ORDERS, *CONFIGS, *SIZES)
    if isinstance(member, str) and (name in known or name.endswith(("mean", "std"))):
        try:
            return json.loads(member)
        except (ValueError, RecursionError):
            pass
    return member


def _orders(members: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(key, names in the order of the outputs) of each member that states them."""
    for key, member in members.items():
        order: list[Any] | tuple[Any, ...] | None = None
        if key.lower() in ORDERS and isinstance(member, list | tuple):
            order = member
        elif key.lower() in ORDERS and isinstance(member, dict):
            by_key = {str(number): text for number, text in member.items()}
            by_value = {str(number): text for text, number in member.items()}
            numbers_last = key.lower() in NUMBER_OF_NAME
            ways = (by_value, by_key) if numbers_last else (by_key, by_value)
            order = _in_order(ways[0]) or _in_order(ways[1])
        if order and all(isinstance(text, str | int) for text in order):
            names = tuple(str(text) for text in order)
            if len(set(names)) == len(names):
                yield key, names


def _in_order(names: dict[str, Any]) -> list[Any] | None:
    """The names by their numbers, 0 to n-1 or 1 to n; None for other numbers."""
    for first in (0, 1):
        numbers = list(map(str, range(first, first + len(names))))
        if set(names) == set(numbers):
            return [names[number] for number in numbers]
    return None


def _only_numbers(order: tuple[str, ...]) -> bool:
    """Whether each name is just the number of its output: `LABEL_0`, `LABEL_1`."""
    return all(name.lower() in (f"label_{at}", str(at)) for at, name in enumerate(order))


def _constants(members: dict[str, Any], place: str) -> Iterator[tuple[str, Normalisation]]:
    """(key of the mean, constants) of each pair of mean and standard deviation."""
    if members.keys() >= REFERENCE_SCRIPT:
        yield "train_crop_size", IMAGENET
    for key in members:
        match = MEAN.fullmatch(key.lower())
        mean, std = _numbers(members[key]), _numbers(members.get(_std_of(key)))
        if match is None:
            mean, std = _pair(members[key]) if PAIR.fullmatch(key.lower()) else ((), ())
        if not mean or len(mean) != len(std) or _is_buffer(key, members):
            continue
        parent = place.removesuffix(".json").rpartition(".")[2].lower()
        of_pixels = (match and match[1]) or OF_PIXELS.fullmatch(parent)
        if len(mean) == 1 and (mean[0] > 1 or not (of_pixels or isinstance(members[key], list))):
            continue
        if members.get("do_normalize") is False:
            mean, std = (0.0,) * len(mean), (1.0,) * len(mean)
        if max(map(abs, mean)) > 1 or max(std) > 2:  # of pixels from 0 to 255
            mean, std = (tuple(number / 255 for number in numbers) for numbers in (mean, std))
        if 0 <= min(mean) <= max(mean) <= 1 and 0 < min(std) <= max(std) <= 1:
            yield key, Normalisation(mean, std)


def _pair(value: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """`[mean, std]`, each a list; empty for anything else."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return (), ()
    mean, std = map(_numbers, value)
    return (mean, std) if len(mean) > 1 else ((), ())


def _size(value: Any) -> tuple[int, int] | None:
    """(height, width) of `224`, `[224, 224]`, `[3, 224, 224]`, `{"height": 224, "width": 224}`."""
    if isinstance(value, dict):
        value = [value.get("height"), value.get("width")]
    values = list(value)[-2:] if isinstance(value, list | tuple) else [value, value]
    if len(values) != 2 or not all(type(side) is int and 4 <= side <= 8192 for side in values):
        return None
    return values[0], values[1]


def _std_of(key: str) -> str:
    """`image_std` of `image_mean`, `STD` of `MEAN`."""
    return key[:-4] + ("STD" if key.endswith("MEAN") else "Std" if key.endswith("Mean") else "std")


def _is_buffer(key: str, members: dict[str, Any]) -> bool:
    """Whether a mean is one of the tensors of a network, which may normalise images itself."""
    return is_tensor(members[key]) and sum(map(is_tensor, members.values())) > 2


def _numbers(value: Any) -> tuple[float, ...]:
    """Up to four finite numbers; empty for anything else."""
    if is_tensor(value) and math.prod(value.shape) <= 4:
        try:
            value = loaded(value).flatten().tolist()
        except UnreadableError:
            return ()
    value = value if isinstance(value, list | tuple) else [value]
    if len(value) > 4 or not all(
        isinstance(number, int | float) and math.isfinite(number) for number in value
    ):
        return ()
    return tuple(map(float, value))


def _below(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return {}


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
