"""Check a command completely before anything is built.

The command's overrides are parsed, expanded, composed with Hydra's compose API, for every job of a
sweep, and turned into checked dataclasses, which is what runs. `kdrun.cli.suggestions` explains
failures.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdrun.cli import config_groups, grammar, suggestions, teachers, verbs
from kdrun.cli.command_spec import CommandSpec, elements
from kdrun.cli.composer import Composer
from kdrun.cli.grammar import check_counts, check_jobs
from kdrun.cli.ineffective import check_effect
from kdrun.cli.output import Progress
from kdrun.cli.parser import Flags
from kdrun.config.composition import hydra_ready
from kdrun.errors import ConfigError
from kdrun.sweeps.launchers import Launcher, launcher_of
from kdrun.sweeps.plan import Config

TRIED = 20  # jobs that are tried to find out whether a mistake is in some jobs or in all


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


def check(verb: str, flags: Flags) -> Plan:
    """Plan what `kdrun VERB` with these flags runs. Raises ConfigError for any mistake in it.

    With --cfg or --info only the names are checked: an incomplete configuration may be looked at.
    """
    config_groups.require_readable(flags.config_dir)
    spec = CommandSpec.of(verb, flags.config_dir)
    flags = replace(flags, overrides=grammar.with_short_names(flags.overrides, spec.config_name))
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
    with hydra_ready():
        try:
            return _plan(Composer(spec), overrides, flags)
        except OmegaConfBaseException as error:  # a Hydra setting was set to null
            raise ConfigError(f"{str(error).splitlines()[0]}.") from None


def _plan(composer: Composer, overrides: list[Override], flags: Flags) -> Plan:
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


def _sweep(composer: Composer, overrides: list[Override], flags: Flags) -> Plan:
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
    jobs = [composer.parse(words) for words in itertools.product(*columns)]
    configs: dict[int, Config] = {}
    progress = Progress("checking jobs", len(jobs))
    order = list(_values_first(columns))
    for number in order:
        try:
            configs[number] = composer.typed_job(jobs[number])
        except ConfigError as error:
            others = [jobs[other] for other in order if other != number]
            if not configs and not any(_is_valid(composer, job) for job in others[:TRIED]):
                raise  # the same in every job: none of them is to be named
            swept = [o for o, values in zip(jobs[number], columns, strict=True) if len(values) > 1]
            words = " ".join(str(override.input_line) for override in swept)
            name = f"job {number + 1} of {len(jobs)}: {words}"
            raise ConfigError(f"{error} ({name})") from None
        progress.show(len(configs))
    check_effect(configs.values(), overrides)
    hydra = composer.compose(jobs[0]).hydra
    argvs = [[*composer.argv(job), *composer.run_once(job)] for job in jobs]
    launcher = OmegaConf.to_container(hydra.launcher, resolve=True)
    assert isinstance(launcher, dict)
    return Plan(
        flags,
        sweep_dir=Path(str(hydra.sweep.dir)),
        configs=[configs[number] for number in range(len(jobs))],
        argvs=argvs,
        launcher=launcher_of({str(key): value for key, value in launcher.items()}, len(jobs)),
    )


def _is_valid(composer: Composer, job: list[Override]) -> bool:
    try:
        composer.typed_job(job)
    except ConfigError:
        return False
    return True


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


def _in_each_job(spec: CommandSpec, word: str) -> str:
    """A value, for Hydra, that is set in each job: what it is set in may be chosen there."""
    override = grammar.parse([word])[0]
    if override.is_sweep_override() or spec.is_structural(override):
        return word
    key, _, value = word.partition("=")
    in_each = f"{key}=choice({value})"
    return in_each if grammar.readable(in_each) else word  # null, which every place takes


def _values_first(columns: list[list[str]]) -> Iterable[int]:
    """All job numbers, starting with a set of jobs that covers every value."""
    cover = []
    for position, column in enumerate(columns):
        stride = math.prod(len(later) for later in columns[position + 1 :])
        cover += [index * stride for index in range(len(column))]
    return dict.fromkeys([*cover, *range(math.prod(map(len, columns)))])
