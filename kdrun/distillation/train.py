"""Train one network and measure it: teachers, baselines and students."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from kdrun.config.schema import AugmentConfig, DatasetConfig, ScheduleConfig
from kdrun.data.dataset import Dataset
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import EvalLoader
from kdrun.data.loaders.partners import PairedLoader
from kdrun.distillation.fine_tuning import classifier_for
from kdrun.distillation.loss_weights import LossWeights
from kdrun.distillation.session import Session, eval_loader, train_loader
from kdrun.engine import distributed
from kdrun.engine.checkpoint import CheckpointFolder
from kdrun.engine.devices import use_precision
from kdrun.engine.finite import diverging
from kdrun.engine.loop import Training, fit
from kdrun.engine.metrics import EpochSums, Evaluation, evaluate
from kdrun.engine.state import TrainState
from kdrun.engine.stopping import early_stop_dict
from kdrun.engine.weight_average import weights_swapped
from kdrun.losses.base import Pretraining
from kdrun.recipes.lr_schedules import TrainingLength, training_length
from kdrun.runs.result import EarlyStop, ResultFile
from kdrun.schemes.base import StudentScheme
from kdrun.schemes.pretrain import PretrainScheme, pretrain_phases
from kdrun.seeds import derive
from kdrun.ui import tables

WriteRows = Callable[[list[dict[str, Any]]], None]


@dataclass(frozen=True)
class Recipe:
    """Settings of one network's training.

    labelled: images have labels. settings: prefix of the schedule's settings on the command line,
    for messages.
    """

    data: DatasetConfig
    augment: AugmentConfig
    schedule: ScheduleConfig
    seed: int
    labelled: bool = True
    settings: str = "schedule."


@dataclass(frozen=True)
class Trained:
    """A finished training. test: after the last epoch. best_val: of the best epoch.

    stopped_early: last epoch and reason, if early stopping ended the training.
    ema: metrics of the averaged weights, with `schedule.ema`; the weights are `state.averaged`.
    """

    state: TrainState
    test: Evaluation
    best_val: dict[str, Any] | None
    stopped_early: dict[str, Any] | None
    ema: dict[str, Any] | None = None

    @property
    def ema_entry(self) -> dict[str, Any]:
        """The entry `ema` of a network in `result.json`; empty without averaged weights."""
        return {} if self.ema is None else {"ema": self.ema}


def run_training(
    scheme: StudentScheme,
    session: Session,
    dataset: Dataset,
    recipe: Recipe,
    checkpoints: CheckpointFolder,
    identity: str,
    write_rows: WriteRows,
    log: WriteRows | None = None,
    result: ResultFile | None = None,
) -> Trained:
    """Train `scheme`, or resume its training, then measure the test split.

    Losses that need pre-training get a separate phase before the main one.
    result: where measured weights of losses are written; None for objectives without any.
    """
    _make_ready(scheme, session, recipe.schedule.precision)
    schedule = recipe.schedule
    loader = train_loader(
        session,
        dataset,
        recipe.data,
        recipe.augment,
        schedule.batch_size,
        recipe.seed,
        schedule.repeated_augmentation,
    )
    batch_size = schedule.eval_batch_size

    def measured(split: Split) -> EvalLoader:
        return eval_loader(session, split, dataset.normalisation, recipe.data, batch_size)

    main = Training(
        train=PairedLoader(loader) if scheme.reads_partner else loader,
        val=None if dataset.val is None else measured(dataset.val),
        schedule=schedule,
        seed=recipe.seed,
        device=session.device,
        checkpoints=checkpoints,
        checkpoint_seconds=60.0 * session.runtime.checkpoint_minutes,
        checkpoint_steps=session.runtime.checkpoint_steps,
        observer=RowWriter(session, write_rows, log),
        stop=session.stop,
        identity=identity,
        labelled=recipe.labelled,
        settings=recipe.settings,
        classifier=classifier_for(
            scheme.network, schedule, dataset.info.num_classes, recipe.settings
        ),
    )
    if result is not None:
        main = _with_loss_weights(main, scheme, session, result)
    state = _run_phases(scheme, main, session)
    write_rows(state.history)
    epochs = training_length(schedule, loader.batches_per_epoch).epochs
    stopped = early_stop_dict(state, schedule, epochs)
    return _measured(scheme, state, session, recipe, measured(dataset.test), stopped)


def _measured(
    scheme: StudentScheme,
    state: TrainState,
    session: Session,
    recipe: Recipe,
    test: EvalLoader,
    stopped: dict[str, Any] | None,
) -> Trained:
    """Measure the weights of the last and the best epoch, and their average."""
    if stopped is not None:
        session.reporter.close()
        early_stop = EarlyStop.from_dict(stopped, check=False)
        session.reporter.say(f"  {tables.format_early_stop(early_stop)}")
    precision, extra = recipe.schedule.precision, test.split.extra_metrics

    def measure() -> Evaluation:
        who = "the student" if recipe.settings == "schedule." else "the teacher in training"
        with diverging(who, "test", recipe.settings):
            return evaluate(scheme.measured, test, session.device, precision, extra)

    found = measure()
    best = _best(scheme, state, found, measure)
    ema = _ema(scheme, state, recipe.schedule, measure)
    return Trained(state, found, best, stopped, ema)


def _with_loss_weights(
    main: Training, scheme: StudentScheme, session: Session, result: ResultFile
) -> Training:
    """Measure the losses' gradients before the first step, where there is CE to compare with."""
    if not (scheme.objective.weighted and scheme.objective.ce_weight):
        return main
    weights = LossWeights(
        scheme,
        main.train,
        session.device,
        main.schedule.precision,
        main.seed,
        session.reporter,
        result,
        main.schedule.freeze_bn_stats,
    )
    return replace(main, on_start=weights.on_start, on_first_batch=weights.on_first_batch)


def _make_ready(scheme: StudentScheme, session: Session, precision: str) -> None:
    use_precision(precision, session.device)
    session.place(scheme)
    if session.runtime.compile:
        session.reporter.say("  compiling the networks: the first step takes up to a minute")


def _run_phases(scheme: StudentScheme, main: Training, session: Session) -> TrainState:
    """Pre-training phases of losses, then the main phase; all share one checkpoint file."""
    distributed.wrap_modules(scheme)
    pretrained = list(pretrain_phases(scheme))
    phases = (*(name for name, _, _ in pretrained), main.phase)
    earlier: tuple[dict[str, Any], ...] = ()
    for name, loss, plan in pretrained:
        session.reporter.say(f"  {name}: {plan.epochs} epochs")
        phase = replace(
            main,
            phase=name,
            phases=phases,
            earlier=earlier,
            on_start=None,
            on_first_batch=None,
            val=None,
            schedule=_pretrain_schedule(plan, main.schedule),
            seed=derive(main.seed, name),
        )
        earlier = tuple(fit(PretrainScheme(scheme, loss), phase).history)
    if pretrained:
        session.reporter.say("  main phase")
    return fit(scheme, replace(main, phases=phases, earlier=earlier))


def _pretrain_schedule(plan: Pretraining, main: ScheduleConfig) -> ScheduleConfig:
    """The main schedule with the length and optimiser of a pre-training phase, at a constant lr."""
    return replace(
        main,
        epochs=plan.epochs,
        steps=None,
        optimizer=plan.optimizer,
        lr=main.lr if plan.lr is None else plan.lr,
        curve="constant",
        milestones=[],
        warmup_epochs=0.0,
        early_stopping=0,
        ema=0.0,
        freeze_epochs=0,
    )


def _best(
    scheme: StudentScheme, state: TrainState, last: Evaluation, measure: Callable[[], Evaluation]
) -> dict[str, Any] | None:
    """Test metrics of the best validation epoch."""
    if state.best is None or state.best_weights is None:
        return None
    if state.best["epoch"] == state.epoch:
        return {**state.best, **last.to_dict()}
    with weights_swapped(scheme.network, state.best_weights):
        return {**state.best, **measure().to_dict()}


def _ema(
    scheme: StudentScheme,
    state: TrainState,
    schedule: ScheduleConfig,
    measure: Callable[[], Evaluation],
) -> dict[str, Any] | None:
    """Metrics of the averaged weights after the last epoch."""
    if state.averaged is None:
        return None
    val_top1 = state.history[-1].get("val/ema_top1_percent")
    with weights_swapped(scheme.network, state.averaged):
        return {"decay": schedule.ema, "val_top1": val_top1, **measure().to_dict()}


class RowWriter:
    """Loop observer: shows progress on the screen and writes each epoch's row to the files."""

    def __init__(self, session: Session, write_rows: WriteRows, log: WriteRows | None) -> None:
        self.reporter = session.reporter
        self.write_rows = write_rows
        self.log = log
        self.rows: list[dict[str, Any]] = []

    def training_started(self, length: TrainingLength, state: TrainState) -> None:
        """Keep the rows written before the interruption."""
        self.rows = list(state.history)
        self.reporter.training_started(length, state)

    def step_done(self, batches: int, sums: EpochSums, images: int) -> None:
        self.reporter.step_done(batches, sums, images)

    def epoch_done(self, row: dict[str, Any], length: TrainingLength) -> None:
        """Write the row to the screen, files and trackers."""
        self.rows.append(row)
        self.write_rows(self.rows)
        if self.log is not None:
            self.log([row])
        self.reporter.epoch_done(row, length)

    def warn(self, text: str) -> None:
        self.reporter.warn(text)
