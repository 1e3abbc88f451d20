"""The parts of the kit: CUDA tests, step times, a training that fits, the full training."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bootstrap

PLUGIN = "benchmarks.gpu.outcomes"
GPU_TEST = re.compile(r"^(@|pytestmark = )pytest\.mark\.gpu", re.MULTILINE)
LEAST_SECONDS, NO_TIME = 20, "no time left"  # a part that has less is skipped
STEP_LIMIT_SECONDS = 120  # of one pair; compilation is most of it
PHOTOS = [
    "dataset=synthetic",
    "dataset.image_size=32",
    "dataset.num_classes=100",
    "dataset.train_size=20000",
    "dataset.augment.crop_padding=4",
    "dataset.augment.flip=true",
    "loss=kd",
    "steps=40",
    "rounds=5",
]
PAIRS = {
    "resnet32x4 → resnet8x4": ["teacher=resnet32x4", "student=resnet8x4"],
    "wrn_40_2 → wrn_16_2": ["teacher=wrn_40_2", "student=wrn_16_2"],
    "resnet56 → resnet20": ["teacher=resnet56", "student=resnet20"],
}
VARIANTS = "compare=[usual,teacher_bf16,bf16,remembered]"
BATCH_SIZES = (64, 256)
EPOCHS = 240  # of the published recipe


def gpu_test_files() -> list[str]:
    """The files that have tests marked `gpu`; others may need packages that are not here."""
    files = sorted((bootstrap.ROOT / "tests").rglob("test_*.py"))
    marked = [file for file in files if GPU_TEST.search(file.read_text(encoding="utf-8"))]
    return [str(file.relative_to(bootstrap.ROOT)) for file in marked]


def read_outcomes(file: Path) -> dict[str, dict[str, Any]]:
    """Test → outcome and seconds, of the lines that the plugin wrote: a test's last one counts."""
    lines = file.read_text().splitlines() if file.is_file() else []
    cases = [json.loads(line) for line in lines]
    return {case.pop("test"): case for case in cases}


@dataclass(frozen=True)
class Data:
    """Words that choose the data and the teacher. name: for the table."""

    name: str
    words: tuple[str, ...]


def find_data(folder: Path | None, out: Path) -> Data:
    """CIFAR-100 and the published teacher below `folder`, or else what is used, in a sentence."""
    images = None if folder is None else _cifar100(folder.resolve(), out)
    if folder is None or images is None:
        why = "No --data" if folder is None else f"{folder} has no cifar100/ or cifar100-png.zip"
        print(f"{why}: synthetic images are used, and a teacher trained on them for an epoch.")
        words = [word for word in PHOTOS if word.startswith("dataset")]
        return Data("synthetic images", (*words, "teacher=resnet56", "teacher.schedule.epochs=1"))
    words = ["dataset=cifar100", f"dataset.root={images}", "dataset.download=false"]
    words.append("teacher=resnet56")
    weights = folder.resolve() / "weights" / "resnet56.pth"
    if weights.is_file():
        return Data("CIFAR-100", (*words, f"teacher.checkpoint={weights}"))
    print(
        f"{weights} is missing: a teacher is trained first, for 60 epochs; that may take all time."
    )
    return Data("CIFAR-100 with a teacher trained here", tuple(words))


def _cifar100(folder: Path, out: Path) -> Path | None:
    """The folder of images: as it is, or unpacked below `out`; None: there are none."""
    images, packed = folder / "cifar100", folder / "cifar100-png.zip"
    if images.is_dir() or not packed.is_file():
        return images if images.is_dir() else None
    images = out / "data" / "cifar100"
    if not images.is_dir():
        images.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=images.parent) as unfinished:
            with zipfile.ZipFile(packed) as archive:
                archive.extractall(unfinished)
            (Path(unfinished) / "cifar100").rename(images)
    return images


class Kit:
    """Runs kdrun's commands on one device; results and run folders are below `out`."""

    def __init__(self, out: Path, device: str, data: Data) -> None:
        self.out = out
        self.device = device
        self.data = data

    def run(self, module: str, words: Sequence[str], seconds: float) -> int:
        """Exit code of `python -m module words`; 124 when it ran out of time."""
        print(f"+ {module} {' '.join(words)}", flush=True)
        command = bootstrap.command(self.out / "site", module, *words)
        # a group of its own: Ctrl-C in the terminal reaches it once, through `_stop`
        process = subprocess.Popen(
            command, cwd=bootstrap.ROOT, stdin=subprocess.DEVNULL, process_group=0
        )
        try:
            return process.wait(None if seconds == math.inf else max(seconds, 1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return 124
        except KeyboardInterrupt:
            _stop(process)
            raise

    def kdrun(self, *words: str, seconds: float) -> int:
        """Exit code of a kdrun command on the device, with its output below `out`."""
        rest = (f"device={self.device}", f"output_root={self.out / 'outputs'}", "ui=plain")
        return self.run("kdrun", [*words, *rest], seconds)

    def tests(self, left: Callable[[], float]) -> dict[str, Any]:
        """The tests marked `gpu`, each file in a process of its own: outcomes and seconds."""
        outcomes = self.out / "gpu_tests.jsonl"
        outcomes.unlink(missing_ok=True)
        codes: dict[str, int | str] = {}
        options = ["-q", "-m", "gpu", "-o", "addopts=--import-mode=importlib"]  # without xdist's
        options += ["-p", "no:cacheprovider", "-p", PLUGIN, f"--outcomes={outcomes}"]
        for file in gpu_test_files():
            enough = left() >= LEAST_SECONDS
            codes[file] = self.run("pytest", [*options, file], left()) if enough else NO_TIME
        return {"exit_codes": codes, "cases": read_outcomes(outcomes)}

    def step_times(self, left: Callable[[float], float], until: float) -> dict[str, Any]:
        """`kdrun benchmark` of each pair and batch size while there is time."""
        measured: dict[str, Any] = {}
        for size in BATCH_SIZES:
            for name, pair in PAIRS.items():
                seconds = left(until)
                enough = seconds >= LEAST_SECONDS
                measured[f"{name}, batch {size}"] = (
                    self._benchmark(pair, size, seconds) if enough else NO_TIME
                )
        return measured

    def _benchmark(self, pair: list[str], size: int, seconds: float) -> dict[str, Any] | str:
        words = [*PHOTOS, *pair, f"batch_size={size}", VARIANTS]
        began = time.time()
        code = self.kdrun("benchmark", *words, seconds=min(seconds, STEP_LIMIT_SECONDS))
        files = (self.out / "outputs" / "benchmark").glob("*/*/*/benchmark.json")
        new = [path for path in files if path.stat().st_mtime >= began]
        return json.loads(new[-1].read_text()) if new else f"failed with exit code {code}"

    def short_training(self, seconds: float) -> dict[str, Any] | str:
        """ResNet-56 → ResNet-20 with KD for as many epochs as fit.

        Two epochs are timed first, and the second is the price of one: the first compiles.
        """
        if seconds < LEAST_SECONDS:
            return NO_TIME
        began = time.monotonic()
        code, timed = self._train(2, seconds)
        if code or timed is None:
            return {"exit_code": code, "data": self.data.name}
        per_epoch = last_epoch_seconds(timed)
        spent = time.monotonic() - began
        fixed = max(spent - 2 * per_epoch, 0.0)  # start, decoding, compilation
        # a training that is cut off has no result: the rest is for validation and slower epochs
        epochs = int((seconds - spent - fixed) / per_epoch * 0.5)
        if epochs > 2:
            code, longer = self._train(epochs, seconds - spent)
            timed = longer or timed
        return self._trained(code, timed)

    def _train(self, epochs: int, seconds: float) -> tuple[int, Path | None]:
        """Exit code of a training, and its folder if it has a result."""
        began = time.time()
        code = self.kdrun("distill", *self._training_words(epochs), seconds=seconds)
        results = (self.out / "outputs" / "distill").glob("*/*/*/result.json")
        new = [path for path in results if path.stat().st_mtime >= began]
        newest = max(new, key=lambda path: path.stat().st_mtime, default=None)
        return code, None if newest is None or code else newest.parent

    def _trained(self, code: int, folder: Path) -> dict[str, Any]:
        """A training for the table."""
        result = json.loads((folder / "result.json").read_text())
        trained = {"exit_code": code, "epochs": result["epochs"], "data": self.data.name}
        return {**trained, "result": result}

    def full_training(self) -> dict[str, Any]:
        """240 epochs; the same command resumes them after a stop."""
        status, folder = self._full_run()
        code = 0
        if folder is not None and status == "completed":
            print(f"The {EPOCHS} epochs are finished: {folder}")
        elif folder is not None:
            code = self.run("kdrun", ["resume", str(folder)], math.inf)
        else:
            code, folder = self._train(EPOCHS, math.inf)
        if code or folder is None:
            return {"exit_code": code, "data": self.data.name}
        return self._trained(code, folder)

    def _full_run(self) -> tuple[str, Path | None]:
        """Status and folder of the newest full training that is finished or can be resumed."""
        words = {*self._training_words(EPOCHS), f"device={self.device}"}
        runs = (self.out / "outputs" / "distill").glob("*/*/*/command.txt")
        for command in sorted(runs, key=lambda path: path.parent.name, reverse=True):
            result = command.parent / "result.json"
            status = json.loads(result.read_text()).get("status") if result.is_file() else None
            if (
                status in ("interrupted", "running", "completed")
                and words <= set(shlex.split(command.read_text()))
                and (command.parent / "config.yaml").is_file()
            ):
                return status, command.parent
        return "", None

    def _training_words(self, epochs: int) -> list[str]:
        recipe = ["schedule=cifar240", f"epochs={epochs}", "schedule.curve=cosine"]
        if epochs == EPOCHS:
            recipe = ["schedule=cifar240", f"epochs={epochs}"]
        speed = ["precision=bf16", "compile=true"] if self.device != "cpu" else []
        return [*self.data.words, "student=resnet20", "loss=kd", "alone=false", *recipe, *speed]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let kdrun save and end; interrupted again, it is killed."""
    try:
        process.send_signal(signal.SIGINT)
        process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_epoch_seconds(folder: Path) -> float:
    """Training time of a run's last epoch."""
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    return float(json.loads(rows[-1])["epoch_seconds"])


def passed(results: dict[str, Any]) -> bool:
    """Whether every test passed and the training ended."""
    if any(results["tests"]["exit_codes"].values()):
        return False
    training = results["training"]
    return training != NO_TIME and training["exit_code"] == 0


if __name__ == "__main__":
    sys.exit("run `python benchmarks/gpu`")
