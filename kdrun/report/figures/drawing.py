"""The data behind a run's figures, and their rendering for light and dark screens."""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from kdrun.report.figures.store import StoredFigure

DPI = 144
CSS_DPI = 96
TEACHER, ALONE, DISTILLED = "teacher", "student alone", "student distilled"
# With more classes than this, axes have no class names.
NAMED = 24
# The first font that has a letter draws it; for class names in any script.
FONTS = ("DejaVu Sans", "Noto Sans CJK KR", "Noto Sans CJK JP", "Noto Sans CJK SC", "NanumGothic",
         "Malgun Gothic", "Apple SD Gothic Neo", "Arial Unicode MS")  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """The networks of one run on the test split, by role (TEACHER, ALONE, DISTILLED).

    classes: names by number. targets: `[N]`. logits: role → `[N, C]`; the run's student is always
    there. sample: `[S]`, positions in the test split. features: role → tap → `[S, ...]`, stages in
    order, or embeddings where there are none. shown: positions → images `[..., C, H, W]`, 0..1.
    class_maps: role → `[S, H, W]`, the activation map of each sampled image's own class, for
    networks that have one.
    """

    classes: tuple[str, ...]
    targets: Tensor
    logits: dict[str, Tensor]
    sample: Tensor
    features: dict[str, dict[str, Tensor]]
    shown: Callable[[Tensor], Tensor]
    temperature: float | None = None
    student: str = DISTILLED
    class_maps: dict[str, Tensor] = field(default_factory=dict)

    def name(self, number: int, most: int = 14) -> str:
        """The name of a class, truncated to `most` letters."""
        name = self.classes[number]
        return name if len(name) <= most else f"{name[: most - 1]}…"


@dataclass(frozen=True)
class Theme:
    """Colours of a light or dark screen."""

    back: str
    ink: str
    edge: str
    of: dict[str, str]
    low: str
    high: str

    @property
    def ramp(self) -> Colormap:
        """From the background to the strongest colour."""
        return LinearSegmentedColormap.from_list("ramp", [self.low, self.high])


Paint = Callable[[Canvas, Theme], None]

THEMES = {
    "light": Theme("#f6f7f9", "#1b2530", "#d5dae0",
                   {TEACHER: "#d55e00", ALONE: "#6b7178", DISTILLED: "#0072b2"},
                   "#f6f7f9", "#08306b"),
    "dark": Theme("#1d242c", "#e7ebef", "#37414c",
                  {TEACHER: "#ff8c42", ALONE: "#aab2ba", DISTILLED: "#4da6e0"},
                  "#1d242c", "#a9d6ff"),
}  # fmt: skip


def draw(
    name: str,
    title: str,
    caption: str,
    alt: str,
    inches: tuple[float, float],
    paint: "Paint",
) -> StoredFigure:
    """Render what `paint` draws on a canvas of that size, once per theme."""
    drawn = {key: _png(inches, theme, paint) for key, theme in THEMES.items()}
    width, height = (round(side * CSS_DPI) for side in inches)
    return StoredFigure(name, title, caption, alt, width, height, drawn["light"], drawn["dark"])


def show_image(axes: Axes, image: Tensor) -> None:
    """An image `[C, H, W]` in 0..1: grey, or the first three channels as colours."""
    axes.set_axis_off()
    if image.shape[0] >= 3:
        axes.imshow(image[:3].permute(1, 2, 0).numpy(), interpolation="nearest")
    else:
        axes.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _png(
    inches: tuple[float, float], theme: Theme, paint: Callable[[Canvas, Theme], None]
) -> bytes:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    settings: Any = {
        "font.family": [name for name in FONTS if name in installed],
        "font.size": 9.0,
        "axes.titlesize": 9.0,
        "text.parse_math": False,  # a class may be called `$x^`
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.edge,
        "axes.facecolor": theme.back,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "legend.frameon": False,
    }
    content = io.BytesIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # a letter that no font has is drawn as a box; a warning for each is noise
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas = Canvas(figsize=inches, dpi=DPI, facecolor=theme.back, layout="constrained")
        paint(canvas, theme)
        canvas.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
