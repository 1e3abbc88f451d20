"""Augmented training images: the plain image next to what student and teacher see of it."""

from dataclasses import dataclass

from matplotlib.figure import Figure as Canvas
from torch import Tensor

from kdrun.report.figures.drawing import Theme, draw
from kdrun.report.figures.store import StoredFigure


@dataclass(frozen=True)
class View:
    """One column of the figure. images: `[S, C, H, W]` in 0..1."""

    title: str
    images: Tensor


def augmented(columns: list[View], settings: str) -> StoredFigure:
    """A row per image, a column per view. settings: description of the augmentation."""
    rows = len(columns[0].images)

    def paint(canvas: Canvas, theme: Theme) -> None:
        grid = canvas.subplots(rows, len(columns), squeeze=False)
        for number, column in enumerate(columns):
            grid[0][number].set_title(column.title, fontsize=9)
            for axes, image in zip(grid[:, number], column.images, strict=True):
                pixels = image.movedim(0, 2).squeeze(2).numpy()
                axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])

    return draw(
        "augmented",
        "Augmented training images",
        f"Training images without augmentation and as the networks see them: {settings}.",
        f"{rows} training images, each in {len(columns)} views: "
        f"{', '.join(column.title for column in columns)}.",
        (1.15 * len(columns), 1.15 * rows + 0.35),
        paint,
    )
