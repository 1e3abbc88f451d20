"""What the fuzzer and the soak found, each once."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from kdrun.cli import parser, planning
from kdrun.cli.main import run
from kdrun.data.images import StoredImages
from kdrun.errors import CheckpointError, ConfigError, KdrunError
from kdrun.runs.folder import RunFolder
from kdrun.runs.sweeps import SweepFolder
from kdrun.teachers.cache_file import CacheFile
from kdrun.teachers.formats import read_any


def refused(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        planning.check("distill", parser.parse_composed("distill", list(words)))
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


@pytest.mark.parametrize(
    "text", ["[" * 300 + "]" * 300, "5\n", "- 1\n", "true\n", "defaults:\n- x: _self_\n"]
)
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
        StoredImages(tmp_path / "x.npy")


def test_remembered_outputs_hold_no_file_when_they_are_gone(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    if before is None:
        pytest.skip("needs /proc")
    for number in range(5):
        CacheFile(tmp_path / str(number), 4, 3, "float32")
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_sweep_whose_files_are_no_files_does_not_go_on(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", "-m", "T=1,4", "ui=quiet"]
    SweepFolder(tmp_path).begin(words, [words], ui="quiet")
    entry = tmp_path / "multirun.yaml"
    if kind == "link":
        entry.symlink_to(entry)
    elif kind == "pipe":
        os.mkfifo(entry)
    else:
        entry.mkdir()
    assert run(["resume", str(tmp_path)]) == 2
    assert "kdrun writes a file there" in capsys.readouterr().err


def test_a_run_whose_log_is_a_pipe_does_not_go_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.log")
    with pytest.raises(ConfigError, match=r"run\.log is not a file"):
        RunFolder(tmp_path).acquire()
    (tmp_path / "run.log").unlink()
    (tmp_path / "result.json").mkdir()
    with pytest.raises(ConfigError, match=r"result\.json is a folder"):
        RunFolder(tmp_path).acquire()


@pytest.mark.parametrize("opcode", [pickle.BINBYTES8, pickle.BINUNICODE8, pickle.BYTEARRAY8])
def test_a_pickle_that_claims_more_bytes_than_it_has_takes_no_memory(
    tmp_path: Path, opcode: bytes
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x05" + opcode + (2**50).to_bytes(8, "little") + b"abc")
    with pytest.raises(KdrunError, match=r"weights\.pth"):
        read_any(path)


def test_a_damaged_tensor_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"a.weight": torch.zeros(500)}, path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(bytes(400)) + 200] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"weights\.pth is damaged at a\.weight"):
        assert read_any(path).weights


@pytest.mark.parametrize("text", ["5\n", "defaults: 5\n", "[" * 300 + "]" * 300])
def test_an_experiment_that_is_no_group_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    assert refused("--config-dir", str(tmp_path), "experiment=mine")


@pytest.mark.parametrize("group", ["logger", "scheme"])
def test_an_option_without_a_name_is_refused(tmp_path: Path, group: str) -> None:
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text("_target_: x.Y\n")
    assert "name" in refused("--config-dir", str(tmp_path), f"{group}=mine")


def test_a_glob_of_teachers_is_refused_or_swept() -> None:
    assert refused("teacher=glob(*)")
