"""Training states: atomic, checked, and with one to fall back on."""

import pickle
import resource
import signal
from pathlib import Path

import pytest
import torch

from kdrun.engine.checkpoint import CheckpointFolder, read_checkpoint
from kdrun.errors import CheckpointError


def payload(number: int) -> dict[str, object]:
    return {"number": number, "weights": torch.full((1000,), float(number))}


def test_newest_state_is_loaded(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert folder.load(pytest.fail) is None
    folder.save(payload(1))
    folder.save(payload(2))
    found = folder.load(pytest.fail)
    assert found is not None
    assert found["number"] == 2
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_state_falls_back_and_is_told(tmp_path: Path, damage: str) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(payload(1))
    folder.save(payload(2))
    content = bytearray(folder.last.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content = bytearray()
    else:
        content[len(content) // 2] ^= 0xFF
    folder.last.write_bytes(content)
    told: list[str] = []
    found = folder.load(told.append)
    assert found is not None
    assert found["number"] == 1
    assert "last.pt" in told[0]
    assert "using the previous checkpoint" in told[0]


def test_every_flipped_byte_of_the_weights_is_noticed(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(payload(7))
    good = folder.last.read_bytes()
    start = good.index(torch.full((4,), 7.0).numpy().tobytes())
    for offset in range(start, start + 4000, 397):
        bad = bytearray(good)
        bad[offset] ^= 1
        folder.last.write_bytes(bad)
        with pytest.raises(CheckpointError, match="damaged"):
            read_checkpoint(folder.last)


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(payload(1))
    folder.last.rename(folder.previous)  # what is there at that moment
    found = folder.load(pytest.fail)
    assert found is not None
    assert found["number"] == 1


def test_nothing_that_could_run_code_is_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    path = tmp_path / "last.pt"
    torch.save({"bomb": Bomb()}, path, pickle_module=pickle)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_the_fallback_goes_when_the_run_is_over(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(payload(1))
    folder.save(payload(2))
    folder.finish()
    assert not folder.previous.exists()
    folder.remove()
    assert not tmp_path.exists()


def test_a_damaged_state_never_takes_the_place_of_a_good_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(payload(1))
    folder.save(payload(2))
    folder.last.write_bytes(folder.last.read_bytes()[:-100])
    again = CheckpointFolder(tmp_path)  # the process that goes on
    assert again.load(lambda _: None) is not None
    again.save(payload(3))
    assert read_checkpoint(folder.previous)["number"] == 1
    assert read_checkpoint(folder.last)["number"] == 3
    again.save(payload(4))
    assert read_checkpoint(folder.previous)["number"] == 3


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limits on file sizes here")
def test_a_write_that_fails_midway_leaves_the_states_and_no_half_file(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(payload(1))
    size = folder.last.stat().st_size
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"too large.*last\.pt"):
            folder.save(payload(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert read_checkpoint(folder.last)["number"] == 1
