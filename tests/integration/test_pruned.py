"""Students cut from their teacher: trained, resumed, evaluated and exported without the library."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import SMALL, results

from kdrun.deploy import formats
from kdrun.deploy.student import load
from kdrun.distillation import build
from kdrun.engine import loop

Run = Callable[..., int]
PRUNED = ["teacher=resnet8", "student=pruned", "epochs=1", "teacher.schedule.epochs=1"]


def test_from_the_teacher_to_exported_files(
    kdrun: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch_pruning")
    step, steps = loop._Fit._step, [0]

    def interrupt(self: object, batch: object) -> object:
        steps[0] += 1
        if steps[0] == 6:  # the baseline's second step; the teacher has four
            raise KeyboardInterrupt
        return step(self, batch)

    words = [*SMALL, *PRUNED, "loss=[kd,fitnet]", "schedule.lr=0.000001"]
    monkeypatch.setattr(loop._Fit, "_step", interrupt)
    assert kdrun("distill", *words) == 130
    monkeypatch.setattr(loop._Fit, "_step", step)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    (run,) = [r for r in results(workdir) if r["teachers"]]
    assert kdrun("resume", str(run["folder"])) == 0

    (run,) = [r for r in results(workdir) if r["teachers"]]
    start = load_file(run["pruned_from"]["weights"])
    student = load_file(run["folder"] / "student.safetensors")
    torch.testing.assert_close(student["conv1.weight"], start["conv1.weight"], atol=1e-3, rtol=0)
    assert run["alone"]["params"] == run["student"]["params"] < run["teachers"][0]["params"] / 3
    assert kdrun("evaluate", f"run={run['folder']}", "ui=quiet", "threads=1") == 0
    network = load(run["folder"])
    for count in (1, 7):
        assert network(torch.zeros(count, 3, 8, 8, dtype=torch.uint8)).shape == (count, 4)
    pt2 = workdir / "x.pt2"
    formats.write_pt2(network, network.card, "uint8", pt2)
    images = torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8)
    for batch in (images, images[:1]):
        torch.testing.assert_close(formats.pt2_runner(pt2)(batch), network(batch).detach())


@pytest.mark.parametrize("setting", ["student.ratio=0.5", "student.depth=0.5"])
def test_int8_aware(
    kdrun: Run, workdir: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that were just cut have no valid batch statistics; those of a run have."""
    pytest.importorskip("torch_pruning")
    quantisers_of, seen = build.quantisers_of, []

    def spy(network: object) -> object:
        seen.append(quantisers_of(network))
        return seen[-1]

    monkeypatch.setattr(build, "quantisers_of", spy)
    words = [*SMALL, *PRUNED, "teacher=resnet14", setting, "student.quantize=int8", "alone=false"]
    assert kdrun("distill", *words) == 0
    (run,) = results(workdir)
    assert seen[-1].statistics_after > 0.5
    assert kdrun("distill", *words, f"student.checkpoint={run['folder']}") == 0
    assert seen[-1].statistics_after == 0


def test_other_schemes_and_a_teacher_in_its_place_are_refused(refused: Callable[..., str]) -> None:
    assert "choose scheme=offline" in refused("distill", *SMALL, *PRUNED, "scheme=online")
    assert "choose teacher=" in refused("distill", *SMALL, "teacher=pruned")


@pytest.mark.heavy
@pytest.mark.parametrize("size", [8, 19])
@pytest.mark.parametrize("settings", [["student.ratio=0.4"], ["student.depth=0.5"]])
def test_every_format(kdrun: Run, workdir: Path, size: int, settings: list[str]) -> None:
    pytest.importorskip("torch_pruning")
    pytest.importorskip("onnxruntime")
    words = [*SMALL, *PRUNED, "alone=false", "teacher=resnet14", *settings]
    assert kdrun("distill", *words, f"dataset.image_size={size}") == 0
    (run,) = results(workdir)
    export = partial(kdrun, "export", f"run={run['folder']}", "ui=quiet", "threads=1")
    for kind in ("onnx", "pt2", "safetensors"):
        assert export(f"format={kind}", "latency=false") == 0
    network, file = load(run["folder"]), run["folder"] / "export" / "student"
    runners = [
        formats.onnx_runner(file.with_suffix(".onnx"), 1),
        formats.pt2_runner(file.with_suffix(".pt2")),
        formats.safetensors_runner(file.with_suffix(".safetensors"), file.with_suffix(".json")),
    ]
    for count in (1, 7):
        images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
        for runner in runners:
            expected = network(images).detach()
            torch.testing.assert_close(runner(images), expected, rtol=1e-4, atol=1e-4)
