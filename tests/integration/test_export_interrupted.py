"""`kdrun export` of a run that was stopped: the last state, and which epoch it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from support import SMALL, results

from kdrun.deploy.formats import read_metadata
from kdrun.deploy.student import load
from kdrun.engine import loop

Run = Callable[..., int]
WORDS = [*(word for word in SMALL if "epochs" not in word and "ui" not in word), "ui=plain"]
WORDS += ["teacher=cnn_tiny", "teacher.schedule.epochs=1", "epochs=3", "alone=false"]
WORDS += ["checkpoint_steps=1", "schedule.ema=0.5", "student.widths=[3]"]


def edit(run: Path, **values: Any) -> None:
    path = run / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_last_state_is_exported_with_its_epoch(
    kdrun: Run,
    refused: Callable[..., str],
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step, steps = loop._Fit._step, [0]

    def interrupt(self: object, batch: object) -> object:
        steps[0] += 1
        if steps[0] == 9:  # three of the teacher, an epoch and two batches of the student
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(loop._Fit, "_step", interrupt)
    assert kdrun("distill", *WORDS) == 130
    (result,) = results(workdir)
    run = result["folder"]
    export = ["export", f"run={run}", "format=safetensors", "latency=false", "ui=plain"]
    capsys.readouterr()
    assert kdrun(*export) == 0
    assert "is not finished: exporting epoch 1 of 3 and 2 batches of the next" in (
        capsys.readouterr().out
    )
    file = run / "export" / "student-epoch1-batch2.safetensors"
    at = {"epoch": 1, "batch": 2, "step": 5, "epochs": 3, "weights": "last"}
    assert read_metadata(file)["interrupted_at"] == at
    assert "after epoch 1 of 3" in (run / "export" / "MODEL_CARD.md").read_text()
    network = load(file)
    assert network.card.extra["interrupted_at"] == at
    saved = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    for name, tensor in network.network.state_dict().items():
        assert torch.equal(tensor, saved["scheme"][f"student.network.{name}"])

    assert kdrun(*export, "weights=ema") == 0
    averaged = load(run / "export" / "student_ema-epoch1-batch2.safetensors")
    assert torch.equal(averaged.network.fc.weight, saved["state"]["averaged"]["fc.weight"])
    with safe_open(file, framework="pt") as content:
        assert not torch.equal(averaged.network.fc.weight, content.get_tensor("fc.weight"))

    edit(run, status="failed", error="TrainingError: the loss became infinite.")
    assert "failed and is not exported (TrainingError: the loss became infinite)" in (
        refused(*export)
    )
    edit(run, status="interrupted")
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    assert "before its student's first checkpoint" in refused(*export)


@pytest.mark.parametrize(
    ("words", "reason"),
    [(["opset=9"], "must be at least 18"), (["opset=20", "format=pt2"], "is for format=onnx")],
)
def test_a_wrong_opset_is_refused(
    refused: Callable[..., str], words: list[str], reason: str
) -> None:
    assert reason in refused("export", "run=nowhere", *words)
