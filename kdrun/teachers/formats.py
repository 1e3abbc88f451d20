"""Every kind of checkpoint that `teacher.checkpoint=PATH` takes, read without running its code."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdrun.checksums import is_listed
from kdrun.errors import CheckpointError
from kdrun.models.card import NetworkCard, read_card, read_weights, require_listed

# Where the tensors are inside files of other programs, the most common first.
WRAPPERS = ("model", "state_dict", "model_state_dict", "net", "weights")


@dataclass(frozen=True)
class LoadedWeights:
    """Tensors from a file, and its card if it has one."""

    path: Path
    weights: dict[str, Tensor]
    card: NetworkCard | None


def read_any(path: Path, what: str = "teacher.checkpoint") -> LoadedWeights:
    """Weights from a run folder, a store entry, a safetensors file or a PyTorch file.

    A PyTorch file may be a bare state dict or RepDistiller's `{"epoch", "model", ...}`; `module.`
    prefixes are taken off. what: the setting that named it.
    Raises CheckpointError saying what was looked for.
    """
    path = path.expanduser()  # a shell leaves the ~ of `teacher.checkpoint=~/...` as it is
    if path.is_dir():
        for stem in ("student", "teacher"):
            if (path / f"{stem}.json").is_file() or is_listed(path / f"{stem}.json"):
                there = read_card(path / f"{stem}.json")
                file = path / f"{stem}.safetensors"
                return LoadedWeights(file, read_weights(file, there.sha256), there)
        raise CheckpointError(
            f"{path} holds neither a finished student nor a teacher "
            "(student.json or teacher.json). Is its run complete?"
        )
    if not path.is_file():
        raise CheckpointError(
            f"{what}={path} does not exist. Name a run folder (kdrun ls runs), an entry of the "
            "teacher store (kdrun ls teachers), a .safetensors or a PyTorch file."
        )
    require_listed(path)
    if path.suffix == ".safetensors":
        card_path = path.with_suffix(".json")
        card = read_card(card_path) if card_path.is_file() else None
        return LoadedWeights(path, read_weights(path, card.sha256 if card else None), card)
    return LoadedWeights(path, _pytorch_weights(path), None)


def _pytorch_weights(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} holds more than tensors, or is damaged; loading it could run code, so it is "
            "refused. Save a plain state dict: torch.save(model.state_dict(), ...) or safetensors."
        ) from None
    except Exception as error:  # zip, file system and torch each have their own errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} cannot be read as a PyTorch file: {reason[:120]}.") from None
    return _tensors(content, path)


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict inside whatever was saved."""
    if isinstance(content, dict):
        for key in WRAPPERS:
            if isinstance(content.get(key), dict):
                content = content[key]
                break
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if tensors and len(tensors) == len(content):
            if all(name.startswith("module.") for name in tensors):
                tensors = {name.removeprefix("module."): v for name, v in tensors.items()}
            return tensors
    raise CheckpointError(
        f"{path} holds no state dict: neither tensors by name nor one under {', '.join(WRAPPERS)}."
    )
