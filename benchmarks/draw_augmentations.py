"""Draw docs/images/augmentations.png: what each policy makes of one photograph.

    python benchmarks/draw_augmentations.py docs/images/augmentations.png

The photograph is scikit-learn's flower.jpg.
"""

import sys

import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from sklearn.datasets import load_sample_image

from kdrun.config import parse
from kdrun.config.augment import AugmentConfig, CropFlipConfig, fill_in
from kdrun.config.convert import from_plain
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.types import Normalisation

GREY = Normalisation((0.5,) * 3, (0.5,) * 3)
SIDE, COPIES = 96, 8
ROWS = {
    "crop_flip": {"crop_padding": 12, "flip": True},
    "imagenet": "imagenet",
    "randaugment": "randaugment",
    "autoaugment": "autoaugment",
    "trivialaugment": "trivialaugment",
    "three_augment": "three_augment",
    "erasing (pixel)": {"flip": True, "erasing": {"prob": 1.0, "mode": "pixel"}},
}


def augment(row: str | dict) -> AugmentConfig:
    if isinstance(row, str):
        row = OmegaConf.to_container(OmegaConf.load(f"configs/augment/{row}.yaml"))
        row.pop("defaults")
    return from_plain(AugmentConfig, fill_in(row, CropFlipConfig(12, True)), "augment")


def main(path: str) -> None:
    assert parse  # registers how nodes are read
    photo = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[None]
    photo = photo[:, :, 20:404, 120:504].float()
    small = torch.nn.functional.interpolate(photo, (SIDE, SIDE), mode="area").round()
    split = Split(small.to(torch.uint8).repeat(COPIES, 1, 1, 1), torch.arange(COPIES))
    canvas = Figure((COPIES * 1.1, len(ROWS) * 1.15), layout="constrained")
    grid = canvas.subplots(len(ROWS), COPIES)
    for axes_row, (name, row) in zip(grid, ROWS.items(), strict=True):
        loader = TrainLoader(split, GREY, COPIES, augment(row), 1, "cpu")
        index = torch.arange(COPIES)
        images = loader.images(index, loader.views(0).select(index)) * 0.5 + 0.5
        for axes, image in zip(axes_row, images, strict=True):
            axes.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy())
            axes.set_xticks([])
            axes.set_yticks([])
        axes_row[0].set_ylabel(name, fontsize=8)
    canvas.savefig(path, dpi=80)


if __name__ == "__main__":
    main(sys.argv[1])
