"""Make image trees of real size: photograph-like JPEG files, or only their names.

    python benchmarks/make_photos.py photos FOLDER [--count 200000] [--classes 100] [--val 1000]
    python benchmarks/make_photos.py names FOLDER [--count 1281167] [--classes 1000]

`photos` writes train/<class>/<number>.jpg and val/<class>/<number>.jpg of 500×375 pixels. Each file
is a random window of one of 200 large canvases (octaves of smooth noise, with shapes and grain),
mirrored and re-lit at random, so that no two files have equal pixels. Drawing each canvas
would take ten times as long and decode at the same speed. `names` writes empty files. Both are pure
functions of their arguments, and skip files that exist.
"""

import argparse
import functools
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 500, 375
MARGIN = 200  # by which a canvas is larger than a photograph
CANVASES = 200
QUALITY = 85
CHUNK = 500


@functools.lru_cache(maxsize=CANVASES)
def canvas(number: int) -> Image.Image:
    """A large picture: octaves of smooth noise in colour, ellipses and polygons, and grain."""
    rng = np.random.default_rng(number)
    width, height = WIDTH + MARGIN, HEIGHT + MARGIN
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(6):
        coarse = rng.random((3 * 2**octave, 4 * 2**octave, 3), np.float32) - 0.5
        for channel in range(3):
            layer = Image.fromarray(coarse[..., channel])
            smooth = layer.resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += np.asarray(smooth) * 0.62**octave
    picture = Image.fromarray(((total * 0.8 + 0.5).clip(0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y = rng.integers(0, width), rng.integers(0, height)
        radius = int(rng.integers(10, 90))
        colour = tuple(int(level) for level in rng.integers(0, 256, 3))
        if rng.random() < 0.5:
            draw.ellipse((x - radius, y - radius // 2, x + radius, y + radius // 2), colour)
        else:
            corners = rng.integers(-radius, radius, (4, 2)) + np.array((x, y))
            draw.polygon([(int(a), int(b)) for a, b in corners], colour)
    grain = rng.normal(0, 5, (height, width, 1))
    pixels = np.asarray(picture, np.float32) + grain
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def photograph(seed: int) -> Image.Image:
    """Photograph number `seed`: a window of a canvas, mirrored and re-lit at random."""
    rng = np.random.default_rng((1, seed))
    left, top = (int(value) for value in rng.integers(0, MARGIN + 1, 2))
    picture = canvas(seed % CANVASES).crop((left, top, left + WIDTH, top + HEIGHT))
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    gain, shift = rng.uniform(0.7, 1.1, 3), rng.uniform(-20, 30, 3)
    table = [
        int(min(255, max(0, level * gain[channel] + shift[channel])))
        for channel in range(3)
        for level in range(256)
    ]
    return picture.point(table)


def _write_photographs(chunk: list[tuple[Path, int]]) -> int:
    for path, seed in chunk:
        if not path.exists():
            unfinished = path.with_suffix(".part")
            photograph(seed).save(unfinished, "JPEG", quality=QUALITY)
            unfinished.rename(path)
    return len(chunk)


def write_photographs(root: Path, count: int, classes: int, val: int, workers: int) -> None:
    """`count` training and `val` validation photographs, spread evenly over the classes."""
    files = []
    for split, number, first in (("train", count, 0), ("val", val, count)):
        for index in range(number):
            folder = root / split / f"class_{index % classes:04d}"
            files.append((folder / f"{index:07d}.jpg", first + index))
    for folder in {path.parent for path, _ in files}:
        folder.mkdir(parents=True, exist_ok=True)
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    done = 0
    with ProcessPoolExecutor(workers) as pool:
        for written in pool.map(_write_photographs, chunks):
            done += written
            print(f"\r{done:,} of {len(files):,}", end="", flush=True)
    print()


def write_names(root: Path, count: int, classes: int) -> None:
    """`count` empty files, named as ImageNet's."""
    for number in range(classes):
        name = f"n{1_440_764 + 7919 * number:08d}"
        folder = root / "train" / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(number, count, classes):
            os.close(os.open(f"{folder}/{name}_{index // classes}.JPEG", os.O_CREAT | os.O_WRONLY))


def main() -> None:
    """Write the tree that the arguments describe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("photos", "names"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--val", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    values = parser.parse_args()
    if values.what == "names":
        write_names(values.folder, values.count or 1_281_167, values.classes or 1000)
        return
    count, classes = values.count or 200_000, values.classes or 100
    write_photographs(values.folder, count, classes, values.val, values.workers)


if __name__ == "__main__":
    main()
