"""Sweeps: one teacher, many students; done jobs are not repeated; a failing one is told."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from support import SMALL, results

Run = Callable[..., int]


def test_a_sweep_trains_one_teacher_and_ranks_its_students(kdrun: Run, workdir: Path) -> None:
    assert kdrun("distill", "-m", *SMALL, "T=1,4", "alpha=0.1,0.9") == 0
    found = results(workdir, name="cnn_large-*")
    assert sorted((r["T"], r["alpha"]) for r in found) == [(1, 0.1), (1, 0.9), (4, 0.1), (4, 0.9)]
    assert len(list(workdir.glob("outputs/teachers/*/*/teacher.json"))) == 1
    assert len({r["alone"]["run"] for r in found}) == 1
    (folder,) = workdir.glob("outputs/sweeps/*")
    rows = list(csv.DictReader((folder / "summary.csv").open()))
    assert len(rows) == 4
    ranks = [float(row["val top-1 %"]) for row in rows]
    assert ranks == sorted(ranks, reverse=True)
    assert (folder / "summary.md").read_text().startswith("| job |")


def test_a_job_equals_the_same_run_alone(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", "-m", *SMALL, "T=1,4", "seed=0,1")
    kdrun("distill", *SMALL, "T=4", "seed=1")
    same = [r for r in results(workdir, name="cnn_large-*") if (r["T"], r["seed"]) == (4, 1)]
    assert len(same) == 2
    one, two = (load_file(r["folder"] / "student.safetensors") for r in same)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_same_sweep_again_repeats_nothing(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", "-m", *SMALL, "T=1,4")
    before = {r["folder"] for r in results(workdir)}
    kdrun("distill", "-m", *SMALL, "T=1,4,8")
    after = {r["folder"] for r in results(workdir)}
    assert before < after
    assert len(after) == len(before) + 1


def test_an_unfinished_job_is_continued(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", "-m", *SMALL, "T=1,4")
    half = results(workdir, name="cnn_large-*")[0]["folder"]
    values = json.loads((half / "result.json").read_text())
    (half / "result.json").write_text(json.dumps({**values, "status": "interrupted"}))
    (sweep,) = workdir.glob("outputs/sweeps/*")
    assert kdrun("resume", str(sweep)) == 0
    found = results(workdir, name="cnn_large-*")
    assert len(found) == 2
    assert {r["status"] for r in found} == {"completed"}


def test_a_failing_job_does_not_stop_the_others(kdrun: Run, workdir: Path) -> None:
    code = kdrun("distill", "-m", *SMALL, "alone=false", "lr=0.1,1e30")
    assert code == 1
    statuses = sorted(r["status"] for r in results(workdir))
    assert statuses == ["completed", "failed"]
    (failed,) = [r for r in results(workdir) if r["status"] == "failed"]
    assert "Not finite" in failed["error"]


def test_an_objective_that_cannot_be_stops_the_sweep_before_it_starts(
    refused: Callable[..., str], workdir: Path
) -> None:
    assert "would change nothing" in refused("distill", "-m", *SMALL, "loss=kd,sp", "T=3")
    assert not results(workdir)


def test_teachers_can_be_swept(kdrun: Run, workdir: Path) -> None:
    small = [word for word in SMALL if not word.startswith("teacher.")]
    assert kdrun("train-teacher", "-m", *small, "seed=0,1") == 0
    assert len(list(workdir.glob("outputs/teachers/*/*/teacher.json"))) == 2
    assert kdrun("distill", *SMALL, "teacher.seed=1", "alone=false") == 0
    (result,) = results(workdir)
    assert result["teachers"][0]["reused"] is True
