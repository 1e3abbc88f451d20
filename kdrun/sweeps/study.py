"""An Optuna study: its trials, in a SQLite file, and the next one to try."""

import errno
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrun.config.readers import is_number
from kdrun.errors import ConfigError, KdrunError, MissingExtraError
from kdrun.files import make_folder, published
from kdrun.seeds import derive

NAME = "search"
DATABASE = "study.db"
# Numbers are rounded to this many significant digits before they are used.
DIGITS = 4


@dataclass(frozen=True)
class Choice:
    """One of several values, as typed."""

    name: str
    values: tuple[str, ...]

    def ends(self) -> tuple[str, ...]:
        """All values as text."""
        return self.values


@dataclass(frozen=True)
class Interval:
    """A number in [`low`, `high`]; integer if both ends are. log: uniform on a log scale."""

    name: str
    low: float | int
    high: float | int
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the dimension is an integer."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def ends(self) -> tuple[str, ...]:
        """Both ends as text."""
        return self.text(self.low), self.text(self.high)

    def text(self, value: float | int) -> str:
        """A value as an override."""
        return str(value) if self.is_whole else f"{value:.{DIGITS}g}"


Dimension = Choice | Interval


@dataclass(frozen=True)
class Trial:
    """One setting to try. words: overrides to add to the command."""

    number: int
    words: tuple[str, ...]


class Study:
    """The trials of one search.

    What is tried next follows from the seed, the trial's number and the trials before it, so that
    an interrupted search resumes as if it had not been interrupted.
    """

    def __init__(self, folder: Path, dimensions: list[Dimension], seed: int) -> None:
        self.optuna = _optuna()
        self.dimensions = dimensions
        self.seed = seed
        make_folder(folder)
        self.path = folder / DATABASE
        if not self.path.exists() or self.path.stat().st_size == 0:
            with published(self.path) as unfinished:  # creates the database atomically
                self._open(unfinished)
        self.study = self._open(self.path)

    def _open(self, path: Path) -> Any:
        """The study in a database, created if needed."""
        with _naming(self.path):
            storage = self.optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
            study = self.optuna.create_study(
                study_name=NAME, storage=storage, direction="maximize", load_if_exists=True
            )
            storage.engine.dispose()  # the next use connects again, to the file of that name
        return study

    def _trials(self, **states: Any) -> list[Any]:
        with _naming(self.path):
            found: list[Any] = self.study.get_trials(deepcopy=False, **states)
        return found

    def ended(self) -> int:
        """The number of completed and failed trials."""
        return len(self._trials()) - self.rejected() - len(self._in_state("RUNNING"))

    def rejected(self) -> int:
        """The number of trials over the budget, which were not run."""
        return len(self._in_state("PRUNED"))

    def _in_state(self, name: str) -> list[Any]:
        return self._trials(states=(getattr(self.optuna.trial.TrialState, name),))

    def next(self) -> Trial:
        """The trial that was interrupted, or a new one."""
        stopped = self._in_state("RUNNING")
        if stopped:
            return self._trial(stopped[0].number, stopped[0].params)
        number = len(self._trials())
        seed = derive(self.seed, "search", number) % 2**32
        self.study.sampler = self.optuna.samplers.TPESampler(seed=seed)
        with _naming(self.path):
            asked = self.study.ask({one.name: self._distribution(one) for one in self.dimensions})
        return self._trial(asked.number, asked.params)

    def tell(self, trial: Trial, value: float | None) -> None:
        """The trial's validation accuracy in percent; None: it failed."""
        with _naming(self.path):
            if value is None:
                self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
            else:
                self.study.tell(trial.number, value)

    def reject(self, trial: Trial) -> None:
        """The trial is over the budget; the sampler counts it as worse than all others."""
        with _naming(self.path):
            self.study.tell(trial.number, state=self.optuna.trial.TrialState.PRUNED)

    def plots(self, folder: Path) -> list[Path]:
        """Write the history plot and, with enough trials, the parameter importances."""
        os.environ.setdefault("MPLBACKEND", "agg")
        figures = self.optuna.visualization.matplotlib
        written = [_save(figures.plot_optimization_history, self.study, folder / "history.png")]
        complete = self.optuna.trial.TrialState.COMPLETE
        values = {t.value for t in self.study.get_trials(deepcopy=False, states=(complete,))}
        if len(values) > 1 and len(self.dimensions) > 1:
            written.append(
                _save(figures.plot_param_importances, self.study, folder / "importance.png")
            )
        return written

    def _distribution(self, dimension: Dimension) -> Any:
        kinds = self.optuna.distributions
        if isinstance(dimension, Choice):
            return kinds.CategoricalDistribution(dimension.values)
        kind = kinds.IntDistribution if dimension.is_whole else kinds.FloatDistribution
        return kind(dimension.low, dimension.high, log=dimension.log)

    def _trial(self, number: int, params: dict[str, Any]) -> Trial:
        words = []
        for one in self.dimensions:
            value: Any = params.get(one.name)
            if not _fits(value, one):
                raise ConfigError(
                    f"{self.path}: trial {number} has {one.name}={value}, which is not in the "
                    "space of this search: move the file away to search from the start."
                )
            words.append(f"{one.name}={one.text(value) if isinstance(one, Interval) else value}")
        return Trial(number, tuple(words))


# What SQLite says of the disk, and the system's number for it.
DISK_ERRORS = {
    "disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "readonly database": errno.EACCES,
    "unable to open database file": errno.EACCES,
}


def _fits(value: Any, dimension: Dimension) -> bool:
    """Whether a stored value belongs to the dimension."""
    if isinstance(dimension, Choice):
        return value in dimension.values
    return is_number(value) and bool(dimension.low <= value <= dimension.high)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn SQLite's disk errors into OSError that names the database."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, sqlite3.Error):
            cause = cause.__cause__ or cause.__context__
        for words, number in DISK_ERRORS.items():
            if words in str(cause):
                raise OSError(number, os.strerror(number), str(path)) from None
        if isinstance(cause, sqlite3.DatabaseError) or not isinstance(error, OSError | KdrunError):
            reason = str(cause or error).partition("\n")[0]
            raise ConfigError(
                f"{path} is damaged ({reason}): move it away to search from the start, or "
                "restore it."
            ) from None
        raise


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise MissingExtraError("optuna", "search", "kdrun search") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _save(plot: Any, study: Any, path: Path) -> Path:
    import matplotlib.pyplot as pyplot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls these plots experimental
        axes = plot(study)
        with published(path) as unfinished:
            axes.figure.savefig(unfinished, dpi=150, bbox_inches="tight")
        pyplot.close(axes.figure)
    return path
