"""T against alpha: a cell per pair, its mean over seeds, its spread and n."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdrun.report.aggregate import Group
from kdrun.report.groups import Grouped
from kdrun.report.settings import Settings, label
from kdrun.report.statistics import Mean
from kdrun.report.svg import WIDTH, element, picture
from kdrun.ui import format

ROW = 48
LEFT, TOP, BOTTOM = 42, 8, 36
NARROWEST = 78
# Above this luminance black letters stand out more than white ones; either then has a contrast of
# 4.58 or more.
TURN = 0.179
# Light to dark blue: read by anyone, and in print; the number in a cell says it exactly.
SCALE = ((222, 235, 247), (158, 202, 225), (66, 146, 198), (8, 81, 156), (8, 48, 107))


@dataclass(frozen=True)
class Chart:
    """A drawing with its heading and what is written under it."""

    title: str
    drawing: Markup
    caption: str
    legend: tuple[tuple[Markup, str], ...] = ()


def heat_maps(grouped: Grouped) -> list[Chart]:
    """Validation and test, for each combination of the other settings, where both vary."""
    if not {"T", "alpha"} <= set(grouped.names):
        return []
    others = [name for name in grouped.names if name not in ("T", "alpha")]
    parts: dict[str, list[Group]] = {}
    for group in grouped.groups:
        if {"T", "alpha"} <= set(group.settings):
            parts.setdefault(label(group.settings, others), []).append(group)
    charts = []
    for name, groups in parts.items():
        xs, ys = (_values(groups, key) for key in ("T", "alpha"))
        if len(xs) < 2 or len(ys) < 2:
            continue
        best = groups[0].settings  # groups come best validation accuracy first
        for split in ("best validation", "test"):
            charts.append(_chart(name, split, groups, xs, ys, best))
    return charts


def _chart(
    name: str, split: str, groups: list[Group], xs: list[str], ys: list[str], best: Settings
) -> Chart:
    means = {}
    for group in groups:
        found = group.test if split == "test" else group.best_val
        if found is not None:
            means[group.settings["T"], group.settings["alpha"]] = found
    title = f"{split.capitalize()} top-1 % by T and alpha" + (f", {name}" if name else "")
    shown = [f"T={x} alpha={y}: {_words(means[x, y])}" for x, y in means]
    alt = f"Heat map. {title}. {'; '.join(shown)}."
    chosen = (best["T"], best["alpha"])
    epoch = "last epoch" if split == "test" else "best epoch"
    caption = f"Mean ± standard deviation over n seeds, {epoch}. "
    caption += "The frame marks the cell that is best on validation." if split == "test" else (
        "Choose by this one; the frame marks the best."
    )  # fmt: skip
    return Chart(title, _draw(alt, means, xs, ys, chosen), caption)


def _draw(
    alt: str,
    means: dict[tuple[str, str], Mean],
    xs: Sequence[str],
    ys: Sequence[str],
    chosen: tuple[str, str],
) -> Markup:
    column = max(NARROWEST, (WIDTH - LEFT) / len(xs))
    width, height = LEFT + column * len(xs), TOP + ROW * len(ys) + BOTTOM
    low = min((m.mean for m in means.values()), default=0.0)
    high = max((m.mean for m in means.values()), default=1.0)
    parts, frames = [], []
    for row, y in enumerate(reversed(ys)):
        top = TOP + row * ROW
        parts.append(element("text", y, x=LEFT - 6, y=top + ROW / 2 + 4, text_anchor="end"))
        for place, x in enumerate(xs):
            left = LEFT + place * column
            parts.append(_cell(means.get((x, y)), left, top, column, low, high, f"T={x} alpha={y}"))
            if (x, y) == chosen:
                frames.append(element("rect", x=left + 2, y=top + 2.0, width=column - 5,
                                      height=ROW - 5.0, class_="frame"))  # fmt: skip
    for place, x in enumerate(xs):
        middle = LEFT + (place + 0.5) * column
        parts.append(element("text", x, x=middle, y=height - 22.0, text_anchor="middle"))
    parts.append(element("text", "T", x=(LEFT + width) / 2, y=height - 6.0, text_anchor="middle"))
    parts.append(element("text", "alpha", x=0.0, y=TOP + 8.0))
    return picture(width, height, alt, *parts, *frames)


def _cell(
    mean: Mean | None, left: float, top: float, width: float, low: float, high: float, name: str
) -> Markup:
    box = {"x": left, "y": float(top), "width": width - 1.5, "height": ROW - 1.5, "rx": 3.0}
    if mean is None:
        title = element("title", f"{name}: no finished run")
        return element("g", title, element("rect", **box, class_="empty"))
    share = 0.5 if high == low else (mean.mean - low) / (high - low)
    red, green, blue = colour(share)
    ink = "#ffffff" if luminance(red, green, blue) < TURN else "#000000"
    middle = left + width / 2 - 0.75
    spread = "" if mean.sd is None else f"± {mean.sd:.2f}  "
    texts = (
        (f"{mean.mean:.2f}", 20.0, 15, "600"),
        (f"{spread}n={mean.n}", 37.0, 10.5, "400"),
    )
    return element(
        "g",
        element("title", f"{name}: {_words(mean)}"),
        element("rect", **box, fill=f"rgb({red},{green},{blue})"),
        *(
            element("text", text, x=middle, y=top + down, text_anchor="middle", fill=ink,
                    font_size=size, font_weight=weight)
            for text, down, size, weight in texts
        ),
    )  # fmt: skip


def colour(share: float) -> tuple[int, int, int]:
    """The colour of a cell, from 0 (the lowest) to 1."""
    place = min(max(share, 0.0), 1.0) * (len(SCALE) - 1)
    first = min(int(place), len(SCALE) - 2)
    part = place - first
    red, green, blue = (
        round(a + part * (b - a)) for a, b in zip(SCALE[first], SCALE[first + 1], strict=True)
    )
    return red, green, blue


def luminance(red: int, green: int, blue: int) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2, section 1.4.3)."""
    parts = [value / 255 for value in (red, green, blue)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _words(mean: Mean) -> str:
    spread = "" if mean.sd is None else f" ± {format.percent(mean.sd)}"
    return f"{format.percent(mean.mean)}{spread} %, n={mean.n}"


def _values(groups: list[Group], key: str) -> list[str]:
    def size(text: str) -> tuple[float, str]:
        try:
            return float(text), text
        except ValueError:
            return float("inf"), text

    return sorted({group.settings[key] for group in groups}, key=size)
