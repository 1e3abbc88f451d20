"""torch's compiler takes seconds to import; commands that compile nothing do without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import optim

from kdrun import uncompiled

COMMANDS = """
import sys
from pathlib import Path
import kdrun.cli.execution, kdrun.sweeps.progress, kdrun.report.page  # what others import, too
from kdrun.cli.main import run

pair = ["dataset=synthetic", "dataset.train_size=64", "teacher=cnn_large", "student=cnn_tiny"]
pair += ["epochs=1", "teacher.schedule.epochs=1", "threads=1", "ui=quiet"]
pair += ["schedule=adamw", "schedule.warmup_epochs=0", "teacher.fold=true", "loss=[kd,sp]"]
assert run(["distill", *pair]) == 0
(result,) = Path().glob("outputs/distill/*/cnn_large-*/*/result.json")
assert run(["evaluate", f"run={result.parent}"]) == 0
assert "torch._dynamo" not in sys.modules
"""


def test_commands_do_not_import_it(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"momentum": 0.9, "weight_decay": 1e-3, "nesterov": True}),
        ("Adam", {"weight_decay": 1e-3}),
        ("AdamW", {"weight_decay": 0.1}),
    ],
)
def test_steps_are_those_of_torch(name: str, settings: dict[str, float]) -> None:
    def train(kind: type[optim.Optimizer]) -> tuple[torch.Tensor, dict[str, object]]:
        weight = torch.linspace(-1, 1, 6).reshape(2, 3).requires_grad_()
        optimizer = kind([weight], lr=0.1, **settings)  # type: ignore[arg-type]
        for step in range(4):
            optimizer.zero_grad()
            (weight**2).sum().mul(step + 1).backward()
            optimizer.step()
        assert torch.is_grad_enabled()
        return weight.detach(), optimizer.state_dict()["param_groups"][0]

    ours, groups = train(getattr(uncompiled, name))
    theirs, expected = train(getattr(optim, name))
    assert torch.equal(ours, theirs)
    assert groups == expected
