"""`kdrun validate`: options of the package and of a user's folder, each with its verdict."""

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., int]

BROKEN = {
    "loss/misspelt.yaml": "misspelt:\n  _target_: kdrun.losses.kd.SoftTargets\n"
    "  weight: 1.0\n  temprature: 4.0\n",
    "loss/absent.yaml": "absent:\n  _target_: nowhere.Loss\n  weight: 1.0\n",
    "student/crashing.yaml": "name: crashing\n_target_: crashing_net.Net\n",
    "schedule/negative.yaml": "defaults: [short, _self_]\nlr: -1.0\n",
}


@pytest.fixture
def own(workdir: Path) -> Path:
    """A folder of options that are wrong in four ways, and one that is right."""
    texts = BROKEN | {"schedule/mine.yaml": "defaults: [short, _self_]\nlr: 0.01\n"}
    for name, text in texts.items():
        (workdir / "my" / name).parent.mkdir(parents=True, exist_ok=True)
        (workdir / "my" / name).write_text(text)
    (workdir / "crashing_net.py").write_text(
        "from torch import nn\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(3, num_classes)\n\n"
        "    def forward(self, images):\n"
        "        raise RuntimeError('no such layer')\n"
    )
    return workdir


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """group/option → [status, words]."""
    rows = [line.split(None, 2) for line in capsys.readouterr().out.splitlines()[:-1]]
    return {name: [status, words] for status, name, words in rows}


def test_own_options_get_their_verdicts(
    kdrun: Run, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["loss/misspelt", "loss/absent", "loss/kd", "student/crashing", "student/custom"]
    names += ["schedule/negative", "schedule/mine"]
    assert kdrun("validate", *names, "--config-dir", "my", "threads=1") == 1
    found = lines(capsys)
    status = {name: verdict[0] for name, verdict in found.items()}
    assert status == {
        "loss/misspelt": "broken",
        "loss/absent": "broken",
        "loss/kd": "ok",
        "student/crashing": "broken",
        "student/custom": "skipped",
        "schedule/negative": "broken",
        "schedule/mine": "ok",
    }
    assert "Did you mean 'temperature'?" in found["loss/misspelt"][1]
    assert "no module 'nowhere'" in found["loss/absent"][1]
    assert "no such layer" in found["student/crashing"][1]
    assert found["student/custom"][1] == "needs student._target_"
    assert "lr=-1 must be above 0" in found["schedule/negative"][1]
    assert not (own / "outputs").exists()


def test_data_and_teachers(kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["dataset/digits", "dataset/mnist", "dataset/imagefolder", "student/mlp30"]
    assert kdrun("validate", *names, "teacher/mlp30", "experiment/smoke", "threads=1") == 0
    found = lines(capsys)
    assert found["dataset/digits"][1].startswith("1,293 training images, 1×8×8")
    assert found["dataset/mnist"] == ["skipped", "not at hand below data"]
    assert found["dataset/imagefolder"] == ["skipped", "needs dataset.root"]
    assert found["teacher/mlp30"][1].startswith("as the student of that name")
    assert found["experiment/smoke"][0] == "ok"


@pytest.mark.heavy
def test_everything_that_ships_is_fine(kdrun: Run, workdir: Path) -> None:
    assert kdrun("validate", "threads=1") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["los"], "Did you mean 'loss'?"),
        (["loss/kdd"], "Did you mean 'kd'?"),
        (["loss", "stduent=mlp"], "Did you mean"),
        (["loss", "T=1,2"], "validate takes one"),
        (["--config-dir", "absent"], "there is no such folder"),
    ],
)
def test_it_refuses_in_a_sentence(refused: Callable[..., str], words: list[str], said: str) -> None:
    assert said in refused("validate", *words)
