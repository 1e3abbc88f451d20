"""Reading run folders in every state they can be in."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.errors import ConfigError
from kdrun.report.records import collect, number

Make = Callable[..., Path]


def test_runs_are_found_below_any_folder_once(make: Make, outputs: Path) -> None:
    one, two = make(), make(seed=1)
    found = collect([outputs, one, outputs / "distill", two])
    assert [run.folder for run in found.runs] == [one, two]


def test_what_lies_inside_a_run_is_no_run(make: Make, outputs: Path) -> None:
    inner = make() / "copy"
    inner.mkdir()
    (inner / "result.json").write_text("{}")
    assert len(collect([outputs]).runs) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2, "status": "completed"}', "\x00"])
def test_a_damaged_result_makes_a_listed_run(make: Make, text: str) -> None:
    folder = make()
    (folder / "result.json").write_text(text)
    (run,) = collect([folder]).runs
    assert run.status == "unreadable"
    assert not run.finished


def test_damaged_files_beside_a_result_are_empty(make: Make) -> None:
    folder = make()
    (folder / "config.yaml").write_text("a: [")
    (folder / "env.json").write_text("{")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 6, "val/top')
    (run,) = collect([folder]).runs
    assert run.config == {}
    assert run.environment == {}
    assert [row["epoch"] for row in run.metrics] == [1, 2, 3, 4, 5]


def write_sweep(folder: Path, runs: list[str | None]) -> None:
    (folder / "jobs").mkdir(parents=True)
    jobs = [{"job": n, "command": ["distill", f"T={n}"]} for n in range(len(runs))]
    (folder / "sweep.json").write_text(json.dumps({"schema": 1, "jobs": jobs}))
    for number_of, run in enumerate(runs):
        if run is not None:
            note = {"job": number_of, "run": run, "error": "no disk" if "gone" in run else None}
            (folder / "jobs" / f"{number_of}.json").write_text(json.dumps(note))


def test_a_sweep_names_its_runs_and_what_never_started(make: Make, outputs: Path) -> None:
    run = make()
    write_sweep(outputs / "sweeps" / "one", [str(run), None, "outputs/distill/gone"])
    found = collect([outputs / "sweeps" / "one"])
    assert [one.folder for one in found.runs] == [run]
    assert [(one.status, one.command, one.error) for one in found.missing] == [
        ("not started", "kdrun distill T=1", ""),
        ("folder gone", "kdrun distill T=2", "no disk"),
    ]


def test_a_sweep_that_was_moved_finds_its_runs(make: Make, outputs: Path, tmp_path: Path) -> None:
    run = make()
    write_sweep(outputs / "sweeps" / "one", [f"outputs/distill/{run.name}", str(run)])
    moved = tmp_path / "elsewhere" / "results"
    shutil.move(outputs, moved)
    found = collect([moved / "sweeps" / "one"])
    assert [one.folder.resolve() for one in found.runs] == [moved / "distill" / run.name]
    assert not found.missing


def test_a_misspelt_folder_is_answered_with_the_closest(make: Make, outputs: Path) -> None:
    make()
    with pytest.raises(ConfigError, match=r"has no 'distil'\. Did you mean 'distill'\?"):
        collect([outputs / "distil" / "0001"])


def test_an_empty_folder_and_a_file_say_what_to_type(make: Make, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match=r"no runs in .*kdrun ls runs"):
        collect([empty])
    folder = make()
    with pytest.raises(ConfigError, match=f"is a file: name the folder it is in, {folder}"):
        collect([folder / "result.json"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "3", None, [1]])
def test_only_finite_numbers_are_numbers(value: object) -> None:
    assert number({"a": value}, "a") is None


def test_a_report_imports_no_torch(make: Make, outputs: Path) -> None:
    for seed in range(3):  # three seeds: the test of significance is made as well
        make(seed=seed, test=95.0 + seed**2)
    code = (
        "import sys\n"
        "from kdrun.cli.main import run\n"
        f"assert run(['report', {str(outputs)!r}]) == 0\n"
        f"assert run(['compare', {str(outputs / 'distill/0001')!r}, "
        f"{str(outputs / 'distill/0002')!r}]) == 0\n"
        "assert 'torch' not in sys.modules\nassert 'matplotlib' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (outputs.parent / "report.html").is_file()
