"""Ensembles of measured networks: the mean of their probabilities."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.engine.metrics import Evaluation, evaluation
from kdrun.losses.ensemble import Ensemble, mean_soft_targets


def mean_answer(
    members: Sequence[Evaluation], dataset: Dataset, weights: Sequence[float] | None = None
) -> Evaluation:
    """The mean probabilities of networks measured on the test split, one after another.

    weights: of each member, with a sum of 1; None: equal.
    """
    weights = weights or [1.0 / len(members)] * len(members)
    logits = mean_soft_targets([member.logits for member in members], weights, 1.0)
    return evaluation(logits, dataset.test.targets, dataset.test.extra_metrics)


def ensemble_of_teachers(
    config: DistillConfig, teachers: Sequence[Evaluation], dataset: Dataset
) -> Evaluation | None:
    """Metrics of the teachers' weighted mean prediction; None for fewer than two."""
    if len(teachers) < 2:
        return None
    return mean_answer(teachers, dataset, Ensemble.of(config.ensemble, len(teachers)).shares)


def agreement(first: Evaluation, second: Evaluation) -> float:
    """Percent of the images on which both predict the same class."""
    same: Tensor = first.predictions == second.predictions
    return 100.0 * float(same.double().mean().item())


def ensemble_entry(
    members: int, answer: Evaluation, student: Evaluation | None = None
) -> dict[str, Any]:
    """An ensemble in `result.json`. student: adds its agreement with the ensemble."""
    entry: dict[str, Any] = {"members": members, **answer.to_dict()}
    if student is not None:
        entry["agreement"] = agreement(student, answer)
    return entry
