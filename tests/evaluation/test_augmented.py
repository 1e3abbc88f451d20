"""The figure of augmented images."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module

from kdrun.config import composition, parse
from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import open_dataset
from kdrun.evaluation import augmented
from kdrun.evaluation.augmented import augmented_figure
from kdrun.report.figures.augmented import View

composition.register()


def config(*words: str) -> DistillConfig:
    small = ["dataset=synthetic", "dataset.train_size=40", "dataset.image_size=8", *words]
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        return parse.distill_config(compose("distill", small))


def test_it_shows_student_and_teacher_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config("augment=randaugment", "augment.teacher_view=fixed")
    dataset = open_dataset(chosen.dataset, 0.1, tmp_path)
    columns: list[View] = []
    monkeypatch.setattr(augmented, "augmented", lambda views, text: columns.extend(views))
    augmented_figure(chosen, dataset)
    titles = [column.title for column in columns]
    assert titles == ["plain", "epoch 1", "teacher", "epoch 2", "teacher", "epoch 3", "teacher"]
    for column in columns:
        assert column.images.shape == (6, 3, 8, 8)
        assert 0 <= float(column.images.min()) <= float(column.images.max()) <= 1
        if column.title == "teacher":
            torch.testing.assert_close(column.images, columns[0].images)
    assert not torch.equal(columns[1].images, columns[3].images)


def test_the_usual_crops_and_flips_have_no_figure(tmp_path: Path) -> None:
    chosen = config("dataset.augment.flip=true")
    assert augmented_figure(chosen, open_dataset(chosen.dataset, 0.1, tmp_path)) is None


def test_it_is_drawn(tmp_path: Path) -> None:
    chosen = config("augment=trivialaugment")
    figure = augmented_figure(chosen, open_dataset(chosen.dataset, 0.1, tmp_path))
    assert figure is not None
    assert figure.name == "augmented"
