"""The GPU kit without a GPU: its refusal, its data folder, its table."""

import importlib
import json
import shlex
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import torch

KIT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(KIT))
    names = ("bootstrap", "parts", "table")
    modules = {name: importlib.import_module(name) for name in names}
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    return modules


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_in_one_sentence(kit: dict[str, ModuleType]) -> None:
    told = kit["bootstrap"].missing_here("cuda")
    assert told.startswith("This machine has no GPU")
    assert "\n" not in told
    assert kit["bootstrap"].missing_here("cpu") is None


def test_without_torchvision_it_says_so(
    kit: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {"torch": "here"}.get
    monkeypatch.setattr(kit["bootstrap"].importlib.util, "find_spec", absent)
    assert kit["bootstrap"].missing_here("cpu").startswith("torchvision is not installed")


def test_the_data_folder_may_hold_the_archive(kit: dict[str, ModuleType], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cifar100-png.zip", "w") as archive:
        archive.writestr("cifar100/train/apple/0.png", b"")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet56.pth").touch()
    data = kit["parts"].find_data(tmp_path, tmp_path / "out")
    assert data.name == "CIFAR-100"
    assert f"dataset.root={tmp_path}/out/data/cifar100" in data.words
    assert (tmp_path / "out/data/cifar100/train/apple/0.png").is_file()
    assert f"teacher.checkpoint={tmp_path}/weights/resnet56.pth" in data.words
    assert [path.name for path in (tmp_path / "out/data").iterdir()] == ["cifar100"]


def test_missing_inputs_are_told(
    kit: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit["parts"].find_data(None, tmp_path).name == "synthetic images"
    assert "No --data: synthetic images are used" in capsys.readouterr().out
    kit["parts"].find_data(tmp_path, tmp_path)
    assert "has no cifar100/ or cifar100-png.zip: synthetic" in capsys.readouterr().out
    (tmp_path / "cifar100").mkdir()
    assert "trained here" in kit["parts"].find_data(tmp_path, tmp_path).name
    assert "resnet56.pth is missing: a teacher is trained first" in capsys.readouterr().out


def test_an_interrupted_archive_leaves_no_images(
    kit: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(archive: zipfile.ZipFile, folder: Path) -> None:
        (Path(folder) / "cifar100").mkdir()
        raise KeyboardInterrupt

    zipfile.ZipFile(tmp_path / "cifar100-png.zip", "w").close()
    monkeypatch.setattr(zipfile.ZipFile, "extractall", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kit["parts"].find_data(tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out/data").iterdir())


def test_the_last_epoch_is_the_price_of_one(kit: dict[str, ModuleType], tmp_path: Path) -> None:
    rows = ['{"epoch": 1, "epoch_seconds": 40.0}', '{"epoch": 2, "epoch_seconds": 2.5}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    assert kit["parts"].last_epoch_seconds(tmp_path) == 2.5


def test_a_killed_test_keeps_the_outcomes_before_it(
    kit: dict[str, ModuleType], tmp_path: Path
) -> None:
    begun, ended = '{"test": "%s", "outcome": "did not end", "seconds": 0.0}\n', tmp_path / "out"
    passed = '{"test": "one", "outcome": "passed", "seconds": 2.5}\n'
    ended.write_text(begun % "one" + passed + begun % "two")
    cases = kit["parts"].read_outcomes(ended)
    assert cases["one"] == {"outcome": "passed", "seconds": 2.5}
    assert cases["two"]["outcome"] == "did not end"
    assert kit["parts"].read_outcomes(tmp_path / "none") == {}


def test_it_collects_only_files_with_tests_for_a_gpu(kit: dict[str, ModuleType]) -> None:
    files = kit["parts"].gpu_test_files()
    assert "tests/integration/test_gpu.py" in files
    assert "tests/benchmarking/test_gpu_kit.py" not in files
    assert len(files) < 10


def test_a_part_without_time_is_skipped(kit: dict[str, ModuleType], tmp_path: Path) -> None:
    parts = kit["parts"]
    idle = parts.Kit(tmp_path, "cpu", parts.find_data(None, tmp_path))
    results = {"tests": idle.tests(lambda: 5.0), "training": idle.short_training(5.0)}
    assert set(results["tests"]["exit_codes"].values()) == {"no time left"}
    assert set(idle.step_times(lambda _: 5.0, 0.7).values()) == {"no time left"}
    assert results["training"] == "no time left"
    assert not parts.passed(results)
    assert not list(tmp_path.iterdir())


def test_a_finished_full_training_is_not_repeated(
    kit: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = kit["parts"]
    whole = parts.Kit(tmp_path, "cpu", parts.find_data(None, tmp_path))
    folder = tmp_path / "outputs" / "distill" / "synthetic" / "networks" / "1"
    folder.mkdir(parents=True)
    words = [*whole._training_words(240), "device=cpu"]
    (folder / "command.txt").write_text(shlex.join(["kdrun", "distill", *words]) + "\n")
    (folder / "config.yaml").touch()
    (folder / "result.json").write_text(json.dumps({"status": "completed", "epochs": 240}))
    trained = whole.full_training()
    assert (trained["exit_code"], trained["epochs"]) == (0, 240)
    assert "The 240 epochs are finished" in capsys.readouterr().out


def test_its_table_compares_with_the_usual_loop(kit: dict[str, ModuleType]) -> None:
    def variant(step: float, times_this: float) -> dict[str, object]:
        ratio = {"median": times_this}
        return {"step_ms": {"median": step}, "times_this": ratio, "first_block_seconds": 1.0}

    measured = {"variants": {"usual": variant(30, 0.5), "bf16": variant(10, 1.5)}}
    result = {"student": {"test": {"top1": 61.25}}, "time": {"seconds": 90.0}}
    text = kit["table"].markdown(
        {
            "machine": {"device": "A", "torch": "2.9", "cuda": "13", "cpus": 4},
            "tests": {
                "exit_codes": {"one": 0, "two": 124, "three": "no time left"},
                "cases": {"test_x": {"outcome": "passed", "seconds": 2}},
            },
            "steps": {"pair, batch 64": measured, "other": "no time left"},
            "training": {"exit_code": 0, "epochs": 7, "data": "CIFAR-100", "result": result},
        }
    )
    assert (
        "| test_x | passed | 2.0 |\n| two | exit code 124 | |\n| three | no time left | |" in text
    )
    assert "| pair, batch 64 | bf16 | 10.00 | 3.00 | 1.0 |" in text
    assert "| other | no time left |" in text
    assert "ResNet-20 on CIFAR-100, 7 epochs, 90 s of training: 61.25 %" in text
