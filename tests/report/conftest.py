"""Run folders as kdrun leaves them, written in a moment without any training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdrun.report.content import Report, make_report
from kdrun.report.published import read_published
from kdrun.report.records import collect

Make = Callable[..., Path]


def config(**changes: Any) -> dict[str, Any]:
    """A run's config.yaml; dotted names replace or add values."""
    values: dict[str, Any] = {
        "dataset": {"name": "digits", "_target_": "a.digits", "workers": 0, "augment": {}},
        "teacher": {"name": "cnn_large", "_target_": "a.B", "schedule": {"epochs": 30}, "seed": 0},
        "student": {"name": "cnn_tiny", "_target_": "a.B", "widths": [4, 8], "taps": {}},
        "loss": {"kd": {"_target_": "a.KD", "weight": 0.9, "temperature": 4.0}},
        "schedule": {"epochs": 30, "lr": 0.1, "batch_size": 64, "precision": "fp32"},
        "scheme": {"name": "offline", "_target_": "a.O"},
        "logger": {"name": "none", "_target_": None},
        "T": None,
        "alpha": None,
        "ce": None,
        "seed": 0,
        "alone": True,
        "epochs": 30,
        "lr": 0.1,
        "batch_size": 64,
        "precision": "fp32",
        "device": "auto",
        "threads": 1,
        "output_root": "outputs",
        "ui": "auto",
    }
    for name, value in changes.items():
        *parents, last = name.split(".")
        node = values
        for parent in parents:
            node = node[parent]
        node[last] = value
    return values


def network(top1: float, params: int = 438, **more: Any) -> dict[str, Any]:
    """A measured network's entry in result.json."""
    test = {"top1": top1, "top5": 99.0, "errors": round(360 - 3.6 * top1), "loss": 0.5, "ece": 2.5}
    return {"name": "cnn_tiny", "params": params, "flops": 32 * params, "test": test, **more}


def result(
    settings: dict[str, Any],
    test: float,
    alone: float | None,
    status: str,
    alone_run: str = "gone",
    best_val: float = 97.0,
) -> dict[str, Any]:
    """A distillation's result.json."""
    kd = settings["loss"].get("kd")
    finished = status == "completed"
    teacher = settings["teacher"] and {
        **network(99.0, 94186), "name": settings["teacher"]["name"], "sha256": "abc",
        "checkpoint": "gone"}  # fmt: skip
    best = {"epoch": 25, "val_top1": best_val, "test": {"top1": test - 0.5}}
    student = {**network(test), "name": settings["student"]["name"], "best_val": best}
    return {
        "schema": 1,
        "command": "distill",
        "status": status,
        "error": None if finished else "Not finite\nthe loss became infinite",
        "dataset": {"name": settings["dataset"]["name"], "fingerprint": "f" * 64, "test_size": 360},
        "objective": "0.1*CE + 0.9*16*KL(T=4)",
        "loss": list(settings["loss"]),
        "T": settings["T"] or (kd and kd["temperature"]),
        "alpha": settings["alpha"] or (kd and kd["weight"]),
        "seed": settings["seed"],
        "device": "cpu",
        "teachers": [teacher] if teacher else [],
        "student": student if finished else None,
        "alone": {"run": alone_run, **network(alone)} if finished and alone is not None else None,
        "agreement": 95.0 if finished else None,
        "gain": test - alone if finished and alone is not None else None,
        "time": {"seconds": 12.0} if finished else None,
    }


def write_run(folder: Path, settings: dict[str, Any], outcome: dict[str, Any], val: float) -> Path:
    """The files of a run folder."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (folder / "result.json").write_text(json.dumps(outcome), encoding="utf-8")
    words = f"kdrun distill T={settings['T']} seed={settings['seed']}\n"
    (folder / "command.txt").write_text(words, encoding="utf-8")
    environment = {"python": "3.12.1", "threads": 1, "packages": {"torch": "2.13.0"}}
    (folder / "env.json").write_text(json.dumps(environment), encoding="utf-8")
    rows = [
        {"phase": "main", "epoch": e, "step": e, "val/top1_percent": val - 10 + 2 * e}
        for e in range(1, 6)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write one run below `outputs`: its settings by dotted names, and what came out."""
    count = 0

    def make_one(
        test: float = 95.0,
        val: float = 96.0,
        alone: float | None = 92.0,
        status: str = "completed",
        changes: dict[str, Any] | None = None,
        outcome: dict[str, Any] | None = None,
        best_val: float | None = None,
        **settings: Any,
    ) -> Path:
        nonlocal count
        count += 1
        whole = config(**settings, **(changes or {}))
        values = {
            **result(whole, test, alone, status, best_val=val if best_val is None else best_val),
            **(outcome or {}),
        }
        return write_run(tmp_path / "outputs" / "distill" / f"{count:04}", whole, values, val)

    return make_one


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Where `make` writes."""
    return tmp_path / "outputs"


@pytest.fixture
def report_of() -> Callable[..., Report]:
    """A report of folders."""

    def read(*folders: Path) -> Report:
        return make_report(collect(folders), read_published())

    return read


@pytest.fixture
def sweep(make: Make, outputs: Path) -> Path:
    """2 temperatures × 2 alphas × 3 seeds; T=4 alpha=0.9 is best on validation, not on test."""
    for place, (T, alpha) in enumerate(((1.0, 0.1), (1.0, 0.9), (4.0, 0.1), (4.0, 0.9))):
        for seed in range(3):
            test = 97.0 - place + 0.3 * seed * (-1) ** seed
            make(test=test, val=93.0 + place, alone=92.0 + 0.2 * seed, T=T, alpha=alpha, seed=seed)
    return outputs
