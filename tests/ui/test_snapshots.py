"""The screens of the README's commands at 80 and 200 columns, drawn from stored results.

To accept a change that is meant: UPDATE_SNAPSHOTS=1 python -m pytest tests/ui/test_snapshots.py
"""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdrun.cli import help, verbs
from kdrun.runs.result import RunResult
from kdrun.runs.sweeps import SweepFolder
from kdrun.sweeps import progress
from kdrun.ui import reporter as reporter_module
from kdrun.ui import tables
from kdrun.ui.console import Screen
from kdrun.ui.reporter import Reporter

SNAPSHOTS = Path(__file__).parent / "snapshots"
WIDTHS = (80, 200)


def stored(seed: int = 0, temperature: float = 4.0, top1: float = 93.0) -> dict[str, Any]:
    """A `result.json` of `kdrun distill`."""

    def split(accuracy: float) -> dict[str, Any]:
        errors = round(3.6 * (100 - accuracy))
        return {"top1": accuracy, "top5": 99.5, "errors": errors, "loss": 0.21, "ece": 2.5}

    return {
        "schema": 1,
        "command": "distill",
        "status": "completed",
        "error": None,
        "dataset": {"name": "digits", "num_classes": 10, "test_size": 360, "fingerprint": "f" * 64},
        "objective": f"0.1*CE + 0.9*{temperature**2:g}*KL(T={temperature:g})",
        "loss": ["kd"],
        "T": temperature,
        "alpha": 0.9,
        "seed": seed,
        "epochs": 60,
        "teachers": [
            {"name": "cnn_large", "params": 94186, "flops": 1220000, "reused": True,
             "test": split(98.06)}
        ],
        "student": {
            "name": "cnn_tiny",
            "params": 438,
            "flops": 14000,
            "test": split(top1),
            "best_val": {"epoch": 34, "val_top1": top1 + 1, "test": split(top1 - 0.5)},
        },
        "alone": {"test": split(90.0 + seed / 2), "run": "outputs/alone"},
        "agreement": 93.4,
        "gain": top1 - 90.0 - seed / 2,
        "time": {"seconds": 12.5, "images_per_second": 5200.0, "teacher_seconds": 0.0},
    }  # fmt: skip


@pytest.fixture(params=WIDTHS)
def screen(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[int, io.StringIO]:
    """A terminal of that width without colours; the working folder is empty."""
    text = io.StringIO()
    shown = Screen(file=text, width=request.param, highlight=False, soft_wrap=True)
    monkeypatch.setattr(reporter_module, "console", lambda: shown)
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.chdir(tmp_path)
    return request.param, text


@pytest.fixture
def matches(screen: tuple[int, io.StringIO]) -> Callable[[str, str], None]:
    """Compare a screen with the stored one of that name and width."""

    def compare(name: str, text: str) -> None:
        path = SNAPSHOTS / f"{name}_{screen[0]}.txt"
        lines = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
        if os.environ.get("UPDATE_SNAPSHOTS"):
            path.write_text(lines, encoding="utf-8")
        assert lines == path.read_text(encoding="utf-8")
        assert "\x1b" not in lines

    return compare


def test_end_of_a_run(screen: tuple[int, io.StringIO], matches: Callable[[str, str], None]) -> None:
    result = RunResult.from_dict(stored(), check=False)
    reporter = Reporter("plain")
    reporter.show(tables.result_table(result))
    for line in tables.format_summary(result):
        reporter.say(f"  {line}")
    matches("end_of_run", screen[1].getvalue())


def test_a_sweep(screen: tuple[int, io.StringIO], matches: Callable[[str, str], None]) -> None:
    folder = SweepFolder(Path("outputs/sweeps/20260101-120000-000-abcdef"))
    settings = [(t, seed) for t in (1.0, 4.0) for seed in (0, 1, 2)]
    argvs = [["distill", f"T={t:g}", f"seed={seed}"] for t, seed in settings]
    folder.begin(["distill", "-m", "T=1,4", "seed=0,1,2"], argvs, ui="plain", fail_fast=False,
                 launcher="basic", processes=1, threads=None)  # fmt: skip
    progress.announce(folder, [None] * len(settings), "")
    for job, (t, seed) in enumerate(settings):
        if job == 5:
            folder.update(job, code=1, error="The loss is not finite.", seconds=1.0)
        else:
            run = Path(
                f"outputs/distill/digits/cnn_large-cnn_tiny-kd/20260101-12000{job}-000-abcdef"
            )
            run.mkdir(parents=True)
            values = stored(seed, t, 92.0 + t / 4 + seed / 4)
            (run / "result.json").write_text(json.dumps(values))
            (run / "config.yaml").write_text(f"T: {t}\nseed: {seed}\n")
            folder.update(job, code=0, run=str(run), reused=job == 0, seconds=14.0 + job)
        progress.say_progress(folder, job)
    progress.summarise(folder)
    text = screen[1].getvalue()
    matches("sweep", text)
    assert sum(line.startswith("  job ") for line in text.splitlines()) == 7  # the header as well
    assert text.count("The loss is not finite.") == 0  # on standard error, when it failed


def test_front_page_fits_the_terminal(screen: tuple[int, io.StringIO]) -> None:
    lines = help.front().splitlines()
    assert max(map(len, lines)) <= min(120, screen[0])
    shown = " ".join(" ".join(lines).split())
    assert all(f"{name} {summary}" in shown for name, summary in verbs.summaries().items())
