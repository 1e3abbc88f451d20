"""Sweeps: the list before the first job, the ranked table after the last.

Hydra runs the jobs; what they left is read from the run folders, whose paths each job notes in
`<sweep>/jobs/<number>.json`, so it makes no difference which process did them.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from kdrun.config.schema import DistillConfig, TrainTeacherConfig
from kdrun.files import read_json, write_atomically, write_json
from kdrun.losses.objective import objective_of
from kdrun.runs.result import COMPLETED, read_result
from kdrun.ui import format
from kdrun.ui.reporter import Reporter
from kdrun.ui.tables import new_table

Config = DistillConfig | TrainTeacherConfig


def announce(sweep_dir: Path, configs: Sequence[Any], argvs: Sequence[Sequence[str]]) -> None:
    """Say what will be done, and note it in `sweep.json`.

    Raises ConfigError for an objective that cannot be, before the first job.
    """
    for config in configs:
        if isinstance(config, DistillConfig):
            objective_of(config)
    jobs = [{"job": number, "command": list(argv)} for number, argv in enumerate(argvs)]
    ui = configs[0].runtime.ui if configs else "auto"
    write_json(sweep_dir / "sweep.json", {"schema": 1, "ui": ui, "jobs": jobs})
    reporter = Reporter(ui)
    reporter.heading(f"sweep of {len(jobs)} jobs")
    different = _different(argvs)
    for number, words in enumerate(different):
        reporter.say(f"  {number}: {' '.join(words)}")
    reporter.say(f"  folder: {sweep_dir}")


def say_job(reporter: Reporter, sweep_dir: Path, job: int) -> None:
    """The line above a job's own output."""
    jobs = read_json(sweep_dir / "sweep.json")["jobs"]
    words = _different([entry["command"] for entry in jobs])[job]
    reporter.heading(f"job {job + 1} of {len(jobs)}: {' '.join(words)}")


def record_job(sweep_dir: Path, job: int, run: Path) -> None:
    """Note which run folder a job has."""
    write_json(sweep_dir / "jobs" / f"{job}.json", {"job": job, "run": str(run)})


def summarise(sweep_dir: Path) -> None:
    """The ranked table, on the screen and as `summary.csv` and `summary.md`."""
    reporter = Reporter(read_json(sweep_dir / "sweep.json").get("ui", "auto"))
    rows, failed = _rows(sweep_dir)
    if rows:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        _write(sweep_dir, columns, rows)
        reporter.heading("sweep: ranked by validation accuracy; the test split chose nothing")
        shown = [name for name in columns if name != "run"]
        table: Table = new_table(*shown)
        for row in rows:
            table.add_row(*(_text(row.get(name)) for name in shown))
        reporter.show(table)
        reporter.say(f"  files: {sweep_dir}/summary.csv, summary.md")
    for job, words, status, error in failed:
        reporter.warn(f"job {job} ({' '.join(words)}) {status}: {error}")
    if failed:
        reporter.say("  the same command again goes on with these; finished jobs are not repeated")


def _rows(sweep_dir: Path) -> tuple[list[dict[str, Any]], list[tuple[int, list[str], str, str]]]:
    """(a row per finished job, best first; the other jobs)."""
    jobs = read_json(sweep_dir / "sweep.json")["jobs"]
    different = _different([entry["command"] for entry in jobs])
    rows, failed = [], []
    for entry, words in zip(jobs, different, strict=True):
        number = entry["job"]
        note = sweep_dir / "jobs" / f"{number}.json"
        run = Path(read_json(note)["run"]) if note.is_file() else None
        result = read_result(run) if run else None
        if run is None or result is None:
            failed.append((number, words, "not started", "no run folder"))
        elif result["status"] != COMPLETED:
            error = str(result.get("error") or "").splitlines()
            failed.append((number, words, result["status"], error[-1] if error else ""))
        else:
            rows.append({"job": number, **_swept(words), **_numbers(result), "run": str(run)})
    rows.sort(key=lambda row: (-(row.get("val top-1 %") or 0.0), row["job"]))
    return rows, failed


def _numbers(result: dict[str, Any]) -> dict[str, Any]:
    """The figures of one finished job."""
    if result["command"] == "train-teacher":
        teacher = result["teachers"][0]
        return {"test top-1 %": teacher["test"]["top1"], "errors": teacher["test"]["errors"]}
    if result["command"] == "benchmark":
        measured = result["benchmark"]["variants"]["this configuration"]
        return {
            "ms/step": measured["step_ms"]["median"],
            "images/s": measured["images_per_second"],
            "bare/whole": result["benchmark"]["bare_over_whole"]["median"],
        }
    student = result["student"]
    best = student["best_val"]
    return {
        "val top-1 %": best["val_top1"] if best else None,
        "test top-1 %": student["test"]["top1"],
        "errors": student["test"]["errors"],
        "gain": result["gain"],
        "agreement %": result["agreement"],
        "seconds": result["time"]["seconds"],
    }


def _different(argvs: Sequence[Sequence[str]]) -> list[list[str]]:
    """The words of each command that not all of them share."""
    shared = set.intersection(*(set(argv) for argv in argvs)) if len(argvs) > 1 else set()
    return [[word for word in argv if word not in shared] for argv in argvs]


def _swept(words: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in words) if value}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return format.percent(value) if isinstance(value, float) else str(value)


def _write(sweep_dir: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(sweep_dir / "summary.csv", text.getvalue().encode())
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_text(row.get(name)) for name in columns) + " |" for row in rows]
    write_atomically(sweep_dir / "summary.md", ("\n".join(lines) + "\n").encode())
