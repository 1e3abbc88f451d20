"""Measure and save the networks that a scheme trains together with the student."""

from typing import Any

from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.distillation.networks import make_card
from kdrun.distillation.session import Session, eval_loader
from kdrun.engine import distributed
from kdrun.engine.finite import diverging
from kdrun.engine.metrics import evaluate
from kdrun.models.card import save_network
from kdrun.runs.folder import RunFolder
from kdrun.schemes.base import StudentScheme
from kdrun.schemes.measured import AuxiliaryModel


def measure_auxiliary_models(
    config: DistillConfig,
    scheme: StudentScheme,
    dataset: Dataset,
    session: Session,
    folder: RunFolder,
    extra: dict[str, Any],
) -> dict[str, list[dict[str, Any]]]:
    """Kind → entries for `result.json`; complete networks are saved in `folder`.

    extra: further entries of the cards of saved networks.
    """
    entries: dict[str, list[dict[str, Any]]] = {}
    for model in scheme.companions():
        metrics = _measure(config, model, dataset, session)
        entry: dict[str, Any] = {"name": model.name, **metrics}
        if model.learner is not None:
            network = model.learner.network
            card = make_card(model.learner.config, network, dataset, {**extra, **metrics})
            stem = model.name.replace(" ", "-")
            network.cpu()
            with distributed.main_first():
                save_network(folder.path, stem, network, card)
            session.place(network)
            entry |= {"network": card.name, "params": card.params, "flops": card.flops}
            entry |= {"seed": model.learner.seed, "weights": f"{stem}.safetensors"}
        entries.setdefault(model.kind, []).append(entry)
    return entries


def _measure(
    config: DistillConfig, model: AuxiliaryModel, dataset: Dataset, session: Session
) -> dict[str, Any]:
    """Metrics by split; `val` is null without a validation split."""
    schedule = config.schedule
    session.place(model.module)
    metrics: dict[str, Any] = {"val": None}
    for name, split in (("val", dataset.val), ("test", dataset.test)):
        if split is None:
            continue
        batches = eval_loader(
            session, split, dataset.normalisation, config.dataset, schedule.eval_batch_size
        )
        with diverging(model.name, "validation" if name == "val" else name):
            evaluation = evaluate(
                model.module, batches, session.device, schedule.precision, split.extra_metrics
            )
        metrics |= evaluation.to_dict(name)
    return metrics
