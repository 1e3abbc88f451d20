"""`kdrun evaluate`: a finished network measured again, on its own data or on others."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kdrun.config.dump import evaluate_plain
from kdrun.config.schema import DatasetConfig, EvaluateConfig
from kdrun.data.dataset import Dataset
from kdrun.deploy.student import require_card
from kdrun.engine.devices import check_precision
from kdrun.engine.finite import refusing
from kdrun.engine.metrics import evaluate
from kdrun.models.build import build_network
from kdrun.models.card import NetworkCard, load_weights
from kdrun.runs.folder import RunFolder
from kdrun.runs.result import COMPLETED
from kdrun.runs.search import group_folder
from kdrun.stages.finished import check_classes, data_of
from kdrun.stages.heads import heads_facts
from kdrun.stages.networks import card_facts, dataset_facts, renormalised, seen_by
from kdrun.stages.recording import recording
from kdrun.stages.session import Session, eval_loader, open_data
from kdrun.teachers.formats import LoadedWeights, read_any
from kdrun.ui import tables
from kdrun.ui.head_tables import error_table


def run_evaluate(
    config: EvaluateConfig,
    session: Session,
    argv: Sequence[str],
    made: Callable[[Path], None] = lambda path: None,
) -> dict[str, Any]:
    """Measure `config.run` on the test split, in a run folder of its own, which `made` is told.

    Raises CheckpointError or ConfigError for files without a card and data that do not fit.
    """
    check_precision(config.precision, session.device)
    loaded = read_any(Path(config.run), what="run")
    card = require_card(loaded.card, config.run)
    data, val_fraction = data_of(card, config.dataset, config.run)
    group = group_folder(session.output_root, "evaluate", data.name, card.name)
    folder = RunFolder.create_in(group)
    made(folder.path)
    known = {
        "dataset": None,
        "device": str(session.device),
        "precision": config.precision,
        "run": config.run,
        "sha256": card.sha256,
        "student": None,
    }
    with recording(folder, session, "evaluate", evaluate_plain(config), argv, known):
        dataset = open_data(session, data, val_fraction)
        check_classes(card, dataset)
        folder.result.update(dataset=dataset_facts(dataset))
        found = _measure(loaded, card, data, dataset, config, session)
        folder.result.update(status=COMPLETED, student={**card_facts(card), **found})
        _show(folder, card, dataset, found, session)
    return folder.result.values


def _measure(
    loaded: LoadedWeights,
    card: NetworkCard,
    data: DatasetConfig,
    dataset: Dataset,
    config: EvaluateConfig,
    session: Session,
) -> dict[str, Any]:
    """Test figures, and those of the validation split where there is one."""
    info = seen_by(dataset, card.resized)
    network = build_network(card.network, info, "run")
    load_weights(network, loaded.weights, str(loaded.path))
    same = card.normalisation
    prepared = partial(renormalised, source=same, own=same, image_size=card.resized)
    model = session.place(prepared(network))
    figures: dict[str, Any] = {}
    for name, split in (("val", dataset.val), ("test", dataset.test)):
        if split is None:
            continue
        # the network's own constants, whatever this data set would use
        batches = eval_loader(session, split, card.normalisation, data, config.batch_size)
        who, remedy = f"The network of {config.run}", "Choose another run: kdrun ls runs."
        with refusing(who, network, "validation" if name == "val" else name, remedy):
            found = evaluate(model, batches, session.device, config.precision, split.groups)
        figures |= found.facts(name)
        if name == "test":
            figures |= heads_facts(network, prepared, batches, session.device, config.precision)
    return figures


def _show(
    folder: RunFolder, card: NetworkCard, dataset: Dataset, found: dict[str, Any], session: Session
) -> None:
    reporter = session.reporter
    reporter.heading(f"{card.name} on {tables.dataset_words(dataset_facts(dataset))}")
    splits = {name: value for name, value in found.items() if name not in ("inference", "heads")}
    reporter.show(tables.splits_table(splits))
    if "heads" in found:
        reporter.show(error_table({"student": {**card_facts(card), **found}}))
    before = card.extra.get("test")
    if before and card.extra.get("dataset", {}).get("name") == dataset.name:
        reporter.say(f"  when it was trained: {before['top1']:.2f} % ({before['errors']} errors)")
    if card.classes != dataset.classes:
        reporter.warn(
            "the class names differ from those it was trained on; the numbers are as given"
        )
    reporter.say(f"  folder: {folder.path}")
