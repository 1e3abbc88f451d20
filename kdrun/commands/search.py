"""`kdrun search`: Optuna proposes settings, each is a run of `kdrun distill` like any other."""

import re
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from kdrun.cli import (
    config_groups,
    execution,
    grammar,
    planning,
    search_space,
    suggestions,
    teachers,
    untrusted,
)
from kdrun.cli.command_spec import CommandSpec
from kdrun.cli.composer import Composer
from kdrun.cli.output import say
from kdrun.cli.parser import Flags, parse_composed
from kdrun.commands import distill
from kdrun.config import parse
from kdrun.config.composition import hydra_ready
from kdrun.config.schema import DistillConfig, SearchConfig
from kdrun.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, ConfigError
from kdrun.files import canonical_hash, make_folder
from kdrun.runs.sweeps import SweepFolder
from kdrun.sweeps import executor
from kdrun.sweeps.study import Dimension, Interval, Study, Trial
from kdrun.world import world

TRAINS = True
ORDER = 70
SUMMARY = "find the best settings within ranges, with Optuna"

EXAMPLES = (
    "kdrun search 'T=interval(1,20)' 'lr=tag(log,interval(0.01,0.5))' search.trials=30",
    "kdrun search search=kd student=cnn_tiny",
    "kdrun search 'epochs=int(interval(10,60))' student=cnn_tiny,cnn_large",
)
VERB = "search"
# Groups whose settings change the size of the student.
SIZE_GROUPS = ("student", "teacher", "dataset", "scheme", "loss")


def run(argv: list[str], search_dir: Path | None = None) -> int:
    """Start or resume a search; returns the exit code.

    search_dir: the folder of a search to resume; None derives it from the search space.
    """
    flags = parse_composed(VERB, argv)
    if flags.only_shows or flags.hydra_help or flags.multirun:
        raise ConfigError(
            "kdrun search takes settings and ranges only: kdrun distill --cfg job shows the "
            "configuration of its runs."
        )
    if world().size > 1:
        raise ConfigError("kdrun search runs in one process: start it without torchrun.")
    command = _checked(flags)
    if flags.dry_run is not None:
        _show_dry_run(command, search_dir, flags.dry_run)
        return EXIT_DONE
    if search_dir is None:
        untrusted.remember(VERB, flags.to_argv())
    command.require_budget()
    folder = SweepFolder(search_dir or command.folder())
    make_folder(folder.path)
    lock = FileLock(folder.path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"{folder.path} is in use: another process runs this search.") from None
    try:
        return _search(command, folder)
    finally:
        lock.release()


@dataclass(frozen=True)
class _Command:
    """A search as typed. fixed: the overrides that all trials share. settings: of the search."""

    flags: Flags
    composer: Composer
    fixed: list[Override]
    settings: SearchConfig
    dimensions: list[Dimension]

    @cached_property
    def base(self) -> DistillConfig:
        """The configuration at the first corner of the space."""
        return self.config(search_space.corners(self.dimensions)[0])

    def config(self, words: list[str]) -> DistillConfig:
        """The configuration of one trial. Raises ConfigError for an invalid one."""
        with hydra_ready():
            overrides = [*self.fixed, *self.composer.parse(words)]
            config = self.composer.typed(overrides)
        assert isinstance(config, DistillConfig)
        return config

    def argv(self, words: list[str]) -> list[str]:
        """Arguments after `kdrun` that run one trial alone."""
        folder = self.flags.config_dir
        flags = ["--config-dir", str(folder)] if folder is not None else []
        lines = [
            override.input_line or ""
            for override in self.fixed
            if override.key_or_group.split(".")[0] != VERB
            and not self.composer.spec.is_only_for_sweeps(override)
        ]
        return ["distill", *flags, *teachers.merge_teachers(lines), *words]

    def require_budget(self) -> None:
        """Raise ConfigError if no student is within the budget, where a list holds them all."""
        sized = [one for one in self.dimensions if one.name.split(".")[0] in SIZE_GROUPS]
        if any(isinstance(one, Interval) for one in sized) or len(sized) > 1:
            return
        from kdrun.sweeps.budget import decide

        decide([self.config(words) for words in search_space.corners(self.dimensions)])

    def folder(self) -> Path:
        """Identifies the search by its composed settings; independent of the number of trials."""
        from kdrun.distillation.run_identity import identity

        names = "+".join(one.name for one in self.dimensions)
        safe = re.sub(r"[^\w.+-]", "_", names)[:60]
        parts = [identity(self.base), [repr(one) for one in self.dimensions], self.settings.seed]
        root = Path(self.base.runtime.output_root)
        return root / "searches" / f"{safe}-{canonical_hash(parts)[:8]}"


def _checked(flags: Flags) -> _Command:
    """The search that the flags describe. Raises ConfigError for any mistake in it."""
    spec = CommandSpec.of(VERB, flags.config_dir)
    typed = grammar.with_short_names(flags.overrides, VERB)
    overrides = grammar.parse(teachers.expand_teachers(typed, flags.config_dir))
    suggestions.check_names(spec, overrides)
    composer = Composer(spec)
    fixed = [o for o in overrides if not o.is_sweep_override()]
    _refuse_more_than_a_space(fixed, flags.config_dir)
    with hydra_ready():
        settings = parse.search_config(composer.compose(fixed))
    command = _Command(flags, composer, fixed, settings, _dimensions(spec, settings, overrides))
    configs = [command.config(words) for words in search_space.corners(command.dimensions)]
    executor.require_objectives(configs)
    if configs[0].val_fraction == 0:
        raise ConfigError("A search is decided on the validation split: val_fraction=0.1.")
    return command


def _refuse_more_than_a_space(fixed: list[Override], config_dir: Path | None) -> None:
    """Raise ConfigError if the file of `search=NAME` sets more: no trial could repeat it."""
    for override in fixed:
        if override.key_or_group == VERB:
            name = str(override.value())
            more = config_groups.settings_beside(VERB, name, config_dir)
            if more:
                raise ConfigError(
                    f"search={name} also sets {', '.join(sorted(more))}, and a trial's command "
                    "would lack it: move it to an experiment, experiment=NAME."
                )


def _dimensions(
    spec: CommandSpec, settings: SearchConfig, overrides: list[Override]
) -> list[Dimension]:
    """The named space without settings that are typed, then the typed ranges."""
    named = search_space.parse(settings.space)
    suggestions.check_names(spec, named)
    ranges = {o.get_key_element(): o for o in overrides if o.is_sweep_override()}
    single = {o.get_key_element() for o in overrides if not o.is_sweep_override()}
    swept = {o.get_key_element(): o for o in named if o.get_key_element() not in single} | ranges
    if not swept:
        raise ConfigError(
            "There is nothing to search: give ranges, e.g. 'T=interval(1,20)' "
            "'lr=tag(log,interval(0.01,0.5))', or a named space, search=kd."
        )
    return [search_space.dimension(spec, override) for override in swept.values()]


def _show_dry_run(command: _Command, search_dir: Path | None, choice: str) -> None:
    """Dry run: the search space, the remaining trials and the cost of one."""
    folder = SweepFolder(search_dir or command.folder())
    notes = folder.notes()
    ended = sum(n.get("code") is not None and not n.get("over_budget") for n in notes)
    trials = command.settings.trials
    left = max(0, trials - ended)
    say(f"search of {trials} trials: {ended} finished, {left} to run; one of them:")
    words = command.argv(list(search_space.corners(command.dimensions)[0]))
    plan = planning.Plan(command.flags, configs=[command.base], argvs=[words])
    execution.show_dry_run(plan, choice)


def _search(command: _Command, folder: SweepFolder) -> int:
    from kdrun.sweeps import search

    study = Study(folder.path, command.dimensions, command.settings.seed)
    before = folder.read() if study.ended() else {}
    typed, trials = [VERB, *command.flags.to_argv()], command.settings.trials
    search.begin(folder, typed, trials + study.rejected(), command.base)
    try:
        search.announce(folder, command.dimensions, study.ended(), command.base)
    except ConfigError:  # what ran before can still be resumed as it was
        folder.add(**before)
        raise
    budget = search.TrialBudget(folder, command.base)
    codes = []
    try:
        while study.ended() < trials and not budget.is_spent(study.ended()):
            trial = study.next()
            words = list(trial.words)
            folder.add_job(trial.number, command.argv(words), words)
            if budget.rejects(trial.number, command.config(words)):
                study.reject(trial)
                continue
            codes.append(_try(command, folder, trial))
            study.tell(trial, search.score(folder, trial.number))
            if codes[-1] != EXIT_DONE and command.base.runtime.sweep.fail_fast:
                break
    except KeyboardInterrupt:
        codes.append(EXIT_INTERRUPTED)
    search.summarise(folder, study)
    if EXIT_INTERRUPTED in codes:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if codes and all(code != EXIT_DONE for code in codes) else EXIT_DONE


def _try(command: _Command, folder: SweepFolder, trial: Trial) -> int:
    words = list(trial.words)
    config, argv = partial(command.config, words), command.argv(words)
    return executor.do_job(folder, trial.number, config, distill.execute, argv)


def config(cfg: DictConfig, config_dir: Path | None) -> DistillConfig:
    """The validated configuration of one trial."""
    return distill.config(cfg, config_dir)
