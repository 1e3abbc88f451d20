"""Dotted tensor names: prefixes in a file, wrapper parts, and renamed modules."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kdrun.errors import ConfigError, did_you_mean

# Parts that wrappers insert into names: DataParallel, torch.compile, FSDP, activation
# checkpointing.
WRAPPER_PARTS = frozenset(
    ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
)
Rename = Mapping[str, str | None]


def prefixes(names: Iterable[str], expected: Collection[str], rename: Rename) -> Counter[str]:
    """Prefix → number of `expected` names that follow it in `names`, after renaming."""
    votes: Counter[str] = Counter()
    if not rename:
        for name in names:
            parts = name.split(".")
            for cut in range(len(parts)):
                if ".".join(parts[cut:]) in expected:
                    votes["".join(f"{part}." for part in parts[:cut])] += 1
        return votes
    names = list(names)
    shared: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        shared.update("".join(f"{part}." for part in parts[:cut]) for cut in range(len(parts)))
    for prefix, count in shared.items():
        if 2 * count < len(expected):  # too few names for most of the network
            continue
        within = [name[len(prefix) :] for name in names if name.startswith(prefix)]
        matching = sum(new in expected for new in renamed(within, rename).values())
        if matching:
            votes[prefix] = matching
    return votes


def renamed(names: Iterable[str], rename: Rename) -> dict[str, str | None]:
    """Name → new name; None for dropped tensors.

    A key matches whole parts: at the start of names if any name starts with it, else anywhere. The
    longest matching key is applied once.
    """
    names = list(names)
    split = {name: name.split(".") for name in names}
    keys = {key: key.split(".") for key in sorted(rename, key=lambda k: -len(k.split(".")))}
    anchored = {
        key: any(parts[: len(key_parts)] == key_parts for parts in split.values())
        for key, key_parts in keys.items()
    }
    result: dict[str, str | None] = {}
    for name, parts in split.items():
        result[name] = name
        for key, key_parts in keys.items():
            place = _place(parts, key_parts, anchored[key])
            if place is None:
                continue
            value = rename[key]
            if value is None:
                result[name] = None
            else:
                new = [*parts[:place], *value.split("."), *parts[place + len(key_parts) :]]
                result[name] = ".".join(part for part in new if part)
            break
    return result


def _place(parts: list[str], key_parts: list[str], at_start: bool) -> int | None:
    if at_start:
        return 0 if parts[: len(key_parts)] == key_parts else None
    for place in range(1, len(parts) - len(key_parts) + 1):
        if parts[place : place + len(key_parts)] == key_parts:
            return place
    return None


def check_rename(names: Iterable[str], rename: Rename, setting: str) -> None:
    """Raise ConfigError for a key that occurs in no name of the file."""
    split = [name.split(".") for name in names]
    for key in rename:
        key_parts = key.split(".")
        if not any(
            parts[i : i + len(key_parts)] == key_parts for parts in split for i in range(len(parts))
        ):
            known = list(dict.fromkeys(part for parts in split for part in parts[:-1]))
            hint = did_you_mean(key, known) or f" Examples: {', '.join(known[:8])}."
            raise ConfigError(f"{setting}: no tensor of the file has '{key}' in its name.{hint}")


def without_wrappers(name: str) -> str:
    """The name without wrapper parts."""
    return ".".join(part for part in name.split(".") if part not in WRAPPER_PARTS)


def common_part(names: Iterable[str]) -> str | None:
    """The first part that all names share, e.g. `net` of `net.conv.weight` and `net.fc.bias`."""
    firsts = {name.partition(".")[0] if "." in name else "" for name in names}
    first = firsts.pop() if len(firsts) == 1 else ""
    return first or None


def suggested_rename(
    missing: Mapping[str, Any], unknown: Mapping[str, Any], tries: int = 300
) -> dict[str, str]:
    """Module name in the file → name in the network, guessed from equal shapes and similar names.

    missing, unknown: name → shape of unmatched tensors of the network and of the file.
    """
    votes: Counter[tuple[str, str]] = Counter()
    for old, old_shape in list(unknown.items())[:tries]:
        for new, new_shape in list(missing.items())[:tries]:
            if tuple(old_shape) == tuple(new_shape):
                pair = _difference(old.split("."), new.split("."))
                if pair is not None:
                    votes[pair] += 1
    result: dict[str, str] = {}
    for (old, new), _ in votes.most_common():
        if old not in result and new not in result.values():
            result[old] = new
    return result


def _difference(old: list[str], new: list[str]) -> tuple[str, str] | None:
    """The differing parts of two names that agree in all other parts, including the last."""
    if old[-1] != new[-1]:
        return None
    start = 0
    while start < min(len(old), len(new)) - 1 and old[start] == new[start]:
        start += 1
    end = 1
    while end < min(len(old), len(new)) - start and old[-end - 1] == new[-end - 1]:
        end += 1
    before, after = old[start : len(old) - end], new[start : len(new) - end]
    if not before or not after:
        return None
    return ".".join(before), ".".join(after)
