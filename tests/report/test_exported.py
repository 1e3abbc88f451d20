"""Exported files in a report: full precision and integers side by side."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdrun.report.content import Report

Make = Callable[..., Path]


def exported(folder: Path, files: dict[str, tuple[str | None, float, int]], top1: float) -> None:
    """Files in a run's export folder. files: name → (quantize, accuracy, bytes)."""
    (folder / "export").mkdir()
    facts: dict[str, Any] = {}
    for name, (quantize, accuracy, size) in files.items():
        (folder / "export" / name).write_bytes(b"")
        check = {"original": {"top1": top1}, "exported": {"top1": accuracy}, "agreement": 99.5,
                 "images": 360}  # fmt: skip
        latency = [{"batch_size": 1, "p50_ms": 0.25}, {"batch_size": 128, "p50_ms": 9.0}]
        facts[name] = {"format": "onnx", "quantize": quantize, "bytes": size, "check": check,
                       "latency": latency}  # fmt: skip
    facts["gone.onnx"] = facts.get("student.onnx", {})
    facts["odd.onnx"] = "not an object"
    (folder / "export" / "export.json").write_text(json.dumps({"files": facts}))


def test_seeds_are_averaged_and_kinds_stand_side_by_side(
    make: Make, outputs: Path, report_of: Callable[..., Report]
) -> None:
    for seed, top1 in enumerate((94.0, 96.0)):
        files = {"student.int8.onnx": ("int8", top1 - 1, 800), "student.onnx": (None, top1, 2000)}
        exported(make(test=80.0, seed=seed), files, 80.0)  # an older run of the seed
        exported(make(test=top1, seed=seed), files, top1)
    aware = make(test=95.5, changes={"student.quantize": "int8"})
    exported(aware, {"student.int8.onnx": ("int8", 95.5, 900)}, 95.5)
    broken = make(test=90.0, T=8.0)
    (broken / "export").mkdir()
    (broken / "export" / "export.json").write_text("[1")
    (listing,) = [one for one in report_of(outputs).others if one.title == "Exported files"]
    cells = {column.name: [cell.text for cell in column.cells] for column in listing.columns}
    assert cells["trained in"] == ["fp32", "fp32", "int8"]
    assert cells["file"] == ["onnx fp32", "onnx int8", "onnx int8"]
    assert cells["n"] == ["2", "2", "1"]
    assert cells["file top-1 %"] == ["95.00 ± 1.41", "94.00 ± 1.41", "95.50"]
    assert cells["KB"] == ["2.0", "0.8", "0.9"]
    assert cells["setting"] == [""] * 3
    assert cells["ms"] == ["0.250"] * 3
    assert cells["test images"] == ["360"] * 3


def test_rows_of_different_recipes_can_be_told_apart(
    make: Make, outputs: Path, report_of: Callable[..., Report]
) -> None:
    for temperature in (4.0, 8.0):
        folder = make(T=temperature)
        exported(folder, {"student.onnx": (None, 90.0 + temperature, 2000)}, 95.0)
    other = make(changes={"student.name": "deit_micro"})
    exported(other, {"student.onnx": (None, 99.0, 2000)}, 99.0)
    (listing,) = [one for one in report_of(outputs).others if one.title == "Exported files"]
    cells = {column.name: [cell.text for cell in column.cells] for column in listing.columns}
    rows = dict(zip(cells["setting"], cells["file top-1 %"], strict=True))
    assert rows == {"T=4": "94.00", "T=8": "98.00", "": "99.00"}


def test_a_check_on_other_or_fewer_images_is_told(
    make: Make, outputs: Path, report_of: Callable[..., Report]
) -> None:
    """`kdrun export run=RUN dataset=...` and `images=50` say nothing about the whole test split."""
    for seed, (images, data) in enumerate([
        (360, ("digits", "f" * 64)),
        (50, ("digits", "f" * 64)),
        (360, ("digits", "other")),
        (120, ("photos", "other")),
    ]):  # fmt: skip
        folder = make(seed=seed)
        exported(folder, {"student.onnx": (None, 95.0, 2000)}, 95.0)
        path = folder / "export" / "export.json"
        facts = json.loads(path.read_text())
        facts["files"]["student.onnx"]["check"]["images"] = images
        facts["files"]["student.onnx"]["dataset"] = {"name": data[0], "fingerprint": data[1]}
        path.write_text(json.dumps(facts))
    (listing,) = [one for one in report_of(outputs).others if one.title == "Exported files"]
    cells = {column.name: [cell.text for cell in column.cells] for column in listing.columns}
    assert cells["dataset"] == ["digits", "digits, other images", "photos"]
    assert cells["n"] == ["2", "1", "1"]
    assert cells["test images"] == ["50–360", "360", "120"]


def test_without_exports_there_is_no_table(
    make: Make, outputs: Path, report_of: Callable[..., Report]
) -> None:
    make()
    assert all(one.title != "Exported files" for one in report_of(outputs).others)
