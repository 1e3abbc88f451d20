"""A teacher's measured accuracy against the one on its card."""

from collections.abc import Callable
from pathlib import Path

from kdrun.config.dump import dataset_plain
from kdrun.config.schema import DatasetConfig, TeacherRuntimeConfig
from kdrun.data.dataset import Dataset
from kdrun.engine.metrics import Evaluation
from kdrun.errors import CheckpointError
from kdrun.models.card import NetworkCard

# Another device or precision may change a few predictions; a larger difference is an error.
TOLERATED_POINTS = 0.5


def is_measured_on(card: NetworkCard, data: DatasetConfig, dataset: Dataset) -> bool:
    """Whether the metrics on a card were measured on the test images of `dataset`."""
    then = card.extra.get("dataset")
    if not isinstance(then, dict) or card.data_fingerprint != dataset.fingerprint:
        return False
    now = dataset_plain(data)
    return all(then.get(key) == now.get(key) for key in ("split_seed", "test_fraction"))


def drawn_test_notes(card: NetworkCard, dataset: Dataset) -> list[str]:
    """A note if the network may have been trained on images of a test split drawn at random."""
    if not dataset.test_is_drawn or card.data_fingerprint in (None, dataset.fingerprint):
        return []
    return [
        f"{dataset.name} has no test split, so one is drawn at random, and its images or the draw "
        f"differ from those {card.name} was trained on: it may have been trained on some of these "
        "test images (a test/ folder or a split column keeps them apart)"
    ]


def check_accuracy(
    evaluation: Evaluation,
    card: NetworkCard,
    path: Path,
    runtime: TeacherRuntimeConfig,
    warn: Callable[[str], None],
    remedy: str,
) -> None:
    """Raise CheckpointError if the card states another accuracy on the test split.

    Only a warning with `teacher.check_accuracy=false`. remedy: for the message.
    """
    test = card.extra.get("test")
    expected = test.get("top1") if isinstance(test, dict) else None
    if not isinstance(expected, int | float):
        return
    if abs(evaluation.metrics.top1 - expected) <= TOLERATED_POINTS:
        return
    text = (
        f"{path} has {evaluation.metrics.top1:.2f} % on the test split, but its card says "
        f"{expected:.2f} %"
    )
    if runtime.check_accuracy:
        raise CheckpointError(
            f"{text}: {remedy}, or set teacher.check_accuracy=false to use it anyway."
        )
    warn(f"{text} (used anyway: teacher.check_accuracy=false)")
