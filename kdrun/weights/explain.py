"""Why weights do not fit a network, and which network they would fit."""

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from torch import nn

from kdrun.config.build import call
from kdrun.config.schema import NetworkConfig
from kdrun.types import InputInfo
from kdrun.weights.fit import Fit, Wanted, all_fits, fit_at, wanted_by
from kdrun.weights.lazy import AnyTensor
from kdrun.weights.load import WeightsChoice
from kdrun.weights.names import suggested_rename

RESNET = "kdrun.models.resnet.ResNet"
SHOWN = 2
# Networks that need arguments, so that there is nothing to compare with.
INCOMPLETE = ("???", "${")


@dataclass(frozen=True)
class Trial:
    """A network that the file might be of. settings: its arguments that are typed besides."""

    config: NetworkConfig
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A network that the file fits: with which rename, class count and channels."""

    trial: Trial
    rename: dict[str, str]
    classes: int
    channels: int


def explain(
    path: Path,
    config: NetworkConfig,
    info: InputInfo,
    choice: WeightsChoice,
) -> Callable[[Mapping[str, AnyTensor], Fit | None, Wanted], str]:
    """A function that says what is wrong with a file for the network of `config`."""

    def say(names: Mapping[str, AnyTensor], fit: Fit | None, wanted: Wanted) -> str:
        if not names:
            return f"{path} holds no tensors by name: it is not a set of weights."
        if fit is None:
            shown = ", ".join(f"{n} {list(t.shape)}" for n, t in list(names.items())[:SHOWN])
            text = f"the file has none of its tensors, but {len(names)} others ({shown})"
        else:
            text = difference(names, fit, wanted)
        verdict = suggest(names, config, info, choice)
        end = "" if verdict is None else f" {_advice(verdict, config, info, choice)}"
        if verdict is None and fit is not None and fit.unknown and not (fit.missing or fit.shapes):
            module = fit.unknown[0].removeprefix(fit.prefix).partition(".")[0]
            end = (
                f" If {module} takes no part in the answers, leave it out: "
                f"'{choice.setting}.rename={{{module}: null}}'."
            )
        return f"{path} does not fit {config.name}: {text}.{end}"

    return say


def difference(names: Mapping[str, AnyTensor], fit: Fit, wanted: Wanted) -> str:
    """The most telling tensors, with both shapes."""
    return "; ".join(_parts(names, fit, wanted))


def _parts(names: Mapping[str, AnyTensor], fit: Fit, wanted: Wanted) -> Iterator[str]:
    if fit.shapes:
        shown = "; ".join(
            f"{name} is {list(names[fit.matches[name]].shape)} in the file and "
            f"{list(wanted.tensors[name].shape)} in the network"
            for name in _telling(fit.shapes)
        )
        more = len(fit.shapes) - SHOWN
        yield shown + (f"; {more} more differ in shape" if more > 0 else "")
    if fit.missing:
        shown = ", ".join(f"{n} {list(wanted.tensors[n].shape)}" for n in _telling(fit.missing))
        yield f"{_tensors(fit.missing)} of the network missing from the file ({shown})"
    if fit.unknown:
        shown = ", ".join(
            f"{n.removeprefix(fit.prefix)} {list(names[n].shape)}" for n in _telling(fit.unknown)
        )
        yield f"{_tensors(fit.unknown)} of the file unknown to the network ({shown})"


def _tensors(names: list[str]) -> str:
    return f"{len(names)} tensor{'s' * (len(names) != 1)}"


def _telling(names: list[str]) -> list[str]:
    """Weights rather than biases and statistics, the last (the classifier's) and the first."""
    weights = [name for name in names if name.endswith("weight")] or names
    return list(dict.fromkeys([weights[0], weights[-1]]))[:SHOWN]


def suggest(
    names: Mapping[str, AnyTensor],
    config: NetworkConfig,
    info: InputInfo,
    choice: WeightsChoice,
) -> Verdict | None:
    """The network that the file fits: the asked one with other settings, or one of kdrun's."""
    for trial in _trials(config):
        verdict = _try(trial, names, info, choice)
        if verdict is not None:
            return verdict
    return None


def _trials(config: NetworkConfig) -> Iterator[Trial]:
    yield Trial(config)
    yield from _variants(Trial(config))
    for other in catalogue():
        if (other.target, other.kwargs) != (config.target, config.kwargs):
            yield Trial(other)
            yield from _variants(Trial(other))


def _variants(trial: Trial) -> Iterator[Trial]:
    """The same network with its other kind of shortcuts."""
    if trial.config.target == RESNET:
        now = trial.config.kwargs.get("shortcut", "projection")
        new = "pad" if now == "projection" else "projection"
        kwargs = {**trial.config.kwargs, "shortcut": new}
        yield Trial(replace(trial.config, kwargs=kwargs), (f"shortcut={new}",))


@cache
def catalogue() -> tuple[NetworkConfig, ...]:
    """All of kdrun's networks that are complete without the user's own settings."""
    configs = importlib.import_module("kdrun.configs")
    found = []
    for path in sorted(Path(next(iter(configs.__path__)), "model").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if not any(mark in text for mark in INCOMPLETE) and "defaults:" not in text:
            node = yaml.safe_load(text)
            name, target = node.pop("name"), node.pop("_target_")
            node.pop("taps", None)
            found.append(NetworkConfig(name, target, node))
    return tuple(found)


def _build(config: NetworkConfig, info: InputInfo) -> Wanted | None:
    """Its tensors without memory; None where it cannot be built for these images."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            network = call(
                config.target,
                config.kwargs,
                "teacher",
                num_classes=info.num_classes,
                in_channels=info.in_channels,
                image_size=info.image_size,
            )
    except Exception:  # a network of the user's own may fail in any way; it is no suggestion then
        return None
    return wanted_by(network) if isinstance(network, nn.Module) else None


def _try(
    trial: Trial, names: Mapping[str, AnyTensor], info: InputInfo, choice: WeightsChoice
) -> Verdict | None:
    """Whether the file fits that network, for any number of classes and channels."""
    wanted = _build(trial.config, info)
    if wanted is None or not _similar(names, wanted):
        return None
    rename = dict(choice.rename)
    fits = all_fits(names, wanted, rename, choice.role)
    if not fits:
        return None
    fit = fits[0]
    for _ in range(4):
        if fit.fits or not (fit.missing and fit.unknown):
            break
        more = _more_rename(fit, names, wanted)
        if more is None:
            return None
        old, new = more
        rename[old] = new
        better = fit_at(fit.prefix, names, wanted, rename, fit.place)
        if better.badness >= fit.badness:
            return None
        fit = better
    if fit.missing or fit.unknown:
        return None
    added = {old: str(new) for old, new in rename.items() if choice.rename.get(old) != new}
    if fit.fits:
        return Verdict(trial, added, info.num_classes, info.in_channels)
    other = _other_counts(trial, fit, names, wanted, info)
    return None if other is None else Verdict(trial, added, *other)


def _similar(names: Mapping[str, AnyTensor], wanted: Wanted) -> bool:
    """Whether the file holds at least as many tensors of the network's shapes, by count."""
    needed = len(wanted.required)
    shapes = {tuple(tensor.shape) for tensor in names.values()}
    held = sum(tuple(wanted.tensors[name].shape) in shapes for name in wanted.required)
    return len(names) >= needed and 2 * held >= needed


def _more_rename(
    fit: Fit, names: Mapping[str, AnyTensor], wanted: Wanted
) -> tuple[str, str] | None:
    """The next module to rename. Classifiers may be of another class count: their rank counts."""
    missing = {name.removeprefix(fit.place): wanted.tensors[name].shape for name in fit.missing}
    unknown = {name.removeprefix(fit.prefix): names[name].shape for name in fit.unknown}
    exact = suggested_rename(missing, unknown)
    if not exact:
        exact = suggested_rename(_without_first(missing), _without_first(unknown))
    return next(iter(exact.items()), None)


def _without_first(shapes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: (len(shape), *tuple(shape)[1:]) for name, shape in shapes.items()}


def _other_counts(
    trial: Trial, fit: Fit, names: Mapping[str, AnyTensor], wanted: Wanted, info: InputInfo
) -> tuple[int, int] | None:
    """(classes, channels) with which all shapes agree."""
    classes, channels = info.num_classes, info.in_channels
    for name in fit.shapes:
        ours, theirs = tuple(wanted.tensors[name].shape), tuple(names[fit.matches[name]].shape)
        if len(ours) != len(theirs):
            return None
        for place, (own, other) in enumerate(zip(ours, theirs, strict=True)):
            if own == other:
                continue
            if own == info.num_classes and place == 0:
                classes = other
            elif own == info.in_channels and place == 1:
                channels = other
            else:
                return None
    there = _build(trial.config, InputInfo(classes, channels, info.image_size))
    if there is None or (classes, channels) == (info.num_classes, info.in_channels):
        return None
    agree = all(
        tuple(there.tensors[name].shape) == tuple(names[held].shape)
        for name, held in fit.matches.items()
        if math.prod(names[held].shape) != 1
    )
    return (classes, channels) if agree else None


def _advice(verdict: Verdict, config: NetworkConfig, info: InputInfo, choice: WeightsChoice) -> str:
    """What the file fits, and what to type."""
    setting = choice.setting
    words = [f"{setting}={verdict.trial.config.name}"]
    words += [f"{setting}.{text}" for text in verdict.trial.settings]
    if verdict.rename:
        pairs = {**choice.rename, **verdict.rename}
        inside = ", ".join(f"{a}: {'null' if b is None else b}" for a, b in pairs.items())
        words.append(f"'{setting}.rename={{{inside}}}'")
    same = verdict.trial.config.name == config.name and not (
        verdict.trial.settings or verdict.rename
    )
    counts = []
    if verdict.classes != info.num_classes:
        counts.append((f"{verdict.classes} classes", f"{info.num_classes}"))
    if verdict.channels != info.in_channels:
        counts.append((f"{verdict.channels} channels", f"{info.in_channels}"))
    having = " and ".join(one for one, _ in counts)
    need = " and ".join(other for _, other in counts)
    name = verdict.trial.config.name
    if same:
        end = _remedy(verdict, info, choice)
        return f"It is a {name} with {having}, and the data have {need}{end}"
    text = f"It fits {name}{f' with {having}' if having else ''}: type {' '.join(words)}"
    return f"{text}{f' (the data have {need})' if need else ''}."


def _remedy(verdict: Verdict, info: InputInfo, choice: WeightsChoice) -> str:
    if choice.role == "student" and verdict.channels == info.in_channels:
        return ": student.new_classifier=true keeps all but the classifier."
    return ": choose data that go with it, or another file."
