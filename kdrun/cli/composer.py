"""Compose a verb's configuration with Hydra and turn it into its checked dataclass."""

import copy
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from kdrun.cli import config_groups, grammar, suggestions, teachers, verbs
from kdrun.cli.command_spec import CommandSpec, is_hydra
from kdrun.config import places, trust
from kdrun.config.composition import register, searchpath
from kdrun.config.precision import holds_auto
from kdrun.config.schema import (
    BenchmarkConfig,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    named_teachers,
)
from kdrun.config.teachers import ENSEMBLE_KEYS, TEACHER_KEYS
from kdrun.errors import ConfigError
from kdrun.sweeps.plan import Config

# What composing raises, damaged files too; Hydra asserts what a defaults list holds.
COMPOSE_ERRORS = (
    HydraException,
    OmegaConfBaseException,
    YAMLError,
    ValueError,
    TypeError,
    OSError,
    RecursionError,
    AssertionError,
    AttributeError,
    LookupError,
)
# Added to the command of one job of an experiment that is a sweep by itself.
ONCE = "hydra.mode=RUN"

# `configs/hydra/launcher` reuses the names of Hydra's own launcher plugins. Where these are
# installed, Hydra warns that it validates against their schema.
warnings.filterwarnings(
    "ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore"
)


class Composer:
    """Composes like Hydra, but caches the slow part per choice of groups.

    Overrides that only replace values (`T=4`) are applied to a copy of the cached composition,
    as Hydra itself does.
    """

    def __init__(self, spec: CommandSpec) -> None:
        register(spec.config_dir)
        self.spec = spec
        self._bases: dict[tuple[str, ...], DictConfig] = {}
        self._plain: dict[tuple[str, ...], DictConfig] = {}
        self._trees: dict[tuple[str, ...], dict[str, Any]] = {}
        self._parsed: dict[str, Override] = {}
        self._in_jobs: dict[str, bool] = {}

    def parse(self, words: Iterable[str]) -> list[Override]:
        """Parse `words` as overrides; results are cached."""
        overrides = []
        for word in words:
            if word not in self._parsed:
                self._parsed[word] = grammar.parse([word])[0]
            overrides.append(self._parsed[word])
        return overrides

    def compose(self, overrides: list[Override]) -> DictConfig:
        """The configuration, including the `hydra` node. Raises ConfigError with the fix."""
        key = self._base(overrides)
        return self._with_values(self._bases[key], key, overrides)

    def hydra(self, overrides: list[Override]) -> DictConfig:
        """The `hydra` node; plain values are not validated."""
        hydra: DictConfig = self._bases[self._base(overrides)].hydra
        return hydra

    def tree(self, overrides: list[Override]) -> dict[str, Any]:
        """The unresolved configuration as nested dicts, without plain value overrides."""
        return self._trees[self._base(overrides)]

    def typed(self, overrides: list[Override]) -> Config:
        """The validated dataclass of one job. Raises ConfigError with the fix."""
        key = self._base(overrides)
        experiment = self._bases[key].hydra.runtime.choices.get("experiment")
        suggestions.check_composed(self.spec, self._trees[key], experiment)
        self._check_teacher_settings(key, overrides)
        cfg = self._with_values(self._plain[key], key, overrides)
        config = typed_config(self.spec.verb, cfg, self.spec.config_dir)
        _check_paths(config)
        if isinstance(config, DistillConfig):
            suggestions.check_unused(config, overrides)
        return config

    def argv(self, overrides: list[Override]) -> list[str]:
        """The arguments after `kdrun` for one run with these overrides."""
        folder = self.spec.config_dir
        flags = [] if folder is None else ["--config-dir", str(folder)]
        settings = self.job_settings(overrides)
        once = [ONCE for o in overrides if o.input_line == ONCE]
        words = teachers.merge_teachers(o.input_line or "" for o in settings)
        return [self.spec.verb, *flags, *words, *once]

    def run_once(self, overrides: list[Override]) -> list[str]:
        """Extra arguments that keep a job's command from becoming a sweep itself.

        Raises ConfigError for a swept experiment that itself defines a sweep.
        """
        settings = self.job_settings(overrides)
        hydra = self.hydra(settings)
        lost = set(hydra.sweeper.get("params") or {}) - {o.get_key_element() for o in settings}
        if lost:
            raise ConfigError(
                f"experiment={hydra.runtime.choices.experiment} defines a sweep over "
                f"{', '.join(sorted(lost))}, which is not possible within a sweep over "
                "experiments: run it alone, without -m, or name the values too."
            )
        return [ONCE] if hydra.mode == RunMode.MULTIRUN else []

    def typed_job(self, overrides: list[Override]) -> Config:
        """As `typed`, for a job of a sweep: what only composes the sweep is left out."""
        return self.typed(
            [o for o in overrides if not self.spec.is_structural(o) or self._is_in_jobs(o)]
        )

    def job_settings(self, overrides: list[Override]) -> list[Override]:
        """The overrides of one job's command: without those of Hydra and the sweep."""
        return [override for override in overrides if self._is_in_jobs(override)]

    def _is_in_jobs(self, override: Override) -> bool:
        line = override.input_line or ""
        if line not in self._in_jobs:
            dropped = is_hydra(override) or self.spec.is_only_for_sweeps(override)
            self._in_jobs[line] = not dropped
        return self._in_jobs[line]

    def _check_teacher_settings(self, key: tuple[str, ...], overrides: list[Override]) -> None:
        """Raise ConfigError for `teacher2.x=1` if teachers have no setting `x`."""
        choices = self._bases[key].hydra.runtime.choices
        for override in overrides:
            place = teachers.single_teacher(override)
            if place is not None:
                shared = self._trees[key].get("teacher") or {}
                name = choices.get(f"{teachers.GROUP}@{place}")
                option = config_groups.option_tree(teachers.GROUP, str(name), self.spec.config_dir)
                common = {key: shared[key] for key in TEACHER_KEYS if key in shared}
                network = option if name is not None else shared
                known = {k: v for k, v in network.items() if k not in ENSEMBLE_KEYS} | common
                suggestions.check_value(self.spec, {place: known}, override)

    def _with_values(
        self, base: DictConfig, key: tuple[str, ...], overrides: list[Override]
    ) -> DictConfig:
        cfg = copy.deepcopy(base)
        for override in overrides:
            if self.spec.is_structural(override):
                continue
            suggestions.check_value(self.spec, self._trees[key], override)
            try:
                OmegaConf.update(
                    cfg,
                    override.key_or_group,
                    override.value(),
                    merge=True,
                    force_add=suggestions.is_shared_loss_setting(override),
                )
            except OmegaConfBaseException as error:
                reason = str(error).splitlines()[0]
                raise ConfigError(f"'{override.input_line}' does not fit: {reason}.") from None
        return cfg

    def _base(self, overrides: list[Override]) -> tuple[str, ...]:
        lines = tuple(o.input_line or "" for o in overrides if self.spec.is_structural(o))
        if lines in self._bases:
            return lines
        words = [*lines, *searchpath(self.spec.config_dir)]
        try:
            full = compose(self.spec.config_name, words, return_hydra_config=True)
        except COMPOSE_ERRORS as error:
            raise suggestions.explain(self.spec, error) from None
        self._drop_settings_of_other_schemes(full, overrides)
        plain = OmegaConf.masked_copy(full, [str(key) for key in full if key != "hydra"])
        self._bases[lines], self._plain[lines] = full, plain
        tree = OmegaConf.to_container(plain, resolve=False)
        assert isinstance(tree, dict)
        self._trees[lines] = {str(key): value for key, value in tree.items()}
        return lines

    def _drop_settings_of_other_schemes(self, cfg: DictConfig, overrides: list[Override]) -> None:
        """A typed `scheme=offline` also drops an experiment's `scheme.generations`."""
        keys = {o.key_or_group for o in overrides if self.spec.is_structural(o)}
        if "scheme" not in keys or "experiment" not in keys:
            return
        folder, chosen = self.spec.config_dir, cfg.hydra.runtime.choices["scheme"]
        trees = {
            name: set(config_groups.option_tree("scheme", name, folder))
            for name in self.spec.options("scheme")
        }
        typed = {key.removeprefix("scheme.") for key in keys}  # +scheme.x=1
        foreign = set().union(*trees.values()) - trees.get(str(chosen), set()) - typed
        with flag_override(cfg.scheme, ["readonly", "struct"], False):
            for key in foreign:
                cfg.scheme.pop(key, None)


def typed_config(verb: str, cfg: DictConfig, config_dir: Path | None = None) -> Config:
    """The composed configuration of `verb` as its dataclass, types and ranges checked.

    config_dir: the folder of the user's own options; call it within `hydra_ready`.
    Code and places that it names count as named by the user from here on.
    """
    config: Config = verbs.module(verb).config(cfg, config_dir)
    if holds_auto(config):
        from kdrun.engine.speed import resolve_precision  # imports torch

        config = resolve_precision(config, config.runtime)
    trust.name(trust.targets_in(asdict(config)))
    places.record(config)
    return config


def _check_paths(config: Config) -> None:
    """Raise ConfigError for missing runs and checkpoints before anything is built."""
    if isinstance(config, EvaluateConfig | ExportConfig):
        if not Path(config.run).expanduser().exists():
            raise ConfigError(
                f"run={config.run}: there is no such folder or file. kdrun ls runs lists the runs."
            )
        return
    if isinstance(config, BenchmarkConfig):
        return  # the networks are untrained: no checkpoint is read
    start = config.start if isinstance(config, DistillConfig) else None
    if start is not None and not Path(start.checkpoint).expanduser().exists():
        raise ConfigError(
            f"student.checkpoint={start.checkpoint}: there is no such file or folder. Name a run "
            "folder (kdrun ls runs), a store entry or a file of weights, or leave it out to start "
            "from random weights."
        )
    for where, teacher in named_teachers(config.teachers):
        if teacher.checkpoint in (None, "pretrained"):
            continue
        if not Path(teacher.checkpoint).expanduser().exists():
            raise ConfigError(
                f"{where}.checkpoint={teacher.checkpoint}: there is no such file or folder. Leave "
                f"it out to find or train the teacher, or train it alone: kdrun train-teacher "
                f"teacher={teacher.network.name} dataset={config.dataset.name}."
            )
