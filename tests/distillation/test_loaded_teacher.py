"""A teacher from a file answers as the bare network would, by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdrun.config import rules, trust
from kdrun.config.convert import from_plain
from kdrun.config.schema import NetworkConfig, ScheduleConfig, TeacherConfig, TeacherInput
from kdrun.data.dataset import Dataset
from kdrun.data.decoding.rules import PixelRules
from kdrun.data.images import Split
from kdrun.distillation.loaded_teacher import load_teacher
from kdrun.distillation.networks import teacher_member
from kdrun.distillation.teacher_check import placed
from kdrun.errors import CheckpointError, ConfigError
from kdrun.losses.embeddings import teacher_classifier
from kdrun.models.card import load_network, read_card, save_network
from kdrun.models.features.taps import FeatureExtractor
from kdrun.types import Normalisation

OWN = Normalisation((0.25,), (0.5,))
CLASSES = ("1", "2", "10")
TARGET = f"{__name__}.Net"
MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]


def teacher_input(node: dict[str, Any], where: str) -> TeacherInput:
    config = from_plain(TeacherInput, node, where)
    rules.teacher_constants(config, where)
    return config


class Net(nn.Module):
    """A convolution, a mean and a classifier."""

    def __init__(self, num_classes: int, in_channels: int, width: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.fc = nn.Linear(width, num_classes)
        self.taps = {"stage1": "conv", "embedding": "fc:in"}

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images).relu().mean((2, 3)))


@pytest.fixture(autouse=True)
def _trusted() -> None:
    trust.name([TARGET])


def dataset(channels: int = 1) -> Dataset:
    stream = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (12, channels, 6, 6), generator=stream, dtype=torch.uint8)
    split = Split(images, torch.arange(12) % 3)
    own = Normalisation(OWN.mean * channels, OWN.std * channels)
    return Dataset("own", CLASSES, split, None, split, own, "abc", torch.arange(12))


def saved(path: Path, classes: int, channels: int) -> Net:
    torch.manual_seed(3)
    network = Net(classes, channels)
    torch.save({"state_dict": network.state_dict()}, path)
    return network.eval()


def config(path: Path, **given: object) -> TeacherConfig:
    return TeacherConfig(
        NetworkConfig("net", TARGET),
        ScheduleConfig(),
        checkpoint=str(path),
        input=teacher_input(given, "teacher"),
    )


def pixels(data: Dataset) -> Tensor:
    assert isinstance(data.test.images, Tensor)
    return data.test.images.float() / 255


def view(values: list[float] | tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1)


@torch.no_grad()
def test_constants_channels_and_outputs_are_those_of_the_manual_way(tmp_path: Path) -> None:
    data = dataset()
    network = saved(tmp_path / "w.pth", 5, 3)
    given = {"mean": MEAN, "std": STD, "channels": 3, "classes": [4, 0, 2]}
    loaded = load_teacher(config(tmp_path / "w.pth", **given), data)
    assert (loaded.card.outputs, loaded.card.num_outputs) == ((4, 0, 2), 5)
    assert loaded.card.classes == CLASSES
    expected = network((pixels(data).expand(-1, 3, -1, -1) - view(MEAN)) / view(STD))[:, [4, 0, 2]]
    loader = (pixels(data) - view(OWN.mean)) / view(OWN.std)
    torch.testing.assert_close(placed(loaded.network, loaded.card, data).eval()(loader), expected)
    member = teacher_member(loaded.network.eval(), loaded.config, loaded.card)
    extractor = FeatureExtractor(
        member.network, ["stage1"], member.paths(data), True,
        (data.normalisation, member.normalisation), None, member.outputs,
    )  # fmt: skip
    found = extractor(loader)
    torch.testing.assert_close(found.logits, expected)
    assert found.features["stage1"].shape[1] == 6
    # the rows of its classifier are what simkd and srrl reuse
    classifier = teacher_classifier("simkd", member.view(data), found)
    assert torch.equal(classifier.weight, network.fc.weight[[4, 0, 2]])
    assert found.embedding is not None
    torch.testing.assert_close(classifier(found.embedding), expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ("given", "columns"),
    [
        ({}, [0, 1, 2]),
        ({"class_order": "lexicographic"}, [0, 2, 1]),
        ({"class_order": ["10", "2", "1"]}, [2, 1, 0]),
    ],
)
def test_outputs_are_permuted_exactly(
    tmp_path: Path, given: dict[str, object], columns: list[int]
) -> None:
    data = dataset()
    network = saved(tmp_path / "w.pth", 3, 1)
    loaded = load_teacher(config(tmp_path / "w.pth", **given), data)
    images = torch.randn(4, 1, 6, 6)
    assert loaded.card.normalisation == data.normalisation
    found = placed(loaded.network.eval(), loaded.card, data)(images)
    assert torch.equal(found, network(images)[:, columns])
    assert loaded.guesses_order == (not given)
    notes = " ".join(loaded.notes)
    assert "of the data set (teacher.mean and teacher.std not given)" in notes
    assert ("no teacher.class_order" in notes) == (not given)


def test_two_stated_orders_are_refused_unless_one_is_chosen(tmp_path: Path) -> None:
    network = saved(tmp_path / "w.pth", 3, 1)
    orders = {"classes": ["2", "1", "10"], "id2label": {0: "10", 1: "2", 2: "1"}}
    torch.save({"model": network.state_dict(), **orders}, tmp_path / "w.pth")
    text = r"two orders .*, classes \(2, 1, 10\) and id2label \(10, 2, 1\).*class_order="
    with pytest.raises(CheckpointError, match=text):
        load_teacher(config(tmp_path / "w.pth"), dataset())
    chosen = load_teacher(config(tmp_path / "w.pth", class_order=["10", "2", "1"]), dataset())
    assert chosen.card.outputs == (2, 1, 0)
    orders["classes"] = ["a", "b", "c"]  # of another language
    torch.save({"model": network.state_dict(), **orders}, tmp_path / "w.pth")
    assert load_teacher(config(tmp_path / "w.pth"), dataset()).card.outputs == (2, 1, 0)


def test_stated_constants_are_used_and_others_are_noted(tmp_path: Path) -> None:
    network, data = saved(tmp_path / "w.pth", 3, 3), dataset(3)
    path = tmp_path / "w.pth"
    stated = {"default_cfg": {"mean": MEAN, "std": STD}}
    torch.save({"state_dict": network.state_dict(), **stated}, path)
    loaded = load_teacher(config(path), data)
    assert loaded.card.normalisation == Normalisation(tuple(MEAN), tuple(STD))
    assert "as the file states (default_cfg.mean)" in " ".join(loaded.notes)
    given = load_teacher(config(path, mean=0.5, std=0.5), data)
    assert given.card.normalisation == Normalisation((0.5,) * 3, (0.5,) * 3)
    typed = "(default_cfg.mean): 'teacher.mean=[0.1,0.2,0.3]' 'teacher.std=[0.4,0.5,0.6]'"
    assert f"the file states other constants {typed}" in " ".join(given.notes)
    same = load_teacher(config(path, mean=MEAN, std=STD), data)
    assert "states" not in " ".join(same.notes)
    two = {**stated, "args": {"mean": STD, "std": MEAN}}
    torch.save({"state_dict": network.state_dict(), **two}, path)
    text = r"two normalisations, default_cfg\.mean and args\.mean.* 'teacher\.mean=\[0\.1,"
    with pytest.raises(CheckpointError, match=text):
        load_teacher(config(path), data)
    assert load_teacher(config(path, mean=0.5, std=0.5), data).card.normalisation.mean[0] == 0.5


def test_another_image_size_than_stated_is_noted(tmp_path: Path) -> None:
    network, path = saved(tmp_path / "w.pth", 3, 1), tmp_path / "w.pth"
    torch.save({"model": network.state_dict(), "args": {"img_size": 12}}, path)
    text = "the file states images of 12×12 (args.img_size), and these are 6×6"
    assert text in " ".join(load_teacher(config(path), dataset()).notes)
    resized = load_teacher(replace(config(path), image_size=(12, 12)), dataset())
    assert "states" not in " ".join(resized.notes)


def test_a_card_keeps_the_choice_of_outputs(tmp_path: Path) -> None:
    data = dataset()
    saved(tmp_path / "w.pth", 5, 1)
    loaded = load_teacher(config(tmp_path / "w.pth", classes=[4, 0, 2]), data)
    card = save_network(tmp_path, "teacher", loaded.network, loaded.card)
    assert card == read_card(tmp_path / "teacher.json")
    again, _ = load_network(tmp_path, "teacher")
    assert again.fc.out_features == 5
    reloaded = load_teacher(config(tmp_path / "teacher.safetensors"), data)
    assert reloaded.has_card
    assert reloaded.card.outputs == (4, 0, 2)
    # two of its three classes, by the names on the card
    other = Dataset("two", ("10", "1"), data.train, None, data.test, OWN, "x", data.train_index)
    with pytest.raises(ConfigError, match=r"type 'teacher\.classes=\[10,1\]'"):
        load_teacher(config(tmp_path / "teacher.safetensors"), other)
    two = load_teacher(config(tmp_path / "teacher.safetensors", classes=["10", "1"]), other)
    assert two.card.outputs == (2, 4)


def test_a_card_in_another_order_is_followed_by_name(tmp_path: Path) -> None:
    data = dataset()
    saved(tmp_path / "w.pth", 3, 1)
    loaded = load_teacher(config(tmp_path / "w.pth"), data)
    save_network(tmp_path, "teacher", loaded.network, loaded.card)
    turned = Dataset("t", ("1", "10", "2"), data.train, None, data.test, OWN, "x", data.train_index)
    again = load_teacher(config(tmp_path / "teacher.safetensors"), turned)
    assert again.card.outputs == (0, 2, 1)
    assert "by the class names on its card" in " ".join(again.notes)


def test_images_unlike_those_of_the_card_are_noted(tmp_path: Path) -> None:
    data = replace(dataset(), rules=PixelRules(whole=(0, 4095)))
    saved(tmp_path / "w.pth", 3, 1)
    loaded = load_teacher(config(tmp_path / "w.pth"), data)
    card = replace(loaded.card, extra=dict(data.pixel_metadata))
    save_network(tmp_path, "teacher", loaded.network, card)
    path = tmp_path / "teacher.safetensors"
    assert load_teacher(config(path), data).notes == ()
    small = Split(data.train.in_memory()[..., :5, :4], data.train.targets)
    rules = PixelRules((0, 0, 0), (0, 65535))
    other = replace(data, train=small, test=small, rules=rules)
    assert load_teacher(config(path), other).notes == (
        "teacher net: trained on 6×6 images, and these are 4×5: 'teacher.image_size=[6,6]' resizes "
        "them; trained with 'dataset.background=[255, 255, 255]'; trained with "
        "'dataset.value_range=[0,4095]'",
    )
    resized = load_teacher(replace(config(path), image_size=(6, 6)), other)
    assert "trained on 6×6" not in " ".join(resized.notes)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"mean": 0.3, "std": 0.5}, r"teacher\.mean is for weights without a card"),
        ({"channels": 3}, r"teacher\.channels is for weights without a card"),
        ({"class_order": ["10", "1", "2"]}, r"teacher\.class_order is for weights without"),
    ],
)
def test_settings_do_not_contradict_a_card(
    tmp_path: Path, given: dict[str, object], text: str
) -> None:
    data = dataset()
    saved(tmp_path / "w.pth", 3, 1)
    loaded = load_teacher(config(tmp_path / "w.pth"), data)
    save_network(tmp_path, "teacher", loaded.network, loaded.card)
    same = {"mean": 0.25, "std": 0.5, "channels": 1}
    load_teacher(config(tmp_path / "teacher.safetensors", **same), data)
    with pytest.raises(ConfigError, match=text):
        load_teacher(config(tmp_path / "teacher.safetensors", **given), data)


def test_weights_for_colour_say_so_on_grey_data(tmp_path: Path) -> None:
    saved(tmp_path / "w.pth", 3, 3)
    with pytest.raises(ConfigError, match=r"takes colour images.*grey: set teacher\.channels=3"):
        load_teacher(config(tmp_path / "w.pth"), dataset())
    saved(tmp_path / "w.pth", 5, 1)
    with pytest.raises(ConfigError, match="has 5 outputs"):
        load_teacher(config(tmp_path / "w.pth"), dataset())
