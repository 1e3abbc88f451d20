"""A teacher that does not reach what its card says: refused, or used and said."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdrun.config.schema import DatasetConfig, TeacherRuntimeConfig
from kdrun.data.dataset import Dataset
from kdrun.data.images import Split
from kdrun.engine.metrics import evaluation
from kdrun.errors import CheckpointError
from kdrun.models.card import NetworkCard
from kdrun.teachers.accuracy import check_accuracy, is_measured_on
from kdrun.types import InputInfo, Normalisation

TARGETS = torch.arange(200) % 2
NORMALISATION = Normalisation((0.0,), (1.0,))
SPLIT = Split(torch.zeros(200, 1, 2, 2, dtype=torch.uint8), TARGETS)
DATA = DatasetConfig("own", "own.load", {"root": "here"})
DATASET = Dataset(
    "own", ("a", "b"), SPLIT, None, SPLIT, NORMALISATION, "abc", torch.arange(200)
)  # fmt: skip


def card(**extra: object) -> NetworkCard:
    info = InputInfo(2, 1, (2, 2))
    return NetworkCard("n", "t", {}, {}, ("a", "b"), info, NORMALISATION, 1, 1, extra=dict(extra))


def found(errors: int) -> object:
    answers = TARGETS.clone()
    answers[:errors] = 1 - answers[:errors]
    return evaluation(torch.nn.functional.one_hot(answers, 2).float(), TARGETS)


@pytest.mark.parametrize(
    ("errors", "said", "refused"),
    [(20, 90.0, False), (19, 90.0, False), (21, 90.0, False), (22, 90.0, True), (0, 90.0, True)],
)
def test_half_a_point_is_the_limit(errors: int, said: float, refused: bool) -> None:
    told: list[str] = []
    own, measured = card(test={"top1": said}), found(errors)
    if refused:
        with pytest.raises(CheckpointError, match=r"says 90\.00 %: burn it, or set .*=false"):
            check_accuracy(measured, own, Path("t"), TeacherRuntimeConfig(), told.append, "burn it")  # type: ignore[arg-type]
    else:
        check_accuracy(measured, own, Path("t"), TeacherRuntimeConfig(), told.append, "burn it")  # type: ignore[arg-type]
    assert told == []
    lenient = replace(TeacherRuntimeConfig(), check_accuracy=False)
    check_accuracy(measured, own, Path("t"), lenient, told.append, "burn it")  # type: ignore[arg-type]
    assert len(told) == int(refused)


@pytest.mark.parametrize("extra", [{}, {"test": None}, {"test": {"top1": "high"}}])
def test_a_card_that_says_nothing_is_believed(extra: dict[str, object]) -> None:
    check_accuracy(found(100), card(**extra), Path("t"), TeacherRuntimeConfig(), pytest.fail, "")  # type: ignore[arg-type]


def test_figures_of_other_images_do_not_count() -> None:
    plain = {"split_seed": 0}
    assert is_measured_on(card(dataset=plain, fingerprint="abc"), DATA, DATASET)
    assert is_measured_on(card(dataset=plain, recipe={"dataset": "abc"}), DATA, DATASET)
    assert not is_measured_on(card(dataset=plain, fingerprint="xyz"), DATA, DATASET)
    assert not is_measured_on(card(dataset={"split_seed": 1}, fingerprint="abc"), DATA, DATASET)
    assert not is_measured_on(card(fingerprint="abc"), DATA, DATASET)
    assert not is_measured_on(card(), DATA, DATASET)
