"""`kdrun search`: Optuna proposes settings, each is a run of `kdrun distill` like any other."""

import re
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout
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
    asked = _Asked(flags)
    if flags.dry_run is not None:
        _show_dry_run(asked, search_dir, flags.dry_run)
        return EXIT_DONE
    if search_dir is None:
        untrusted.remember(VERB, flags.to_argv())
    asked.require_budget()
    folder = SweepFolder(search_dir or asked.folder())
    make_folder(folder.path)
    lock = FileLock(folder.path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"{folder.path} is in use: another process runs this search.") from None
    try:
        return _search(asked, folder, [VERB, *flags.to_argv()])
    finally:
        lock.release()


class _Asked:
    """The search as typed: its space, the fixed settings, and the configuration of a trial."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        spec = CommandSpec.of(VERB, flags.config_dir)
        typed = grammar.with_short_names(flags.overrides, VERB)
        overrides = grammar.parse(teachers.expand_teachers(typed, flags.config_dir))
        suggestions.check_names(spec, overrides)
        self.composer = Composer(spec)
        self.fixed = [o for o in overrides if not o.is_sweep_override()]
        self._refuse_more_than_a_space()
        self._words = [
            o.input_line or "" for o in self.fixed if o.key_or_group.split(".")[0] != VERB
        ]
        with hydra_ready():
            cfg = self.composer.compose(self.fixed)
        self.settings: SearchConfig = parse.search_config(cfg)
        named = search_space.parse(self.settings.space)
        suggestions.check_names(spec, named)
        swept = {o.get_key_element(): o for o in named}
        for override in self.fixed:  # a setting that is typed is not searched
            swept.pop(override.get_key_element(), None)
        swept |= {o.get_key_element(): o for o in overrides if o.is_sweep_override()}
        self.dimensions: list[Dimension] = [search_space.dimension(spec, o) for o in swept.values()]
        if not self.dimensions:
            raise ConfigError(
                "There is nothing to search: give ranges, e.g. 'T=interval(1,20)' "
                "'lr=tag(log,interval(0.01,0.5))', or a named space, search=kd."
            )
        checked = [self.config(words) for words in search_space.corners(self.dimensions)]
        executor.require_objectives(checked)
        self.base = checked[0]
        if self.base.val_fraction == 0:
            raise ConfigError("A search is decided on the validation split: val_fraction=0.1.")

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
        spec, fixed = self.composer.spec, self.composer.parse(self._words)
        lines = [o.input_line or "" for o in fixed if not spec.is_only_for_sweeps(o)]
        settings = teachers.merge_teachers(lines)
        return ["distill", *flags, *settings, *words]

    def require_budget(self) -> None:
        """Raise ConfigError if no student is within the budget, where a list holds them all."""
        sized = [one for one in self.dimensions if one.name.split(".")[0] in SIZE_GROUPS]
        if any(isinstance(one, Interval) for one in sized) or len(sized) > 1:
            return
        from kdrun.sweeps.budget import decide

        decide([self.config(words) for words in search_space.corners(self.dimensions)])

    def _refuse_more_than_a_space(self) -> None:
        """Raise ConfigError if the file of `search=NAME` sets more: no trial could repeat it."""
        for override in self.fixed:
            if override.key_or_group == VERB:
                name = str(override.value())
                more = config_groups.settings_beside(VERB, name, self.flags.config_dir)
                if more:
                    raise ConfigError(
                        f"search={name} also sets {', '.join(sorted(more))}, and a trial's command "
                        "would lack it: move it to an experiment, experiment=NAME."
                    )

    def folder(self) -> Path:
        """Identifies the search by its composed settings; independent of the number of trials."""
        from kdrun.distillation.run_identity import identity

        names = "+".join(one.name for one in self.dimensions)
        safe = re.sub(r"[^\w.+-]", "_", names)[:60]
        parts = [identity(self.base), [repr(one) for one in self.dimensions], self.settings.seed]
        root = Path(self.base.runtime.output_root)
        return root / "searches" / f"{safe}-{canonical_hash(parts)[:8]}"


def _show_dry_run(asked: _Asked, search_dir: Path | None, choice: str) -> None:
    """Dry run: the search space, the remaining trials and the cost of one."""
    folder = SweepFolder(search_dir or asked.folder())
    notes = folder.notes()
    ended = sum(n.get("code") is not None and not n.get("over_budget") for n in notes)
    trials = asked.settings.trials
    left = max(0, trials - ended)
    say(f"search of {trials} trials: {ended} finished, {left} to run; one of them:")
    words = asked.argv(list(search_space.corners(asked.dimensions)[0]))
    plan = planning.Plan(asked.flags, configs=[asked.base], argvs=[words])
    execution.show_dry_run(plan, choice)


def _search(asked: _Asked, folder: SweepFolder, command: list[str]) -> int:
    from kdrun.sweeps import search

    study = Study(folder.path, asked.dimensions, asked.settings.seed)
    before = folder.read() if study.ended() else {}
    search.begin(folder, command, asked.settings.trials + study.rejected(), asked.base)
    try:
        search.announce(folder, asked.dimensions, study.ended(), asked.base)
    except ConfigError:  # what ran before can still be resumed as it was
        folder.add(**before)
        raise
    budget = search.TrialBudget(folder, asked.base)
    codes = []
    try:
        while study.ended() < asked.settings.trials and not budget.is_spent(study.ended()):
            trial = study.next()
            words = list(trial.words)
            folder.add_job(trial.number, asked.argv(words), words)
            if budget.rejects(trial.number, asked.config(words)):
                study.reject(trial)
                continue
            codes.append(_try(asked, folder, trial, distill.execute))
            study.tell(trial, search.score(folder, trial.number))
            if codes[-1] != EXIT_DONE and asked.base.runtime.sweep.fail_fast:
                break
    except KeyboardInterrupt:
        codes.append(EXIT_INTERRUPTED)
    search.summarise(folder, study)
    if EXIT_INTERRUPTED in codes:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if codes and all(code != EXIT_DONE for code in codes) else EXIT_DONE


def _try(asked: _Asked, folder: SweepFolder, trial: Trial, distill: executor.Command) -> int:
    words = list(trial.words)
    return executor.do_job(
        folder, trial.number, partial(asked.config, words), distill, asked.argv(words)
    )


def config(cfg: DictConfig, config_dir: Path | None) -> DistillConfig:
    """The validated configuration of one trial."""
    return distill.config(cfg, config_dir)
