"""The same runs on a GPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import SMALL, results

pytestmark = pytest.mark.gpu

Run = Callable[..., int]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_both_stages_on_the_gpu(kdrun: Run, workdir: Path, precision: str) -> None:
    assert kdrun("distill", *SMALL, "device=cuda", f"precision={precision}", "loss=[kd,sp]") == 0
    (result,) = [r for r in results(workdir) if r["teachers"]]
    assert result["device"] == "cuda:0"
    assert result["student"]["test"]["top1"] > 30


def test_cpu_and_gpu_agree(kdrun: Run, workdir: Path) -> None:
    """The same images in the same order: the weights differ by rounding only."""
    for device in ("cpu", "cuda"):
        kdrun("distill", *SMALL, "epochs=1", "alone=false", f"device={device}")
    one, two = [r for r in results(workdir) if r["teachers"]]
    assert one["teachers"][0]["sha256"] == two["teachers"][0]["sha256"]
    assert one["student"]["test"]["loss"] == pytest.approx(two["student"]["test"]["loss"], rel=1e-2)


def test_compiled_networks_train_on_the_gpu(kdrun: Run, workdir: Path) -> None:
    assert kdrun("distill", *SMALL, "device=cuda", "compile=true") == 0
    (result,) = [r for r in results(workdir) if r["teachers"]]
    assert result["status"] == "completed"
