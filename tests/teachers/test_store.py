"""The teacher store and the cards in it."""

import threading
from pathlib import Path

import pytest
import torch

from kdrun.checksums import SUMS
from kdrun.errors import CheckpointError
from kdrun.files import UNFINISHED, held
from kdrun.models.card import NetworkCard, read_card
from kdrun.models.cnn import ConvNet
from kdrun.teachers.store import StoreEntry, TeacherStore
from kdrun.types import InputInfo, Normalisation

CARD = NetworkCard(
    name="cnn",
    target="kdrun.models.cnn.ConvNet",
    kwargs={"widths": [4]},
    taps={},
    classes=("a", "b"),
    info=InputInfo(2, 1, (8, 8)),
    normalisation=Normalisation((0.5,), (0.25,)),
    params=1,
    flops=1,
)


@pytest.fixture
def entry(tmp_path: Path) -> StoreEntry:
    return TeacherStore(tmp_path).entry("digits", "cnn", "0123456789abcdef")


def test_what_was_filled_in_is_loaded(entry: StoreEntry) -> None:
    assert not entry.is_filled()
    network = ConvNet(num_classes=2, in_channels=1, widths=[4])
    card = entry.fill(network, CARD)
    assert entry.is_filled()
    assert len(card.sha256) == 64
    loaded, again = entry.load()
    assert again == card
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_a_changed_file_is_refused(entry: StoreEntry) -> None:
    entry.fill(ConvNet(num_classes=2, in_channels=1, widths=[4]), CARD)
    content = bytearray(entry.weights.read_bytes())
    content[-1] ^= 1
    entry.weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        entry.load()


def test_a_card_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "teacher.json"
    for text in ("{}", "[1]", "not json", '{"schema": 99}'):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"teacher\.json"):
            read_card(path)


def test_only_one_holds_an_entry(tmp_path: Path) -> None:
    store = TeacherStore(tmp_path)
    place = store.entry("digits", "cnn", "0123456789abcdef")
    told, order = [], []
    inside, release = threading.Event(), threading.Event()

    def first() -> None:
        with held(store.lock_file(place), lambda: None):
            inside.set()
            release.wait()
            order.append("first")

    def second() -> None:
        def waiting() -> None:
            told.append("waiting")
            release.set()

        with held(store.lock_file(place), waiting):
            order.append("second")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    inside.wait()
    threads.append(threading.Thread(target=second))
    threads[1].start()
    for thread in threads:
        thread.join()
    assert told == ["waiting"]
    assert order == ["first", "second"]


def test_what_a_killed_process_left_goes_from_a_filled_entry(tmp_path: Path) -> None:
    store = TeacherStore(tmp_path)
    entry = store.entry("digits", "cnn", "0123456789abcdef")
    entry.fill(ConvNet(num_classes=2, in_channels=1, widths=[4]), CARD)
    whole = {path.name: path.read_bytes() for path in entry.folder.iterdir()}
    assert set(whole) == {"teacher.safetensors", "teacher.json", SUMS}
    store.tidy(entry)
    assert not (tmp_path / "teachers" / ".locks").exists()  # there was nothing to do
    (entry.folder / SUMS).rename(entry.folder / f"{UNFINISHED}0123abcd-{SUMS}")
    entry.checkpoints.save({"state": 1})
    store.tidy(entry)
    assert {path.name: path.read_bytes() for path in entry.folder.iterdir()} == whole


def test_a_damaged_card_is_refused(entry: StoreEntry) -> None:
    entry.fill(ConvNet(num_classes=2, in_channels=1, widths=[4]), CARD)
    path = entry.folder / "teacher.json"
    path.write_text(path.read_text().replace("0.5", "0.6", 1))
    with pytest.raises(CheckpointError, match=r"teacher\.json is damaged"):
        entry.load()
    entry.fill(ConvNet(num_classes=2, in_channels=1, widths=[4]), CARD)  # trained again
    entry.load()
