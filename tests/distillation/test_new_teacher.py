"""`teacher.start`: what a teacher's training starts from, and its fingerprint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from losses.cases import made_up_data

from kdrun.config import rules
from kdrun.config.schema import (
    AugmentConfig,
    NetworkConfig,
    ReadingConfig,
    ScheduleConfig,
    StartConfig,
    TeacherConfig,
    TeacherInput,
)
from kdrun.distillation.initial_weights import _card_notes
from kdrun.distillation.networks import make_card, new_network
from kdrun.distillation.new_teacher import new_teacher, start_entry
from kdrun.errors import CheckpointError, ConfigError
from kdrun.models.card import save_network
from kdrun.teachers.fingerprint import network_recipe
from kdrun.teachers.formats import read_any
from kdrun.types import Normalisation

CNN = NetworkConfig("cnn", "kdrun.models.cnn.ConvNet", {"widths": [4, 8]})
PLAIN = TeacherConfig(CNN, ScheduleConfig(), seed=3)
DATA = made_up_data(1, 8, 5)
HALF = TeacherInput(mean=0.5, std=0.25)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The weights of a network for seven classes."""
    network = new_network(CNN, made_up_data(1, 8, 7), 11, "teacher")
    torch.save(network.state_dict(), tmp_path / "seven.pt")
    return tmp_path / "seven.pt"


def test_all_but_the_classifier_is_loaded(file: Path) -> None:
    saved = torch.load(file)
    config = replace(PLAIN, start=str(file), new_classifier=True)
    network, card, notes = new_teacher(config, DATA)
    state = network.state_dict()
    fresh = new_network(CNN, DATA, 3, "teacher").state_dict()
    classifier = [name for name in state if state[name].shape != saved[name].shape]
    assert classifier
    for name, tensor in state.items():
        assert torch.equal(tensor, fresh[name] if name in classifier else saved[name])
    assert notes[0].startswith(f"teacher starts from {file}")
    assert "new_classifier=true" in notes[0]
    assert card.normalisation == DATA.normalisation


def test_a_file_for_other_classes_names_the_setting(file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"teacher2\.new_classifier=true keeps all but"):
        new_teacher(replace(PLAIN, start=str(file)), DATA, "teacher2")


def test_constants_are_as_given_else_those_of_the_card(tmp_path: Path) -> None:
    network = new_network(CNN, DATA, 0, "teacher")
    card = replace(make_card(CNN, network, DATA, {}), normalisation=Normalisation((0.1,), (0.2,)))
    save_network(tmp_path, "teacher", network, card)
    config = replace(PLAIN, start=str(tmp_path))
    assert new_teacher(config, DATA)[1].normalisation == card.normalisation
    given = new_teacher(replace(config, input=HALF), DATA)[1]
    assert given.normalisation == Normalisation((0.5,), (0.25,))


def test_the_recipe_counts_the_weights_and_how_they_are_read(file: Path) -> None:
    assert start_entry(PLAIN) == {}
    config = replace(PLAIN, start=str(file))
    entries = [
        start_entry(config),
        start_entry(replace(config, new_classifier=True)),
        start_entry(replace(config, reading=ReadingConfig(key="model_ema"))),
        start_entry(replace(config, input=HALF)),
    ]
    assert all(entries.count(entry) == 1 for entry in entries)
    content = torch.load(file)
    torch.save({name: tensor + 1 for name, tensor in content.items()}, file)
    assert start_entry(config) not in entries


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "a.pt", "checkpoint": "b.pt"}, r"teacher\.start the weights .* set one of them"),
        ({"new_classifier": True}, r"teacher\.new_classifier=true needs teacher\.start=FILE"),
        ({"start": "pretrained"}, r"teacher\.pretrained=true and without teacher\.start"),
        ({"start": " "}, r"teacher\.start= is empty"),
        ({"start": "a.pt", "input": TeacherInput(channels=1)}, r"^teacher\.channels: these"),
        ({"input": HALF}, r"^teacher\.mean, teacher\.std: these describe weights"),
    ],
)
def test_what_does_not_go_together_is_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rules._teachers((replace(PLAIN, **changes),), 0.1)


def test_new_settings_leave_the_recipe_of_older_teachers_as_it_was() -> None:
    recipe = network_recipe(CNN, ScheduleConfig(), 0, AugmentConfig(), DATA)
    new = {"ema", "accumulate", "layer_decay", "decay_norm_bias", "freeze_epochs",
           "freeze_bn_stats", "backbone_lr_factor"}  # fmt: skip
    assert not new & set(recipe["schedule"])
    tuned = network_recipe(CNN, ScheduleConfig(freeze_epochs=2), 0, AugmentConfig(), DATA)
    assert tuned["schedule"]["freeze_epochs"] == 2


def test_what_a_file_without_a_card_states(file: Path) -> None:
    """A teacher takes the stated constants; a student keeps the data set's, and is told."""
    stated = {"classes": list(reversed(DATA.classes)), "args": {"mean": [0.5], "std": [0.25]}}
    torch.save({"model": torch.load(file), **stated}, file)
    config = replace(PLAIN, start=str(file), new_classifier=True)
    _, card, notes = new_teacher(config, DATA)
    assert card.normalisation == Normalisation((0.5,), (0.25,))
    assert "constants as the file states (args.mean): 'teacher.mean=[0.5]'" in notes[-1]
    start = StartConfig(str(file), ReadingConfig())
    notes = _card_notes(read_any(file), start, DATA)
    assert [note.partition(" (")[0] for note in notes] == [
        "the file names its outputs in another order",
        "it was trained with other normalisation constants; the data set's are used",
    ]
    assert len(_card_notes(read_any(file), replace(start, new_classifier=True), DATA)) == 1
