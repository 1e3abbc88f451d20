"""`kdrun.load`: a finished network as a module that takes images and knows its classes."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kdrun.config.trust import trusting
from kdrun.data.cropped import centre, stored_size
from kdrun.data.decoding.image import Form, read_image
from kdrun.data.decoding.rules import CROP_RATIO, PixelRules
from kdrun.deploy.folded import Folded
from kdrun.errors import CheckpointError, DataError
from kdrun.models.build import build_network
from kdrun.models.card import NetworkCard, load_weights
from kdrun.teachers.formats import LoadedWeights, read_any


class LoadedNetwork(Folded):
    """A trained network, ready to answer: in eval mode, its normalisation inside.

    Call it with images `[B, C, H, W]`, `uint8` pixels 0..255 or floats 0..1, for logits `[B, C]`.
    card: how it was made. network: the bare network, which takes normalised images.
    """

    def __init__(self, network: nn.Module, card: NetworkCard) -> None:
        super().__init__(network, card.normalisation, card.outputs)
        self.card = card
        self.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.card.classes

    @property
    def form(self) -> Form:
        """Size and channels of the images it was trained on."""
        if self.card.info.in_channels not in (1, 3):
            raise DataError(
                f"{self.card.name} takes images of {self.card.info.in_channels} channels, and "
                "image files have 1 (grey) or 3 (colour): give it tensors instead."
            )
        return Form(self.card.info.image_size, self.card.info.in_channels)

    @property
    def rules(self) -> PixelRules:
        """How image files became the pixels it was trained on."""
        return PixelRules.of_card(self.card.extra)

    def preprocess(self, path: str | os.PathLike[str]) -> Tensor:
        """An image file as the `uint8` `[1, C, H, W]` that this module takes.

        Read as kdrun reads image folders: turned as the camera says, grey or colour as the
        network needs, resized until it covers the size, its centre cut out.
        Raises DataError naming a file that is missing or no image.
        """
        name = os.fspath(path)
        if not os.path.isfile(name):
            raise DataError(f"{name} is not a file: give the path of an image.")
        ratio = self.card.extra.get(CROP_RATIO, 1.0)
        stored = replace(self.form, size=stored_size(self.form.size, ratio))
        pixels = torch.from_numpy(read_image(name, stored, self.rules).copy())[None]
        return centre(pixels, self.form.size).contiguous()

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Softmax of the logits, `[B, classes]`."""
        return self(images).softmax(dim=1)

    def top(self, images: Tensor, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes of one image `[1, C, H, W]`, each with its probability."""
        best = self.probabilities(images)[0].topk(min(count, len(self.classes)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self.classes[number], probability) for number, probability in pairs]

    def predict(self, path: str | os.PathLike[str], count: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes of an image file, each with its probability."""
        return self.top(self.preprocess(path), count)


def load(run: str | os.PathLike[str], trust: Iterable[str] = ()) -> LoadedNetwork:
    """The network of a run's folder, a teacher-store entry or a `.safetensors` with its `.json`.

    A network of your own is imported by the dotted path it was trained with, so its module must
    be importable: run from the folder that holds it.
    trust: modules whose code a run from elsewhere may call (see `kdrun.config.trust`).
    Raises CheckpointError for what holds no finished network, ConfigError for a class that cannot
    be imported, or that is neither kdrun's nor trusted.
    """
    with trusting(trust):
        network = rebuild(read_any(Path(run), what="run"), str(run))
    if network.card.edited:
        warnings.warn(network.card.edited, stacklevel=2)
    return network


def rebuild(loaded: LoadedWeights, run: str) -> LoadedNetwork:
    """The network that weights and their card describe; run: what the user typed."""
    card = require_card(loaded.card, run)
    network = build_network(card.network, card.built_for, "run")
    load_weights(network, loaded.weights, str(loaded.path))
    return LoadedNetwork(network, card)


def require_card(card: NetworkCard | None, run: str) -> NetworkCard:
    """The card, or CheckpointError for weights that nothing describes."""
    if card is None:
        raise CheckpointError(
            f"{run} has no card (.json) that names its network: give a run "
            "folder or an entry of the teacher store, or (kdrun evaluate, kdrun export) say what "
            "it is: teacher=resnet56 dataset=..., and its constants, 'teacher.mean=[...]' "
            "'teacher.std=[...]'."
        )
    return card
