"""`kdrun export`, `kdrun predict` and `kdrun.load` on one small run of the digits."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import results, writing_once

import kdrun
from kdrun.cli.main import run
from kdrun.config.schema import ExportConfig
from kdrun.data.sources import digits
from kdrun.deploy import export, export_timing, formats
from kdrun.errors import ConfigError
from kdrun.files import sha256_of
from kdrun.removal import remove

Folder = SimpleNamespace


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A distilled student and its teacher, four epochs each."""
    root = tmp_path_factory.mktemp("export")
    words = ["epochs=4", "teacher.schedule.epochs=2", "alone=false", "ui=quiet", "threads=1"]
    words += ["schedule.ema=0.9"]
    assert run(["distill", *words, f"output_root={root}/outputs"]) == 0
    (result,) = results(root)
    (entry,) = root.glob("outputs/teachers/*/*/teacher.json")
    return Folder(run=result["folder"], teacher=entry.parent, result=result)


@pytest.fixture(scope="module")
def write_once() -> Callable[..., None]:
    """Every network of this module is traced once."""
    return writing_once(formats.write_onnx)


@pytest.fixture
def exported(
    trained: Folder,
    write_once: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Path]:
    """`kdrun export` into a fresh folder; returns it. Timing takes no time."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(export_timing, "SECONDS_PER_CELL", 0.0)
    monkeypatch.setattr(formats, "write_onnx", write_once)

    def call(*words: str, code: int = 0) -> Path:
        out = tmp_path / "out"
        argv = ["export", f"run={trained.run}", f"out={out}", "threads=1", "ui=plain", *words]
        assert run(argv) == code
        return out

    return call


def digit_file(folder: Path, number: int = 13) -> tuple[Path, int]:
    """One test image of the digits as a file, and its class."""
    test = digits().test
    assert test is not None
    path = folder / "digit.png"
    Image.fromarray(test.gather(torch.tensor([number]))[0, 0].numpy()).save(path)
    return path, int(test.targets[number])


def test_onnx_with_everything(exported: Callable[..., Path], trained: Folder) -> None:
    out = exported("format=onnx")
    assert {path.name for path in out.glob("[!.]*")} == {
        "student.onnx",
        "export.json",
        "MODEL_CARD.md",
    }
    facts = json.loads((out / "export.json").read_text())
    check = facts["files"]["student.onnx"]["check"]
    assert check["images"] == trained.result["dataset"]["test_size"]
    assert check["original"] == pytest.approx(trained.result["student"]["test"])
    assert check["exported"] == pytest.approx(trained.result["student"]["test"], abs=1e-4)
    assert check["agreement"] == 100.0
    assert check["max_difference"] < 1e-4
    rows = facts["timing"]["rows"]
    assert [(row["network"], row["program"]) for row in rows] == [
        ("teacher cnn_large", "PyTorch"),
        ("student cnn_tiny", "PyTorch"),
        ("teacher cnn_large", "ONNX Runtime"),
        ("student cnn_tiny", "ONNX Runtime"),
    ]
    assert rows[0]["bytes"] > rows[1]["bytes"] > 0
    assert [one["batch_size"] for one in rows[0]["latency"]] == [1, 128]
    card = (out / "MODEL_CARD.md").read_text()
    for words in ("distilled from cnn_large", "## Limits", "0.1*CE + 0.9*16*KL(T=4)", "`9`",
                  f"{trained.result['student']['test']['top1']:.2f}", "student.onnx"):  # fmt: skip
        assert words in card, words


def test_the_averaged_weights(exported: Callable[..., Path], trained: Folder) -> None:
    measured = trained.result["student"]["ema"]
    assert measured["decay"] == 0.9
    out = exported("weights=ema", "format=safetensors", "latency=false")
    facts = json.loads((out / "export.json").read_text())
    check = facts["files"]["student_ema.safetensors"]["check"]
    assert check["exported"] == pytest.approx(measured["test"])
    assert "averaged weights (ema 0.9)" in (out / "MODEL_CARD.md").read_text()
    assert json.loads((out / "student_ema.json").read_text())["extra"]["ema_decay"] == 0.9


PLAIN = """
import json, sys
import numpy, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
image = numpy.asarray(Image.open(sys.argv[2]))[None, None]
(logits,) = session.run(None, {"images": image})
assert not {"torch", "kdrun"} & set(sys.modules)
print(json.dumps([classes[logits[0].argmax()], logits[0].tolist()]))
"""


def test_plain_onnxruntime_runs_it_on_an_image_file(
    exported: Callable[..., Path], trained: Folder, tmp_path: Path
) -> None:
    """A script of its own, in a process without kdrun and torch."""
    out = exported("latency=false")
    image, _ = digit_file(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(out / "student.onnx"), str(image)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, logits = json.loads(done.stdout)
    student = kdrun.load(trained.run)
    expected = student(student.preprocess(image))[0]
    np.testing.assert_allclose(logits, expected.detach().numpy(), rtol=1e-4, atol=1e-4)
    assert name == student.predict(image)[0][0]


def test_int8_is_fitted_without_the_test_images(
    exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[torch.Tensor] = []
    quantise = export.quantise

    def watched(source: Path, path: Path, calibration: Iterator[torch.Tensor]) -> None:
        batches = list(calibration)
        fitted.extend(batches)
        quantise(source, path, batches)

    monkeypatch.setattr(export, "quantise", watched)
    out = exported("quantize=int8", "calibration_images=100")
    facts = json.loads((out / "export.json").read_text())
    check = facts["files"]["student.int8.onnx"]["check"]
    assert check["original"]["top1"] - check["exported"]["top1"] <= 2
    assert check["max_difference"] > 0.01, "nothing was quantised"
    assert facts["timing"]["rows"][-1]["network"] == "student cnn_tiny int8"
    assert "computes in int8" in (out / "MODEL_CARD.md").read_text()
    seen = {image.numpy().tobytes() for image in torch.cat(fitted)}
    test = digits().test
    assert test is not None
    assert len(torch.cat(fitted)) == 100
    assert not seen & {image.numpy().tobytes() for image in test.in_memory()}
    assert formats.read_metadata(out / "student.int8.onnx")["classes"] == list("0123456789")


def test_pt2_and_safetensors_in_one_card(exported: Callable[..., Path], trained: Folder) -> None:
    exported("format=pt2", "latency=false")
    out = exported("format=safetensors", "latency=false", "images=50")
    facts = json.loads((out / "export.json").read_text())["files"]
    assert list(facts) == ["student.pt2", "student.safetensors"]
    assert facts["student.pt2"]["check"]["max_difference"] < 1e-5
    assert facts["student.safetensors"]["check"]["max_difference"] == 0
    assert facts["student.safetensors"]["check"]["images"] == 50
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    expected = kdrun.load(trained.run)(images)
    torch.testing.assert_close(torch.export.load(out / "student.pt2").module()(images), expected)
    assert torch.equal(kdrun.load(out / "student.safetensors")(images), expected)
    assert run(["evaluate", f"run={out / 'student.safetensors'}", "ui=quiet",
                f"output_root={out}/outputs"]) == 0  # fmt: skip


def test_a_file_whose_timing_was_interrupted_has_its_own_figures(
    exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*rest: Any) -> None:
        raise KeyboardInterrupt

    out = exported("format=pt2", "latency=false", "images=50")
    monkeypatch.setattr(export, "measure_latency", stopped)
    exported("format=pt2", "images=60", code=130)
    facts = json.loads((out / "export.json").read_text())["files"]["student.pt2"]
    assert facts["sha256"] == sha256_of(out / "student.pt2")
    assert facts["check"]["images"] == 60
    assert "| 60 |" in (out / "MODEL_CARD.md").read_text()


def test_a_failed_export_leaves_the_folder_to_the_one_beside_it(
    exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failed one made the folder, and removes it if it is empty."""
    honest = formats.write_safetensors

    def write(network: Any, card: Any, dtype: str, path: Path, card_path: Path) -> None:
        assert not remove(path.parent, folder_too=True)
        honest(network, card, dtype, path, card_path)

    monkeypatch.setattr(formats, "write_safetensors", write)
    out = exported("format=safetensors", "latency=false", "images=50")
    assert (out / "student.safetensors").is_file()


def test_another_export_keeps_the_rows_of_the_integer_file() -> None:
    here = {"processor": "CPU", "threads": 1}
    student = {"network": "student s", "program": "PyTorch"}
    integer = {"network": "student s int8", "program": "ONNX Runtime"}
    before = {**here, "rows": [{**student, "bytes": 1}, integer]}
    now = {**here, "rows": [{**student, "bytes": 2}]}
    both = {**here, "rows": [{**student, "bytes": 2}, integer]}
    assert export._with_earlier(now, before) == both
    assert export._with_earlier(now, {**before, "threads": 2}) == now
    assert export._with_earlier(now, None) == now
    assert export._with_earlier(None, before) == before


def test_other_data_than_the_training_is_told_in_the_card(
    exported: Callable[..., Path], trained: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["format=safetensors", "latency=false", "images=50"]
    out = exported(*words, "dataset=digits", "dataset.split_seed=1")
    assert "may have been trained on some of these test images" in " ".join(
        capsys.readouterr().out.split()
    )
    facts = json.loads((out / "export.json").read_text())
    assert facts["dataset"] == trained.result["dataset"]
    fingerprint = facts["files"]["student.safetensors"]["dataset"]["fingerprint"]
    assert fingerprint != facts["dataset"]["fingerprint"]
    card = (out / "MODEL_CARD.md").read_text()
    assert "1,293 training, 145 validation and 359 test images" in card
    assert "| 50 of digits, other images |" in card
    exported(*words)
    card = (out / "MODEL_CARD.md").read_text()
    assert "| 50 |" in card


def test_a_teacher_is_exported_too(
    trained: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_timing, "SECONDS_PER_CELL", 0.0)
    argv = ["export", f"run={trained.teacher}", "format=pt2", "ui=quiet", "latency=false"]
    assert run(argv) == 0
    card = (trained.teacher / "export" / "MODEL_CARD.md").read_text()
    assert card.startswith("# cnn_large on digits")
    assert (trained.teacher / "export" / "teacher.pt2").is_file()


def test_a_file_that_answers_otherwise_is_removed(
    exported: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    honest = formats.write_pt2

    def broken(network: Any, *rest: Any) -> None:
        network.shift.add_(0.5)
        honest(network, *rest)

    monkeypatch.setattr(formats, "write_pt2", broken)
    out = exported("format=pt2", code=1)
    assert not out.exists()  # the folder was made for the file, and goes with it
    text = capsys.readouterr().err
    assert "student.pt2 does not agree with the network: on 359 test images" in text
    assert "It has been removed" in text
    assert "Traceback" not in text


def test_int8_that_loses_too_much_is_removed(
    exported: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quantise = export.quantise

    def blind(source: Path, path: Path, calibration: Iterator[torch.Tensor]) -> None:
        quantise(source, path, [torch.zeros_like(batch) for batch in calibration])

    monkeypatch.setattr(export, "quantise", blind)
    out = exported("quantize=int8", code=1)
    assert not out.exists()  # the folder was made for the file, and goes with it
    assert "points of top-1" in capsys.readouterr().err


def test_predict_files_and_folders(
    trained: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, _ = digit_file(tmp_path)
    (tmp_path / "more").mkdir()
    Image.open(image).convert("RGB").resize((60, 40)).save(tmp_path / "more" / "b10.jpg")
    Image.open(image).save(tmp_path / "more" / "b2.png")
    (tmp_path / "more" / "notes.txt").write_text("no image")
    assert run(["predict", f"run={trained.run}", str(image)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{image}: 8×8 grey, as it is"
    assert len(lines) == 6
    student = kdrun.load(trained.run)
    best = student.predict(image)
    assert lines[1] == f"  {100 * best[0][1]:6.2f} %  {best[0][0]}"
    constants = student.card.normalisation
    pixels = (student.preprocess(image) / 255 - constants.mean[0]) / constants.std[0]
    by_hand = student.network(pixels).softmax(1).max().item()
    assert best[0][1] == pytest.approx(by_hand, abs=1e-5)
    assert run(["predict", f"run={trained.run}", str(tmp_path / "more"), "top=1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [Path(one["file"]).name for one in found] == ["b2.png", "b10.jpg"]
    assert [len(one["top"]) for one in found] == [1, 1]
    assert run(["predict", f"run={trained.run}", str(tmp_path / "more" / "b10.jpg")]) == 0
    said = capsys.readouterr().out
    assert "60×40 colour → grey, resized to 8×8, edges cut off" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["broken.png"], "broken.png cannot be decoded (not an image of any known format)"),
        (["absent.png"], "absent.png: there is no such file or folder"),
        (["empty"], "empty holds no images"),
        ([], "needs an image or a folder"),
        (["broken.png", "top=0"], "top=0 must be"),
        (["rnu=x", "broken.png"], "Did you mean 'run'?"),
        (["--jsno", "broken.png"], "Did you mean '--json'?"),
        (["run=absent", "broken.png"], "run=absent: there is no such"),
    ],
)
def test_predict_refuses_in_a_sentence(
    trained: Folder, refused: Callable[..., str], workdir: Path, words: list[str], said: str
) -> None:
    (workdir / "broken.png").write_text("hello")
    (workdir / "empty").mkdir()
    assert said in refused("predict", f"run={trained.run}", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["format=onx"], "Did you mean 'onnx'?"),
        (["format=pt2", "quantize=int8"], "is for format=onnx"),
        (["tolerance=1"], "is for quantize=int8"),
        (["calibration_images=5"], "calibration_images is for quantize=int8"),
        (["quantize=int4"], "quantize=int4 is not one of"),
        (["images=0"], "images=0 must be at least 1"),
        (["device=cuda"], "runs on the CPU"),
        (["-m", "format=pt2,onnx"], "has no sweeps"),
        (["dataset=synthetic"], "takes images of 1 channels"),
        (["dataset=synthetic", "dataset.channels=1"], "images of 8×8 and synthetic has 16×16"),
        (["out=file"], "cannot be created"),
    ],
)
def test_export_refuses_in_a_sentence(
    trained: Folder, refused: Callable[..., str], workdir: Path, words: list[str], said: str
) -> None:
    (workdir / "file").write_text("in the way")
    assert said in refused("export", f"run={trained.run}", *words)


def test_load_in_three_lines_without_torch_before(trained: Folder, tmp_path: Path) -> None:
    image, _ = digit_file(tmp_path)
    code = (
        "import sys, kdrun\n"
        "assert 'torch' not in sys.modules\n"
        f"student = kdrun.load({str(trained.run)!r})\n"
        f"print(student.predict({str(image)!r})[0][0], student.training, len(student.classes))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    best = kdrun.load(trained.run).predict(image)[0][0]
    assert done.stdout.split() == [best, "False", "10"]
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        kdrun.lod  # noqa: B018


@pytest.mark.parametrize("setting", ["tolerance", "calibration_images"])
def test_an_int8_aware_student_is_not_calibrated(setting: str) -> None:
    source: Any = SimpleNamespace(card=SimpleNamespace(quantize="int8"))
    plain = ExportConfig(run="here", quantize="int8")
    export._check_quantize(plain, source)
    changed: dict[str, Any] = {setting: 5}
    with pytest.raises(ConfigError, match=f"leave {setting} out"):
        export._check_quantize(replace(plain, **changed), source)
