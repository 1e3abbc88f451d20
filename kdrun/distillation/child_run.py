"""Runs that are part of another run: baselines and earlier generations.

A child run has a folder and a `result.json` like any other. The parent finds it by its fingerprint,
trains it at most once, and reports it on the screen.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.distillation.ensemble import ensemble_of_teachers
from kdrun.distillation.metrics import add_metrics
from kdrun.distillation.prepare import prepare, record
from kdrun.distillation.run_identity import run_name
from kdrun.distillation.session import Session
from kdrun.distillation.student import StudentRun, train_student
from kdrun.distillation.teacher import Teacher
from kdrun.errors import TrainingError
from kdrun.runs.folder import RunFolder
from kdrun.runs.result import COMPLETED
from kdrun.runs.search import find_run, group_folder


@dataclass(frozen=True)
class ChildRecipe:
    """A `NetworkRecipe` whose network is the student of a distillation run.

    digest: value of the entry KEY in `result.json` of a finished run.
    argv: command that repeats the run. teachers: of `config`, ready to use.
    """

    config: DistillConfig
    digest: str
    dataset: Dataset
    session: Session
    argv: Sequence[str]
    teachers: tuple[Teacher, ...] = ()

    KEY: ClassVar[str]
    # Set only in runs made as a child: an interrupted run that a user started is not resumed here.
    MARKER: ClassVar[str]
    LOCK: ClassVar[str]

    @property
    def name(self) -> str:
        """Description for error messages."""
        return f"{self.config.student.name}, seed {self.config.seed}"

    @property
    def group(self) -> Path:
        """The folder of all runs with this name."""
        root, data = self.session.output_root, self.config.dataset.name
        return group_folder(root, "distill", data, run_name(self.config))

    @property
    def lock_file(self) -> Path:
        """See `NetworkRecipe`."""
        folder = self.session.output_root / "distill" / ".locks"
        return folder / f"{self.LOCK}-{self.digest[:16]}.lock"

    def find(self, warn: Callable[[str], None]) -> Path | None:
        """See `NetworkRecipe`."""
        return find_run(self.group, self.KEY, self.digest, True, warn, weights=True)

    def train(self) -> Path:
        """See `NetworkRecipe`."""
        unfinished = find_run(self.group, self.MARKER, self.digest, finished=False)
        if unfinished is not None and (unfinished / "config.yaml").exists():
            folder = RunFolder(unfinished)
        else:
            folder = RunFolder.new_in(self.group)
        with _naming(self.name):
            _run(self, folder)
        return folder.path


def _run(recipe: ChildRecipe, folder: RunFolder) -> None:
    session, teachers = recipe.session.unshared(), list(recipe.teachers)
    run = prepare(recipe.config, folder, session, recipe.argv, recipe.dataset)
    with record(run, {recipe.MARKER: recipe.digest}):
        folder.result.update(teachers=[teacher.to_dict() for teacher in teachers])
        ensemble = ensemble_of_teachers(run.config, [t.test for t in teachers], run.dataset)
        trained = train_student(
            StudentRun(run.config, run.dataset, run.transfer, teachers, session, folder)
        )
        add_metrics(folder.result, trained, teachers, ensemble)
        folder.result.update(status=COMPLETED)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Prefix the network's name to the error of a failed training."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"Training {what}: {error}") from error
