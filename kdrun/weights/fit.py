"""Match the tensors of a file to those of a network."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdrun.weights.lazy import AnyTensor
from kdrun.weights.names import Rename, common_part, prefixes, renamed, without_wrappers

COUNTER = "num_batches_tracked"
# Parts of wrapper names that indicate averaged weights.
AVERAGED = ("ema", "swa", "avg", "averag", "shadow", "momentum")
# Names of sets that have the network's names and shapes, but hold no trained weights.
UNTRAINED = re.compile(
    r"(.*_)?(init|initial|initiali[sz]ation|untrained|rewind|grads?|gradients?)(_.*)?"
    r"|optim(i[sz]er)?s?(_.*)?"
    r"|(masks?|fisher|hessian|importance|deltas?|velocity|exp_avg(_sq)?|momentum)(_?buffers?)?"
)
# Parts of the names of sets from before the training.
EARLIER = re.compile(r"(.*_)?(old|prev|previous|backup|pretrained)(_.*)?")
ROLES = ("teacher", "student")
# First parts of names under the network's prefix that take no part in the forward pass. Any other
# name that the network does not know is a mismatch.
EXTRAS = (
    "n_averaged",
    "mean",
    "std",
    "pixel_mean",
    "pixel_std",
    "image_mean",
    "image_std",
    "normalize",
    "normalization",
    "criterion",
    "loss",
    "loss_fn",
    "loss_func",
    "aux",
    "aux1",
    "aux2",
    "auxlogits",
    "aux_head",
    "aux_classifier",
    "auxiliary",
    "auxiliary_head",
    "metrics",
)
# Last parts of such names: counters of profilers (thop) in every module.
COUNTED = ("total_ops", "total_params", COUNTER)


@dataclass(frozen=True)
class Expected:
    """The tensors of a network by name; tied tensors are the same object."""

    tensors: Mapping[str, Tensor]

    @property
    def required(self) -> list[str]:
        """Names that a file must have: all except batch counters and integer tables."""
        return [n for n, t in self.tensors.items() if not is_optional(n, t)]


def is_optional(name: str, tensor: Tensor) -> bool:
    """Whether the network can keep its own value: counters and computed index tables."""
    return name.endswith(COUNTER) or not (tensor.is_floating_point() or tensor.is_complex())


def expected_tensors(network: nn.Module) -> Expected:
    """The tensors of a network, on any device."""
    return Expected(network.state_dict(keep_vars=True))


@dataclass(frozen=True)
class Fit:
    """Match between the tensors of a file under `prefix` and a network.

    matches: network name → file name. missing: network names that the file lacks. shapes: names
    with different shapes. unknown: file names that the network does not know. extras: file names
    that are known not to matter. dropped: left out by `rename`. absent: optional names that the
    file lacks. place: prefix of the network's names that the file's names lack. outside: number of
    tensors outside `prefix`.
    """

    prefix: str
    place: str = ""
    matches: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    outside: int = 0

    @property
    def fits(self) -> bool:
        """Whether all required tensors are there with the right shapes, and no unknown ones."""
        return not (self.missing or self.shapes or self.unknown)

    @property
    def badness(self) -> int:
        """Number of mismatching tensors."""
        return len(self.missing) + len(self.shapes) + len(self.unknown)


def same_shape(ours: Iterable[int], theirs: Iterable[int]) -> bool:
    """Whether shapes match; `[]` and `[1]` do, because PyTorch 0.3 had no scalar tensors."""
    a, b = tuple(ours), tuple(theirs)
    return a == b or (set(a) <= {1} and set(b) <= {1})


def fit_at(
    prefix: str,
    names: Mapping[str, AnyTensor],
    expected: Expected,
    rename: Rename,
    place: str = "",
) -> Fit:
    """Match the tensors under a prefix to those of a network."""
    inside = [name for name in names if name.startswith(prefix)]
    new = renamed([name[len(prefix) :] for name in inside], rename)
    theirs: dict[str, str] = {}
    fit = Fit(prefix, place, outside=len(names) - len(inside))
    for name in inside:
        target = new[name[len(prefix) :]]
        if target is None:
            fit.dropped.append(name)
            continue
        target = place + target
        if target in expected.tensors and target not in theirs:
            theirs[target] = name
        elif is_extra(target.removeprefix(place), names[name]):
            fit.extras.append(name)
        else:
            fit.unknown.append(name)
    tied = _tied(expected)
    for name, tensor in expected.tensors.items():
        file_name = theirs.get(name) or next(
            (theirs[n] for n in tied.get(name, ()) if n in theirs), None
        )
        if file_name is not None:
            fit.matches[name] = file_name
            if not same_shape(tensor.shape, names[file_name].shape):
                fit.shapes.append(name)
        elif is_optional(name, tensor):
            fit.absent.append(name)
        else:
            fit.missing.append(name)
    return fit


def _tied(expected: Expected) -> dict[str, list[str]]:
    """Name → all names of the same tensor; a file may store it once."""
    by_tensor: dict[int, list[str]] = {}
    for name, tensor in expected.tensors.items():
        by_tensor.setdefault(id(tensor), []).append(name)
    return {n: group for group in by_tensor.values() if len(group) > 1 for n in group}


def is_extra(name: str, tensor: AnyTensor) -> bool:
    """Whether a tensor under the network's prefix is known not to affect its outputs.

    name: without the prefix. Scalars outside of modules are values such as an accuracy.
    """
    first, dot, _ = name.partition(".")
    low = first.lower()
    scalar = not dot and set(tensor.shape) <= {1}
    metric = low.endswith(("_acc", "_accuracy", "_metric", "_metrics", "_loss"))
    return scalar or low in EXTRAS or metric or name.rpartition(".")[2] in COUNTED


def all_fits(
    names: Mapping[str, AnyTensor], expected: Expected, rename: Rename, role: str
) -> list[Fit]:
    """All candidate positions of the network in a file, best first.

    role: teacher | student; breaks ties in favour of the set under that name. Tries to drop the
    parts that wrappers add to names, and to add the network's common part. Empty if the file has no
    name of the network.
    """
    plain = _ranked(names, expected, rename, role, "")
    if plain and plain[0].fits and not is_untrained(plain[0].prefix):
        return plain
    parts = {part for name in expected.tensors for part in name.split(".")}
    bare = {_unwrapped(name, parts): tensor for name, tensor in names.items()}
    fits = list(plain)
    if len(bare) == len(names) and list(bare) != list(names):
        fits += [_original(fit, names, parts) for fit in _ranked(bare, expected, rename, role, "")]
    part = common_part(expected.tensors)
    if part is not None:
        fits += _ranked(names, expected, rename, role, f"{part}.")
    return sorted(fits, key=lambda fit: (not fit.fits, is_untrained(fit.prefix), fit.badness))


def _unwrapped(name: str, network_parts: set[str]) -> str:
    """The name without wrapper parts, except for those that the network itself uses."""
    return ".".join(p for p in name.split(".") if p in network_parts or without_wrappers(p))


def _original(fit: Fit, names: Mapping[str, AnyTensor], network_parts: set[str]) -> Fit:
    """The fit with the file's original names."""
    back = {_unwrapped(name, network_parts): name for name in names}
    lists = {
        key: [back[name] for name in getattr(fit, key)] for key in ("unknown", "extras", "dropped")
    }
    matches = {name: back[bare] for name, bare in fit.matches.items()}
    return Fit(
        fit.prefix, fit.place, matches, fit.missing, fit.shapes, absent=fit.absent,
        outside=fit.outside, **lists,
    )  # fmt: skip


def _ranked(
    names: Mapping[str, AnyTensor], expected: Expected, rename: Rename, role: str, place: str
) -> list[Fit]:
    required = {name.removeprefix(place) for name in expected.required}
    votes = prefixes(names, required, rename)
    most = max(votes.values(), default=0)
    likely = [prefix for prefix, count in votes.items() if 2 * count >= most]
    fits = [fit_at(prefix, names, expected, rename, place) for prefix in likely[:50]]
    return sorted(fits, key=lambda fit: (not fit.fits, fit.badness, *_rank(fit.prefix, role)))


def is_untrained(prefix: str) -> bool:
    """Whether a set is called like initial weights, gradients or masks, not trained weights."""
    return any(UNTRAINED.fullmatch(part) for part in prefix.lower().split("."))


def _rank(prefix: str, role: str) -> tuple[bool, int, bool, int, int]:
    """Sort key: trained, of the role, latest, plain before averaged weights, fewer wrappers."""
    parts = [part for part in prefix.lower().split(".") if part]
    owner = -1 if any(_is_of(role, part) for part in parts) else 0
    owner += any(_is_of(name, part) for part in parts for name in ROLES if name != role)
    earlier = any(map(EARLIER.fullmatch, parts))
    averaged = any(word in part for part in parts for word in AVERAGED)
    return is_untrained(prefix), owner, earlier, averaged, len(parts)


def _is_of(role: str, part: str) -> bool:
    """Whether a part of a name means the teacher or the student: `teacher_net`, `model_t`."""
    return role in part or role[0] in part.split("_")


def converted(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor in the shape and dtype of the network's."""
    return tensor.reshape(like.shape).to(like.dtype)


def not_finite(tensor: Tensor) -> int:
    """Number of NaN or infinite elements."""
    if not tensor.is_floating_point():
        return 0
    return int((~torch.isfinite(tensor.float())).sum())  # float: 8-bit types have no isfinite
