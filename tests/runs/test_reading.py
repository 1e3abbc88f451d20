"""Damaged runs are left out by every reader and named, whichever of their files is damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.checksums import SUMS, find_fault, read_sums, seal
from kdrun.cli.main import run
from kdrun.errors import CheckpointError, ConfigError
from kdrun.report.compare import one_run
from kdrun.report.content import make_report
from kdrun.report.files import write_markdown
from kdrun.report.page import write_page
from kdrun.report.records import collect
from kdrun.runs.reading import DAMAGED, matching, read_run, require_intact
from kdrun.runs.search import find_run
from kdrun.runs.sweeps import SweepFolder
from kdrun.sweeps import ranking
from kdrun.teachers.formats import read_any
from tests.report.conftest import config, result, write_run

TEXTS = ("result.json", "config.yaml", "metrics.jsonl", "command.txt", "env.json")


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"4", b"5") + b" ")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = [change, cut, Path.unlink]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two finished runs with their lists of digests, T=4 and T=1, in one group."""
    found = []
    for name, T in (("1", 4.0), ("2", 1.0)):
        settings = config(T=T)
        values = {**result(settings, 95.0, 92.0, "completed"), "identity": "same", "epochs": 30}
        folder = write_run(tmp_path / "group" / name, settings, values, 96.0)
        seal(folder, TEXTS)
        found.append(folder)
    return found


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", TEXTS)
def test_a_damaged_run_yields_no_number(
    runs: list[Path], name: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    damage(runs[1] / name)
    read = read_run(runs[1])
    assert (read.status, read.values) == (DAMAGED, {})
    assert str(runs[1] / name) in read.fault
    with pytest.raises(CheckpointError, match=name):
        require_intact(runs[1])
    with pytest.raises(ConfigError, match=name):
        one_run(runs[1])
    warned: list[str] = []
    assert find_run(tmp_path / "group", "identity", "same", True, warned.append) == runs[0]
    assert [str(runs[1] / name) in one for one in warned] == [True]
    report = make_report(collect([tmp_path]), [])
    assert [run.folder for group in report.grouped.groups for run in group.runs] == [runs[0]]
    write_markdown(tmp_path / "r.md", report)
    write_page(tmp_path / "r.html", report, [])
    for file in ("r.md", "r.html"):
        assert f"{runs[1] / name}" in (tmp_path / file).read_text(), file


@pytest.mark.parametrize("command", [["report", "."], ["ls", "runs", "output_root=."]])
def test_it_is_named_on_the_screen(
    runs: list[Path],
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(runs[0].parent)
    (runs[1] / "result.json").unlink()
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert "2/result.json is missing" in shown
    assert "damaged" in shown


@pytest.mark.parametrize("command", [["show", "2"], ["compare", "1", "2"], ["resume", "2"]])
def test_it_is_refused_where_it_is_the_only_one(
    runs: list[Path],
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(runs[0].parent)
    change(runs[1] / "config.yaml")
    assert run(command) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: 2/config.yaml is damaged")
    assert said.err.count("\n") == 1


def test_a_run_without_a_list_is_taken_as_it_is_and_counted(runs: list[Path]) -> None:
    (runs[1] / SUMS).unlink()
    change(runs[1] / "config.yaml")
    assert read_run(runs[1]).finished
    assert not read_run(runs[1]).checked
    assert read_run(runs[0]).checked
    from kdrun.report.content import notes

    said = notes(make_report(collect([runs[0].parent]), []))
    assert any("1 finished run has no checksums" in note for note in said)


def test_a_run_that_lost_result_and_list_is_not_dropped(runs: list[Path]) -> None:
    for name in (SUMS, "result.json"):
        (runs[1] / name).unlink()
    (found,) = [one for one in collect([runs[0].parent]).runs if not one.finished]
    assert found.status == DAMAGED
    assert "result.json is missing" in found.error


@pytest.mark.parametrize("text", ["", "x", "0" * 64, "0" * 63 + "  result.json\n", "\xff"])
def test_a_list_that_is_none_is_damage(runs: list[Path], text: str) -> None:
    (runs[1] / SUMS).write_text(text)
    with pytest.raises(ValueError, match="is damaged"):
        read_sums(runs[1])
    assert SUMS in read_run(runs[1]).fault
    assert find_fault(runs[1], ["anything"])


def test_damaged_runs_of_other_settings_are_not_spoken_of(runs: list[Path]) -> None:
    change(runs[1] / "metrics.jsonl")
    warned: list[str] = []
    found = matching(runs[0].parent, lambda values: values.get("T") == 4.0, warned.append)
    assert [folder for folder, _ in found] == [runs[0]]
    assert warned == []


@pytest.mark.parametrize("name", ["student.json", "student.safetensors"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_weights_and_card_are_checked(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    for file in ("student.json", "student.safetensors"):
        (tmp_path / file).write_text('{"a": 44}')
    seal(tmp_path, ["student.json", "student.safetensors"])
    damage(tmp_path / name)
    named = tmp_path if name == "student.json" else tmp_path / name
    with pytest.raises(CheckpointError, match=rf"{name}.* (damaged|missing|does not exist)"):
        read_any(named, "run")


def test_a_sweep_whose_file_was_changed_ranks_nothing(runs: list[Path], tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path / "sweep")
    sweep.begin(["distill"], [["distill", "T=4"], ["distill", "T=1"]], ui="quiet")
    for job, folder in enumerate(runs):
        sweep.update(job, run=str(folder), code=0)
    assert [
        row.chosen["T"] for row in sorted(ranking.read_jobs(sweep).rows, key=lambda r: r.number)
    ] == ["4", "1"]
    change(runs[1] / "metrics.jsonl")
    (left_out,) = ranking.read_jobs(sweep).unfinished
    assert (left_out.state, left_out.number) == ("damaged", 1)
    assert str(runs[1] / "metrics.jsonl") in left_out.error
    note = tmp_path / "sweep" / "jobs" / "0.json"
    note.write_text(note.read_text().replace(str(runs[0]), str(runs[1])))
    assert ranking.read_jobs(sweep).rows == []
    path = tmp_path / "sweep" / "sweep.json"
    values = json.loads(path.read_text())
    values["jobs"][0]["command"][1] = "T=9"
    path.write_text(json.dumps(values))
    assert str(path) in sweep.fault()
    with pytest.raises(ValueError, match="damaged"):
        sweep.read()
    assert any(one.status == DAMAGED for one in collect([path.parent]).missing)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('" ": 3\n', "blank"),
        ('T: {"": 3}\n', "blank"),
        ('"\\u2028": 3\n', "unprintable"),
        ('T: "$\\x7boc.env:HOME}"\n', "not a plain value"),
        ("T: .nan\n", "finite"),
        ("T: 2020-01-01\n", "date"),
        ("- 1\n", "settings of a run"),
        ("", "settings of a run"),
        ("a: &a 1\nb: *a\n", "anchors"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_damage(
    runs: list[Path], text: str, reason: str, sealed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs[1] / "config.yaml").write_text(text)
    (runs[1] / SUMS).unlink()
    if sealed:
        seal(runs[1], TEXTS)
    else:
        assert f"{runs[1] / 'config.yaml'} is damaged" in read_run(runs[1]).fault
    (found,) = [one for one in collect([runs[0].parent]).runs if one.folder == runs[1]]
    assert found.status == DAMAGED
    assert reason in found.error
    assert run(["compare", str(runs[0]), str(runs[1])]) == 2
    printed = capsys.readouterr()
    assert f"{runs[1] / 'config.yaml'} is damaged" in printed.err
    assert printed.err.count("\n") == 1
