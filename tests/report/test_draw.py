"""What the pictures are computed from, against independent formulations, and what is drawn."""

import struct
from pathlib import Path

import pytest
import torch
from report.hostile import HOSTILE
from sklearn.metrics import confusion_matrix as sklearn_confusion
from torch import Tensor

from kdrun.engine.metrics import calibration_error
from kdrun.evaluation.figures import spread_sample
from kdrun.report.figures import answers, errors, features
from kdrun.report.figures.drawing import ALONE, DISTILLED, TEACHER, Evidence
from kdrun.report.figures.store import PNG, StoredFigure, read_figures, write_figures

N, C = 60, 4


def evidence(classes: int = C, maps: bool = True, names: tuple[str, ...] | None = None) -> Evidence:
    """Made-up networks that are right more often than not."""
    draw = torch.Generator().manual_seed(0)
    targets = torch.arange(N) % classes
    hot = torch.nn.functional.one_hot(targets, classes).float()
    logits = {
        who: strength * hot + torch.randn(N, classes, generator=draw)
        for who, strength in ((TEACHER, 4.0), (ALONE, 1.5), (DISTILLED, 2.0))
    }
    sample = spread_sample(targets, 24)
    shape = (6, 4, 4) if maps else (6,)
    features = {who: {"stage1": torch.rand(len(sample), *shape, generator=draw)} for who in logits}

    def shown(index: Tensor) -> Tensor:
        return torch.rand(len(index), 1, 8, 8, generator=torch.Generator().manual_seed(1))

    return Evidence(
        names or tuple(f"class {c}" for c in range(classes)), targets, logits, sample, features,
        shown, temperature=3.0,
        class_maps={who: torch.randn(len(sample), 4, 4, generator=draw) for who in logits},
    )  # fmt: skip


def test_the_confusion_matrix_is_that_of_scikit_learn() -> None:
    found = evidence()
    logits = found.logits[ALONE]
    expected = sklearn_confusion(found.targets, logits.argmax(1), labels=range(C))
    assert errors.confusion_matrix(logits, found.targets).tolist() == expected.tolist()


def test_reliability_agrees_with_the_tables() -> None:
    found = evidence()
    for logits in found.logits.values():
        share, confidence, accuracy, ece = errors.calibration(logits, found.targets)
        assert ece == pytest.approx(calibration_error(logits, found.targets))
        assert share.sum() == pytest.approx(1)
        # ECE once more, from the bins that are drawn: Guo et al. 2017, eq. 3
        drawn = 100 * float((share * (accuracy - confidence).abs()).sum())
        assert drawn == pytest.approx(ece)


def test_the_sample_is_even_over_classes_and_in_order() -> None:
    targets = torch.tensor([0] * 50 + [1] * 3 + [2] * 50)
    sample = spread_sample(targets, 30)
    assert sample.tolist() == sorted(sample.tolist())
    assert torch.bincount(targets[sample]).tolist() == [10, 3, 10]


def test_telling_images_are_right_and_doubtful() -> None:
    targets = torch.tensor([0, 0, 1, 1])
    teacher = torch.tensor([[5.0, 0.0], [2.0, 1.9], [3.0, 0.0], [0.0, 1.0]])
    assert answers._telling(teacher, targets) == [1, 3]


def pictures(found: Evidence) -> list[StoredFigure]:
    drawn = [
        answers.soft_labels(found),
        answers.disagreements(found),
        errors.class_change(found),
        errors.confusion(found),
        errors.reliability(found),
        features.similarity(found),
        features.attention_maps(found),
        features.class_activation_maps(found),
    ]
    return [picture for picture in drawn if picture is not None]


def test_every_picture_is_drawn_and_described(tmp_path: Path) -> None:
    found = evidence()
    drawn = pictures(found)
    assert [picture.name for picture in drawn] == [
        "soft_labels", "disagreements", "class_change", "confusion", "reliability", "similarity",
        "attention", "class_maps"]  # fmt: skip
    for picture in drawn:
        assert picture.light.startswith(PNG)
        assert picture.light != picture.dark
        width, height = struct.unpack(">II", picture.light[16:24])
        assert (width, height) == pytest.approx((1.5 * picture.width, 1.5 * picture.height), abs=2)
        assert len(picture.alt) > 40
    student, teacher = (found.logits[who].argmax(1) for who in (DISTILLED, TEACHER))
    assert f"disagree on {int((student != teacher).sum())} of {N}" in drawn[1].caption
    write_figures(tmp_path, drawn)
    assert read_figures(tmp_path) == drawn


def test_the_same_evidence_gives_the_same_bytes() -> None:
    one, two = (errors.confusion(evidence()) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(("classes", "maps"), [(30, True), (2, False)])
def test_many_classes_two_classes_and_no_maps(classes: int, maps: bool) -> None:
    found = evidence(classes, maps)
    assert (features.attention_maps(found) is not None) is maps
    assert features.similarity(found) is not None
    assert "errors: class" in errors.confusion(found).caption


def test_class_names_are_texts_and_no_formulas() -> None:
    found = evidence(len(HOSTILE), names=HOSTILE)
    assert answers.soft_labels(found) is not None
    assert errors.class_change(found) is not None


def test_a_run_without_teacher_shows_what_there_is() -> None:
    whole = evidence()
    alone = Evidence(
        whole.classes, whole.targets, {ALONE: whole.logits[ALONE]}, whole.sample,
        {ALONE: whole.features[ALONE]}, whole.shown, student=ALONE,
    )  # fmt: skip
    names = [picture.name for picture in pictures(alone)]
    assert names == ["confusion", "reliability", "similarity", "attention"]
