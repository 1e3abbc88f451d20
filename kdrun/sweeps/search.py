"""The screens of a search, and its objective: validation accuracy of the best epoch."""

from collections.abc import Sequence
from pathlib import Path

from kdrun.config.schema import DistillConfig
from kdrun.distillation.run_identity import identity
from kdrun.errors import EXIT_DONE, ConfigError
from kdrun.losses.objective import objective_of
from kdrun.runs.reading import read_run
from kdrun.runs.sweeps import SweepFolder
from kdrun.sweeps import progress
from kdrun.sweeps.budget import Decision, decide, format_limits, has_budget, require_one
from kdrun.sweeps.executor import note_decisions
from kdrun.sweeps.study import Choice, Dimension, Study
from kdrun.ui.reporter import Reporter

# Proposals over the budget, one after the other, after which a search ends.
MOST_REJECTED = 100


def begin(folder: SweepFolder, command: Sequence[str], trials: int, config: DistillConfig) -> None:
    """Write `sweep.json`; a resumed search keeps its trials.

    trials: including those over the budget.
    """
    kept = folder.jobs()
    settings = {"ui": config.runtime.ui, "fail_fast": False, "launcher": "basic", "processes": 1}
    folder.add(command=list(command), total=trials, jobs=kept, threads=None, **settings)
    for job in kept:  # an interrupted trial runs again
        note = folder.note(job["job"])
        if note is not None and note.get("code") != EXIT_DONE:
            folder.update(job["job"], code=None)


def announce(
    folder: SweepFolder, dimensions: Sequence[Dimension], ended: int, config: DistillConfig
) -> None:
    """Print the search space.

    Raises ConfigError for an invalid objective, and where finished trials ran with other settings,
    code or data.
    """
    objective_of(config)
    recorded = folder.read()
    progress.open_datasets([config], folder)
    settings = folder.read()
    now = {"data": settings["data"], "identity": identity(config)}
    changed = [key for key, value in now.items() if recorded.get(key, value) != value]
    if ended and changed:
        what = {"data": "other data", "identity": "other settings or code"}
        raise ConfigError(
            f"{ended} trials of this search ran with {' and '.join(what[key] for key in changed)}, "
            f"and trials are compared: give another output_root, or delete {folder.path}."
        )
    folder.add(identity=now["identity"])
    reporter = Reporter(settings["ui"])
    before = f", {ended} of them finished before" if ended else ""
    reporter.heading(f"search of {settings['total']} trials{before}")
    width = max(len(one.name) for one in dimensions)
    for one in dimensions:
        if isinstance(one, Choice):
            how = "one of " + ", ".join(one.values)
        else:
            how = " to ".join(one.ends()) + (", by ratio" if one.log else "")
        reporter.say(f"  {one.name:<{width}}  {how}")
    reporter.say("  decided by the validation accuracy of the best epoch, one run for each trial")
    if limits := format_limits(config.runtime.sweep):
        reporter.say(f"  students over the budget are not trained: {limits}")
    reporter.say(f"  folder: {folder.path}")


class TrialBudget:
    """Decides which trials are within the budget, before they are run.

    Raises ConfigError if none of the first proposals is.
    """

    def __init__(self, folder: SweepFolder, config: DistillConfig) -> None:
        self.folder = folder
        self.limits = config.runtime.sweep
        self.is_set = has_budget(config)
        self.rejected: list[Decision] = []

    def rejects(self, number: int, config: DistillConfig) -> bool:
        """Whether the trial is over the budget; records it in the search's folder if so."""
        if not self.is_set:
            return False
        note = self.folder.note(number) or {}
        if note.get("code") is not None:  # the search was killed right after it was decided
            return bool(note.get("over_budget"))
        decision = decide([config], alone=True).get(0)
        if decision is None:
            return False
        note_decisions(self.folder, {number: decision})
        if not decision.excess:
            self.rejected.clear()
            return False
        self.folder.add(total=int(self.folder.read()["total"]) + 1)
        progress.say_progress(self.folder, number)
        self.rejected.append(decision)
        return True

    def is_spent(self, trained: int) -> bool:
        """Whether too many proposals in a row were over the budget."""
        if len(self.rejected) < MOST_REJECTED:
            return False
        if not trained:
            require_one(self.rejected, self.limits, "search")
        Reporter(self.folder.read()["ui"]).warn(
            f"The last {MOST_REJECTED} proposals were over the budget "
            f"({format_limits(self.limits)}): the search ends after {trained} trials."
        )
        return True


def score(folder: SweepFolder, job: int) -> float | None:
    """A finished trial's validation accuracy in percent; None for one without a result."""
    note = folder.note(job)
    run = read_run(Path(note["run"])) if note and note.get("run") else None
    if run is not None and run.fault:
        Reporter(folder.read()["ui"]).warn(f"{run.fault} The trial counts as failed.")
    if run is None or not run.finished:
        return None
    return run.result.student.best_val.val_top1


def summarise(folder: SweepFolder, study: Study) -> None:
    """The ranked trials, the plots, and suggested next commands."""
    progress.summarise(folder)
    if not study.ended():
        return
    reporter = Reporter(folder.read()["ui"])
    drawn = ", ".join(path.name for path in study.plots(folder.path))
    reporter.say(f"  plots: {drawn}; trials for Optuna's own tools: study.db")
    reporter.say("  one run says little: repeat the best settings with -m seed=0,1,2")
