"""Read weights from a run folder, a store entry or a file of any other program.

`read_any` detects the format; `LoadedWeights.load_into` copies the weights into a network. Used
for teachers, students, evaluate, export and predict (docs/weights.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from kdrun.checksums import is_listed
from kdrun.config.schema import NetworkConfig
from kdrun.errors import CheckpointError, ConfigError
from kdrun.files import sha256_of
from kdrun.models.card import (
    NetworkCard,
    load_weights,
    read_card,
    read_weights,
    require_listed,
)
from kdrun.types import InputInfo
from kdrun.weights.explain import explain
from kdrun.weights.files import read_file, weights_in
from kdrun.weights.fit import all_fits, expected_tensors
from kdrun.weights.flatten import flatten
from kdrun.weights.lazy import AnyTensor, UnreadableError, loaded
from kdrun.weights.load import WeightsChoice, load_into, under
from kdrun.weights.names import check_rename
from kdrun.weights.stated import Stated, stated_in


@dataclass(frozen=True)
class LoadedWeights:
    """The tensors of a file by dotted name, and its card if it has one.

    inert: classes and functions that the file names, which were not called. skipped: what was
    passed over (the states of optimisers) → tensors in it. stated: what a file without a card says
    of its outputs and its normalisation.
    """

    path: Path
    tensors: Mapping[str, AnyTensor]
    card: NetworkCard | None
    inert: frozenset[str] = frozenset()
    skipped: Mapping[str, int] = field(default_factory=dict)
    stated: Stated = field(default_factory=Stated)

    @property
    def weights(self) -> dict[str, Tensor]:
        """All tensors, read, under the names of the file.

        Raises CheckpointError where the file is damaged.
        """
        weights: dict[str, Tensor] = {}
        for name, tensor in self.tensors.items():
            try:
                weights[name] = loaded(tensor)
            except UnreadableError as error:
                raise CheckpointError(f"{self.path} is damaged at {name}: {error}.") from None
        return weights

    @property
    def sha256(self) -> str:
        """Of the file; a card has verified it already."""
        return self.card.sha256 if self.card is not None else sha256_of(self.path)

    def shapes_for(self, network: nn.Module, choice: WeightsChoice) -> dict[str, torch.Size]:
        """Name of the network → shape in the file, of the tensors that both have."""
        names = under(self.tensors, choice, self.path)
        check_rename(names, choice.rename, f"{choice.setting}.rename")
        fits = all_fits(names, expected_tensors(network), choice.rename, choice.role)
        matches = fits[0].matches if fits else {}
        return {name: names[held].shape for name, held in matches.items()}

    def load_into(
        self,
        network: nn.Module,
        config: NetworkConfig,
        info: InputInfo,
        choice: WeightsChoice = WeightsChoice(),  # noqa: B008 - immutable
    ) -> list[str]:
        """Copy the weights into `network`; returns what was chosen and converted, in words.

        config, info: what the network was built from, to find out what the weights would fit.
        A teacher's card names the network, so that its weights must be just the network's.
        Raises CheckpointError for what does not fit.
        """
        given = choice.key or choice.rename or choice.new_classifier
        if self.card is not None and choice.role == "teacher" and not given:
            load_weights(network, self.weights, str(self.path))
            return []
        say = explain(self.path, config, info, choice)
        notes = load_into(network, self.path, self.tensors, choice, say, info.num_classes)
        return [*notes, *self._unused()]

    def _unused(self) -> list[str]:
        """Notes on the content of the file that is not used."""
        notes = [
            f"{name}: optimizer state ({count} tensor{'s' * (count != 1)}), not used"
            for name, count in self.skipped.items()
        ]
        if self.inert:
            names = sorted(self.inert, key=lambda name: (name.startswith("torch."), name))
            shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            kinds = f"{len(names)} class{'es' * (len(names) != 1)}"
            notes.append(
                f"objects of {kinds} in the file were not loaded, no code was run: {shown}"
            )
        return notes


def read_any(path: Path, what: str = "teacher.checkpoint") -> LoadedWeights:
    """Weights from a run folder, a store entry, a folder of the hub or a file of any kind.

    what: the setting that named it. Nothing in the file is executed (see `kdrun.weights`).
    Raises CheckpointError saying what was looked for.
    """
    path = path.expanduser()  # a shell leaves the ~ of `teacher.checkpoint=~/...` as it is
    if path.is_dir():
        stem = _stem_in(path)
        if stem is not None:
            there = read_card(path / f"{stem}.json")
            file = path / f"{stem}.safetensors"
            return LoadedWeights(file, read_weights(file, there.sha256), there)
        inside = weights_in(path)
        if inside is None:
            is_run = (path / "config.yaml").is_file()
            more = f": kdrun resume {path} continues an interrupted run" if is_run else ""
            raise CheckpointError(
                f"{path} contains no finished student or teacher (student.json or teacher.json) "
                f"and no weights file{more}."
            )
        path = inside
    if not path.is_file():
        raise CheckpointError(
            f"{what}={path} does not exist. Name a run folder (kdrun ls runs), an entry of the "
            "teacher store (kdrun ls teachers), a .safetensors or a PyTorch file."
        )
    require_listed(path)
    card_path = path.with_suffix(".json")
    if path.suffix == ".safetensors" and card_path.is_file():
        card = read_card(card_path)
        return LoadedWeights(path, read_weights(path, card.sha256), card)
    content = read_file(path)
    flat = flatten(content.values)
    if not flat.tensors:
        raise CheckpointError(
            f"{path} holds no state dict: there are no tensors by name in it"
            + (f", only {_kinds(content.inert)}" if content.inert else "")
            + ". Save one with torch.save(model.state_dict(), ...) or as safetensors."
        )
    stated = stated_in(content.values, path)
    return LoadedWeights(path, flat.tensors, None, content.inert, flat.skipped, stated)


def averaged_stem(stem: str) -> str:
    """File name, without ending, of the averaged weights of `stem`."""
    return f"{stem}_ema"


def chosen_weights(run: str, weights: str) -> Path:
    """The path to read for `run=RUN weights=last|ema`.

    Raises ConfigError where averaged weights are asked for and there are none.
    """
    path = Path(run).expanduser()
    if weights != "ema":
        return Path(run)
    stem = _stem_in(path) if path.is_dir() else None
    if stem is None:
        raise ConfigError(
            f"weights=ema selects among the files of a run folder or teacher-store entry, and "
            f"run={run} is neither: name the file itself and leave weights out."
        )
    averaged = path / f"{averaged_stem(stem)}.safetensors"
    if not averaged.is_file():
        raise ConfigError(
            f"{run} has no averaged weights: train with schedule.ema=0.9998, or leave weights out."
        )
    return averaged


def find_card(path: Path) -> NetworkCard | None:
    """The card of the weights that `read_any` would read; None if they have none."""
    path = path.expanduser()
    if path.is_dir():
        stem = _stem_in(path)
        return None if stem is None else read_card(path / f"{stem}.json")
    card = path.with_suffix(".json")
    return read_card(card) if path.suffix == ".safetensors" and card.is_file() else None


def _stem_in(folder: Path) -> str | None:
    """The name, without ending, of the network that kdrun saved in a folder."""
    for stem in ("student", "teacher"):
        if (folder / f"{stem}.json").is_file() or is_listed(folder / f"{stem}.json"):
            return stem
    return None


def _kinds(inert: frozenset[str]) -> str:
    return ", ".join(sorted(inert)[:3])
