"""Explain why weights do not fit a network, and suggest a network that they fit."""

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
from kdrun.config.shipped import shipped_configs
from kdrun.types import InputInfo
from kdrun.weights.fit import Expected, Fit, all_fits, expected_tensors, fit_at
from kdrun.weights.lazy import AnyTensor
from kdrun.weights.load import WeightsChoice
from kdrun.weights.names import suggested_rename

RESNET = "kdrun.models.resnet.ResNet"
SHOWN = 2
# Marks of networks with required arguments, which cannot be built for comparison.
INCOMPLETE = ("???", "${")


@dataclass(frozen=True)
class Trial:
    """A candidate network for the file. settings: overrides to type in addition to its name."""

    config: NetworkConfig
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A network that the file fits, with the required rename, classes and channels."""

    trial: Trial
    rename: dict[str, str]
    classes: int
    channels: int


def explain(
    path: Path,
    config: NetworkConfig,
    info: InputInfo,
    choice: WeightsChoice,
) -> Callable[[Mapping[str, AnyTensor], Fit | None, Expected], str]:
    """A function that explains why the file does not fit the network of `config`."""

    def message(names: Mapping[str, AnyTensor], fit: Fit | None, expected: Expected) -> str:
        if not names:
            return f"{path} contains no named tensors: it is not a set of weights."
        if fit is None:
            shown = ", ".join(f"{n} {list(t.shape)}" for n, t in list(names.items())[:SHOWN])
            text = f"the file has none of its tensors, but {len(names)} others ({shown})"
        else:
            text = difference(names, fit, expected)
        verdict = suggest(names, config, info, choice)
        end = "" if verdict is None else f" {_advice(verdict, config, info, choice)}"
        if verdict is None and fit is not None and fit.unknown and not (fit.missing or fit.shapes):
            module = fit.unknown[0].removeprefix(fit.prefix).partition(".")[0]
            end = (
                f" If {module} does not affect the outputs, leave it out: "
                f"'{choice.setting}.rename={{{module}: null}}'."
            )
        return f"{path} does not fit {config.name}: {text}.{end}"

    return message


def difference(names: Mapping[str, AnyTensor], fit: Fit, expected: Expected) -> str:
    """The most informative differing tensors, with both shapes."""
    return "; ".join(_parts(names, fit, expected))


def _parts(names: Mapping[str, AnyTensor], fit: Fit, expected: Expected) -> Iterator[str]:
    if fit.shapes:
        shown = "; ".join(
            f"{name} is {list(names[fit.matches[name]].shape)} in the file and "
            f"{list(expected.tensors[name].shape)} in the network"
            for name in _informative(fit.shapes)
        )
        more = len(fit.shapes) - SHOWN
        yield shown + (f"; {more} more differ in shape" if more > 0 else "")
    if fit.missing:
        shown = ", ".join(
            f"{n} {list(expected.tensors[n].shape)}" for n in _informative(fit.missing)
        )
        yield f"{_tensors(fit.missing)} of the network missing from the file ({shown})"
    if fit.unknown:
        shown = ", ".join(
            f"{n.removeprefix(fit.prefix)} {list(names[n].shape)}"
            for n in _informative(fit.unknown)
        )
        yield f"{_tensors(fit.unknown)} of the file unknown to the network ({shown})"


def _tensors(names: list[str]) -> str:
    return f"{len(names)} tensor{'s' * (len(names) != 1)}"


def _informative(names: list[str]) -> list[str]:
    """The first and the last (the classifier's) weight, rather than biases and statistics."""
    weights = [name for name in names if name.endswith("weight")] or names
    return list(dict.fromkeys([weights[0], weights[-1]]))[:SHOWN]


def suggest(
    names: Mapping[str, AnyTensor],
    config: NetworkConfig,
    info: InputInfo,
    choice: WeightsChoice,
) -> Verdict | None:
    """The network that the file fits: the requested one with other settings, or one of kdrun's."""
    for trial in _trials(config):
        verdict = _check(trial, names, info, choice)
        if verdict is not None:
            return verdict
    return None


def _trials(config: NetworkConfig) -> Iterator[Trial]:
    yield Trial(config)
    yield from _variants(Trial(config))
    for known in catalogue():
        if (known.target, known.kwargs) != (config.target, config.kwargs):
            yield Trial(known)
            yield from _variants(Trial(known))


def _variants(trial: Trial) -> Iterator[Trial]:
    """The same network with the other type of shortcut."""
    if trial.config.target == RESNET:
        current = trial.config.kwargs.get("shortcut", "projection")
        shortcut = "pad" if current == "projection" else "projection"
        kwargs = {**trial.config.kwargs, "shortcut": shortcut}
        yield Trial(replace(trial.config, kwargs=kwargs), (f"shortcut={shortcut}",))


@cache
def catalogue() -> tuple[NetworkConfig, ...]:
    """All of kdrun's networks that need no further settings."""
    networks = []
    for path in sorted((shipped_configs() / "model").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if not any(mark in text for mark in INCOMPLETE) and "defaults:" not in text:
            node = yaml.safe_load(text)
            name, target = node.pop("name"), node.pop("_target_")
            node.pop("taps", None)
            networks.append(NetworkConfig(name, target, node))
    return tuple(networks)


def _build(config: NetworkConfig, info: InputInfo) -> Expected | None:
    """Its tensors on the meta device; None if it cannot be built for these images."""
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
    except Exception:  # user networks may raise anything; do not suggest such a network
        return None
    return expected_tensors(network) if isinstance(network, nn.Module) else None


def _check(
    trial: Trial, names: Mapping[str, AnyTensor], info: InputInfo, choice: WeightsChoice
) -> Verdict | None:
    """The verdict if the file fits the candidate, for any number of classes and channels."""
    expected = _build(trial.config, info)
    if expected is None or not _similar(names, expected):
        return None
    rename = dict(choice.rename)
    fits = all_fits(names, expected, rename, choice.role)
    if not fits:
        return None
    fit = fits[0]
    for _ in range(4):
        if fit.fits or not (fit.missing and fit.unknown):
            break
        pair = _next_rename(fit, names, expected)
        if pair is None:
            return None
        old, new = pair
        rename[old] = new
        improved = fit_at(fit.prefix, names, expected, rename, fit.place)
        if improved.badness >= fit.badness:
            return None
        fit = improved
    if fit.missing or fit.unknown:
        return None
    added = {old: str(new) for old, new in rename.items() if choice.rename.get(old) != new}
    if fit.fits:
        return Verdict(trial, added, info.num_classes, info.in_channels)
    counts = _matching_counts(trial, fit, names, expected, info)
    return None if counts is None else Verdict(trial, added, *counts)


def _similar(names: Mapping[str, AnyTensor], expected: Expected) -> bool:
    """Whether the file has enough tensors, and half of the network's shapes."""
    needed = len(expected.required)
    shapes = {tuple(tensor.shape) for tensor in names.values()}
    matching = sum(tuple(expected.tensors[name].shape) in shapes for name in expected.required)
    return len(names) >= needed and 2 * matching >= needed


def _next_rename(
    fit: Fit, names: Mapping[str, AnyTensor], expected: Expected
) -> tuple[str, str] | None:
    """The next module to rename. First dimensions may differ (classifiers of other classes)."""
    missing = {name.removeprefix(fit.place): expected.tensors[name].shape for name in fit.missing}
    unknown = {name.removeprefix(fit.prefix): names[name].shape for name in fit.unknown}
    exact = suggested_rename(missing, unknown)
    if not exact:
        exact = suggested_rename(_without_first(missing), _without_first(unknown))
    return next(iter(exact.items()), None)


def _without_first(shapes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: (len(shape), *tuple(shape)[1:]) for name, shape in shapes.items()}


def _matching_counts(
    trial: Trial,
    fit: Fit,
    names: Mapping[str, AnyTensor],
    expected: Expected,
    info: InputInfo,
) -> tuple[int, int] | None:
    """(classes, channels) with which all shapes agree."""
    classes, channels = info.num_classes, info.in_channels
    for name in fit.shapes:
        ours, theirs = tuple(expected.tensors[name].shape), tuple(names[fit.matches[name]].shape)
        if len(ours) != len(theirs):
            return None
        for axis, (our_size, their_size) in enumerate(zip(ours, theirs, strict=True)):
            if our_size == their_size:
                continue
            if our_size == info.num_classes and axis == 0:
                classes = their_size
            elif our_size == info.in_channels and axis == 1:
                channels = their_size
            else:
                return None
    network = _build(trial.config, InputInfo(classes, channels, info.image_size))
    if network is None or (classes, channels) == (info.num_classes, info.in_channels):
        return None
    agree = all(
        tuple(network.tensors[name].shape) == tuple(names[file_name].shape)
        for name, file_name in fit.matches.items()
        if math.prod(names[file_name].shape) != 1
    )
    return (classes, channels) if agree else None


def _advice(verdict: Verdict, config: NetworkConfig, info: InputInfo, choice: WeightsChoice) -> str:
    """The network that the file fits, and what to type."""
    setting = choice.setting
    overrides = [f"{setting}={verdict.trial.config.name}"]
    overrides += [f"{setting}.{text}" for text in verdict.trial.settings]
    if verdict.rename:
        pairs = {**choice.rename, **verdict.rename}
        items = ", ".join(f"{old}: {'null' if new is None else new}" for old, new in pairs.items())
        overrides.append(f"'{setting}.rename={{{items}}}'")
    same = verdict.trial.config.name == config.name and not (
        verdict.trial.settings or verdict.rename
    )
    counts = []
    if verdict.classes != info.num_classes:
        counts.append((f"{verdict.classes} classes", f"{info.num_classes}"))
    if verdict.channels != info.in_channels:
        counts.append((f"{verdict.channels} channels", f"{info.in_channels}"))
    having = " and ".join(file_count for file_count, _ in counts)
    need = " and ".join(data_count for _, data_count in counts)
    name = verdict.trial.config.name
    if same:
        end = _remedy(verdict, info, choice)
        return f"It is a {name} with {having}, and the data have {need}{end}"
    text = f"It fits {name}{f' with {having}' if having else ''}: type {' '.join(overrides)}"
    return f"{text}{f' (the data have {need})' if need else ''}."


def _remedy(verdict: Verdict, info: InputInfo, choice: WeightsChoice) -> str:
    trained = choice.role == "student" or choice.starts_training
    if trained and verdict.channels == info.in_channels:
        return f": {choice.setting}.new_classifier=true keeps all but the classifier."
    return ": choose matching data or another file."
