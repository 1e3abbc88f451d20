"""What a scheme trained beside the student: measured on every split, and saved where it can be."""

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


def measure_companions(
    config: DistillConfig,
    scheme: StudentScheme,
    dataset: Dataset,
    session: Session,
    folder: RunFolder,
    extra: dict[str, Any],
) -> dict[str, list[dict[str, Any]]]:
    """Kind → an entry for each companion of that kind; plain networks are saved in `folder`.

    extra: what the cards of saved networks say besides their figures.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for companion in scheme.companions():
        figures = _measure(config, companion, dataset, session)
        entry: dict[str, Any] = {"name": companion.name, **figures}
        if companion.learner is not None:
            card = make_card(
                companion.learner.config, companion.learner.network, dataset, {**extra, **figures}
            )
            stem = companion.name.replace(" ", "-")
            companion.learner.network.cpu()
            with distributed.main_first():
                save_network(folder.path, stem, companion.learner.network, card)
            session.place(companion.learner.network)
            entry |= {"network": card.name, "params": card.params, "flops": card.flops}
            entry |= {"seed": companion.learner.seed, "weights": f"{stem}.safetensors"}
        found.setdefault(companion.kind, []).append(entry)
    return found


def _measure(
    config: DistillConfig, companion: AuxiliaryModel, dataset: Dataset, session: Session
) -> dict[str, Any]:
    schedule = config.schedule
    session.place(companion.module)
    figures: dict[str, Any] = {"val": None}
    for name, split in (("val", dataset.val), ("test", dataset.test)):
        if split is None:
            continue
        batches = eval_loader(
            session, split, dataset.normalisation, config.dataset, schedule.eval_batch_size
        )
        module, precision = companion.module, schedule.precision
        with diverging(companion.name, "validation" if name == "val" else name):
            found = evaluate(module, batches, session.device, precision, split.extra_metrics)
        figures |= found.to_dict(name)
    return figures
