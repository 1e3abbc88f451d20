"""Tab completion: the candidates, and a real shell asking for them."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdrun.cli import verbs
from kdrun.cli.config_groups import list_groups
from kdrun.cli.main import run
from kdrun.commands.completion import candidates

NAMES = verbs.names()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("kdrun di", ["distill"]),
        ("kdrun evaluate --conf", ["--config-dir"]),
        ("kdrun distill stud", ["student="]),
        ("kdrun distill student=cnn_t", ["student=cnn_tiny"]),
        ("kdrun distill -m student=cnn_large,cnn_t", ["student=cnn_large,cnn_tiny"]),
        ("kdrun distill 'loss=[kd,pk", ["loss=[kd,pkt"]),
        ("kdrun distill 'loss=[pk", ["loss=[pkt"]),
        ("kdrun distill loss.", ["loss.kd."]),
        ("kdrun distill ~loss.", ["~loss.kd."]),
        ("kdrun distill loss.kd.t", ["loss.kd.temperature="]),
        ("kdrun distill 'loss=[kd,sp]' loss.sp.w", ["loss.sp.weight="]),
        ("kdrun distill student.wi", ["student.widths="]),
        ("kdrun distill student.checkpoint_", ["student.checkpoint_key="]),
        ("kdrun distill teacher.schedule.mom", ["teacher.schedule.momentum="]),
        ("kdrun distill schedule@teacher.schedule=cos", ["schedule@teacher.schedule=cosine"]),
        ("kdrun distill compile=", ["compile=true", "compile=false"]),
        ("kdrun distill device=cu", ["device=cuda"]),
        ("kdrun distill ui=qu", ["ui=quiet"]),
        ("kdrun distill nothing.here.", []),
        ("kdrun distill qqq", []),
        ("kdrun distill T=", []),
        ("kdrun train-teacher stud", []),
        ("kdrun show loss/pk", ["loss/pkt"]),
        ("kdrun ls tea", ["teacher", "teachers"]),
        ("kdrun completion b", ["bash"]),
        ("kdrun doctor ", ["--json"]),
        ("kdrun report pictures=a", ["pictures=all"]),
        ("kdrun distill --tr", ["--trust"]),
        ("kdrun resume --tr", ["--trust"]),
        ("kdrun unknown ", []),
    ],
)
def test_candidates(line: str, found: list[str]) -> None:
    assert candidates(line, NAMES) == found


@pytest.mark.parametrize("line", ["kdrun ", "kdrun", ""])
def test_verbs_are_offered_first(line: str) -> None:
    assert candidates(line, NAMES)[: len(NAMES)] == NAMES


@pytest.mark.parametrize("group", ["student", "teacher", "dataset", "schedule", "loss"])
def test_all_options_are_offered(group: str) -> None:
    expected = [f"{group}={name}" for name in list_groups()[group]]
    assert candidates(f"kdrun distill {group}=", NAMES) == expected


def test_own_options_are_offered(my_configs: Path) -> None:
    line = f"kdrun distill --config-dir {my_configs} student=mi"
    assert candidates(line, NAMES) == ["student=mine"]
    assert candidates(f"kdrun distill --config-dir={my_configs} student=mi", NAMES) == [
        "student=mine"
    ]


def test_runs_are_offered_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for age, name in ((20, "old"), (10, "new")):
        folder = Path("outputs/distill") / name
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
        os.utime(folder / "result.json", (time.time() - age, time.time() - age))
    runs = ["outputs/distill/new", "outputs/distill/old"]
    assert candidates("kdrun resume ", NAMES) == runs
    assert candidates("kdrun evaluate run=out", NAMES) == [f"run={name}" for name in runs]
    assert candidates("kdrun show outputs/distill/o", NAMES) == ["outputs/distill/old"]


def test_sweeps_are_offered_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("outputs/sweeps/1", "outputs/sweeps/2", "outputs/distill/a"):
        Path(name).mkdir(parents=True)
    Path("outputs/distill/a/result.json").write_text("{}")
    assert candidates("kdrun report outputs/s", NAMES) == ["outputs/sweeps/2", "outputs/sweeps/1"]
    assert candidates("kdrun report outputs/d", NAMES) == ["outputs/distill/a"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_ask_kdrun(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "--complete" in script
    assert "COMP_LINE" in script


def test_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "bsh"]) == 2
    assert "Did you mean 'bash'?" in capsys.readouterr().err


def command(folder: Path) -> Path:
    """A `kdrun` to call by name, that runs this interpreter."""
    path = folder / "kdrun"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kdrun "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.heavy  # a time: for a quiet machine
def test_answer_is_quick(tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", "kdrun", "--complete"],
            env={**os.environ, "COMP_LINE": "kdrun distill loss."},
            capture_output=True,
            text=True,
            check=True,
        )
        seconds.append(time.perf_counter() - start)
        assert ended.stdout == "loss.kd.\n"
    assert min(seconds) < 0.3


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("kdrun distill stud", "student="),
        ("kdrun distill student=cnn_t", "cnn_tiny"),
        ("kdrun distill schedule@teacher.schedule=cos", "cosine"),
        ("kdrun distill 'loss=[kd,pk", "loss=[kd,pkt"),
        ("kdrun ev", "evaluate"),
    ],
)
def test_bash_gets_the_part_it_replaces(tmp_path: Path, line: str, reply: str) -> None:
    script = (
        f'eval "$({command(tmp_path)} completion bash)"\n'
        f'compopt() {{ :; }}\nCOMP_LINE="{line}" COMP_POINT={len(line)}\n'
        f'_kdrun {tmp_path}/kdrun\nprintf "%s\\n" "${{COMPREPLY[@]}}"\ncomplete -p kdrun\n'
    )
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [reply, "complete -o default -F _kdrun kdrun"]
