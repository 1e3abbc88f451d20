"""An interrupted decoding is resumed and ends with the bytes of one that was not interrupted."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.data.decoding import decode_pass, image
from kdrun.data.decoding.unfinished import JOURNAL
from kdrun.data.imagefolder import imagefolder
from kdrun.errors import DataError, KdrunError, MachineError, TimeLimitError

FILES = 10  # of the fixture `tree`: 6 for training, 4 for testing
BLOCK = 2
Damage = Callable[[Path], None]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "BLOCK", BLOCK)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded, as they are."""
    names: list[str] = []
    decode = decode_pass.decode_image

    def call(source: str, *arguments: object) -> object:
        names.append(source)
        return decode(source, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decode_pass, "decode_image", call)
    return names


def cache_of(root: Path) -> dict[str, str]:
    """Name → digest of the files of the only finished cache below `root`."""
    (folder,) = (path for path in root.iterdir() if path.is_dir())
    assert not folder.name.startswith(".")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def interrupt(
    tree: Path, cache: Path, after: int, error: BaseException, skip_broken: bool = False
) -> Path:
    """Stop decoding after `after` files; returns the unfinished folder."""

    def progress(what: str, done: int, total: int) -> None:
        if what == "decoding images" and done >= after:
            raise error

    with pytest.raises(type(error)):
        imagefolder(root=str(tree), cache_root=cache, progress=progress, skip_broken=skip_broken)
    return cache / next(path.name for path in cache.iterdir() if path.name.endswith(".tmp"))


def flip(folder: Path) -> None:
    content = bytearray((folder / "train.npy").read_bytes())
    content[-1] ^= 1
    (folder / "train.npy").write_bytes(content)


def cut_pixels(folder: Path) -> None:
    content = (folder / "train.npy").read_bytes()
    (folder / "train.npy").write_bytes(content[:-7])


def cut_journal(folder: Path) -> None:
    content = (folder / JOURNAL).read_bytes()
    (folder / JOURNAL).write_bytes(content[:-3])


def no_damage(folder: Path) -> None:
    return None


@pytest.mark.parametrize("after", range(BLOCK, FILES + 1, BLOCK))
@pytest.mark.parametrize("damage", [no_damage, flip, cut_pixels, cut_journal])
def test_a_resumed_cache_equals_one_decoded_at_once(
    tree: Path, tmp_path: Path, decoded: list[str], after: int, damage: Damage
) -> None:
    expected = imagefolder(root=str(tree), cache_root=tmp_path / "at once")
    folder = interrupt(tree, tmp_path / "cache", after, KeyboardInterrupt())
    damage(folder)
    decoded.clear()
    resumed = imagefolder(root=str(tree), cache_root=tmp_path / "cache")
    assert cache_of(tmp_path / "cache") == cache_of(tmp_path / "at once")
    assert resumed.fingerprint == expected.fingerprint
    written = after - BLOCK  # the journal has no line of the block that was being counted
    if damage is no_damage:
        assert len(decoded) == len(set(decoded)) == FILES - written
    else:
        assert FILES - written <= len(decoded) <= FILES


def test_broken_files_and_conversions_are_counted_once(tree: Path, tmp_path: Path) -> None:
    (tree / "train" / "cat" / "1.png").write_bytes(b"\x89PNG damaged")
    expected = imagefolder(root=str(tree), cache_root=tmp_path / "at once", skip_broken=True)
    interrupt(tree, tmp_path / "cache", 6, KeyboardInterrupt(), skip_broken=True)
    resumed = imagefolder(root=str(tree), cache_root=tmp_path / "cache", skip_broken=True)
    assert cache_of(tmp_path / "cache") == cache_of(tmp_path / "at once")
    assert resumed.notes == expected.notes
    assert len(resumed.train) == 5


def test_changed_files_are_decoded_again(tree: Path, tmp_path: Path, decoded: list[str]) -> None:
    interrupt(tree, tmp_path / "cache", 8, KeyboardInterrupt())
    (tree / "train" / "cat" / "0.png").touch()
    decoded.clear()
    imagefolder(root=str(tree), cache_root=tmp_path / "cache")
    assert len(decoded) == FILES


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (KeyboardInterrupt(), True),
        (TimeLimitError("the job exceeded its limit"), True),
        (MachineError("the network is down"), True),
        (DataError("a file cannot be decoded"), False),
        (KdrunError("a bug"), False),
    ],
)
def test_only_an_interruption_leaves_a_part(
    tree: Path, tmp_path: Path, error: BaseException, kept: bool
) -> None:
    try:
        interrupt(tree, tmp_path / "cache", 6, error)
    except StopIteration:
        assert not kept
        assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    else:
        assert kept
