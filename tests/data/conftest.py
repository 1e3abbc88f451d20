"""Small image folders, written by Pillow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """save(relative path, size=(width, height), mode=, seed=) writes one image of noise."""

    def write(
        where: str,
        size: tuple[int, int] = (6, 6),
        mode: str = "RGB",
        seed: int = 0,
        **options: Any,
    ) -> Path:
        path = tmp_path / where
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        image = image if mode == "RGB" else image.convert(mode)
        image.save(path, **options)
        return path

    return write


@pytest.fixture
def tree(save: Save, tmp_path: Path) -> Path:
    """A folder with train/ and test/, two classes, three and two images each, 6×6, colour."""
    seed = 0
    for split, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                save(f"set/{split}/{name}/{number}.png", seed=seed)
                seed += 1
    return tmp_path / "set"
