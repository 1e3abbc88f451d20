"""`kdrun evaluate`: measure a finished network, on its own data set or another one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from kdrun.config.dump import evaluate_plain
from kdrun.config.schema import DatasetConfig, EvaluateConfig, TeacherConfig
from kdrun.data.dataset import Dataset
from kdrun.deploy.student import require_card
from kdrun.distillation.data_rows import data_rows
from kdrun.distillation.loaded_teacher import load_teacher
from kdrun.distillation.networks import card_to_dict, dataset_to_dict, renormalised, seen_by
from kdrun.distillation.recording import recording
from kdrun.distillation.session import Session, eval_loader, open_data
from kdrun.distillation.teacher_check import reading_warnings
from kdrun.distillation.token_heads import token_head_metrics
from kdrun.engine.devices import check_precision
from kdrun.engine.finite import refusing
from kdrun.engine.metrics import evaluate
from kdrun.errors import ConfigError
from kdrun.evaluation.finished import differences, open_as_trained
from kdrun.models.build import build_network
from kdrun.models.card import NetworkCard, load_weights
from kdrun.runs.folder import RunFolder
from kdrun.runs.result import COMPLETED, RunResult
from kdrun.runs.search import group_folder
from kdrun.teachers.formats import LoadedWeights, chosen_weights, read_any
from kdrun.ui import tables
from kdrun.ui.head_tables import error_table


def run_evaluate(
    config: EvaluateConfig,
    session: Session,
    argv: Sequence[str],
    started: Callable[[Path], None] = lambda path: None,
) -> dict[str, Any]:
    """Measure `config.run` on the test split in a new run folder; `started` receives its path.

    Raises CheckpointError or ConfigError for files without a card and incompatible data.
    """
    check_precision(config.precision, session.device)
    loaded = read_any(chosen_weights(config.run, config.weights), what="run")
    bare = config.bare
    # run all checks before the folder is created
    if bare is None:
        card = require_card(loaded.card, config.run)
        data, dataset = open_as_trained(card, config.dataset, config.run, session)
        network = _network(loaded, card, dataset)
        notes: tuple[str, ...] = ()
    else:
        _refuse_card(config, loaded)
        assert config.dataset is not None
        data, dataset = config.dataset, open_data(session, config.dataset, 0.0)
        teacher = load_teacher(bare, dataset)
        network, card, notes = teacher.network, teacher.card, teacher.notes
    folder = RunFolder.new_in(group_folder(session.output_root, "evaluate", data.name, card.name))
    started(folder.path)
    known = {
        "dataset": None,
        "device": str(session.device),
        "precision": config.precision,
        "run": config.run,
        "sha256": card.sha256,
        "student": None,
    }
    with recording(folder, session, "evaluate", evaluate_plain(config), argv, known):
        folder.result.update(dataset=dataset_to_dict(dataset))
        found, warnings = _measure(network, card, bare, data, dataset, config, session)
        warnings += [card.edited] if card.edited else []
        warnings += differences(card, dataset) if bare is None else []
        folder.result.update(status=COMPLETED, student={**card_to_dict(card), **found})
        _show(folder, card, dataset, found, session)
        for note in notes:
            session.reporter.say(f"  {note}")
        for warning in warnings:
            session.reporter.warn(warning)
    return folder.result.values


def _refuse_card(config: EvaluateConfig, loaded: LoadedWeights) -> None:
    """Raise ConfigError for `teacher=...` with weights that have a card."""
    if loaded.card is not None:
        raise ConfigError(
            f"{config.run} has a card that says which network it is and how it is read: leave "
            "teacher=... and teacher.* out."
        )


def _network(loaded: LoadedWeights, card: NetworkCard, dataset: Dataset) -> nn.Module:
    """The network that the card describes, with the weights."""
    seen = seen_by(dataset, card.resized, card.info.in_channels)
    info = replace(seen, num_classes=card.built_for.num_classes)
    network = build_network(card.network, info, "run")
    load_weights(network, loaded.weights, str(loaded.path))
    return network


def _measure(
    network: nn.Module,
    card: NetworkCard,
    bare: TeacherConfig | None,
    data: DatasetConfig,
    dataset: Dataset,
    config: EvaluateConfig,
    session: Session,
) -> tuple[dict[str, Any], list[str]]:
    """(metrics of the test split and, if there is one, the validation split; warnings)."""
    own = card.normalisation
    # the network's normalisation, not the data set's
    same_channels = card.info.in_channels == dataset.info.in_channels
    source = own if same_channels else dataset.normalisation
    prepared = partial(
        renormalised, source=source, own=own, image_size=card.resized, outputs=card.outputs
    )
    model = session.place(prepared(network))
    figures: dict[str, Any] = {}
    warnings: list[str] = []
    for name, split in (("val", dataset.val), ("test", dataset.test)):
        if split is None:
            continue
        batches = eval_loader(session, split, source, data, config.batch_size)
        who, remedy = f"The network of {config.run}", "Choose another run: kdrun ls runs."
        with refusing(who, network, "validation" if name == "val" else name, remedy):
            found = evaluate(model, batches, session.device, config.precision, split.extra_metrics)
        figures |= found.to_dict(name)
        if name == "test":
            figures |= token_head_metrics(
                network, prepared, batches, session.device, config.precision
            )
            if bare is not None:
                warnings = reading_warnings(found.logits, split.targets, bare, dataset)
    return figures, warnings


def _show(
    folder: RunFolder, card: NetworkCard, dataset: Dataset, found: dict[str, Any], session: Session
) -> None:
    reporter = session.reporter
    reporter.heading(f"{card.name} on {tables.format_dataset(dataset_to_dict(dataset))}")
    reporter.facts([*data_rows(dataset)[1:], *(("note", note) for note in dataset.notes)])
    splits = {name: value for name, value in found.items() if name not in ("inference", "heads")}
    reporter.show(tables.splits_table(splits))
    if "heads" in found:
        student = {**card_to_dict(card), **found}
        reporter.show(error_table(RunResult.from_dict({"student": student}, check=False)))
    before = card.extra.get("test")
    if before and card.extra.get("dataset", {}).get("name") == dataset.name:
        reporter.say(f"  when it was trained: {before['top1']:.2f} % ({before['errors']} errors)")
    if card.classes != dataset.classes:
        reporter.warn(
            "the class names differ from those it was trained on; the numbers are as given"
        )
    reporter.say(f"  folder: {folder.path}")
