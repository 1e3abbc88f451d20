"""Teachers remembered, folded, in bf16: what runs end in, and what they say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import SMALL, results

from kdrun.teachers.cache_file import CacheFile

Run = Callable[..., int]
AUGMENTED = [*SMALL, "dataset.augment.crop_padding=1", "dataset.augment.flip=true", "alone=false"]


def weights(result: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(result["folder"] / "student.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_remembering_changes_no_bit_and_finds_everything_the_second_time(
    kdrun: Run, workdir: Path
) -> None:
    for words in (["teacher.cache=off"], [], [], ["T=2"]):
        assert kdrun("distill", *AUGMENTED, *words) == 0
    off, first, second, other = results(workdir)
    assert "teacher_cache" not in off
    (cold,), (warm,), (third,) = (r["teacher_cache"] for r in (first, second, other))
    assert same(weights(off), weights(first))
    assert same(weights(off), weights(second))
    assert cold["images"] == warm["images"] == 3 * 128  # whole batches of 180 images, 3 epochs
    assert 0 < cold["computed"] <= cold["images"]
    assert warm["computed"] == third["computed"] == 0
    assert warm["found_percent"] == 100.0


def test_a_damaged_or_partly_filled_file_changes_no_bit(kdrun: Run, workdir: Path) -> None:
    words = [*AUGMENTED, "teacher.cache=logits", "teacher.cache_dtype=float16"]
    assert kdrun("distill", *words) == 0
    (path,) = workdir.glob("outputs/cache/teacher-outputs/*/records.bin")
    raw = bytearray(path.read_bytes())
    for place in range(0, len(raw), 37):
        raw[place] ^= 255
    raw[: len(raw) // 2] = bytes(len(raw) // 2)
    path.write_bytes(bytes(raw))
    assert kdrun("distill", *words) == 0
    one, two = results(workdir)
    assert same(weights(one), weights(two))
    assert two["teacher_cache"][0]["computed"] > 0


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    kdrun: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*AUGMENTED, "teacher.cache=logits", "teacher.cache_dtype=float16"]
    assert kdrun("distill", *words) == 0
    (whole,) = results(workdir)
    (path,) = workdir.glob("outputs/cache/teacher-outputs/*/records.bin")
    path.unlink()
    calls, write = [], CacheFile.write

    def stop_in_the_middle(self: CacheFile, slots: Any, values: Any) -> None:
        calls.append(1)
        write(self, slots, values)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(CacheFile, "write", stop_in_the_middle)
    assert kdrun("distill", *words) == 130
    monkeypatch.setattr(CacheFile, "write", write)
    (stopped,) = [r for r in results(workdir) if r["status"] == "interrupted"]
    assert kdrun("resume", str(stopped["folder"])) == 0
    assert same(weights(whole), load_file(stopped["folder"] / "student.safetensors"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["loss=at", "teacher.cache=logits"], "reads feature maps"),
        (["loss=mlkd", "teacher.cache=logits"], "continuous view"),
        (["loss=srrl", "teacher.cache=logits"], "teacher.cache=embedding"),
        (["teacher.cache=logits", "teacher.cache_gb=1e-9"], "teacher.cache_gb"),
    ],
)
def test_what_cannot_be_remembered_is_said(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    small = [w for w in AUGMENTED if w != "ui=quiet"]
    assert (
        kdrun("distill", *small, "ui=plain", "epochs=1", "teacher.schedule.epochs=1", *words) == 0
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "is not used" in said
    assert reason in said
    assert "teacher_cache" not in results(workdir)[-1]


def test_folding_and_bf16_end_close_to_the_plain_run(kdrun: Run, workdir: Path) -> None:
    for words in ([], ["teacher.fold=true"], ["teacher.precision=bf16"]):
        assert kdrun("distill", *AUGMENTED, "epochs=1", "teacher.cache=off", *words) == 0
    plain, folded, half = (weights(result) for result in results(workdir))
    for name, tensor in plain.items():
        torch.testing.assert_close(folded[name], tensor, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(half[name], tensor, rtol=0.1, atol=0.02)
    assert not same(plain, half)


def test_switches_that_change_nothing_leave_a_run_the_same_run(kdrun: Run, workdir: Path) -> None:
    for words in (["teacher.cache=off"], ["teacher.cache=auto", "teacher.cache_gb=1"]):
        assert kdrun("distill", *AUGMENTED, "epochs=1", *words) == 0
    assert kdrun("distill", *AUGMENTED, "epochs=1", "teacher.fold=true") == 0
    one, two, three = (
        json.loads((r["folder"] / "result.json").read_text()) for r in results(workdir)
    )
    assert one["identity"] == two["identity"] != three["identity"]


def test_settings_for_teaching_are_refused_where_nobody_teaches(
    refused: Callable[..., str],
) -> None:
    assert "belong to kdrun distill" in refused("train-teacher", "teacher.precision=bf16")
    assert "teacher.cache=logits" in refused("distill", "teacher.cache_dtype=float16")
    assert "Did you mean 'logits'" in refused("distill", "teacher.cache=logit")
