"""Transfer sets end to end: stage 1 untouched, the result's entries, refusals, resuming."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import SMALL, results

from kdrun.cli.main import run as kdrun_run

Run = Callable[..., int]
Refuse = Callable[..., str]
DIGITS = ["teacher.schedule.epochs=6", "epochs=6", "threads=1", "student=cnn_tiny"]


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store holds the digits' teacher, for all tests here."""
    folder = tmp_path_factory.mktemp("transfer")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert kdrun_run(["train-teacher", "epochs=6", "threads=1", "ui=quiet"]) == 0
    return folder


@pytest.fixture
def distil(digits_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """distil(overrides) → the result of that distillation on the digits."""
    monkeypatch.chdir(digits_folder)

    def call(*overrides: str) -> dict[str, Any]:
        assert kdrun_run(["distill", *DIGITS, "ui=plain", *overrides]) == 0
        return max(results(digits_folder, name="cnn_large-*"), key=lambda r: r["folder"].name)

    return call


def test_a_left_out_class_and_its_bias(
    distil: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    result = distil("transfer.exclude_classes=[3]", "transfer.bias=match")
    assert result["teachers"][0]["reused"] is True  # stage 1 is not touched
    chosen = result["transfer"]
    assert chosen["classes_left_out"] == ["3"]
    assert chosen["train_size"] == result["dataset"]["train_size"] == 1293
    assert chosen["size"] == 1162
    student = result["student"]
    plain, corrected = student["errors_per_class"], student["bias_corrected"]
    assert sum(row["errors"] for row in plain) == student["test"]["errors"]
    assert [row["class"] for row in plain] == list("0123456789")
    assert corrected["shift"] > 0
    assert corrected["classes"] == ["3"]
    assert corrected["counted_on"] == "validation"
    after = corrected["errors_per_class"]
    assert sum(row["errors"] for row in after) == corrected["test"]["errors"]
    assert after[3]["errors"] < plain[3]["errors"]
    curve = student["bias_curve"]
    assert curve["errors"][0] == student["test"]["errors"]
    assert curve["errors_left_out"][0] == plain[3]["errors"]
    assert result["alone"]["test"]["errors"] >= 37  # labels alone never show it a 3
    screen = capsys.readouterr().out
    for words in (
        "transfer   1,162 of the 1,293 training images, without class 3",
        "bias of the left-out classes +",
        "3  (left out)",
        "student.safetensors is not corrected",
    ):
        assert words in screen
    card = json.loads((result["folder"] / "student.json").read_text())
    assert card["extra"]["bias_corrected"]["shift"] == corrected["shift"]


def test_a_given_shift_and_the_same_weights(distil: Callable[..., dict[str, Any]]) -> None:
    plain = distil("transfer.only_classes=[7,8]", "alone=false", "seed=1")
    given = distil("transfer.only_classes=[7,8]", "alone=false", "seed=1", "transfer.bias=7.6")
    assert "bias_corrected" not in plain["student"]
    assert given["student"]["test"] == plain["student"]["test"]
    corrected = given["student"]["bias_corrected"]
    assert corrected["shift"] == 7.6
    assert corrected["counted_on"] is None
    assert corrected["classes"] == list("01234569")
    before, after = plain["student"]["errors_per_class"], corrected["errors_per_class"]
    for row, later in zip(before, after, strict=True):
        seen = row["class"] in "78"
        assert later["errors"] >= row["errors"] if seen else later["errors"] <= row["errors"]
    assert sum(row["errors"] for row in after) == corrected["test"]["errors"]
    one, two = (load_file(r["folder"] / "student.safetensors") for r in (plain, given))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.heavy
def test_soft_targets_alone_and_less_data_learn(
    distil: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    result = distil("transfer.labels=false", "transfer.fraction=0.3", "alpha=1", "epochs=20")
    assert result["transfer"]["labels"] is False
    assert result["transfer"]["size"] == pytest.approx(0.3 * 1293, abs=5)
    assert result["alone"] is None
    assert result["gain"] is None
    assert result["objective"] == "1*16*KL(T=4)"
    assert result["student"]["test"]["top1"] > 60
    rows = (result["folder"] / "metrics.jsonl").read_text().splitlines()
    assert not {"train/top1_percent", "train/ce"} & set(json.loads(rows[0]))
    screen = capsys.readouterr().out
    assert "skipped: the transfer set has no labels" in screen
    assert "not measured (the transfer set has no labels)" in screen


def test_labels_do_not_reach_a_run_without_them(distil: Callable[..., dict[str, Any]]) -> None:
    """With CE at 0 the same soft targets give the same student, labels or not."""
    short = ["alpha=1", "alone=false", "epochs=2", "seed=3"]
    one, two = distil(*short), distil(*short, "transfer.labels=false")
    first, second = (load_file(r["folder"] / "student.safetensors") for r in (one, two))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_baseline_sees_the_same_images(distil: Callable[..., dict[str, Any]]) -> None:
    part = distil("transfer.fraction=0.1", "epochs=2")
    again = distil("transfer.fraction=0.1", "epochs=2", "loss=sp")
    whole = distil("epochs=2")
    assert part["alone"]["run"] == again["alone"]["run"] != whole["alone"]["run"]
    alone = json.loads((Path(part["alone"]["run"]) / "result.json").read_text())
    assert alone["transfer"] == part["transfer"]
    assert whole["transfer"] is None


def test_pictures_of_another_folder(kdrun: Run, workdir: Path) -> None:
    draw = np.random.default_rng(0)
    (workdir / "pictures").mkdir()
    for number in range(40):
        pixels = draw.integers(0, 256, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(workdir / "pictures" / f"{number}.png")
    assert kdrun("distill", *SMALL, "transfer.folder=pictures", "alpha=1") == 0
    (result,) = results(workdir)
    assert result["transfer"]["size"] == 40
    assert result["transfer"]["folder"] == "pictures"
    assert result["transfer"]["labels"] is False
    assert result["dataset"]["train_size"] == 180


def test_what_makes_no_sense_is_refused_before_training(
    kdrun: Run, refused: Refuse, workdir: Path
) -> None:
    for argv, text in [
        (["transfer.labels=false"], "set alpha=1"),
        (["transfer.labels=false", "loss=ce"], "loss=kd alpha=1"),
        (["transfer.labels=false", "loss=crd", "ce=0"], "loss=crd needs them"),
        (["transfer.folder=nowhere", "alpha=1"], "does not exist"),
        (["transfer.exclude_classes=[9]"], "no class 9"),
        (["transfer.fracton=0.1"], "transfer.fraction"),
    ]:
        assert text in refused("distill", *SMALL, *argv)
    assert not (workdir / "outputs" / "teachers").exists()


def test_a_stopped_run_on_a_part_ends_the_same(kdrun: Run, workdir: Path) -> None:
    """With CRD, whose memories are as long as the transfer set."""
    part = [
        *SMALL, "loss=[kd,crd]", "loss.crd.negatives=8", "transfer.fraction=0.6",
        "transfer.exclude_classes=[1]", "alone=false", "schedule.early_stopping=2", "epochs=8",
    ]  # fmt: skip
    assert kdrun("distill", *part) == 0
    (whole,) = results(workdir)
    folder = whole["folder"]
    expected = load_file(folder / "student.safetensors")
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    assert state["scheme"]["objective.terms.crd.student_side.rows"].shape[0] == 81
    (folder / "student.json").unlink()
    (folder / "student.safetensors").unlink()
    values = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**values, "status": "interrupted"}))
    assert kdrun("resume", str(folder)) == 0
    found = load_file(folder / "student.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    again = json.loads((folder / "result.json").read_text())
    assert again["student"]["stopped_early"] == whole["student"]["stopped_early"]
    assert again["transfer"] == whole["transfer"]


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_early_stopping_is_reported(kdrun: Run, workdir: Path, who: str) -> None:
    prefix, length = (
        ("teacher.", "teacher.schedule.epochs=30") if who == "teacher" else ("", "epochs=30")
    )
    words = [w for w in SMALL if not w.startswith(length.partition("=")[0])]
    words += [length, f"{prefix}schedule.early_stopping=2", "alone=false"]
    assert kdrun("distill", *words) == 0
    (result,) = results(workdir)
    (card,) = workdir.glob("outputs/teachers/*/*/teacher.json")
    stopped = result["student"]["stopped_early"]
    if who == "teacher":
        assert stopped is None
        stopped = json.loads(card.read_text())["extra"]["stopped_early"]
    assert stopped["epoch"] == stopped["not_better_since"] + 2 < stopped["epochs"] == 30


def test_peers_without_labels_have_nobody_to_learn_from(refused: Refuse) -> None:
    text = refused("distill", *SMALL, "scheme=online", "transfer.labels=false", "alpha=1")
    assert "scheme=online has no teacher" in text
