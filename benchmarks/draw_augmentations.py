"""Draw docs/images/augmentations.png: what each policy makes of one photograph.

    python benchmarks/draw_augmentations.py docs/images/augmentations.png

The photograph is scikit-learn's flower.jpg; it is mixed with china.jpg. 256 colours, for a small
file.
"""

import argparse
import io

import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_sample_image

from kdrun.config import parse
from kdrun.config.augment import AugmentConfig, CropFlipConfig, fill_in
from kdrun.config.convert import from_plain
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.types import Normalisation

GREY = Normalisation((0.5,) * 3, (0.5,) * 3)
SIDE, COPIES, OTHERS = 96, 8, 40
POLICIES = ("none", "crop_flip", "imagenet", "randaugment", "autoaugment", "trivialaugment")
POLICIES += ("three_augment", "deit", "timm_a2", "timm_a3")
ROWS = {
    **{name: name for name in POLICIES},
    "mixup": {"mixup": {"alpha": 0.8}},
    "cutmix": {"cutmix": {"alpha": 1.0}},
    **{
        f"erasing ({mode})": {"erasing": {"prob": 1.0, "mode": mode}}
        for mode in ("const", "rand", "pixel")
    },
}


def augment(row: str | dict) -> AugmentConfig:
    if isinstance(row, str):
        row = OmegaConf.to_container(OmegaConf.load(f"configs/augment/{row}.yaml"))
        row.pop("defaults")
    return from_plain(AugmentConfig, fill_in(row, CropFlipConfig(12, True)), "augment")


def main(path: str) -> None:
    assert parse  # registers how nodes are read
    images = [photo("flower.jpg")] * COPIES + [photo("china.jpg")] * OTHERS
    split = Split(torch.cat(images), torch.arange(len(images)))
    canvas = Figure((COPIES * 0.97, len(ROWS) * 0.95), layout="constrained")
    canvas.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    grid = canvas.subplots(len(ROWS), COPIES)
    for axes_row, (name, row) in zip(grid, ROWS.items(), strict=True):
        loader = TrainLoader(split, GREY, COPIES, augment(row), 1, "cpu")
        index = torch.arange(COPIES)
        images = loader.images(index, loader.views(0).select(index)) * 0.5 + 0.5
        for axes, image in zip(axes_row, images, strict=True):
            axes.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy())
            axes.set_xticks([])
            axes.set_yticks([])
        axes_row[0].set_ylabel(name, fontsize=7)
    drawn = io.BytesIO()
    canvas.savefig(drawn, dpi=80)
    Image.open(drawn).convert("RGB").quantize(256).save(path, optimize=True)


def photo(name: str) -> torch.Tensor:
    """A square of scikit-learn's photograph, `[1, 3, SIDE, SIDE]`."""
    whole = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None]
    square = whole[:, :, 20:404, 120:504].float()
    small = torch.nn.functional.interpolate(square, (SIDE, SIDE), mode="area").round()
    return small.to(torch.uint8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="the picture to write")
    main(parser.parse_args().file)
