"""Which tensors of a file are a network's, and whether they are all there."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdrun.weights.lazy import AnyTensor
from kdrun.weights.names import Rename, common_part, prefixes, renamed, without_wrappers

COUNTER = "num_batches_tracked"
# Words for averaged weights in the names of their wrappers.
AVERAGED = ("ema", "swa", "avg", "averag", "shadow", "momentum")
ROLES = ("teacher", "student")
# What files hold beside a network under its own prefix, by the first part of the name: it takes no
# part in the forward pass. Everything else that the network does not know is a mismatch.
BESIDE = (
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
# And by the last part: counters of profilers (thop) in every module.
COUNTED = ("total_ops", "total_params", COUNTER)


@dataclass(frozen=True)
class Wanted:
    """The tensors of a network by name, as they are in it; tied ones are the same object."""

    tensors: Mapping[str, Tensor]

    @property
    def required(self) -> list[str]:
        """Those a file must have: all but counters of batches and tables of integers."""
        return [n for n, t in self.tensors.items() if not is_optional(n, t)]


def is_optional(name: str, tensor: Tensor) -> bool:
    """Whether the network's own value will do: counters, and index tables that it computes."""
    return name.endswith(COUNTER) or not (tensor.is_floating_point() or tensor.is_complex())


def wanted_by(network: nn.Module) -> Wanted:
    """The tensors of a network, on any device."""
    return Wanted(network.state_dict(keep_vars=True))


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file under `prefix` meet a network.

    matches: the network's name → the file's. missing: names the file lacks. shapes: names whose
    shapes differ. unknown: names of the file that the network does not know. beside: those that
    are known to take no part. dropped: left out by `rename`. absent: optional names it lacks.
    place: what the network's own names begin with, where the file's do not.
    """

    prefix: str
    place: str = ""
    matches: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    outside: int = 0

    @property
    def fits(self) -> bool:
        """Whether everything the network needs is there, in the right shape, and nothing else."""
        return not (self.missing or self.shapes or self.unknown)

    @property
    def badness(self) -> int:
        """How many tensors stand in the way."""
        return len(self.missing) + len(self.shapes) + len(self.unknown)


def same_shape(ours: Iterable[int], theirs: Iterable[int]) -> bool:
    """Equal, or one number in both: PyTorch 0.3 had no tensors without dimensions."""
    a, b = tuple(ours), tuple(theirs)
    return a == b or (set(a) <= {1} and set(b) <= {1})


def fit_at(
    prefix: str, names: Mapping[str, AnyTensor], wanted: Wanted, rename: Rename, place: str = ""
) -> Fit:
    """The tensors under a prefix against those of a network."""
    inside = [name for name in names if name.startswith(prefix)]
    new = renamed([name[len(prefix) :] for name in inside], rename)
    theirs: dict[str, str] = {}
    found = Fit(prefix, place, outside=len(names) - len(inside))
    for name in inside:
        target = new[name[len(prefix) :]]
        if target is None:
            found.dropped.append(name)
            continue
        target = place + target
        if target in wanted.tensors and target not in theirs:
            theirs[target] = name
        elif is_beside(target.removeprefix(place), names[name]):
            found.beside.append(name)
        else:
            found.unknown.append(name)
    tied = _tied(wanted)
    for name, tensor in wanted.tensors.items():
        held = theirs.get(name) or next(
            (theirs[n] for n in tied.get(name, ()) if n in theirs), None
        )
        if held is not None and same_shape(tensor.shape, names[held].shape):
            found.matches[name] = held
        elif held is not None:
            found.shapes.append(name)
            found.matches[name] = held
        elif is_optional(name, tensor):
            found.absent.append(name)
        else:
            found.missing.append(name)
    return found


def _tied(wanted: Wanted) -> dict[str, list[str]]:
    """Name → the other names of the same tensor: a file may hold it once."""
    by_tensor: dict[int, list[str]] = {}
    for name, tensor in wanted.tensors.items():
        by_tensor.setdefault(id(tensor), []).append(name)
    return {n: group for group in by_tensor.values() if len(group) > 1 for n in group}


def is_beside(name: str, tensor: AnyTensor) -> bool:
    """Whether a tensor under the network's prefix is known to take no part in its answers.

    name: without the prefix. Single numbers beside the modules are values such as an accuracy.
    """
    first, dot, _ = name.partition(".")
    low = first.lower()
    alone = not dot and set(tensor.shape) <= {1}
    metric = low.endswith(("_acc", "_accuracy", "_metric", "_metrics", "_loss"))
    return alone or low in BESIDE or metric or name.rpartition(".")[2] in COUNTED


def all_fits(
    names: Mapping[str, AnyTensor], wanted: Wanted, rename: Rename, role: str
) -> list[Fit]:
    """Every place of a file where the network might be, the best first.

    role: teacher | student; of two equal sets, the one under that name is preferred. Wrappers'
    parts are dropped from names, and the network's own common part is added to them, where that
    makes everything fit. Empty when the file has no name of the network.
    """
    plain = _ranked(names, wanted, rename, role, "")
    if plain and plain[0].fits:
        return plain
    own = {part for name in wanted.tensors for part in name.split(".")}
    bare = {_unwrapped(name, own): tensor for name, tensor in names.items()}
    found = list(plain)
    if len(bare) == len(names) and list(bare) != list(names):
        found += [_original(fit, names, own) for fit in _ranked(bare, wanted, rename, role, "")]
    part = common_part(wanted.tensors)
    if part is not None:
        for fit in _ranked(names, wanted, rename, role, f"{part}."):
            found.append(fit)
    return sorted(found, key=lambda fit: (not fit.fits, fit.badness))


def _unwrapped(name: str, own: set[str]) -> str:
    parts = name.split(".")
    kept = [p for p in parts if p in own or without_wrappers(p)]
    return ".".join(kept)


def _original(fit: Fit, names: Mapping[str, AnyTensor], own: set[str]) -> Fit:
    """The fit with the names as the file has them."""
    back = {_unwrapped(name, own): name for name in names}
    lists = {
        key: [back[name] for name in getattr(fit, key)] for key in ("unknown", "beside", "dropped")
    }
    matches = {name: back[held] for name, held in fit.matches.items()}
    return Fit(
        fit.prefix, fit.place, matches, fit.missing, fit.shapes, absent=fit.absent,
        outside=fit.outside, **lists,
    )  # fmt: skip


def _ranked(
    names: Mapping[str, AnyTensor], wanted: Wanted, rename: Rename, role: str, place: str
) -> list[Fit]:
    required = {name.removeprefix(place) for name in wanted.required}
    votes = prefixes(names, required, rename)
    most = max(votes.values(), default=0)
    likely = [prefix for prefix, count in votes.items() if 2 * count >= most]
    fits = [fit_at(prefix, names, wanted, rename, place) for prefix in likely[:50]]
    return sorted(fits, key=lambda fit: (not fit.fits, fit.badness, *_rank(fit.prefix, role)))


def _rank(prefix: str, role: str) -> tuple[int, int, int]:
    """Lower is preferred: the role's own name, plain before averaged, fewer wrappers."""
    parts = [part for part in prefix.lower().split(".") if part]
    others = [other for other in ROLES if other != role]
    owner = -1 if any(role in part for part in parts) else 0
    owner += any(other in part for part in parts for other in others)
    averaged = any(word in part for part in parts for word in AVERAGED)
    return owner, averaged, len(parts)


def equal_sets(names: Mapping[str, AnyTensor], wanted: Wanted, rename: Rename) -> Counter[str]:
    """Prefixes under which most of the network's names stand."""
    votes = prefixes(names, set(wanted.required), rename)
    return Counter({p: n for p, n in votes.items() if 2 * n > len(wanted.required)})


def converted(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor in the shape and dtype of the network's."""
    return tensor.reshape(like.shape).to(like.dtype)


def not_finite(tensor: Tensor) -> int:
    """How many of its numbers are NaN or infinite."""
    if not tensor.is_floating_point():
        return 0
    return int((~torch.isfinite(tensor)).sum())
