"""Both stages end to end: the contract of the run folder, reuse, equality, evaluation."""

import contextlib
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import SMALL, results, without_times

from kdrun.cli.main import run

Run = Callable[..., int]
Refuse = Callable[..., str]


def student_of(result: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(result["folder"] / "student.safetensors")


def distilled(folder: Path) -> dict[str, Any]:
    (found,) = [r for r in results(folder) if r["teachers"]]
    return found


def test_the_run_folder_holds_what_the_contract_says(kdrun: Run, workdir: Path) -> None:
    assert kdrun("distill", *SMALL) == 0
    result = distilled(workdir)
    folder = result["folder"]
    assert folder.parent.name == "cnn_large-cnn_tiny-kd"
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.yaml", "command.txt", "env.json", "run.log", "metrics.jsonl", "metrics.csv",
        "checkpoints", "student.safetensors", "student.json", "result.json",
    } <= names  # fmt: skip
    assert (folder / "checkpoints" / "last.pt").is_file()
    assert result["status"] == "completed"
    assert result["error"] is None
    assert result["objective"] == "0.1*CE + 0.9*16*KL(T=4)"
    assert (result["T"], result["alpha"], result["seed"]) == (4.0, 0.9, 0)
    assert result["loss"] == ["kd"]
    assert result["dataset"]["train_size"] + result["dataset"]["val_size"] == 200
    assert result["dataset"]["test_size"] == 60
    student = result["student"]
    assert set(student["test"]) == {"top1", "top5", "errors", "loss", "ece"}
    assert student["test"]["top1"] == pytest.approx(100 * (60 - student["test"]["errors"]) / 60)
    assert student["best_val"]["epoch"] in (1, 2, 3)
    assert result["gain"] == student["test"]["top1"] - result["alone"]["test"]["top1"]
    assert 0 <= result["agreement"] <= 100
    assert set(result["time"]) == {
        "seconds", "images_per_second", "data_seconds", "teacher_seconds",
    }  # fmt: skip
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert {"train/loss", "train/ce", "train/kd", "train/kd_weighted", "val/top1_percent"} <= set(
        rows[0]
    )


def test_the_recorded_command_repeats_the_run(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", *SMALL, "seed=3")
    first = distilled(workdir)
    words = shlex.split((first["folder"] / "command.txt").read_text())
    assert words[:2] == ["kdrun", "distill"]
    assert kdrun(*words[1:]) == 0
    one, two = [r for r in results(workdir) if r["teachers"]]
    assert without_times(one) == without_times(two)
    assert (one["folder"] / "student.safetensors").read_bytes() == (
        two["folder"] / "student.safetensors"
    ).read_bytes()


def test_the_baselines_command_repeats_it(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", *SMALL, "loss=[kd,sp]", "T=2", "alpha=0.5")
    (alone,) = results(workdir, name="none-*")
    words = shlex.split((alone["folder"] / "command.txt").read_text())
    assert kdrun(*words[1:]) == 0
    again = results(workdir, name="none-*")[-1]
    assert student_of(again).keys() == student_of(alone).keys()
    assert all(torch.equal(student_of(again)[k], v) for k, v in student_of(alone).items())


def test_the_teacher_and_the_baseline_are_trained_once(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", *SMALL)
    kdrun("distill", *SMALL, "loss=sp", "epochs=3")
    first, second = [r for r in results(workdir) if r["teachers"]]
    assert [first["teachers"][0]["reused"], second["teachers"][0]["reused"]] == [False, True]
    assert first["teachers"][0]["sha256"] == second["teachers"][0]["sha256"]
    assert first["alone"]["run"] == second["alone"]["run"]
    assert len(list(workdir.glob("outputs/teachers/*/*/teacher.json"))) == 1


SHORT = [*SMALL, "alone=false", "epochs=1", "teacher.schedule.epochs=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of the settings SHORT."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        assert run(["distill", *SHORT]) == 0
    return folder


@pytest.mark.parametrize(
    ("change", "trained_again"),
    [
        ("seed=1", False),
        ("lr=0.01", False),
        ("student=mlp", False),
        ("teacher.seed=1", True),
        ("teacher.schedule.lr=0.02", True),
        ("teacher.widths=[8,16]", True),
        ("val_fraction=0.2", True),
        ("dataset.seed=5", True),
        ("dataset.augment.crop_padding=1", True),
    ],
)
def test_only_what_shapes_the_teacher_trains_it_again(
    kdrun: Run, workdir: Path, trained: Path, change: str, trained_again: bool
) -> None:
    shutil.copytree(trained / "outputs", "outputs")
    kdrun("distill", *SHORT, change)
    entries = list(workdir.glob("outputs/teachers/*/*/teacher.json"))
    assert len(entries) == (2 if trained_again else 1)


def test_the_teacher_is_never_in_the_students_files(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", *SMALL, "student=mlp", "student.hidden=[8]")
    result = distilled(workdir)
    state = torch.load(result["folder"] / "checkpoints" / "last.pt", weights_only=True)
    saved = sum(tensor.numel() for tensor in state["scheme"].values())
    assert saved == result["student"]["params"] < result["teachers"][0]["params"]


def test_training_leaves_the_teacher_as_it_was(kdrun: Run, workdir: Path) -> None:
    kdrun("train-teacher", *SMALL[:-4], "epochs=3", "ui=quiet", "threads=1")
    (entry,) = workdir.glob("outputs/teachers/*/*/teacher.safetensors")
    before = entry.read_bytes()
    kdrun("distill", *SMALL, "loss=[kd,sp]")
    assert entry.read_bytes() == before
    assert distilled(workdir)["teachers"][0]["reused"] is True


def test_labels_alone_need_no_teacher(kdrun: Run, workdir: Path) -> None:
    assert kdrun("distill", *SMALL, "loss=ce") == 0
    (result,) = results(workdir)
    assert result["objective"] == "1*CE"
    assert result["teachers"] == []
    assert result["alone"] is None
    assert not (workdir / "outputs" / "teachers").exists()


def test_distillation_beats_nothing_when_it_has_no_weight(kdrun: Run, workdir: Path) -> None:
    """alpha=0 is training alone, bit for bit."""
    kdrun("distill", *SMALL, "alpha=0")
    (alone,) = results(workdir, name="none-*")
    student = student_of(distilled(workdir))
    assert all(torch.equal(student[name], v) for name, v in student_of(alone).items())


def test_evaluate_measures_the_same(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", *SMALL)
    result = distilled(workdir)
    assert kdrun("evaluate", f"run={result['folder']}", "ui=quiet") == 0
    (again,) = results(workdir, "evaluate")
    assert again["student"]["test"] == pytest.approx(result["student"]["test"])
    (card,) = workdir.glob("outputs/teachers/*/*/teacher.json")
    entry = card.parent
    assert kdrun("evaluate", f"run={entry}", "ui=quiet") == 0
    assert kdrun("evaluate", f"run={result['folder']}", "dataset=synthetic",
                 "dataset.num_classes=4", "dataset.image_size=16", "ui=quiet") == 0  # fmt: skip


def test_evaluate_refuses_other_classes(kdrun: Run, refused: Refuse, workdir: Path) -> None:
    kdrun("distill", *SMALL, "loss=ce")
    (result,) = results(workdir)
    text = refused("evaluate", f"run={result['folder']}", "dataset=digits", "ui=quiet")
    assert "4 classes and digits has 10" in text


@pytest.mark.parametrize("form", ["run", "entry", "safetensors", "bare", "repdistiller"])
def test_a_teacher_is_loaded_from_every_form(kdrun: Run, workdir: Path, form: str) -> None:
    kdrun("distill", *SMALL, "alone=false")
    first = distilled(workdir)
    (entry,) = workdir.glob("outputs/teachers/*/*/teacher.safetensors")
    weights = load_file(entry)
    path, network = workdir / "teacher.pth", "teacher=cnn_large"
    if form == "run":
        path, network = first["folder"], "teacher=cnn_large"
    elif form == "entry":
        path = entry.parent
    elif form == "safetensors":
        path = workdir / "alone.safetensors"
        save_file(weights, path)
    elif form == "bare":
        torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, path)
    else:
        torch.save({"epoch": 240, "accuracy": 73.1, "model": weights}, path)
    assert kdrun("distill", *SMALL, "alone=false", network, f"teacher.checkpoint={path}") == 0
    second = [r for r in results(workdir) if r["teachers"]][-1]
    expected = first["student"] if form == "run" else first["teachers"][0]
    assert second["teachers"][0]["test"] == pytest.approx(expected["test"])
    assert second["teachers"][0]["reused"] is True


def test_a_checkpoint_that_does_not_fit_says_how(
    kdrun: Run, refused: Refuse, workdir: Path
) -> None:
    kdrun("distill", *SMALL, "alone=false")
    (entry,) = workdir.glob("outputs/teachers/*/*/teacher.safetensors")
    torch.save(load_file(entry), workdir / "bare.pt")
    text = refused("distill", *SMALL, "teacher=mlp", "teacher.checkpoint=bare.pt")
    assert "bare.pt does not fit mlp" in text
    assert "It fits cnn_large: type teacher=cnn_large" in text
    assert "no such file" in refused("distill", *SMALL, "teacher.checkpoint=nowhere.pt")


def test_a_changed_teacher_file_is_noticed(kdrun: Run, refused: Refuse, workdir: Path) -> None:
    kdrun("distill", *SMALL, "alone=false")
    (entry,) = workdir.glob("outputs/teachers/*/*/teacher.safetensors")
    content = bytearray(entry.read_bytes())
    content[-3] ^= 1
    entry.write_bytes(content)
    assert "SHA-256 differs" in refused("distill", *SMALL)
    failed = [r for r in results(workdir) if r["status"] == "failed"]
    assert "SHA-256" in failed[-1]["error"]


def test_pickled_code_is_not_loaded(kdrun: Run, refused: Refuse, workdir: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (workdir / "exploded",))

    torch.save({"model": Bomb()}, workdir / "bomb.pth")
    assert "holds no state dict" in refused("distill", *SMALL, "teacher.checkpoint=bomb.pth")
    assert not (workdir / "exploded").exists()


def test_mistakes_are_said_before_a_teacher_is_trained(
    kdrun: Run, refused: Refuse, workdir: Path
) -> None:
    for argv, text in [
        (["loss=sp", "loss.sp.taps=[stage9]"], "stage9"),
        (["loss=sp", "alpha=0.5"], "would change nothing"),
        (["loss=sp", "T=3"], "has a temperature"),
        (["alpha=0", "ce=0"], "Every weight"),
        (["device=cuda:7"], "not on this machine"),
        (["+student.num_classes=7"], "7"),
        (["student.widths=[4,x]"], "student"),
    ]:
        assert text in refused("distill", *SMALL, *argv)
    assert not (workdir / "outputs" / "teachers").exists()


def test_a_users_own_network_by_its_dotted_path(kdrun: Run, workdir: Path) -> None:
    (workdir / "my_nets.py").write_text(
        "from torch import nn\n\n"
        "class Mine(nn.Module):\n"
        "    def __init__(self, num_classes, width=4):\n"
        "        super().__init__()\n"
        "        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(),\n"
        "            nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())\n"
        "        self.head = nn.Linear(2 * width, num_classes)\n\n"
        "    def forward(self, x):\n"
        "        return self.head(self.body(x).mean(dim=(2, 3)))\n"
    )
    argv = ["student=custom", "student._target_=my_nets.Mine", "+student.width=6"]
    assert kdrun("distill", *SMALL, *argv, "loss=[kd,sp]") == 0
    result = distilled(workdir)
    assert result["student"]["name"] in ("custom", "Mine")
    assert kdrun("evaluate", f"run={result['folder']}", "ui=quiet") == 0


def test_bf16_trains_and_evaluates(kdrun: Run, workdir: Path) -> None:
    assert kdrun("distill", *SMALL, "precision=bf16", "loss=[kd,sp]") == 0
    result = distilled(workdir)
    assert result["precision"] == "bf16"
    assert result["student"]["test"]["loss"] > 0


def test_streaming_trains_to_the_same_weights(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", *SMALL, "dataset.augment={crop_padding: 1, flip: true}", "loss=ce")
    kdrun("distill", *SMALL, "dataset.augment={crop_padding: 1, flip: true}", "loss=ce",
          "dataset.resident=false")  # fmt: skip
    one, two = results(workdir)
    assert one["student"]["test"] == two["student"]["test"]
    assert all(torch.equal(student_of(one)[k], v) for k, v in student_of(two).items())


def test_without_validation_there_is_no_best(kdrun: Run, workdir: Path) -> None:
    kdrun("distill", *SMALL, "val_fraction=0", "loss=ce")
    (result,) = results(workdir)
    assert result["student"]["best_val"] is None
    assert result["dataset"]["val_size"] == 0


@pytest.mark.heavy
def test_compiled_networks_give_close_results(kdrun: Run, workdir: Path) -> None:
    tiny = ["teacher=mlp", "student=mlp", "epochs=1", "alone=false"]  # the compiler's time counts
    kdrun("distill", *SMALL, *tiny)
    kdrun("distill", *SMALL, *tiny, "compile=true")
    one, two = [r for r in results(workdir) if r["teachers"]]
    assert "compile_seconds" not in one
    assert two["compile_seconds"] > 0
    for name, tensor in student_of(one).items():
        torch.testing.assert_close(student_of(two)[name], tensor, rtol=1e-3, atol=1e-4)
