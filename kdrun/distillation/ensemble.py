"""What several networks answer together: the mean of their probabilities."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.engine.metrics import Evaluation, evaluation
from kdrun.losses.ensemble import Ensemble, mean_soft_targets


def answer_together(
    members: Sequence[Evaluation], dataset: Dataset, shares: Sequence[float] | None = None
) -> Evaluation:
    """The mean of the probabilities of networks that were measured on the test split.

    shares: how much each counts; None: all alike.
    """
    shares = shares or [1.0 / len(members)] * len(members)
    logits = mean_soft_targets([member.logits for member in members], shares, 1.0)
    return evaluation(logits, dataset.test.targets, dataset.test.groups)


def teachers_together(
    config: DistillConfig, teachers: Sequence[Evaluation], dataset: Dataset
) -> Evaluation | None:
    """The teachers' joint answer, each with its weight; None where there are not several."""
    if len(teachers) < 2:
        return None
    return answer_together(teachers, dataset, Ensemble.of(config.ensemble, len(teachers)).shares)


def agreement(one: Evaluation, other: Evaluation) -> float:
    """Share of images on which both answer alike, in percent."""
    same: Tensor = one.predictions == other.predictions
    return 100.0 * float(same.double().mean().item())


def facts(members: int, found: Evaluation, student: Evaluation | None = None) -> dict[str, Any]:
    """An ensemble's entry in `result.json`. student: whose agreement with it is noted."""
    entry: dict[str, Any] = {"members": members, **found.facts()}
    if student is not None:
        entry["agreement"] = agreement(student, found)
    return entry
