"""`SHA256SUMS`: what it lists is checked, what it does not list is taken as it is."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kdrun.checksums import SUMS, damaged, is_intact, seal, unseal
from kdrun.files import UNFINISHED, published, remove_unfinished, write_atomically


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    for name in ("one.json", "two words.bin"):
        (tmp_path / name).write_bytes(name.encode() * 9)
    seal(tmp_path, ["one.json", "two words.bin", "absent"])
    return tmp_path


def test_a_turned_bit_is_noticed_and_only_in_listed_files(sealed: Path) -> None:
    for name in ("one.json", "two words.bin"):
        path = sealed / name
        good = path.read_bytes()
        assert is_intact(path)
        for position in (0, len(good) // 2, len(good) - 1):
            bad = bytearray(good)
            bad[position] ^= 0x10
            path.write_bytes(bad)
            assert not is_intact(path)
        path.write_bytes(good[:-1])
        assert not is_intact(path)
        assert SUMS in damaged(path)
    (sealed / "other").write_text("x")
    assert is_intact(sealed / "other")
    unseal(sealed)
    assert is_intact(sealed / "one.json")


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this machine")
def test_sha256sum_reads_it(sealed: Path) -> None:
    check = ["sha256sum", "-c", SUMS]
    assert subprocess.run(check, cwd=sealed, capture_output=True).returncode == 0
    (sealed / "one.json").write_text("x")
    assert subprocess.run(check, cwd=sealed, capture_output=True).returncode == 1


def test_a_damaged_list_is_no_error_of_its_own(sealed: Path) -> None:
    """At worst a good file is suspected."""
    path, sums = sealed / "one.json", sealed / SUMS
    whole = sums.read_bytes()
    for bad in (b"", whole[:30], whole[:70], b"\xff" + whole, b"\n\n", whole.replace(b" ", b"")):
        sums.write_bytes(bad)
        assert is_intact(path) in (True, False)
    sums.write_bytes(b"0" + whole[1:])
    assert not is_intact(path)


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    mine = tmp_path / f"{UNFINISHED}0123abcd-result.json"
    others = tmp_path / f"{UNFINISHED}0123abcd-other.json"
    for path in (mine, others):
        path.write_text("half")
    write_atomically(tmp_path / "result.json", b"{}")
    assert mine.exists()  # it may belong to a process at work
    os.utime(mine, (0, 0))
    with published(tmp_path / "result.json") as unfinished:
        unfinished.write_text("new")
        assert unfinished.suffix == ".json"
    assert not mine.exists()
    assert others.exists()
    remove_unfinished(tmp_path)  # by whoever holds the folder
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_write_that_fails_midway_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, b"old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdrun.files.os.fsync", full)
    with pytest.raises(OSError, match=r"No space left.*result\.json"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["result.json"]
