"""`kdrun report` and `kdrun compare` as they are typed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from report.conftest import config, result, write_run

from kdrun.cli.main import run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """outputs/distill/{one,two}, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, T in (("one", 1.0), ("two", 4.0)):
        settings = config(T=T)
        write_run(Path("outputs/distill") / name, settings, result(settings, 95.0, 92.0,
                  "completed"), 96.0)  # fmt: skip
    return tmp_path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Type a command that must be refused: exit code 2 and one message."""

    def type_it(*words: str) -> str:
        assert run(list(words)) == 2
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return printed.err

    return type_it


FILES = ("report.html", "report.md", "report.csv", "report-runs.csv")


def test_the_files_lie_beside_the_first_folder(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", "outputs/distill/one", "outputs/distill/two"]) == 0
    assert all((runs / "outputs/distill" / name).is_file() for name in FILES)
    printed = capsys.readouterr().out
    assert "outputs/distill/report.html" in printed
    assert "2 runs, 2 finished." in printed
    assert "digits · single runs · cnn_large → cnn_tiny · kd" in printed


def test_an_earlier_report_among_the_folders_is_passed_over(runs: Path) -> None:
    words = [str(path) for path in sorted((runs / "outputs/distill").iterdir())]
    assert run(["report", *words]) == 0
    again = [str(path) for path in sorted((runs / "outputs/distill").glob("[!.]*"))]
    assert len(again) == len(words) + 4
    assert run(["report", *again]) == 0


def test_to_names_another_folder(runs: Path) -> None:
    assert run(["report", "outputs", "to=deep/er"]) == 0
    assert all((runs / "deep/er" / name).is_file() for name in FILES)
    assert not (runs / "report.html").exists()


def test_the_current_folder_gets_the_files_itself(runs: Path) -> None:
    assert run(["report", "."]) == 0
    assert (runs / "report.html").is_file()
    assert not (runs.parent / "report.html").exists()


def test_a_report_of_a_report_is_the_same(runs: Path) -> None:
    run(["report", "outputs"])
    before = (runs / "report.csv").read_text()
    run(["report", "outputs"])
    assert (runs / "report.csv").read_text() == before


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        ((), "report needs a folder: kdrun report outputs/sweeps/..."),
        (("output",), "Did you mean 'outputs'?"),
        (("outputs/distil",), "Did you mean 'distill'?"),
        (("outputs/distill/one/result.json",), "is a file: name the folder it is in"),
        (("outputs", "picture=all"), "Did you mean 'pictures'?"),
        (("outputs", "pictures=bst"), "Did you mean 'best'?"),
        (("outputs", "--picture"), "Did you mean '--pictures'?"),
        (("outputs", "output_root=a"), "to=... says where its files go"),
        (("outputs", "to=outputs/distill/one/result.json"), "cannot be written into"),
    ],
)
def test_a_mistake_is_answered(
    runs: Path, said: Callable[..., str], words: tuple[str, ...], reply: str
) -> None:
    assert reply in " ".join(said("report", *words).split())


def test_an_empty_folder_says_what_to_type(runs: Path, said: Callable[..., str]) -> None:
    (runs / "empty").mkdir()
    assert "kdrun distill makes one" in said("report", "empty")


def test_unfinished_runs_are_listed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs / "outputs/distill/two/result.json"
    values = {**json.loads(path.read_text()), "status": "interrupted", "error": "stopped"}
    path.write_text(json.dumps(values))
    (runs / "outputs/distill/one/result.json").write_text("{")
    assert run(["report", "outputs"]) == 0
    printed = capsys.readouterr().out
    assert "2 runs, 0 finished." in printed
    assert "Not finished: 2" in printed
    assert "interrupted  outputs/distill/two" in printed
    assert "unreadable  outputs/distill/one" in printed


def test_compare_says_what_differs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "outputs/distill/one", "outputs/distill/two"]) == 0
    printed = capsys.readouterr().out
    assert "A  outputs/distill/one" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ["T", "1", "4"] in lines
    assert "environment: no difference in" in printed
    assert ["lr", "0.1", "0.1"] not in lines
    assert run(["compare", "outputs/distill/one", "outputs/distill/two", "--all"]) == 0
    assert ["lr", "0.1", "0.1"] in [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (("outputs",), "compare takes two run folders"),
        (("outputs", "outputs/distill/one"), "holds 2 runs and compare takes one"),
        (("outputs/distill/one", "outputs/distill/tow"), "Did you mean 'two'?"),
    ],
)
def test_compare_refuses(
    runs: Path, said: Callable[..., str], words: tuple[str, ...], reply: str
) -> None:
    assert reply in " ".join(said("compare", *words).split())


@pytest.mark.parametrize("verb", ["report", "compare"])
def test_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert f"kdrun {verb} " in capsys.readouterr().out
