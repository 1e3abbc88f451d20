"""Schemes without a teacher as whole runs: what they leave, going on, measuring again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import SMALL as BOTH_STAGES
from support import results, without_times

from kdrun.engine.loop import _Fit
from kdrun.models.card import load_network

Run = Callable[..., int]

SMALL = [word for word in BOTH_STAGES if not word.startswith("teacher")]

# What is typed, and the lists of `result.json` that the scheme adds, with their lengths.
SCHEMES: dict[str, tuple[list[str], dict[str, int]]] = {
    "online": (
        ["scheme=online", "scheme.peers=[cnn_large,student]", "loss=[kd,sp]"],
        {"peers": 2, "ensemble": 1},
    ),
    "one": (["scheme=one", "alone=false"], {"branches": 2, "ensemble": 1}),
    "byot": (["scheme=byot", "alone=false"], {"exits": 1, "ensemble": 1}),
    "tf_kd": (["scheme=tf_kd", "alone=false"], {}),
    "self_training": (["scheme=tf_kd", "scheme.variant=self_training", "loss=[kd,sp]"], {}),
    "cs_kd": (["scheme=cs_kd", "alone=false"], {}),
}


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("scheme=cs_kd", "scheme=cs_kd compares two images of one class, and a mixed image has"),
        ("loss=crd", "loss=crd stores something for each training image, and a mixed image is"),
    ],
)
def test_mixed_images_are_refused_before_anything_is_trained(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str], word: str, text: str
) -> None:
    assert kdrun("distill", *SMALL, word, "augment.mixup.alpha=0.2") == 2
    assert text in " ".join(capsys.readouterr().err.split())
    assert not list(workdir.iterdir())


@pytest.mark.parametrize(
    "word", ["freeze_epochs=1", "freeze_bn_stats=true", "backbone_lr_factor=0.1", "layer_decay=0.8"]
)
def test_peers_train_alike(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    assert kdrun("distill", *SMALL, "scheme=online", f"schedule.{word}") == 2
    assert "would change only the first peer" in " ".join(capsys.readouterr().err.split())
    assert not list(workdir.iterdir())


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Ask the training of the student itself to stop after so many steps."""
    plain = _Fit._step

    def step(self: Any, batch: Any) -> Any:
        if self.state.step + 1 == steps and self.scheme.describe() != "1*CE":
            self.training.stop.requested = True
        return plain(self, batch)

    monkeypatch.setattr(_Fit, "_step", step)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_run_and_the_same_run_interrupted(
    kdrun: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    words, lists = SCHEMES[name]
    argv = ["distill", *SMALL, "dataset.augment.crop_padding=1", *words]
    assert kdrun(*argv) == 0
    (whole,) = [r for r in results(workdir) if r["scheme"] != "offline"]
    assert {kind: len(whole[kind]) for kind in lists} == lists
    if "alone=false" not in words:
        difference = whole["student"]["test"]["top1"] - whole["alone"]["test"]["top1"]
        assert whole["gain"] == pytest.approx(difference)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        assert kdrun(*argv) == 130
    stopped = results(workdir)[-1]
    assert stopped["status"] == "interrupted"
    assert kdrun("resume", str(stopped["folder"])) == 0
    resumed = results(workdir)[-1]
    assert without_times(resumed) == without_times(whole)
    for path in whole["folder"].glob("*.safetensors"):
        assert path.read_bytes() == (resumed["folder"] / path.name).read_bytes()
    check_one_plain_student(kdrun, workdir, whole)


def check_one_plain_student(kdrun: Run, workdir: Path, result: dict[str, Any]) -> None:
    """The weights of the plain network and nothing else, which measure the same anywhere."""
    network, card = load_network(result["folder"], "student")
    saved = load_file(result["folder"] / "student.safetensors")
    assert set(saved) == set(network.state_dict())
    assert (
        card.params == result["student"]["params"] == sum(p.numel() for p in network.parameters())
    )
    assert kdrun("evaluate", f"run={result['folder']}", "ui=quiet") == 0
    (again,) = results(workdir, "evaluate")
    assert again["student"]["test"] == pytest.approx(result["student"]["test"])


def test_self_training_learns_from_the_student_alone(kdrun: Run, workdir: Path) -> None:
    words = SCHEMES["self_training"][0]
    assert kdrun("distill", *SMALL, *words, "epochs=1", "alone=false") == 0
    (result,) = [r for r in results(workdir) if r["scheme"] == "tf_kd"]
    (teacher,) = result["teachers"]
    assert teacher["checkpoint"] == f"{result['alone']['run']}/student.safetensors"
    assert teacher["test"] == pytest.approx(result["alone"]["test"])
    assert not (workdir / "outputs" / "teachers").exists()


DIGITS = ["dataset=digits", "student=cnn_tiny", "student.widths=[8,16]", "epochs=6", "alone=false"]


@pytest.mark.heavy
@pytest.mark.parametrize("scheme", ["online", "one", "byot", "tf_kd", "cs_kd"])
def test_it_learns_the_digits(kdrun: Run, workdir: Path, scheme: str) -> None:
    """Six epochs of a small network; guessing is right for one image in ten."""
    assert kdrun("distill", *DIGITS, f"scheme={scheme}", "ui=quiet", "threads=1") == 0
    (result,) = results(workdir)
    assert result["student"]["test"]["top1"] > 60
    for kind in ("peers", "branches", "ensemble"):
        assert all(one["test"]["top1"] > 60 for one in result.get(kind, []))


@pytest.mark.parametrize("scheme", ["online", "byot", "cs_kd", "tf_kd"])
@pytest.mark.heavy
def test_compiled_networks_give_close_results(kdrun: Run, workdir: Path, scheme: str) -> None:
    argv = ["distill", *SMALL, f"scheme={scheme}", "epochs=1", "alone=false"]
    assert kdrun(*argv) == 0
    assert kdrun(*argv, "compile=true") == 0
    one, two = results(workdir)
    weights = [load_file(r["folder"] / "student.safetensors") for r in (one, two)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_a_peer_can_be_measured_again(kdrun: Run, workdir: Path) -> None:
    words, _ = SCHEMES["online"]
    assert kdrun("distill", *SMALL, *words, "alone=false", "epochs=1") == 0
    (result,) = results(workdir)
    peer = result["peers"][0]
    assert (peer["network"], peer["weights"]) == ("cnn_large", "peer-2.safetensors")
    assert result["alone"] is None
    path = result["folder"] / peer["weights"]
    assert kdrun("evaluate", f"run={path}", "ui=quiet") == 0
    (again,) = results(workdir, "evaluate")
    assert again["student"]["test"] == pytest.approx(peer["test"])


def test_settings_of_a_run_are_read_back(kdrun: Run, workdir: Path) -> None:
    """A finished run is found again by a sweep: its configuration says the same after a reading."""
    argv = ["distill", "-m", *SMALL, "epochs=1", "scheme=online", "scheme.peers=[mlp]", "T=2"]
    assert kdrun(*argv, "alone=false") == 0
    first = {r["identity"] for r in results(workdir)}
    assert len(first) == 1
    assert kdrun(*argv, "alone=false") == 0
    assert len(results(workdir)) == 1


def test_a_users_own_scheme(kdrun: Run, workdir: Path) -> None:
    """As docs/schemes.md says it: a YAML and a class that is given what its signature names."""
    (workdir / "my_schemes.py").write_text(
        "from kdrun.schemes.base import StudentScheme\n"
        "from kdrun.types import Outputs\n\n\n"
        "class FlippedView(StudentScheme):\n"
        "    def forward_networks(self, batch):\n"
        "        student = self._run_student[0](batch.images)\n"
        "        mirrored = self._run_student[0](batch.images.flip(3)).detached()\n"
        "        return student, [mirrored]\n"
    )
    folder = workdir / "my_configs" / "scheme"
    folder.mkdir(parents=True)
    (folder / "flipped.yaml").write_text(
        "# The student's answer to the mirror image teaches.\n"
        "name: flipped\n_target_: my_schemes.FlippedView\nuses_teacher: false\n"
    )
    argv = ["--config-dir", str(workdir / "my_configs"), *SMALL, "epochs=1", "alone=false"]
    assert kdrun("distill", *argv, "scheme=flipped") == 0
    (result,) = results(workdir)
    assert (result["scheme"], result["teachers"]) == ("flipped", [])
    assert result["objective"] == "0.1*CE + 0.9*16*KL(T=4)"
