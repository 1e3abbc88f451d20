"""The same runs on a GPU."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import SMALL, results, without_times

from kdrun.cli.config_groups import list_groups

pytestmark = pytest.mark.gpu

Run = Callable[..., int]
Refused = Callable[..., str]
GPU = (*SMALL, "device=cuda", "alone=false")


def digest(run: dict[str, Any]) -> str:
    """SHA-256 of the student's file."""
    return hashlib.sha256((run["folder"] / "student.safetensors").read_bytes()).hexdigest()


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


def test_equal_runs_have_equal_bits_with_deterministic_kernels(kdrun: Run, workdir: Path) -> None:
    for root in ("one", "two"):
        assert kdrun("distill", *GPU, "deterministic=true", f"output_root={root}/outputs") == 0
    one, two = (results(workdir / root)[0] for root in ("one", "two"))
    assert digest(one) == digest(two)


def test_a_stopped_run_resumes_with_equal_bits(
    kdrun: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in mid-epoch, right after a checkpoint."""
    from kdrun.engine.loop import _Fit

    words = [*GPU, "deterministic=true", "batch_size=20", "checkpoint_steps=3", "teacher.cache=off"]
    assert kdrun("distill", *words, "output_root=whole/outputs") == 0
    step = _Fit._step

    def stop_after_seven(self: _Fit, batch: object) -> object:
        if self.training.settings == "schedule." and self.state.step == 7:
            self.training.stop.ask("test")
        return step(self, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(_Fit, "_step", stop_after_seven)
        assert kdrun("distill", *words, "output_root=cut/outputs") == 130
    (cut,) = results(workdir / "cut")
    assert cut["status"] == "interrupted"
    assert kdrun("resume", str(cut["folder"])) == 0
    (whole,), (cut,) = results(workdir / "whole"), results(workdir / "cut")
    assert digest(whole) == digest(cut)
    assert without_times(whole) == without_times(cut)


def test_compiled_training_uses_cuda_graphs_and_agrees(kdrun: Run, workdir: Path) -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    for root, compiled in (("plain", "false"), ("compiled", "true")):
        words = [*GPU, "epochs=1", f"compile={compiled}", f"output_root={root}/outputs"]
        assert kdrun("distill", *words) == 0
    plain, compiled_run = (results(workdir / root)[0] for root in ("plain", "compiled"))
    loss = plain["student"]["test"]["loss"]
    assert compiled_run["student"]["test"]["loss"] == pytest.approx(loss, rel=1e-2)
    assert not counters["inductor"]["cudagraph_skips"]


@pytest.mark.parametrize("cache", ["auto", "logits", "off"])
def test_a_compiled_run_whose_teacher_is_there(kdrun: Run, workdir: Path, cache: str) -> None:
    """Nothing trains before the trial calls of the compiled teacher."""
    words = [word for word in SMALL if not word.startswith("epochs")]
    assert kdrun("train-teacher", *words, "device=cuda") == 0
    (trained,) = results(workdir, "train-teacher")
    teacher = f"teacher.checkpoint={trained['teachers'][0]['checkpoint']}"
    words = [*GPU, "compile=true", teacher, f"teacher.cache={cache}"]
    assert kdrun("distill", *words) == 0
    assert kdrun("distill", *words) == 0  # its outputs are in the cache


def test_the_teacher_is_cached_on_the_gpu(kdrun: Run, workdir: Path) -> None:
    """A second run finds every output, and ends with the same student."""
    words = [*GPU, "deterministic=true", "teacher.cache=logits"]
    assert kdrun("distill", *words) == 0
    assert kdrun("distill", *words) == 0
    first, second = results(workdir)
    assert second["teacher_cache"][0]["computed"] == 0
    assert digest(first) == digest(second)


SETTINGS = {
    "tf32": ["precision=tf32"],
    "auto": ["precision=auto"],
    "adamw": ["schedule=adamw", "schedule.warmup_epochs=0"],
    "randaugment": ["augment=randaugment"],
    "trivialaugment": ["augment=trivialaugment"],
    "mixup": ["augment.mixup.alpha=0.2"],
    "streamed": ["dataset.resident=false", "dataset.workers=1"],
    "dropout": ["teacher=mlp1200", "student=mlp800"],
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_take_another_path_on_a_gpu(kdrun: Run, workdir: Path, name: str) -> None:
    assert kdrun("distill", *GPU, "epochs=1", *SETTINGS[name]) == 0
    (result,) = results(workdir)
    assert result["student"]["test"]["loss"] < 10


@pytest.mark.parametrize("name", [name for name in list_groups()["loss"] if name != "ce"])
def test_every_loss_trains_on_the_gpu(kdrun: Run, workdir: Path, name: str) -> None:
    words = ["distill", *GPU, "epochs=1", f"loss={name}", "teacher=resnet14", "student=resnet8"]
    if kdrun(*words, "--dry-run") == 2:
        pytest.skip(f"{name} does not take these networks")
    assert kdrun(*words) == 0


def test_jobs_in_lockstep_share_the_gpu(kdrun: Run, workdir: Path) -> None:
    pytest.importorskip("greenlet")
    assert kdrun("distill", "-m", *GPU, "epochs=1", "T=1,4", "gang=true") == 0
    assert len(results(workdir)) == 2


def test_the_benchmark_measures_the_gpu(kdrun: Run, workdir: Path) -> None:
    assert kdrun("benchmark", *SMALL, "device=cuda", "rounds=1", "steps=1", "compare=[]") == 0


def test_the_doctor_lists_the_gpu(kdrun: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert kdrun("doctor") == 0
    assert "cuda" in capsys.readouterr().out


def test_int8_training_is_refused(refused: Refused) -> None:
    assert "fp32" in refused("distill", *GPU, "precision=int8")


def test_out_of_memory_is_one_sentence(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(2**30 / total)
    try:
        words = ["dataset.image_size=64", "dataset.train_size=2000", "batch_size=2000"]
        words += ["dataset.resident=false"]  # else the images alone would not fit
        assert kdrun("distill", *GPU, *words, "student=resnet110") == 1
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "batch_size" in told
