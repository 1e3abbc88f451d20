"""What the fuzzer and the soak found, each once."""

import os
from pathlib import Path

import numpy as np
import pytest

from kdrun.cli import flags, preflight
from kdrun.cli.main import run
from kdrun.data.images import MappedImages
from kdrun.errors import ConfigError
from kdrun.teachers.memory import RecordFile


def refused(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        preflight.check("distill", "distill", flags.split("distill", list(words)))
    return str(caught.value)


@pytest.mark.parametrize(
    "word",
    [
        "T=" + "9" * 5000,
        "dataset.augment=5",
        "student=[1,2]",
        "teacher.augment=3",
        "+hydra.mode=???",
    ],
)
def test_odd_values_are_refused_in_words(word: str) -> None:
    assert refused(word)


@pytest.mark.parametrize("text", ["[" * 300 + "]" * 300, "5\n", "- 1\n", "true\n"])
def test_configs_that_are_no_groups(tmp_path: Path, text: str) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "mine.yaml").write_text(text)
    assert refused("--config-dir", str(tmp_path), "student=mine")


def test_a_config_in_another_encoding_is_listed(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "mine.yaml").write_bytes(b"# Gr\xfc\xdfe\nname: x\n")
    assert run(["ls", "student", "--config-dir", str(tmp_path)]) == 0
    assert run(["show", "student/mine", "--config-dir", str(tmp_path)]) == 0


@pytest.mark.parametrize("change", [b"(", b"\x00", b"\xa0"])
def test_a_damaged_array_is_a_value_error(tmp_path: Path, change: bytes) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 4, 4), np.uint8))
    raw = bytearray((tmp_path / "x.npy").read_bytes())
    raw[12:13] = change
    (tmp_path / "x.npy").write_bytes(raw)
    with pytest.raises(ValueError, match=r"."):
        MappedImages(tmp_path / "x.npy")


def test_remembered_outputs_hold_no_file_when_they_are_gone(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    if before is None:
        pytest.skip("needs /proc")
    for number in range(5):
        RecordFile(tmp_path / str(number), 4, 3, "float32")
    assert len(os.listdir("/proc/self/fd")) <= before
