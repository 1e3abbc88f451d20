"""`kdrun predict`: classify image files with a finished network."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrun.data.class_order import natural
from kdrun.data.decoding.formats import image_extensions
from kdrun.data.decoding.image import Form, Header, read_header
from kdrun.data.folders.folder import is_hidden
from kdrun.deploy.folded import UINT8
from kdrun.deploy.student import LoadedNetwork, rebuild
from kdrun.engine.finite import damaged_tensor
from kdrun.errors import CheckpointError, ConfigError, DataError
from kdrun.teachers.formats import read_any


@dataclass(frozen=True)
class Prediction:
    """An image file, its preprocessing, and its most likely classes with probabilities."""

    path: str
    treatment: str
    top: list[tuple[str, float]]


def open_network(run: str) -> LoadedNetwork:
    """The network of a run, for image files.

    Raises CheckpointError for a run without a network, ConfigError for networks that do not take
    images.
    """
    network = rebuild(read_any(Path(run), what="run"), run)
    stored = network.card.extra.get("pixel_type", UINT8)
    if stored != UINT8:
        raise ConfigError(
            f"{network.card.name} was trained on {stored} values that are no pixels of pictures: "
            "call it on tensors of yours, kdrun.load(run)(images)."
        )
    return network


def predictions(network: LoadedNetwork, paths: Sequence[str], top: int) -> Iterator[Prediction]:
    """Classify files one by one. Raises DataError for a missing file or one that is no image."""
    for path in image_files(paths):
        images = network.preprocess(path)
        likeliest = network.top(images, top)
        if any(math.isnan(probability) for _, probability in likeliest):
            cause = damaged_tensor(network.network) or "its activations overflow"
            raise CheckpointError(
                f"{network.card.name} outputs NaN or infinity for {path}: {cause}. Choose another "
                "run: kdrun ls runs."
            )
        yield Prediction(path, treatment(read_header(path), network.form), likeliest)


def image_files(paths: Sequence[str]) -> list[str]:
    """The given files and all images below the given folders, sorted by name."""
    found: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            found.append(path)
            continue
        inside = sorted(_images_below(path), key=natural)
        if not inside:
            raise DataError(f"{path} holds no images: name a folder that does, or an image file.")
        found += inside
    return found


def _images_below(folder: str) -> Iterator[str]:
    for place, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not is_hidden(name)]
        for name in names:
            if not is_hidden(name) and Path(name).suffix.lower() in image_extensions():
                yield os.path.join(place, name)


def treatment(header: Header, form: Form) -> str:
    """`640×480 colour → grey, resized to 28×28, the middle of 37×28`."""
    height, width = header.size
    words = f"{width}×{height} {'grey' if header.grey else 'colour'}"
    changes = []
    if header.grey != (form.channels == 1):
        changes.append("grey" if form.channels == 1 else "colour")
    wanted = f"{form.size[1]}×{form.size[0]}"
    if header.size != form.size:
        same_shape = height * form.size[1] == width * form.size[0]
        changes.append(f"resized to {wanted}" + ("" if same_shape else ", edges cut off"))
    return f"{words} → {', '.join(changes)}" if changes else f"{words}, as it is"
