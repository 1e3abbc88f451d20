"""Image files through the whole command line: early refusals, and prediction as in training."""

from pathlib import Path

import numpy as np
import pytest
import torch

import kdrun
from kdrun.cli.main import run
from tests.data.image_files import png


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12-bit images in 16-bit files: a bright left or right half."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(24):
        for name, half in (("left", slice(0, 4)), ("right", slice(4, 8))):
            values = rng.integers(0, 800, (8, 8))
            values[:, half] += 3295
            path = tmp_path / "deep" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(values))
    return tmp_path / "deep"


SHORT = ["epochs=1", "threads=1", "dataset=imagefolder", "dataset.root=deep"]


def test_a_checkpoint_that_does_not_fit_is_refused_before_decoding(
    deep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "bad.pth")
    monkeypatch.setattr("kdrun.data.decoding.decode_pass.decode_image", lambda *_: 1 / 0)
    words = ["distill", *SHORT, "teacher=mlp", "teacher.checkpoint=bad.pth", "student=mlp"]
    assert run(words) == 2
    printed = capsys.readouterr()
    assert "bad.pth" in printed.out + printed.err
    capsys.readouterr()
    assert not [path for path in (tmp_path / "outputs").glob("cache/*") if path.is_dir()]


def test_files_are_predicted_with_the_range_of_the_training_set(
    deep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train-teacher", *SHORT, "teacher=mlp"]) == 0
    assert "48 of 48 images: 16-bit pixels scaled from 0…4095" in capsys.readouterr().out
    (entry,) = (tmp_path / "outputs" / "teachers" / "deep").glob("mlp-*")
    network = kdrun.load(entry)
    dark = tmp_path / "dark.png"
    dark.write_bytes(png(np.full((8, 8), 819)))
    assert network.preprocess(dark).unique().tolist() == [51]
