"""Teachers from files without a card, on folders of plain images where every answer is known."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from kdrun.benchmarking import run as benchmark
from kdrun.benchmarking.variants import untrained_scheme
from kdrun.models.resize import Resize
from kdrun.ui import bench_tables

Run = Callable[..., int]
Refuse = Callable[..., str]

NETS = '''
from torch import nn

class Levels(nn.Module):
    """Answers with the class whose grey level is nearest to the mean of the image."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, images):
        return self.fc(images.mean(dim=(2, 3)))
'''
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
TINY = ["student=cnn_tiny", "student.widths=[2,2]", "epochs=1", "batch_size=60", "alone=false"]
TEACHER = ["teacher=custom", "teacher._target_=level_nets.Levels"]
QUIET = ["threads=1", "ui=quiet"]


def level(number: int, count: int) -> int:
    """The pixels of class `number` of `count`."""
    return round(255 * (number + 0.5) / count)


def make_folder(root: Path, names: list[str], mode: str = "RGB", each: int = 20) -> Path:
    """`train/` and `test/` of uniform 8×8 images; the class's place in `names` is its level."""
    for split, images in (("train", each), ("test", each // 2)):
        for number, name in enumerate(names):
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in range(images):
                value = level(number, len(names)) + image % 3 - 1
                shape = (8, 8, 3) if mode == "RGB" else (8, 8)
                pixels = np.full(shape, value, dtype=np.uint8)
                pixels[0, 0] = image  # no two files are equal
                Image.fromarray(pixels).save(folder / f"{image}.png")
    return root


def weights(
    levels: list[int], mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> dict[str, torch.Tensor]:
    """A `Levels` that is right about images normalised with these constants.

    levels: the grey level of each output.
    """
    seen = (torch.tensor(levels)[:, None] / 255 - torch.tensor(mean)) / torch.tensor(std)
    return {"fc.weight": 2 * seen, "fc.bias": -(seen**2).sum(1)}


@pytest.fixture
def here(workdir: Path) -> Path:
    (workdir / "level_nets.py").write_text(NETS)
    return workdir


def save(path: Path, state: dict[str, torch.Tensor]) -> str:
    torch.save(state, path)
    return f"teacher.checkpoint={path}"


def constants(mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> list[str]:
    return [f"teacher.mean={list(mean)}", f"teacher.std={list(std)}"]


def last(workdir: Path, verb: str = "train-teacher") -> dict[str, Any]:
    path = max(workdir.glob(f"outputs/{verb}/*/*/*/result.json"), key=lambda p: p.stat().st_mtime)
    return {**json.loads(path.read_text()), "folder": path.parent}


NUMBERS = [str(number) for number in range(12)]


@pytest.fixture
def numbered(here: Path) -> list[str]:
    """Folders 0 … 11 and a teacher whose outputs are in torchvision's order: 0, 1, 10, 11, 2 …"""
    root = make_folder(here / "numbers", NUMBERS)
    order = [level(int(name), 12) for name in sorted(NUMBERS)]
    file = save(here / "torchvision order.pth", weights(order))
    data = ["dataset=imagefolder", f"dataset.root={root}"]
    return [*data, *TEACHER, file, *constants(), *QUIET]


def test_a_teacher_in_torchvisions_order_is_refused_by_name(
    kdrun: Run, refused: Refuse, numbered: list[str], here: Path
) -> None:
    text = refused("train-teacher", *numbered)
    assert "its outputs are in lexicographic order (torchvision's)" in text
    assert "classes are in natural order" in text
    assert "100.00 % of" in text
    assert "16.67 % in natural order" in text
    assert "Set teacher.class_order=lexicographic" in text
    assert last(here)["status"] == "failed"
    names = here / "names.txt"
    names.write_text("\n".join(sorted(NUMBERS)))
    for order in ("lexicographic", str(names)):
        assert kdrun("train-teacher", *numbered, f"teacher.class_order={order}") == 0
        assert last(here)["teachers"][0]["test"]["top1"] == 100.0
    assert kdrun("train-teacher", *numbered, "teacher.class_order=natural") == 0
    assert round(last(here)["teachers"][0]["test"]["top1"], 2) == 16.67  # as the user says


def test_the_students_labels_are_those_of_the_data_set(
    kdrun: Run, numbered: list[str], here: Path
) -> None:
    given = f"[{','.join(sorted(NUMBERS))}]"
    assert kdrun("distill", *numbered, f"teacher.class_order={given}", *TINY, "loss=kd") == 0
    result = last(here, "distill")
    assert result["teachers"][0]["test"]["top1"] == 100.0
    text = (result["folder"] / "config.yaml").read_text()
    assert yaml.safe_load(text)["teacher"]["class_order"] == sorted(NUMBERS)


def test_the_right_constants_are_found_and_named(kdrun: Run, refused: Refuse, here: Path) -> None:
    root = make_folder(here / "data", ["a", "b", "c", "d", "e"])
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    own = weights([level(n, 5) for n in range(5)], (0.0,) * 3, (1 / 255,) * 3)
    data = ["dataset=imagefolder", f"dataset.root={root}", *TEACHER, *QUIET]
    file = save(here / "raw.pth", own)
    text = refused("train-teacher", *data, file, *constants(*imagenet))
    assert "is near chance: 20.00 % of" in text
    assert "With the constants of pixels from 0 to 255, 100.00 % of" in text
    setting = "'teacher.mean=[0,0,0]' 'teacher.std=[0.003922,0.003922,0.003922]'"
    assert f"set {setting}" in text
    words = [word.strip("'") for word in setting.split(" ")]
    assert kdrun("train-teacher", *data, file, *words) == 0
    assert last(here)["teachers"][0]["test"]["top1"] == 100.0
    lenient = [*constants(*imagenet), "teacher.check_accuracy=false"]
    assert kdrun("train-teacher", *data, file, *lenient) == 0
    assert last(here)["teachers"][0]["test"]["top1"] == 20.0


def test_weights_of_nothing_are_refused_with_the_causes(refused: Refuse, here: Path) -> None:
    root = make_folder(here / "data", ["a", "b", "c", "d", "e"])
    file = save(here / "zero.pth", {"fc.weight": torch.zeros(5, 3), "fc.bias": torch.zeros(5)})
    data = ["dataset=imagefolder", f"dataset.root={root}", *TEACHER, *QUIET, file]
    text = refused("train-teacher", *data)
    order = [text.index(cause) for cause in ("class_order", "teacher.mean", "classifier", "data")]
    assert "Likely causes, most likely first" in text
    assert order[:3] == sorted(order[:3])
    assert "teacher.check_accuracy=false" in text


def test_outputs_of_a_larger_teacher_are_chosen(kdrun: Run, refused: Refuse, here: Path) -> None:
    names = ["ant", "bee", "cat"]
    root = make_folder(here / "data", names)
    # seven outputs: 5, 1 and 3 are the three classes; the others lie outside of all images
    outputs = [900, level(1, 3), -900, level(2, 3), 1800, level(0, 3), -1800]
    file = save(here / "seven.pth", weights(outputs))
    data = ["dataset=imagefolder", f"dataset.root={root}", *TEACHER, *QUIET, file, *constants()]
    text = refused("train-teacher", *data)
    assert "has 7 outputs, and the data set has 3 classes" in text
    assert "'teacher.classes=[...]'" in text
    assert kdrun("train-teacher", *data, "teacher.classes=[5,1,3]") == 0
    found = last(here)["teachers"][0]["test"]
    assert found["top1"] == 100.0
    listed = "teacher.class_order=[moth,bee,fly,cat,wasp,ant,fox]"
    assert kdrun("train-teacher", *data, listed) == 0  # chosen by the data set's names
    assert last(here)["teachers"][0]["test"] == found
    assert kdrun("train-teacher", *data, listed, "teacher.classes=[cat,ant,bee]") == 0
    assert last(here)["teachers"][0]["test"] == found
    for loss in ("[kd,srrl]", "simkd"):  # srrl and simkd reuse the rows of its classifier
        words = [*data, *TINY, "teacher.classes=[5,1,3]", f"loss={loss}"]
        assert kdrun("distill", *words) == 0, loss


def test_a_benchmark_builds_the_teacher_that_is_configured(
    kdrun: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []

    def build(config: Any, bench: Any, plan: Any) -> dict[str, Any]:
        built.append(untrained_scheme(config.distill, bench.dataset, bench.session))
        (teacher,) = built[-1].frozen_teachers
        assert sum(weight.numel() for weight in teacher.parameters()) == 3 * 7 + 7
        assert any(isinstance(module, Resize) for module in teacher.modules())
        return {}

    monkeypatch.setattr(benchmark, "_measure", build)
    monkeypatch.setattr(bench_tables, "show", lambda found, reporter: None)
    root = make_folder(here / "data", ["ant", "bee", "cat"], mode="L", each=4)
    file = save(here / "seven.pth", weights([level(n, 7) for n in range(7)]))
    data = ["dataset=imagefolder", f"dataset.root={root}", *TINY, *QUIET]
    read = ["teacher.channels=3", "teacher.classes=[5,1,3]", "teacher.image_size=16"]
    assert kdrun("benchmark", *data, *TEACHER, file, *constants(), *read) == 0


def test_grey_data_and_a_colour_teacher(kdrun: Run, refused: Refuse, here: Path) -> None:
    names = ["a", "b", "c", "d"]
    root = make_folder(here / "grey", names, mode="L")
    file = save(here / "colour.pth", weights([level(n, 4) for n in range(4)]))
    data = ["dataset=imagefolder", f"dataset.root={root}", *TEACHER, *QUIET, file]
    assert kdrun("train-teacher", *data, "teacher.channels=3", *constants()) == 0
    assert last(here)["teachers"][0]["test"]["top1"] == 100.0
    words = [*data, *TINY, "teacher.channels=3", *constants()]
    assert kdrun("distill", *words, "loss=[kd,simkd]") == 0
    text = refused("train-teacher", *data, "teacher.channels=3", "teacher.mean=[0.5]",
                   "teacher.std=[0.5]")  # fmt: skip
    assert "teacher.mean has 1 values, and the teacher takes images of 3 channels" in text


def test_colour_data_and_a_grey_teacher(kdrun: Run, refused: Refuse, here: Path) -> None:
    names = ["a", "b", "c", "d"]
    root = make_folder(here / "colour", names)
    file = save(here / "grey.pth", weights([level(n, 4) for n in range(4)], (0.4,), (0.2,)))
    data = ["dataset=imagefolder", f"dataset.root={root}", *TEACHER, *QUIET, file]
    words = ["teacher.channels=1", "teacher.mean=0.4", "teacher.std=0.2"]
    assert kdrun("train-teacher", *data, *words) == 0
    assert last(here)["teachers"][0]["test"]["top1"] == 100.0
    text = refused("train-teacher", *data, "teacher.channels=1")
    assert "give the constants of the grey images" in text


def test_a_bare_file_is_measured_and_exported_with_a_card(
    kdrun: Run, refused: Refuse, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["ant", "bee", "cat"]
    root = make_folder(here / "my data", names, mode="L")
    outputs = [900, level(1, 3), -900, level(2, 3), 1800, level(0, 3), -1800]
    save(here / "seven.pth", weights(outputs))
    data = ["dataset=imagefolder", f"dataset.root='{root}'", *QUIET]
    read = [*TEACHER, *constants(), "teacher.channels=3", "teacher.classes=[5,1,3]"]
    assert kdrun("evaluate", "run=seven.pth", *data, *read) == 0
    assert last(here, "evaluate")["student"]["test"]["top1"] == 100.0
    assert "teacher=resnet56 dataset=..." in refused("evaluate", "run=seven.pth", *data)
    assert "add teacher=..." in refused("evaluate", "run=seven.pth", *data, *constants())
    out = ["format=safetensors", "out=handed on", "latency=false"]
    assert kdrun("export", "run=seven.pth", *data, *read, *out) == 0
    card = json.loads((here / "handed on/seven.json").read_text())
    assert (card["classes"], card["outputs"], card["num_outputs"]) == (names, [5, 1, 3], 7)
    assert card["normalisation"] == {"mean": list(MEAN), "std": list(STD)}
    assert card["extra"]["test"]["top1"] == 100.0
    # elsewhere: the two files alone, no settings; the student learns from the same logits
    for words in ([*TEACHER, "teacher.checkpoint=seven.pth", *read[2:]],
                  ["teacher.checkpoint='handed on/seven.safetensors'"]):  # fmt: skip
        assert kdrun("distill", *data, *TINY, "loss=kd", *words) == 0
    results = [
        json.loads(path.read_text()) for path in here.glob("outputs/distill/*/*/*/result.json")
    ]
    assert results[0]["student"]["test"] == results[1]["student"]["test"]
    assert results[0]["teachers"][0]["test"] == results[1]["teachers"][0]["test"]


def test_the_class_order_in_the_file_counts(
    kdrun: Run, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An output for each class, in the order of `class_to_idx` as another program sorted them."""
    root = make_folder(here / "my data", ["ant", "bee", "cat"])
    outputs = [level(2, 3), level(0, 3), level(1, 3)]
    torch.save(
        {"state_dict": weights(outputs), "class_to_idx": {"cat": 0, "ant": 1, "bee": 2}}, "a.pth"
    )
    torch.save({"state_dict": weights(outputs), "classes": ["x", "y", "z"]}, "other.pth")
    data = ["dataset=imagefolder", f"dataset.root='{root}'", "threads=1", "ui=plain"]
    read = [*TEACHER, *constants()]
    assert kdrun("evaluate", "run=a.pth", *data, *read) == 0
    assert last(here, "evaluate")["student"]["test"]["top1"] == 100.0
    assert "in the order of the class names in the file" in capsys.readouterr().out
    assert kdrun("evaluate", "run=a.pth", *data, *read, "teacher.class_order=[cat,ant,bee]") == 0
    assert last(here, "evaluate")["student"]["test"]["top1"] == 100.0
    assert kdrun("evaluate", "run=a.pth", *data, *read, "teacher.class_order=natural") == 0
    assert last(here, "evaluate")["student"]["test"]["top1"] == 0.0
    capsys.readouterr()
    kdrun("evaluate", "run=other.pth", *data, *read)
    assert "the file names other classes (x, y, z, ...)" in capsys.readouterr().out


def test_the_next_command_can_be_pasted(
    kdrun: Run, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder(here / "my data", ["a", "b"])
    save(here / "my weights.pth", weights([level(n, 2) for n in range(2)]))
    data = ["dataset=imagefolder", f"dataset.root='{root}'", "threads=1", "ui=plain"]
    file = [*TEACHER, "teacher.checkpoint='my weights.pth'", *constants()]
    for words in (file, ["teacher=cnn_tiny", "epochs=1"]):
        assert kdrun("train-teacher", *data, *words) == 0
        (line,) = [x for x in capsys.readouterr().out.splitlines() if "kdrun distill" in x]
        assert kdrun(*shlex.split(line)[1:], "epochs=1", "alone=false", "ui=quiet") == 0, line
