"""Check a command completely before anything is built.

The command's overrides are parsed, expanded, composed with Hydra's compose API, for every job of a
sweep, and turned into checked dataclasses, which is what runs. `kdrun.cli.suggestions` explains
failures.
"""

import copy
import itertools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from kdrun.cli import config_groups, grammar, suggestions, teachers, verbs
from kdrun.cli.command_spec import Request, elements, is_hydra, request
from kdrun.cli.grammar import check_counts, check_jobs
from kdrun.cli.ineffective import check_effect
from kdrun.cli.output import Progress
from kdrun.cli.parser import Flags
from kdrun.cli.typed import typed_config
from kdrun.config import composition
from kdrun.config.schema import (
    BenchmarkConfig,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    named_teachers,
)
from kdrun.config.teachers import ENSEMBLE_KEYS, TEACHER_KEYS
from kdrun.errors import ConfigError
from kdrun.sweeps.launchers import Launcher, launcher_of
from kdrun.sweeps.plan import Config

VERSION_BASE = "1.3"
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
TRIED = 20  # jobs that are tried to find out whether a mistake is in some jobs or in all
# Added to the command of one job of an experiment that is a sweep by itself.
ONCE = "hydra.mode=RUN"

# `configs/hydra/launcher` reuses the names of Hydra's own launcher plugins. Where these are
# installed, Hydra warns that it validates against their schema.
warnings.filterwarnings(
    "ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore"
)


@dataclass(frozen=True)
class Plan:
    """The planned jobs of a command. sweep_dir: None for a single run.

    configs: the typed configuration of every job; of a single run, its own.
    argvs: for each of them, what to type after `kdrun` to run it alone.
    flags: the same command as Hydra takes it.
    launcher: runs the jobs of a sweep.
    shown: the text that `--cfg` prints instead of running anything.
    """

    flags: Flags
    shown: str | None = None
    sweep_dir: Path | None = None
    configs: list[Config] = field(default_factory=list)
    argvs: list[list[str]] = field(default_factory=list)
    launcher: Launcher = field(default_factory=lambda: Launcher("basic"))


def check(verb: str, config_name: str, flags: Flags) -> Plan:
    """Plan what `kdrun VERB` with these flags runs. Raises ConfigError for any mistake in it.

    With --cfg or --info only the names are checked: an incomplete configuration may be looked at.
    """
    if flags.config_dir is not None:
        broken = config_groups.broken_yaml(flags.config_dir)
        if broken is not None:
            raise ConfigError(f"A file in --config-dir cannot be read: {broken}.")
    flags = replace(flags, overrides=grammar.with_short_names(flags.overrides, config_name))
    spec = request(verb, config_name, flags.config_dir)
    if teachers.GROUP in spec.primary.groups:
        flags = replace(
            flags, overrides=teachers.expand_teachers(flags.overrides, flags.config_dir)
        )
    overrides = grammar.parse(flags.overrides)
    check_jobs(overrides)
    if flags.multirun and flags.only_shows:
        raise ConfigError(
            "-m runs a sweep, and --cfg and --info show one configuration: leave out one of them."
        )
    suggestions.check_names(spec, overrides)
    with initialize_config_module("kdrun.configs", version_base=VERSION_BASE):
        try:
            return _plan(Composer(spec), overrides, flags)
        except OmegaConfBaseException as error:  # a Hydra setting was set to null
            raise ConfigError(f"{str(error).splitlines()[0]}.") from None


def _plan(composer: "Composer", overrides: list[Override], flags: Flags) -> Plan:
    swept = [override for override in overrides if override.is_sweep_override()]
    fixed = [o for o in overrides if not o.is_sweep_override()]
    sweeps_experiments = any(o.key_or_group == "experiment" for o in swept)
    always = [o for o in fixed if not (sweeps_experiments and teachers.placed_in_jobs(o))]
    hydra = composer.hydra(always)
    is_sweep = flags.multirun or hydra.mode == RunMode.MULTIRUN
    if not is_sweep or flags.only_shows:
        composer.compose(fixed)  # otherwise each job composes them with its groups
    if swept and not is_sweep:
        tree = composer.tree(fixed)
        raise ConfigError(suggestions.ambiguous(composer.spec, tree, swept[0]))
    params = (hydra.sweeper.get("params") or {}) if is_sweep else {}
    words = [f"{key}={value}" for key, value in params.items()]
    named = grammar.parse(grammar.with_short_names(words, composer.spec.config_name))
    check_jobs(named)
    if flags.cfg is not None:
        return Plan(flags, shown=_shown(composer.compose(fixed), flags))
    if flags.only_shows:
        return Plan(flags)
    if is_sweep and not verbs.module(composer.spec.verb).SWEEPS:
        raise ConfigError(
            f"{composer.spec.verb} makes one thing at a time and has no sweeps: type the command "
            "once for each value, without -m."
        )
    if not is_sweep:
        suggestions.check_single(composer.spec, overrides)
        config = composer.typed(overrides)
        check_effect([config], overrides)
        return Plan(flags, configs=[config], argvs=[composer.argv(overrides)])
    suggestions.check_names(composer.spec, named)
    # as in Hydra: typed values replace those of a named sweep, in place
    last = {override.get_key_element(): override for override in [*named, *overrides]}
    return _sweep(composer, list(last.values()), flags)


def _sweep(composer: "Composer", overrides: list[Override], flags: Flags) -> Plan:
    """Every job in Hydra's order. Jobs that cover all values are validated first, to fail early."""
    spec = composer.spec
    check_jobs(overrides)
    if spec.verb != "distill":
        grammar.refuse_budget(overrides, spec.verb)
    if any(spec.is_group(override) for override in overrides if override.is_sweep_override()):
        flags = replace(flags, overrides=[_in_each_job(spec, word) for word in flags.overrides])
    columns = [elements(spec, override) for override in overrides]
    words = " ".join(o.input_line or "" for o in overrides if o.is_sweep_override())
    check_counts(words, [len(column) for column in columns])  # also counts the matches of globs
    jobs = list(itertools.product(*columns))
    configs: dict[int, Config] = {}
    progress = Progress("checking jobs", len(jobs))
    order = list(_values_first(columns, jobs))
    for number in order:
        try:
            configs[number] = composer.typed_job(composer.parse(jobs[number]))
        except ConfigError as error:
            others = [jobs[other] for other in order if other != number]
            if not configs and not any(_is_valid(composer, job) for job in others[:TRIED]):
                raise  # the same in every job: none of them is to be named
            raise ConfigError(f"{error} ({_job_name(number, columns, jobs)})") from None
        progress.show(len(configs))
    check_effect(configs.values(), overrides)
    hydra = composer.compose(composer.parse(jobs[0])).hydra
    once = [composer.run_once(composer.parse(job)) for job in jobs]
    argvs = [
        [*composer.argv(composer.parse(job)), *alone] for job, alone in zip(jobs, once, strict=True)
    ]
    launcher = OmegaConf.to_container(hydra.launcher, resolve=True)
    assert isinstance(launcher, dict)
    return Plan(
        flags,
        sweep_dir=Path(str(hydra.sweep.dir)),
        configs=[configs[number] for number in range(len(jobs))],
        argvs=argvs,
        launcher=launcher_of({str(key): value for key, value in launcher.items()}, len(jobs)),
    )


def _is_valid(composer: "Composer", job: tuple[str, ...]) -> bool:
    try:
        composer.typed_job(composer.parse(job))
    except ConfigError:
        return False
    return True


def _job_name(number: int, columns: list[list[str]], jobs: list[tuple[str, ...]]) -> str:
    """E.g. 'job 3 of 6: T=4 alpha=0.1': the swept settings only."""
    words = zip(jobs[number], columns, strict=True)
    swept = " ".join(word for word, column in words if len(column) > 1)
    return f"job {number + 1} of {len(jobs)}: {swept}"


def _shown(cfg: DictConfig, flags: Flags) -> str:
    """The output of `--cfg job|hydra|all`: YAML of the composed configuration or a package."""
    every = [str(key) for key in cfg]
    names = {"job": [key for key in every if key != "hydra"], "hydra": ["hydra"], "all": every}
    part: Any = OmegaConf.masked_copy(cfg, names[flags.cfg or "job"])
    header = ""
    if flags.package not in (None, "_global_"):
        part = OmegaConf.select(part, str(flags.package))
        if part is None:
            raise ConfigError(f"--package {flags.package}: the configuration has no such part.")
        if not OmegaConf.is_config(part):
            return str(part)
        header = f"# @package {flags.package}\n"
    if flags.resolve:
        OmegaConf.resolve(part)
    return header + OmegaConf.to_yaml(part)


def _in_each_job(spec: Request, word: str) -> str:
    """A value, for Hydra, that is set in each job: what it is set in may be chosen there."""
    override = grammar.parse([word])[0]
    if override.is_sweep_override() or spec.is_structural(override):
        return word
    key, _, value = word.partition("=")
    in_each = f"{key}=choice({value})"
    return in_each if grammar.readable(in_each) else word  # null, which every place takes


def _values_first(columns: list[list[str]], jobs: list[tuple[str, ...]]) -> Iterable[int]:
    """All job numbers, starting with a set of jobs that covers every value."""
    cover = []
    for position, column in enumerate(columns):
        stride = 1
        for later in columns[position + 1 :]:
            stride *= len(later)
        cover += [index * stride for index in range(len(column))]
    return dict.fromkeys([*cover, *range(len(jobs))])


class Composer:
    """Composes like Hydra, but caches the slow part per choice of groups.

    Overrides that only replace values (`T=4`) are applied to a copy of the cached composition,
    as Hydra itself does.
    """

    def __init__(self, spec: Request) -> None:
        composition.register(spec.config_dir)
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
        folder = self.spec.config_dir
        extra = [] if folder is None else [f"hydra.searchpath=[{_file_url(folder)}]"]
        name = self.spec.config_name
        try:
            full = compose(name, [*lines, *extra], return_hydra_config=True)
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
        foreign = set().union(*trees.values()) - trees.get(str(chosen), set())
        with flag_override(cfg.scheme, ["readonly", "struct"], False):
            for key in foreign - {
                key.removeprefix("scheme.") for key in keys
            }:  # typed: +scheme.x=1
                cfg.scheme.pop(key, None)


def _file_url(folder: Path) -> str:
    escaped = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return f"'file://{escaped}'"


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
