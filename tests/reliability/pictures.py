"""A small folder of pictures that has something to learn: a noisy pattern for each class."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_pictures(root: Path, train: int = 40, test: int = 12, side: int = 8) -> Path:
    """`root/{train,test}/<class>/<number>.png`, four classes, colour."""
    draw = np.random.default_rng(0)
    patterns = draw.uniform(60, 200, (4, side, side, 3))
    for split, count in (("train", train), ("test", test)):
        for number, pattern in enumerate(patterns):
            folder = root / split / f"class{number}"
            folder.mkdir(parents=True)
            for image in range(count):
                noisy = (pattern + draw.normal(0, 40, pattern.shape)).clip(0, 255)
                Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{image}.png")
    return root
