"""`--dry-run`: what a command would run, what exists already and what it costs; nothing is written.

Data sets are opened, and networks are built once for each choice of networks and losses, so a
mistake is found as in a real run. With `--dry-run=time` a few steps of each kind of training are
run and timed in a temporary folder.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdrun.config.schema import (
    DistillConfig,
    LoggerConfig,
    ScheduleConfig,
    TeacherConfig,
    TrainTeacherConfig,
)
from kdrun.data.dataset import Dataset, open_dataset
from kdrun.data.images import Split
from kdrun.distillation.baseline import baseline_config
from kdrun.distillation.build import dry_run_build
from kdrun.distillation.early_checks import network_checks
from kdrun.distillation.initial_weights import check_start, check_teachers
from kdrun.distillation.new_teacher import new_teacher
from kdrun.distillation.prepare import baseline_fingerprint
from kdrun.distillation.pruned import known_start, starts_from_teacher
from kdrun.distillation.session import Session, open_session
from kdrun.distillation.teacher_recipe import teacher_entry
from kdrun.distillation.transfer import data_fingerprints, open_transfer
from kdrun.engine.devices import check_precision
from kdrun.files import free_bytes
from kdrun.models.pruned import with_architecture
from kdrun.runs.search import find_run, group_folder
from kdrun.sweeps.budget import Budget, has_budget, require_one
from kdrun.sweeps.jobs import RunConfig, finished_run, run_place
from kdrun.ui import format

Say = Callable[[str], None]
Executes = Mapping[type, Callable[..., object]]  # type of a configuration → what runs it
WARM_UP_STEPS, TIMED_STEPS = 2, 8
BYTES_PER_WEIGHT = 4
OVER = "over budget"
# Weights, gradients' momentum and the best epoch's weights: what last.pt holds while training.
COPIES_WHILE_TRAINING = 3
# Text files of a run folder: log, metrics, settings, result.
TEXT_BYTES = 40_000
# A forward pass costs about a third of a training step.
FORWARD_SHARE = 1 / 3
TEMPORARY = "kdrun-dry-run-"  # start of the names of temporary folders


@dataclass(frozen=True)
class PlannedJob:
    """A job: its number from 1 on, its settings as typed, its configuration."""

    number: int
    words: str
    config: RunConfig


@dataclass
class Training:
    """One network to be trained. images: that it sees in training; evaluated: in evaluations."""

    what: str
    weights: int
    images: float
    evaluated: float
    config: RunConfig


@dataclass
class Report:
    """The result of a dry run. lines: printed text. trainings: those still to be done."""

    lines: list[str] = field(default_factory=list)
    trainings: dict[str, Training] = field(default_factory=dict)


class _NotDecoded(Exception):  # noqa: N818 - ends opening a data set, which is no error
    """The images would have to be decoded, which writes a cache."""


def dry_run(
    jobs: Sequence[PlannedJob],
    say: Say,
    *,
    reuse: bool,
    processes: int = 1,
    executes: Executes | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Print what the jobs would do.

    reuse: whether finished runs are reused, as in sweeps; a single command always starts a new run.
    executes: given, a few steps are timed with it. progress: called with the number of
    jobs that were examined.
    Raises ConfigError, DataError or CheckpointError for what could not run.
    """
    runtime = jobs[0].config.runtime
    with open_session(replace(runtime, ui="quiet")) as session:
        report = _Examiner(session, reuse).examine(jobs, progress)
    for line in report.lines:
        say(line)
    root = Path(runtime.output_root)
    say(
        f"disk: about {format.size(_disk(report))} in {root} ({format.size(free_bytes(root))} free)"
    )
    if executes is not None:
        if report.trainings:
            seconds, details = _timed(report, executes, processes)
            say(f"time: about {format.seconds(seconds)} ({details})")
        else:
            say("time: nothing to train")
    say("nothing was run or written")


class _Examiner:
    """Looks up what each job needs; inspects each data set, teacher and network once."""

    def __init__(self, session: Session, reuse: bool) -> None:
        self.session = session
        self.reuse = reuse
        self.report = Report()
        self.datasets: dict[str, Dataset | None] = {}
        self.built: dict[str, tuple[int, ...]] = {}
        self.needed: dict[str, str] = {}

    def examine(self, jobs: Sequence[PlannedJob], progress: Callable[[int], None]) -> Report:
        """Fill and return the report."""
        rows, counts = [], {"new": 0, "finished": 0, "to resume": 0, OVER: 0}
        excess = self._over_budget(jobs)
        for done, job in enumerate(jobs, 1):
            over = excess.get(job.number)
            state, where = (OVER, over) if over else self._job(job)
            counts[state] += 1
            number = f"job {job.number}/{len(jobs)}"
            rows.append((number, job.words, f"{state}: {where}" if where else state))
            progress(done)
        listed = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        several = f"{len(jobs)} jobs" if len(jobs) > 1 else "1 run"
        lines = [f"dry run: {several} ({listed})"]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for number, words, state in rows:
            cells = f"  {number:<{widths[0]}}  {words:<{widths[1]}}  {state}"
            lines.append(cells.rstrip())
        lines += [f"{what}: {state}" for what, state in self.needed.items()]
        self.report.lines = lines
        return self.report

    def _over_budget(self, jobs: Sequence[PlannedJob]) -> dict[int, str]:
        """Job number → by how much its student exceeds the budget; nothing is stored.

        Jobs whose images were never decoded count as within it. Raises ConfigError if no student
        of a sweep fits.
        """
        chosen = {
            job.number: job.config
            for job in jobs
            if isinstance(job.config, DistillConfig)
            and has_budget(job.config)
            and self._dataset(job.config) is not None
        }
        budget = Budget(self.session, self._opened, stores=False)
        decisions = budget.decide(chosen) if chosen else {}
        if self.reuse and len(decisions) == len(jobs):
            require_one(list(decisions.values()), jobs[0].config.runtime.sweep, "sweep")
        return {number: one.excess for number, one in decisions.items() if one.excess}

    def _opened(self, config: RunConfig) -> Dataset:
        dataset = self._dataset(config)
        assert dataset is not None
        return dataset

    def _job(self, job: PlannedJob) -> tuple[str, str]:
        """(new, finished or to resume; the folder where there is one)."""
        config = job.config
        check_teachers(config.teachers)
        check_precision(_schedule(config).precision, self.session.device)
        dataset = self._dataset(config)
        finished = unfinished = None
        if dataset is not None and self.reuse:
            group, key = run_place(config)
            finished = finished_run(config, data_fingerprints(config, dataset, self.session))
            unfinished = None if finished else find_run(group, "identity", key, finished=False)
        if finished is not None:
            return "finished", str(finished)
        for teacher in config.teachers:
            self._teacher(config, teacher, dataset)
        if isinstance(config, DistillConfig):
            self._student(job, config, dataset)
        return ("to resume", str(unfinished)) if unfinished else ("new", "")

    def _dataset(self, config: RunConfig) -> Dataset | None:
        """The data set; None where its images were never decoded: no run can have used it."""
        key = repr((config.dataset, config.val_fraction))
        if key not in self.datasets:
            checks = network_checks(config)

            def stop(classes: tuple[str, ...], form: object) -> None:
                checks(classes, form)  # type: ignore[arg-type]
                raise _NotDecoded

            cache = self.session.output_root / "cache"
            name = config.dataset.name
            try:
                opened = open_dataset(config.dataset, config.val_fraction, cache, None, stop)
            except _NotDecoded:
                self.datasets[key] = None
                self.needed[f"data {name}"] = "images are decoded first; not matched with runs"
            else:
                self.datasets[key] = opened
                sizes = f"{len(opened.train):,} train, {_length_of(opened.val):,} validation"
                self.needed[f"data {name}"] = f"{sizes}, {len(opened.test):,} test images"
        return self.datasets[key]

    def _teacher(self, config: RunConfig, teacher: TeacherConfig, dataset: Dataset | None) -> None:
        if teacher.checkpoint is not None:
            self.needed[f"teacher {teacher.network.name}"] = f"from {teacher.checkpoint}"
            return
        what = f"teacher {teacher.network.name} (seed {teacher.seed})"
        if dataset is None:
            self.needed[what] = f"to train, {_length(teacher.schedule)}"
            return
        root = self.session.output_root
        entry = teacher_entry(teacher, config.dataset, dataset, root)
        if entry.is_filled():
            self.needed[f"{what} {entry.folder.name[-6:]}"] = f"in the store ({entry.folder})"
            return
        self.needed[f"{what} {entry.folder.name[-6:]}"] = (
            f"to train once, {_length(teacher.schedule)} ({entry.folder})"
        )
        if str(entry.folder) not in self.report.trainings:
            network, _, _ = new_teacher(teacher, dataset)
            weights = sum(p.numel() for p in network.parameters())
            alone = _teacher_alone(config, teacher)
            self._add(str(entry.folder), what, weights, alone, teacher.schedule, dataset)

    def _student(self, job: PlannedJob, config: DistillConfig, dataset: Dataset | None) -> None:
        check_start(config)
        what = f"student {config.student.name}"
        if dataset is None:
            return
        transfer = open_transfer(config, dataset, self.session)
        config = replace(config, student=with_architecture(config.student, transfer.dataset.info))
        key = repr((config.student, config.teachers, config.loss, config.scheme, config.dataset))
        if key not in self.built:
            plan = dry_run_build(config, transfer.dataset)
            peers = (peer.params for peer in plan.peers)
            self.built[key] = (plan.student.params, *peers)
        weights = sum(self.built[key])
        self._add(f"job {job.number}", what, weights, config, config.schedule, transfer.dataset)
        if config.alone and transfer.labelled:
            self._baseline(config, transfer.dataset, self.built[key][0])

    def _baseline(self, config: DistillConfig, dataset: Dataset, weights: int) -> None:
        plain = baseline_config(config)
        name = f"baseline {config.student.name} (seed {config.seed})"
        start: DistillConfig | None = config
        with tempfile.TemporaryDirectory(prefix=TEMPORARY) as folder:
            if starts_from_teacher(config):
                root = self.session.output_root
                start = known_start(config, dataset, root, Path(folder))
            digest = baseline_fingerprint(start or config, dataset)
        found = None
        if start is None:
            self.needed[name] = "to train once, from the pruned teacher's weights"
        else:
            name = f"{name} {digest[:6]}"
            group = group_folder(
                self.session.output_root, "distill", config.dataset.name, run_place(plain)[0].name
            )
            found = find_run(group, "fingerprint", digest, True, weights=True)
            self.needed[name] = f"finished ({found})" if found else "to train once"
        if found is None and digest not in self.report.trainings:
            self._add(digest, name, weights, plain, plain.schedule, dataset)

    def _add(
        self,
        key: str,
        what: str,
        weights: int,
        config: RunConfig,
        schedule: ScheduleConfig,
        dataset: Dataset,
    ) -> None:
        per_epoch = len(dataset.train)
        images = float(schedule.epochs * per_epoch)
        if schedule.steps is not None:
            images = float(schedule.steps * schedule.batch_size)
        epochs = images / max(per_epoch, 1)
        evaluated = epochs * _length_of(dataset.val) + len(dataset.test)
        self.report.trainings[key] = Training(what, weights, images, evaluated, config)


def _teacher_alone(config: RunConfig, teacher: TeacherConfig) -> TrainTeacherConfig:
    """The configuration that trains one teacher of a command."""
    return TrainTeacherConfig(
        dataset=config.dataset,
        teachers=(teacher,),
        val_fraction=config.val_fraction,
        runtime=config.runtime,
        logger=LoggerConfig("none"),
    )


def _schedule(config: RunConfig) -> ScheduleConfig:
    return config.schedule if isinstance(config, DistillConfig) else config.teachers[0].schedule


def _length(schedule: ScheduleConfig) -> str:
    if schedule.steps is not None:
        return f"{schedule.steps:,} steps"
    return f"{schedule.epochs} epochs"


def _length_of(split: Split | None) -> int:
    return 0 if split is None else len(split)


def _disk(report: Report) -> int:
    """Bytes that the trainings add: weights, the training state while they run, text files."""
    kept = sum(one.weights * BYTES_PER_WEIGHT + TEXT_BYTES for one in report.trainings.values())
    largest = max((one.weights for one in report.trainings.values()), default=0)
    return kept + largest * BYTES_PER_WEIGHT * COPIES_WHILE_TRAINING


def _timed(report: Report, executes: Executes, processes: int) -> tuple[float, str]:
    """(seconds for everything that is left, how they were measured)."""
    rates: dict[str, float] = {}
    seconds = 0.0
    with tempfile.TemporaryDirectory(prefix=TEMPORARY) as root:
        for one in report.trainings.values():
            key = _kind(one.config)
            if key not in rates:
                rates[key] = _images_per_second(one.config, Path(root), executes)
            seconds += (one.images + FORWARD_SHARE * one.evaluated) / rates[key]
    several = f", {processes} jobs at once" if processes > 1 else ""
    kinds = f"{len(rates)} kind{'s' * (len(rates) > 1)} of training"
    return seconds / processes, f"{TIMED_STEPS} timed steps of each of {kinds}{several}"


def _kind(config: RunConfig) -> str:
    """Key of trainings with the same time per image."""
    schedule = _schedule(config)
    size = (schedule.batch_size, schedule.precision, config.dataset)
    if isinstance(config, TrainTeacherConfig):
        return repr((config.teachers[0].network, size))
    networks = [teacher.network for teacher in config.teachers]
    return repr((config.student, networks, sorted(config.loss), config.scheme.name, size))


def _images_per_second(config: RunConfig, root: Path, executes: Executes) -> float:
    """The training rate below `root`: two short trainings, whose difference leaves out start-up."""
    short, long = (
        _training_seconds(_shortened(config, root, steps), root, executes)
        for steps in (WARM_UP_STEPS, WARM_UP_STEPS + TIMED_STEPS)
    )
    seconds = long - short if long > short else long
    return TIMED_STEPS * _schedule(config).batch_size / max(seconds, 1e-6)


def _training_seconds(config: RunConfig, root: Path, executes: Executes) -> float:
    executes[type(config)](config, ["dry-run"])
    verb = "distill" if isinstance(config, DistillConfig) else "teachers"
    newest = max((root / verb).rglob("metrics.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    rows = [json.loads(line) for line in newest.read_text(encoding="utf-8").splitlines()]
    return sum(float(row["epoch_seconds"]) for row in rows)


def _shortened(config: RunConfig, root: Path, steps: int) -> RunConfig:
    """The same training for a few steps, into another output root."""
    runtime = replace(config.runtime, output_root=str(root), ui="quiet")
    none = LoggerConfig("none")
    if isinstance(config, TrainTeacherConfig):
        teachers = tuple(_steps_of_teacher(teacher, steps) for teacher in config.teachers)
        return replace(config, runtime=runtime, teachers=teachers, logger=none)
    return replace(
        config,
        runtime=runtime,
        teachers=tuple(_steps_of_teacher(teacher, 1) for teacher in config.teachers),
        schedule=_steps(config.schedule, steps),
        alone=False,
        logger=none,
    )


def _steps(schedule: ScheduleConfig, steps: int) -> ScheduleConfig:
    return replace(schedule, steps=steps, warmup_epochs=0.0)


def _steps_of_teacher(teacher: TeacherConfig, steps: int) -> TeacherConfig:
    if teacher.checkpoint is not None:
        return teacher
    return replace(teacher, schedule=_steps(teacher.schedule, steps))
