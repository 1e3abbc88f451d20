"""A method that keeps another network than the plain student: every figure is of that one."""

import json
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from support import SMALL, results

Run = Callable[..., int]


def test_figures_evaluation_and_resumption_are_those_of_the_kept_network(
    kdrun: Run, workdir: Path
) -> None:
    assert kdrun("distill", *SMALL, "loss=simkd") == 0
    (result,) = [r for r in results(workdir) if r["teachers"]]
    student, folder = result["student"], result["folder"]
    assert result["objective"] == "1*SimKD"
    assert result["ce"] == 0
    assert "includes a projector and the teacher's classifier" in (folder / "run.log").read_text()
    assert student["params"] > result["alone"]["params"]
    assert student["flops"] > result["alone"]["flops"]
    weights = load_file(folder / "student.safetensors")
    trained = [t for name, t in weights.items() if not name.endswith(("mean", "var", "tracked"))]
    assert sum(t.numel() for t in trained) == student["params"]
    card = json.loads((folder / "student.json").read_text())
    assert card["target"] == "kdrun.models.reused_classifier.ReusedClassifier"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = max(row["val/top1_percent"] for row in rows)
    assert student["best_val"]["val_top1"] == best
    assert kdrun("evaluate", f"run={folder}") == 0
    (again,) = results(workdir, "evaluate")
    assert again["student"]["test"] == student["test"]
    assert again["student"]["params"] == student["params"]
