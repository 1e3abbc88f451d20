"""Load the weights of a file into a network; report what was selected, converted and skipped."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from kdrun.errors import CheckpointError, did_you_mean
from kdrun.weights.fit import (
    COUNTER,
    Expected,
    Fit,
    all_fits,
    expected_tensors,
    is_untrained,
    not_finite,
)
from kdrun.weights.lazy import AnyTensor, UnreadableError, loaded
from kdrun.weights.names import Rename, check_rename

SHOWN = 3


@dataclass(frozen=True)
class WeightsChoice:
    """How to read a file's weights.

    setting: `teacher` or `student`, for messages. key: dotted key of the weights in the file; None
    finds it. rename: module name in the file → name in the network; None drops its tensors.
    new_classifier: keep the initial weights of the classifier. starts_training: the network is
    trained further, so that a classifier for other classes can be replaced.
    """

    setting: str = "teacher"
    key: str | None = None
    rename: Rename = field(default_factory=dict)
    new_classifier: bool = False
    starts_training: bool = False

    @property
    def role(self) -> str:
        """teacher | student."""
        return "student" if self.setting.startswith("student") else "teacher"


# (tensors of the file, best fit, tensors of the network) → explanation of the mismatch.
Explain = Callable[[Mapping[str, AnyTensor], Fit | None, Expected], str]


def load_into(
    network: nn.Module,
    path: Path,
    tensors: Mapping[str, AnyTensor],
    choice: WeightsChoice,
    explain: Explain,
    num_classes: int,
) -> list[str]:
    """Copy a file's tensors into `network`. Returns notes on selection and conversion.

    tensors: all tensors of the file by dotted name. num_classes: of the network.
    Raises CheckpointError for weights that do not fit, are damaged or not finite.
    """
    names = under(tensors, choice, path)
    check_rename(names, choice.rename, f"{choice.setting}.rename")
    expected = expected_tensors(network)
    classifier: list[str] = []
    if choice.new_classifier:
        classifier = classifier_names(network, num_classes)
        expected = Expected({n: t for n, t in expected.tensors.items() if n not in classifier})
    fits = all_fits(names, expected, choice.rename, choice.role)
    if classifier:
        fits = [_without_classifier(fit, classifier) for fit in fits]
    if not fits or not fits[0].fits:
        raise CheckpointError(explain(names, fits[0] if fits else None, expected))
    fit = fits[0]
    if is_untrained(fit.prefix.removeprefix(f"{choice.key}.")):
        key = fit.prefix.rstrip(".")
        raise CheckpointError(
            f"{path}: the only set of weights that fits is called {key!r}, which names no trained "
            f"weights: {choice.setting}.checkpoint_key={key} takes it."
        )
    values = _read(fit, names, expected, path)
    state = network.state_dict()
    notes = _notes(fit, fits, names, values, state, choice)
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(value.reshape(state[name].shape))
        for name in fit.absent:
            if name.endswith(COUNTER):
                state[name].zero_()
    if classifier:
        notes.append(f"the classifier ({_parents(classifier)}) is new (new_classifier=true)")
    return notes


def under(
    tensors: Mapping[str, AnyTensor], choice: WeightsChoice, path: Path
) -> dict[str, AnyTensor]:
    """The tensors under the chosen key. Raises CheckpointError listing the existing keys."""
    if not choice.key:
        return dict(tensors)
    prefix = choice.key.rstrip(".") + "."
    selected = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not selected:
        known = places(tensors)
        hint = did_you_mean(choice.key, known)
        shown = ", ".join(f"{key} ({count} tensors)" for key, count in list(known.items())[:12])
        raise CheckpointError(
            f"{path} has no tensors under {choice.setting}.checkpoint_key={choice.key}.{hint} "
            f"It contains {shown or 'tensors without a key: leave the setting out'}."
        )
    return selected


def places(tensors: Mapping[str, AnyTensor], most: int = 2) -> dict[str, int]:
    """The larger groups of a file: key of up to two parts → number of tensors."""
    counts: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        counts.update(".".join(parts[:n]) for n in range(1, min(most, len(parts) - 1) + 1))
    largest = max(counts.values(), default=0)
    return {key: count for key, count in counts.items() if 2 * count > largest}


def classifier_names(network: nn.Module, num_classes: int) -> list[str]:
    """The tensors of the last linear layer or 1x1 convolution with an output per class."""
    path = _classifier_path(network, num_classes)
    if path is not None:
        module = network.get_submodule(path)
        return [f"{path}.{name}" if path else name for name in module.state_dict()]
    raise CheckpointError(
        "new_classifier=true: the network has no layer with one output per class to reinitialise."
    )


def classifier_parameters(network: nn.Module, num_classes: int) -> tuple[str, ...]:
    """The parameters of a network's classifier, or of all its classifiers if it names them.

    num_classes: of the network. Empty for a network without a layer with one output per class.
    """
    named = [getattr(network, "class_head", None), *getattr(network, "distillation_heads", ())]
    paths = [path for path in named if path] or [_classifier_path(network, num_classes)]
    return tuple(
        f"{path}.{name}" if path else name
        for path in paths
        if path is not None
        for name, _ in network.get_submodule(path).named_parameters()
    )


def _classifier_path(network: nn.Module, num_classes: int) -> str | None:
    """The last linear layer or 1x1 convolution with an output per class."""
    modules: list[tuple[str, nn.Module]] = list(network.named_modules())
    for path, module in reversed(modules):
        outputs = getattr(module, "out_features", getattr(module, "out_channels", None))
        if isinstance(module, nn.Linear | nn.Conv2d) and outputs == num_classes:
            return path
    return None


def _without_classifier(fit: Fit, classifier: list[str]) -> Fit:
    """The fit without the file's classifier tensors."""
    file_names = {fit.prefix + name.removeprefix(fit.place) for name in classifier}
    unknown = [name for name in fit.unknown if name not in file_names]
    extras = [*fit.extras, *(name for name in fit.unknown if name in file_names)]
    return Fit(
        fit.prefix, fit.place, fit.matches, fit.missing, fit.shapes, unknown, extras,
        fit.dropped, fit.absent, fit.outside,
    )  # fmt: skip


def _read(
    fit: Fit, names: Mapping[str, AnyTensor], expected: Expected, path: Path
) -> dict[str, Tensor]:
    """Network name → the file's tensor, in the file's dtype."""
    values: dict[str, Tensor] = {}
    for name, file_name in fit.matches.items():
        try:
            tensor = loaded(names[file_name])
        except UnreadableError as error:
            raise CheckpointError(f"{path} is damaged at {file_name}: {error}.") from None
        like = expected.tensors[name]
        if like.is_floating_point() and not tensor.is_floating_point():
            raise CheckpointError(
                f"{path}: {file_name} has {_dtype(tensor)} numbers, but the network has "
                f"{_dtype(like)} weights; convert them to float32 first."
            )
        if isinstance(like, nn.Parameter) and not_finite(tensor):
            raise CheckpointError(
                f"{path}: {file_name} has {not_finite(tensor)} numbers that are NaN or infinite; "
                "the training that wrote it diverged. Use another file."
            )
        values[name] = tensor
    return values


def _notes(
    fit: Fit,
    fits: list[Fit],
    names: Mapping[str, AnyTensor],
    values: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    choice: WeightsChoice,
) -> list[str]:
    """Notes on what was selected, converted, assumed and skipped."""
    notes = []
    key = fit.prefix.rstrip(".")
    prefixes = (other.prefix for other in fits[1:] if other.fits and other.prefix != fit.prefix)
    keys = list(dict.fromkeys(prefix.rstrip(".") for prefix in prefixes))
    if keys:
        selected = f"'{key}'" if key else "the outermost set"
        settings = " or ".join(f"{choice.setting}.checkpoint_key={k}" for k in keys[:SHOWN])
        notes.append(
            f"the file contains {1 + len(keys)} sets of weights that fit: {selected} is used, "
            f"{settings} selects another"
        )
    elif key:
        notes.append(f"weights read under '{key}'")
    dtypes = Counter(
        f"{_dtype(value)} to {_dtype(state[name])}"
        for name, value in values.items()
        if value.dtype != state[name].dtype
    )
    notes += [f"{count} tensors converted from {what}" for what, count in dtypes.items()]
    counters = sum(name.endswith(COUNTER) for name in fit.absent)
    if counters:
        notes.append(f"the file has no {COUNTER}: set to 0 in {counters} layers")
    tables = len(fit.absent) - counters
    if tables:
        notes.append(f"{tables} integer buffers that the file lacks keep the network's values")
    notes += _left_out(fit, names)
    return notes


def _left_out(fit: Fit, names: Mapping[str, AnyTensor]) -> list[str]:
    """Notes on the tensors of the file that were not used, with counts."""
    notes = []
    if fit.dropped:
        notes.append(f"{len(fit.dropped)} tensors left out by rename: {_parents(fit.dropped)}")
    constants = {
        name.rpartition(".")[2].removeprefix("pixel_").removeprefix("image_"): names[name]
        for name in fit.extras
    }
    if {"mean", "std"} <= set(constants):
        mean, std = (_numbers(constants[key]) for key in ("mean", "std"))
        notes.append(
            f"the file contains mean={mean} and std={std}: if its network normalised images "
            "itself, it expects these constants"
        )
    if fit.extras:
        counted = f"{len(fit.extras)} tensor{'s' * (len(fit.extras) != 1)}"
        notes.append(f"{counted} outside of the network not used: {_parents(fit.extras)}")
    if fit.outside:
        used = set(fit.matches.values())
        unused = [n for n in names if n not in used and not n.startswith(fit.prefix)]
        places = list(dict.fromkeys(_place(name, fit.prefix) for name in unused))
        shown = ", ".join(places[:SHOWN]) + (", ..." if len(places) > SHOWN else "")
        counted = f"{len(unused)} tensor{'s' * (len(unused) != 1)}"
        notes.append(f"{counted} elsewhere in the file not used: {shown}")
    return notes


def _place(name: str, prefix: str) -> str:
    """The parts of a name that it shares with the prefix, and the next one."""
    parts, shared = name.split("."), 0
    for part, prefix_part in zip(parts, prefix.split("."), strict=False):
        if part != prefix_part:
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
    """`criterion, aux_head, ...`: the first parts that distinguish names."""
    first = list(dict.fromkeys(name.partition(".")[0] for name in names))
    if len(first) == 1 and len(names) > 1:
        first = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    return ", ".join(first[:SHOWN]) + (", ..." if len(first) > SHOWN else "")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
