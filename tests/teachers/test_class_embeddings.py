"""Statistics of a teacher's embeddings: measured once, stored, the same when read."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.class_statistics import class_means, first_of_each_class, linear_cka
from kdrun.teachers import class_embeddings
from kdrun.teachers.class_embeddings import ClassEmbeddings

TARGETS = torch.tensor([1, 0, 3, 1, 0, 3, 3, 1, 0, 0])
EMBEDDINGS = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


class Counting:
    """One pass in batches of four, counted."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        for index in torch.arange(10).split(4):
            yield EMBEDDINGS[index], index


def statistics(folder: Path, forward: Counting, targets: Tensor = TARGETS) -> ClassEmbeddings:
    return ClassEmbeddings(folder, "key", targets, 4, forward)


def test_one_pass_gives_both_and_later_runs_none(tmp_path: Path) -> None:
    forward = Counting()
    measured = statistics(tmp_path / "teacher", forward)
    means, similarity = measured.class_means(), measured.class_similarity()
    assert forward.passes == 1
    torch.testing.assert_close(means, class_means(EMBEDDINGS, TARGETS, 4))
    samples = EMBEDDINGS[first_of_each_class(TARGETS, 4).clamp_min(0)]
    present = torch.tensor([0, 1, 3])
    expected = linear_cka(samples[present]).float()
    torch.testing.assert_close(similarity[present][:, present], expected)
    assert similarity[2].tolist() == [0, 0, 1, 0]  # no images
    again = statistics(tmp_path / "teacher", forward)
    assert torch.equal(again.class_similarity(), similarity)
    assert torch.equal(again.class_means(), means)
    assert forward.passes == 1


def test_samples_that_are_not_kept_take_a_second_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = statistics(tmp_path / "a", Counting()).class_similarity()
    monkeypatch.setattr(class_embeddings, "HELD_BYTES", 0)
    forward = Counting()
    measured = statistics(tmp_path / "b", forward)
    measured.class_means()
    assert torch.equal(measured.class_similarity(), expected)
    assert forward.passes == 2


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_file_is_measured_again(tmp_path: Path, damage: str) -> None:
    forward = Counting()
    means = statistics(tmp_path, forward).class_means()
    (path,) = tmp_path.glob("class-means-*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-3]
    else:
        content[-1] ^= 64
    path.write_bytes(content)
    assert torch.equal(statistics(tmp_path, forward).class_means(), means)
    assert forward.passes == 2
    statistics(tmp_path, forward).class_means()
    assert forward.passes == 2


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    forward = Counting()
    measured = statistics(tmp_path / "file" / "teacher", forward)
    assert measured.class_means().shape == (4, 3)


def test_a_class_of_one_image_has_no_similarity(tmp_path: Path) -> None:
    targets = TARGETS.clone()
    targets[0] = 2
    with pytest.raises(ConfigError, match="single training image"):
        statistics(tmp_path, Counting(), targets).class_similarity()
    assert not list(tmp_path.iterdir())
