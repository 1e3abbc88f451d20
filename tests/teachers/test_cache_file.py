"""Records on disk: found again, never half a one, whoever writes and whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kdrun.teachers.cache_file import CacheFile, record_bytes

WIDTH = 10


def rows(slots: np.ndarray) -> np.ndarray:
    """What a deterministic teacher would say of each record: a function of its number."""
    seed = (slots[:, None] * 7919 + np.arange(WIDTH)[None, :] * 104729) % 65521
    return (seed / 65521 - 0.5).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> CacheFile:
    return CacheFile(tmp_path / "records.bin", 100, WIDTH, "float32")


def test_what_was_written_is_found_and_nothing_else(file: CacheFile) -> None:
    slots = np.array([3, 99, 0, 41])
    file.write(slots, rows(slots))
    values, valid = file.read(np.arange(100))
    assert set(np.flatnonzero(valid)) == {0, 3, 41, 99}
    assert np.array_equal(values[slots], rows(slots))


@pytest.mark.parametrize(("dtype", "width"), [("float16", 3), ("float64", 1), ("uint16", 100)])
def test_every_type_keeps_its_bits(tmp_path: Path, dtype: str, width: int) -> None:
    file = CacheFile(tmp_path / "r.bin", 5, width, dtype)
    values = np.arange(2 * width).reshape(2, width).astype(dtype)
    file.write(np.array([1, 4]), values)
    found, valid = file.read(np.array([4, 1, 2]))
    assert valid.tolist() == [True, True, False]
    assert np.array_equal(found[:2], values[::-1])


def test_zeros_are_a_value_like_any_other(file: CacheFile) -> None:
    file.write(np.array([5]), np.zeros((1, WIDTH), np.float32))
    assert file.read(np.array([5, 6]))[1].tolist() == [True, False]


def test_another_process_sees_it_and_a_larger_file_keeps_it(file: CacheFile) -> None:
    slots = np.array([7])
    file.write(slots, rows(slots))
    larger = CacheFile(file.path, 1000, WIDTH, "float32")
    assert larger.read(np.array([7, 999]))[1].tolist() == [True, False]
    smaller = CacheFile(file.path, 50, WIDTH, "float32")
    assert smaller.read(slots)[1].all()
    assert file.path.stat().st_size == 1000 * record_bytes(WIDTH, "float32")


def test_every_torn_record_reads_as_absent(file: CacheFile) -> None:
    """Every prefix of a record over an empty one and over another one, at every byte."""
    size = file.record_bytes
    file.write(np.array([0, 1]), rows(np.array([0, 1])))
    raw = file.path.read_bytes()
    whole, other = raw[:size], raw[size : 2 * size]
    handle = os.open(file.path, os.O_RDWR)
    for under in (bytes(size), other):
        for cut in range(size):
            torn = whole[:cut] + under[cut:]
            os.pwrite(handle, torn, 2 * size)
            expected = torn in (whole, other)
            assert file.read(np.array([2]))[1][0] == expected, cut
    os.close(handle)


def test_a_single_changed_bit_is_noticed(file: CacheFile) -> None:
    file.write(np.array([0]), rows(np.array([0])))
    raw = bytearray(file.path.read_bytes()[: file.record_bytes])
    handle = os.open(file.path, os.O_RDWR)
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        os.pwrite(handle, bytes(changed), 0)
        # the last word of ten floats is full: every bit of the record counts
        assert not file.read(np.array([0]))[1][0], bit
    os.close(handle)


WRITER = """
import sys, numpy as np
from pathlib import Path
from kdrun.teachers.cache_file import CacheFile
sys.path.insert(0, {tests!r})
width, count = {width}, {count}
def rows(slots):
    seed = (slots[:, None] * 7919 + np.arange(width)[None, :] * 104729) % 65521
    return (seed / 65521 - 0.5).astype(np.float32)
file = CacheFile(Path({path!r}), count, width, "float32")
draw = np.random.default_rng(int(sys.argv[1]))
print("ready", flush=True)
while True:
    slots = draw.integers(count, size=32)
    file.write(slots, rows(slots))
"""


def test_parallel_writers_killed_at_any_moment_leave_no_wrong_record(tmp_path: Path) -> None:
    count = 2000
    path = tmp_path / "records.bin"
    code = WRITER.format(tests="", width=WIDTH, count=count, path=str(path))
    reader = CacheFile(path, count, WIDTH, "float32")
    everything = np.arange(count)
    for attempt in range(2):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(10 * attempt + number)], stdout=subprocess.PIPE
            )
            for number in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        until = time.monotonic() + 0.1
        while time.monotonic() < until or not reader.read(everything)[1].any():
            values, valid = reader.read(everything)  # while they write
            assert np.array_equal(values[valid], rows(everything[valid]))
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
        values, valid = reader.read(everything)
        assert valid.any()
        assert np.array_equal(values[valid], rows(everything[valid]))


def test_a_full_disk_is_an_error_and_not_a_signal(
    file: CacheFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdrun.teachers.cache_file.os.pwrite", full)
    with pytest.raises(OSError, match="No space"):
        file.write(np.array([1]), rows(np.array([1])))
