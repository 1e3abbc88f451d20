"""Put the weights of a file into a network, and report what was chosen, converted and left out."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from kdrun.errors import CheckpointError, did_you_mean
from kdrun.weights.fit import COUNTER, Fit, Wanted, all_fits, not_finite, wanted_by
from kdrun.weights.lazy import AnyTensor, UnreadableError, loaded
from kdrun.weights.names import Rename, check_rename

SHOWN = 3


@dataclass(frozen=True)
class WeightsChoice:
    """How a file's weights are read.

    setting: what names the file in messages, `teacher` or `student`. key: the dotted place of the
    set of weights in the file, None to find it. rename: a module's name in the file → its name in
    the network; None leaves its tensors out. new_classifier: the classifier keeps its initial
    weights.
    """

    setting: str = "teacher"
    key: str | None = None
    rename: Rename = field(default_factory=dict)
    new_classifier: bool = False

    @property
    def role(self) -> str:
        """teacher | student."""
        return "student" if self.setting.startswith("student") else "teacher"


# From (what of the file was looked at, the best fit, the network's tensors) to the reason.
Explain = Callable[[Mapping[str, AnyTensor], Fit | None, Wanted], str]


def load_into(
    network: nn.Module,
    path: Path,
    tensors: Mapping[str, AnyTensor],
    choice: WeightsChoice,
    explain: Explain,
    num_classes: int,
) -> list[str]:
    """Copy a file's tensors into `network`; returns what was chosen and converted, in words.

    tensors: all of the file, by dotted name. num_classes: of the network.
    Raises CheckpointError for weights that do not fit, are damaged or not finite.
    """
    names = under(tensors, choice, path)
    check_rename(names, choice.rename, f"{choice.setting}.rename")
    wanted = wanted_by(network)
    kept: list[str] = []
    if choice.new_classifier:
        kept = classifier_names(network, num_classes)
        wanted = Wanted({n: t for n, t in wanted.tensors.items() if n not in kept})
    fits = all_fits(names, wanted, choice.rename, choice.role)
    if kept:
        fits = [_without_classifier(fit, kept) for fit in fits]
    if not fits or not fits[0].fits:
        raise CheckpointError(explain(names, fits[0] if fits else None, wanted))
    found = fits[0]
    values = _read(found, names, wanted, path)
    state = network.state_dict()
    notes = _notes(found, fits, names, values, state, choice)
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(value.reshape(state[name].shape))
        for name in found.absent:
            if name.endswith(COUNTER):
                state[name].zero_()
    if kept:
        notes.append(f"the classifier ({_parents(kept)}) is new, as new_classifier=true says")
    return notes


def under(
    tensors: Mapping[str, AnyTensor], choice: WeightsChoice, path: Path
) -> dict[str, AnyTensor]:
    """The tensors under the chosen key. Raises CheckpointError naming the keys there are."""
    if not choice.key:
        return dict(tensors)
    prefix = choice.key.rstrip(".") + "."
    found = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not found:
        known = places(tensors)
        hint = did_you_mean(choice.key, known)
        shown = ", ".join(f"{key} ({count} tensors)" for key, count in list(known.items())[:12])
        raise CheckpointError(
            f"{path} has no tensors under {choice.setting}.checkpoint_key={choice.key}.{hint} "
            f"It holds {shown or 'tensors without a key: leave the setting out'}."
        )
    return found


def places(tensors: Mapping[str, AnyTensor], most: int = 2) -> dict[str, int]:
    """The larger groups of a file, keys of up to two parts → how many tensors lie under each."""
    counts: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        counts.update(".".join(parts[:n]) for n in range(1, min(most, len(parts) - 1) + 1))
    largest = max(counts.values(), default=0)
    return {key: count for key, count in counts.items() if 2 * count > largest}


def classifier_names(network: nn.Module, num_classes: int) -> list[str]:
    """The tensors of the last linear layer or 1x1 convolution with an output per class."""
    for path, module in reversed(list(network.named_modules())):
        outputs = getattr(module, "out_features", getattr(module, "out_channels", None))
        if isinstance(module, nn.Linear | nn.Conv2d) and outputs == num_classes:
            return [f"{path}.{name}" if path else name for name in module.state_dict()]
    raise CheckpointError(
        "new_classifier=true: the network has no layer with one output per class to start anew."
    )


def _without_classifier(fit: Fit, kept: list[str]) -> Fit:
    """The fit with the file's own classifier left out, whose names the network knows."""
    own = {fit.prefix + name.removeprefix(fit.place) for name in kept}
    unknown = [name for name in fit.unknown if name not in own]
    beside = [*fit.beside, *(name for name in fit.unknown if name in own)]
    return Fit(
        fit.prefix, fit.place, fit.matches, fit.missing, fit.shapes, unknown, beside,
        fit.dropped, fit.absent, fit.outside,
    )  # fmt: skip


def _read(
    fit: Fit, names: Mapping[str, AnyTensor], wanted: Wanted, path: Path
) -> dict[str, Tensor]:
    """The network's name → the file's tensor, in the file's dtype."""
    found: dict[str, Tensor] = {}
    for name, held in fit.matches.items():
        try:
            tensor = loaded(names[held])
        except UnreadableError as error:
            raise CheckpointError(f"{path} is damaged at {held}: {error}.") from None
        like = wanted.tensors[name]
        if like.is_floating_point() and not tensor.is_floating_point():
            raise CheckpointError(
                f"{path}: {held} holds {_dtype(tensor)} numbers where the network has "
                f"{_dtype(like)} weights; convert them to float32 first."
            )
        if isinstance(like, nn.Parameter) and not_finite(tensor):
            raise CheckpointError(
                f"{path}: {held} has {not_finite(tensor)} numbers that are NaN or infinite; "
                "the training that wrote it diverged. Name another file."
            )
        found[name] = tensor
    return found


def _notes(
    found: Fit,
    fits: list[Fit],
    names: Mapping[str, AnyTensor],
    values: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    choice: WeightsChoice,
) -> list[str]:
    """What was chosen, converted, assumed and left out."""
    notes = []
    key = found.prefix.rstrip(".")
    others = [fit.prefix.rstrip(".") for fit in fits[1:] if fit.fits and fit.prefix != found.prefix]
    others = list(dict.fromkeys(others))
    if others:
        chosen = f"'{key}'" if key else "the outermost ones"
        more = " or ".join(f"{choice.setting}.checkpoint_key={other}" for other in others[:SHOWN])
        notes.append(
            f"the file holds {1 + len(others)} sets of weights that fit; {chosen} is used, "
            f"{more} takes another"
        )
    elif key:
        notes.append(f"weights read under '{key}'")
    dtypes = Counter(
        f"{_dtype(value)} to {_dtype(state[name])}"
        for name, value in values.items()
        if value.dtype != state[name].dtype
    )
    notes += [f"{count} tensors converted from {what}" for what, count in dtypes.items()]
    counters = sum(name.endswith(COUNTER) for name in found.absent)
    if counters:
        notes.append(f"the file has no {COUNTER}: set to 0 in {counters} layers")
    tables = len(found.absent) - counters
    if tables:
        notes.append(f"{tables} integer buffers that the file lacks keep the network's own values")
    notes += _left_out(found, names)
    return notes


def _left_out(found: Fit, names: Mapping[str, AnyTensor]) -> list[str]:
    """What of the file was not used, with counts."""
    notes = []
    if found.dropped:
        notes.append(f"{len(found.dropped)} tensors left out by rename: {_parents(found.dropped)}")
    constants = {
        name.rpartition(".")[2].removeprefix("pixel_").removeprefix("image_"): names[name]
        for name in found.beside
    }
    if {"mean", "std"} <= set(constants):
        mean, std = (_numbers(constants[key]) for key in ("mean", "std"))
        notes.append(
            f"the file carries mean={mean} and std={std}: if its network normalised images itself, "
            "these are the constants it expects"
        )
    if found.beside:
        counted = f"{len(found.beside)} tensor{'s' * (len(found.beside) != 1)}"
        notes.append(f"{counted} beside the network not used: {_parents(found.beside)}")
    if found.outside:
        used = set(found.matches.values())
        rest = [n for n in names if n not in used and not n.startswith(found.prefix)]
        places = list(dict.fromkeys(_place(name, found.prefix) for name in rest))
        shown = ", ".join(places[:SHOWN]) + (", ..." if len(places) > SHOWN else "")
        counted = f"{len(rest)} tensor{'s' * (len(rest) != 1)}"
        notes.append(f"{counted} elsewhere in the file not used: {shown}")
    return notes


def _place(name: str, prefix: str) -> str:
    """The outermost part of a name, with those before it that it shares with the prefix."""
    parts, shared = name.split("."), 0
    for part, other in zip(parts, prefix.split("."), strict=False):
        if part != other:
            break
        shared += 1
    return ".".join(parts[: shared + 1])


def _numbers(tensor: AnyTensor) -> str:
    try:
        values = loaded(tensor).flatten()[:4].tolist()
    except UnreadableError:
        return "[?]"
    return "[" + ",".join(f"{value:.4g}" for value in values) + "]"


def _parents(names: list[str]) -> str:
    """`criterion, aux_head, ...`: the first parts that tell names apart."""
    first = list(dict.fromkeys(name.partition(".")[0] for name in names))
    if len(first) == 1 and len(names) > 1:
        first = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    return ", ".join(first[:SHOWN]) + (", ..." if len(first) > SHOWN else "")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
