"""`kdrun doctor`: what it reports, and its exit code where kdrun cannot work."""

import json
import sys
from pathlib import Path

import pytest
import torch

from kdrun import __version__
from kdrun.cli.main import run
from kdrun.commands import doctor


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KDRUN_TEST_DATA", raising=False)


def test_report_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    for part in (__version__, torch.__version__, "cores", "GiB", "device=cpu", "precision=bf16"):
        assert part in text
    assert text.endswith("\nOK\n")


def test_report_as_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "MNIST").mkdir(parents=True)
    monkeypatch.setenv("KDRUN_TEST_DATA", str(tmp_path / "gone"))
    teacher = tmp_path / "outputs" / "teachers" / "digits" / "x-1"
    teacher.mkdir(parents=True)
    (teacher / "teacher.json").write_text("{}")
    assert run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["usable"] is True
    assert report["versions"]["torch"] == torch.__version__
    assert report["processor"]["torch_threads"] == torch.get_num_threads()
    assert report["devices"][-1]["name"] == "cpu"
    assert report["data"] == {"./data": "MNIST", "$KDRUN_TEST_DATA": "not there"}
    assert report["teachers"] == 1
    assert report["runs"] == 0
    assert list(tmp_path.glob("outputs/*")) == [tmp_path / "outputs" / "teachers"]


def test_missing_extra_names_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_present", lambda module: module != "timm")
    text = doctor.as_text(doctor.examine(Path("outputs")))
    assert "missing: pip install 'kdrun[timm]'" in text
    assert "kdrun[tensorboard]" not in text


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_not_usable_without(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    assert run(["doctor"]) == 1
    printed = capsys.readouterr()
    assert f"{name} cannot be imported: import of {name} halted" in printed.out
    assert f"pip install {name}" in printed.out
    assert "Traceback" not in printed.out + printed.err


@pytest.mark.parametrize("words", [["now"], ["--jsn"]])
def test_mistakes(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", *words]) == 2
    assert "doctor" in capsys.readouterr().err


def test_an_output_root_that_cannot_be_written_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").symlink_to("/nowhere/at/all")
    assert run(["doctor"]) == 1
    assert "/nowhere/at/all" in capsys.readouterr().out.splitlines()[-1]
    assert run(["doctor", "output_root=/proc"]) == 1
    end = capsys.readouterr().out.splitlines()[-1]
    assert end == "output_root=/proc cannot be written: name another folder."
