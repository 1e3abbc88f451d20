"""A small DeiT taught through its distillation tokens: figures, readouts, resumption, refusals."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import SMALL, results, without_times
from torch import Tensor

from kdrun.cli.main import run
from kdrun.config.schema import DatasetConfig
from kdrun.data.dataset import open_dataset
from kdrun.data.loaders.loaders import EvalLoader
from kdrun.models.card import load_network
from kdrun.models.measure import count_parameters
from kdrun.models.vit import VisionTransformer
from kdrun.ui.reporter import Reporter

Run = Callable[..., int]
Refuse = Callable[..., str]

STUDENT = [
    "student=deit_micro", "student.patch_size=2", "student.depth=2", "student.width=32",
    "student.attention_heads=4", "schedule=deit_cifar", "schedule.warmup_epochs=1",
]  # fmt: skip
ON_DIGITS = [
    "distill", "dataset=digits", "teacher=[cnn_tiny,mlp]", "teacher.schedule.epochs=8", *STUDENT,
    "student.distillation_tokens=2", "loss=deit_hard", "lr=3e-3", "batch_size=32", "epochs=8",
    "ui=quiet", "threads=1",
]  # fmt: skip
LEARNT = 70.0  # percent of the digits' test images; chance is 10


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with one finished run on the digits."""
    before = Path.cwd()
    folder = tmp_path_factory.mktemp("transformers")
    os.chdir(folder)
    try:
        assert run(ON_DIGITS) == 0
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def result(home: Path) -> dict[str, Any]:
    """Its result."""
    return distilled(home)


def distilled(folder: Path) -> dict[str, Any]:
    (found,) = [r for r in results(folder) if r["teachers"]]
    return found


def test_it_learns_and_every_readout_is_reported(result: dict[str, Any]) -> None:
    student = result["student"]
    assert student["test"]["top1"] > LEARNT
    assert result["objective"].startswith("0.5*CE + 0.5*CE(teacher's class)")
    assert [teacher["name"] for teacher in result["teachers"]] == ["cnn_tiny", "mlp"]
    assert student["inference"] == "both"
    assert list(student["heads"]) == ["class", "distillation", "both"]
    for found in student["heads"].values():
        assert found["top1"] > LEARNT
        assert found["top1_error"] == pytest.approx(100 - found["top1"])
        assert found["top5_error"] == pytest.approx(100 - found["top5"])
    both = {key: student["heads"]["both"][key] for key in student["test"]}
    assert both == student["test"]
    head = 32 * 10 + 10
    params = {name: found["params"] for name, found in student["heads"].items()}
    assert params == {
        "class": student["params"] - 2 * head,
        "distillation": student["params"] - head,
        "both": student["params"],
    }


def test_the_student_alone_has_no_tokens(home: Path, result: dict[str, Any]) -> None:
    (alone,) = results(home, name="none-*")
    config = (alone["folder"] / "config.yaml").read_text()
    assert "distillation_tokens: 0" in config
    assert "distillation_tokens=0" in (alone["folder"] / "command.txt").read_text()
    assert list(alone["student"]["heads"]) == ["class"]
    assert alone["student"]["inference"] == "class"
    assert result["alone"]["params"] == alone["student"]["params"] < result["student"]["params"]


def digits_seen(folder: Path) -> tuple[Tensor, Tensor]:
    """The digits' test images as the student takes them, and their labels."""
    data = open_dataset(DatasetConfig("digits", "kdrun.data.sources.digits"), 0.1, folder)
    (batch,) = EvalLoader(data.test, data.normalisation, len(data.test), "cpu")
    return batch.images, batch.targets


def test_the_saved_network_answers_with_the_same_numbers(
    home: Path, result: dict[str, Any]
) -> None:
    network, card = load_network(result["folder"], "student")
    assert type(network) is VisionTransformer
    assert card.kwargs["inference"] == "both"
    names = set(network.state_dict())
    assert {"dist_token", "head_dist.0.weight", "head_dist.1.weight", "head.weight"} <= names
    assert not [name for name in names if "teacher" in name or "term" in name]
    network.eval()
    images, targets = digits_seen(home)
    with torch.no_grad():
        p = [head.double().softmax(1) for head in network.all_heads(images)]
        answer = network(images)
    wanted = {"class": p[0], "distillation": sum(p[1:]), "both": sum(p)}
    for name, probabilities in wanted.items():
        errors = int((probabilities.argmax(1) != targets).sum())
        assert errors == result["student"]["heads"][name]["errors"], name
    assert int((answer.argmax(1) != targets).sum()) == result["student"]["test"]["errors"]


@pytest.mark.parametrize("readout", ["class", "distillation"])
def test_the_card_decides_how_evaluation_reads_it(
    home: Path, result: dict[str, Any], readout: str
) -> None:
    folder = result["folder"]
    card = json.loads((folder / "student.json").read_text())
    other = home / readout
    other.mkdir()
    (other / "student.safetensors").write_bytes((folder / "student.safetensors").read_bytes())
    card["kwargs"]["inference"] = readout
    (other / "student.json").write_text(json.dumps(card))
    (other / "result.json").write_text((folder / "result.json").read_text())
    assert run(["evaluate", f"run={other}", "ui=quiet"]) == 0
    found = results(home, "evaluate")[-1]["student"]
    assert found["inference"] == readout
    expected = result["student"]["heads"][readout]
    assert found["test"] == pytest.approx({key: expected[key] for key in found["test"]})
    assert found["heads"] == result["student"]["heads"]


def test_errors_of_all_readouts_are_on_the_screen(
    home: Path, result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", f"run={result['folder']}", "ui=plain"]) == 0
    text = capsys.readouterr().out
    for words in ("class head", "distillation heads", "all heads together (used for inference)"):
        assert words in text
    for found in result["student"]["heads"].values():
        assert f"{found['top1_error']:.2f}" in text


def test_stopped_and_resumed_it_ends_the_same(
    kdrun: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def stop(self: Reporter, *args: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 34:  # 9 of each teacher, then within the student's second epoch of 12
            os.kill(os.getpid(), signal.SIGINT)

    argv = ["distill", *SMALL, *STUDENT, "student.distillation_tokens=2", "student.drop_path=0.1",
            "teacher=[cnn_large,cnn_tiny]", "loss=deit_soft", "batch_size=16",
            "alone=false"]  # fmt: skip
    assert kdrun(*argv) == 0
    whole = distilled(workdir)
    weights = (whole["folder"] / "student.safetensors").read_bytes()
    (workdir / "outputs").rename(workdir / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "step_done", stop)
        assert kdrun(*argv) == 130
    (stopped,) = results(workdir)
    assert stopped["status"] == "interrupted"
    assert len((stopped["folder"] / "metrics.jsonl").read_text().splitlines()) == 1
    assert kdrun("resume", str(stopped["folder"])) == 0
    again = distilled(workdir)
    assert without_times(again) == without_times(whole)
    assert (again["folder"] / "student.safetensors").read_bytes() == weights


def test_tokens_that_nothing_teaches_are_refused(
    kdrun: Run, refused: Refuse, workdir: Path
) -> None:
    small = [*SMALL, *STUDENT, "student.distillation_tokens=1"]
    text = refused("distill", *small)
    assert "student.distillation_tokens=1: no loss would train" in text
    assert "loss=deit_hard" in text
    assert "no loss would train" in refused("distill", *small, "loss=deit_hard", "alpha=0")
    assert "no loss would train" in refused("distill", *small, "loss=ce")
    text = refused("train-teacher", *SMALL[:5], "teacher=deit_micro", "teacher.patch_size=2",
                   "teacher.distillation_tokens=1", "ui=quiet")  # fmt: skip
    assert "teacher.distillation_tokens=1" in text
    assert "teacher.checkpoint" in text
    two = ["student.distillation_tokens=2", "loss=deit_soft"]
    text = refused("distill", *SMALL, *STUDENT, *two)
    assert "student.distillation_tokens=2 does not fit one teacher" in text
    text = refused("distill", *SMALL, *STUDENT, *two, "teacher.count=3")
    assert "student.distillation_tokens=2 does not fit 3 teachers" in text
    text = refused("distill", *SMALL, *STUDENT, *two, "teacher.count=2",
                   "teacher.average=soft_targets")  # fmt: skip
    assert "student.distillation_tokens=2 does not fit" in text
    assert not (workdir / "outputs" / "teachers").exists()


@pytest.mark.heavy
def test_a_plain_transformer_learns_from_features_of_a_cnn_and_the_other_way(
    kdrun: Run, workdir: Path
) -> None:
    losses = ["loss=[kd,at,sp,fitnet,crd]", "epochs=1", "alone=false"]
    assert kdrun("distill", *SMALL, *STUDENT[:5], *losses) == 0
    teacher = [word.replace("student", "teacher") for word in STUDENT[:5]]
    assert kdrun("distill", *SMALL, *teacher, *losses) == 0
    assert len([r for r in results(workdir) if r["status"] == "completed"]) == 2


def test_two_teachers_may_share_a_token(kdrun: Run, workdir: Path) -> None:
    argv = ["distill", *SMALL, *STUDENT, "student.distillation_tokens=1", "teacher.count=2",
            "loss=deit_hard", "alone=false"]  # fmt: skip
    assert kdrun(*argv) == 0
    result = distilled(workdir)
    assert len(result["teachers"]) == 2
    assert set(result["student"]["heads"]) == {"class", "distillation", "both"}


def test_weights_with_the_published_names_teach(kdrun: Run, workdir: Path) -> None:
    published = VisionTransformer(
        4, 3, (8, 8), patch_size=2, width=32, depth=2, attention_heads=4, distillation_tokens=1
    )
    torch.save({"model": published.state_dict()}, workdir / "deit.pth")
    teacher = [word.replace("student", "teacher") for word in STUDENT[:5]]
    argv = ["distill", *SMALL, *teacher, "teacher.distillation_tokens=1",
            "teacher.checkpoint=deit.pth", "teacher.check_accuracy=false",
            "alone=false"]  # fmt: skip
    assert kdrun(*argv) == 0
    assert distilled(workdir)["teachers"][0]["params"] == count_parameters(published)


@pytest.mark.heavy
def test_a_teacher_that_sees_larger_images(kdrun: Run, workdir: Path) -> None:
    teacher = ["teacher=deit_micro", "teacher.depth=1", "teacher.image_size=[12,16]"]
    argv = ["distill", *SMALL, *teacher, "loss=[kd,sp]", "alone=false"]
    assert kdrun(*argv) == 0
    first = distilled(workdir)
    (card_path,) = workdir.glob("outputs/teachers/*/*/teacher.json")
    card = json.loads(card_path.read_text())
    assert card["resize"] is True
    assert card["info"]["image_size"] == [12, 16]
    assert kdrun("evaluate", f"run={card_path.parent}", "ui=quiet") == 0
    (measured,) = results(workdir, "evaluate")
    assert measured["student"]["test"] == first["teachers"][0]["test"]
    assert kdrun(*argv, "seed=1") == 0
    assert kdrun("distill", *SMALL, f"teacher.checkpoint={card_path.parent}", "alone=false") == 0
    for again in [r for r in results(workdir) if r["folder"] != first["folder"]]:
        assert again["teachers"][0]["reused"] is True
        assert again["teachers"][0]["test"] == first["teachers"][0]["test"]
    assert kdrun(*argv, "teacher.image_size=16") == 0  # another teacher
    assert len(list(workdir.glob("outputs/teachers/*/*/teacher.json"))) == 2


def test_image_sizes_that_cannot_be_are_refused(refused: Refuse) -> None:
    for value in ("0", "a", "[8]", "[8,8,8]", "true", "[8,0]"):
        text = refused("distill", *SMALL, f"teacher.image_size={value}")
        assert "teacher.image_size=" in text
    text = refused("distill", *SMALL, "teacher=deit_micro", "teacher.image_size=10")
    assert "patch_size=4 does not divide images of 10x10" in text


@pytest.mark.heavy
def test_compiled_it_gives_close_results(kdrun: Run, workdir: Path) -> None:
    argv = ["distill", *SMALL, *STUDENT, "student.distillation_tokens=1", "loss=deit_soft",
            "epochs=1", "alone=false", "schedule.warmup_epochs=0"]  # fmt: skip
    assert kdrun(*argv) == 0
    assert kdrun(*argv, "compile=true") == 0
    one, two = (load_network(r["folder"], "student")[0] for r in results(workdir))
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
