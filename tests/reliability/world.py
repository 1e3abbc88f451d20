"""Good inputs to start from: runs, a sweep, a store, image folders, files of every kind."""

import gzip
import hashlib
import io
import shutil
import struct
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kdrun.cli.main import run
from kdrun.engine.checkpoint import CheckpointFolder

TINY = [
    "dataset=synthetic",
    "dataset.train_size=48",
    "dataset.test_size=24",
    "dataset.image_size=8",
    "dataset.num_classes=3",
    "teacher=cnn_tiny",
    "student=cnn_tiny",
    "batch_size=16",
    "teacher.schedule.batch_size=16",
    "epochs=2",
    "teacher.schedule.epochs=1",
    "alone=false",
    "ui=quiet",
    "threads=1",
    "device=cpu",
]
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA")


@dataclass(frozen=True)
class World:
    """A folder of good inputs, made once; cases copy what they spoil.

    run: a finished distillation. begun: the same, interrupted after its first epoch.
    phase: one interrupted in its hint stage. sweep: one of two jobs.
    photos: an image folder. files: kind → a good file of it.
    """

    root: Path
    run: Path
    begun: Path
    phase: Path
    sweep: Path
    photos: Path
    files: dict[str, Path]


def make_world(root: Path) -> World:
    """Train the runs and write the files, in `root`, which is the current folder."""
    _kdrun("distill", *TINY)
    finished = next(path.parent for path in root.glob("outputs/distill/*/*/*/result.json"))
    _interrupted("output_root=begun")
    begun = next(path.parent for path in root.glob("begun/distill/*/*/*/result.json"))
    hint = ["loss=[kd,fitnet]", "loss.fitnet.variant=paper", "loss.fitnet.pretrain_epochs=2"]
    _interrupted("output_root=begun", *hint)
    phase = next(path.parent for path in root.glob("begun/distill/*/*fitnet/*/result.json"))
    _kdrun("distill", "-m", *TINY, "T=1,4")
    sweep = next(root.glob("outputs/sweeps/**/sweep.json")).parent
    photos = root / "photos"
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                path = photos / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture("PNG", number))
    return World(root, finished, begun, phase, sweep, photos, _files(root / "files"))


def _kdrun(*words: str) -> None:
    code = run(list(words))
    assert code == 0, (words, code)


def _interrupted(*words: str) -> None:
    """A run that is stopped when its student has done an epoch."""
    save = CheckpointFolder.save

    def stopping(self: CheckpointFolder, payload: dict[str, Any]) -> None:
        save(self, payload)
        if "distill" in self.folder.parts:
            raise KeyboardInterrupt

    CheckpointFolder.save = stopping  # type: ignore[method-assign]
    try:
        assert run(["distill", *TINY, *words]) == 130
    finally:
        CheckpointFolder.save = save  # type: ignore[method-assign]


def picture(kind: str, seed: int = 0, size: tuple[int, int] = (9, 8)) -> bytes:
    """A small picture as a file of that format."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def idx(array: np.ndarray) -> bytes:
    """An IDX file of bytes."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def sound() -> bytes:
    """A recording of a tenth of a second."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.arange(800, dtype="<i2").tobytes())
    return out.getvalue()


def _files(folder: Path) -> dict[str, Path]:
    folder.mkdir()
    weights = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.zeros(3)}
    torch.save({"epoch": 3, "best_acc": 71.5, "model": weights}, folder / "published.pth")
    torch.save(weights, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    grid = np.arange(2 * 5 * 4).reshape(2, 5, 4)
    (folder / "images.idx").write_bytes(idx(grid))
    (folder / "images.idx.gz").write_bytes(gzip.compress(idx(grid)))
    (folder / "word.wav").write_bytes(sound())
    for kind in FORMATS:
        (folder / f"picture.{kind.lower()}").write_bytes(picture(kind))
    return {path.name: path for path in sorted(folder.iterdir())}


def tree_digest(folder: Path) -> dict[str, str]:
    """Relative path → what is there; locks are not looked at."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"link {path.readlink()}"
        elif path.is_file() and not path.name.endswith(".lock"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def copied(source: Path, target: Path) -> Path:
    """A copy of a folder or file, to be spoilt."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)
    return target
