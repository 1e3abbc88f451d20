"""Two numeric settings: a heat map where they form a grid, a scatter plot where they do not."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdrun.report.aggregate import Group
from kdrun.report.charts.svg import WIDTH, Axis, Chart, element, frame, image, log_ticks, ticks
from kdrun.report.metrics_table import TEST, WINNER, Metric
from kdrun.report.sections import Section
from kdrun.report.settings import label
from kdrun.report.statistics import Mean

ROW = 48
LEFT, TOP, BOTTOM = 42, 18, 36
NARROWEST = 78
# A grid is filled at least to this share and has at most as many columns and rows.
FILLED, LARGEST = 0.5, 10
SCATTER_HEIGHT = 280
# Above this luminance black letters stand out more than white ones; either has a contrast of 4.58
# or more.
TURN = 0.179
# Light to dark blue, readable with any colour vision and in print.
SCALE = ((222, 235, 247), (158, 202, 225), (66, 146, 198), (8, 81, 156), (8, 48, 107))


@dataclass(frozen=True)
class Plane:
    """Groups over two settings. split: what is shown. means: (x, y) as text → mean."""

    x: str
    y: str
    split: str
    means: dict[tuple[str, str], Mean]
    best: tuple[str, str]

    def values(self, axis: int) -> list[str]:
        """The values of the setting on an axis, in numeric order."""
        return sorted({key[axis] for key in self.means}, key=float)

    def name(self, key: tuple[str, str]) -> str:
        """`T=4 alpha=0.9`."""
        return f"{self.x}={key[0]} {self.y}={key[1]}"

    def describe(self) -> str:
        """All values, for a reader who cannot see the chart."""
        return "; ".join(f"{self.name(key)}: {_describe(mean)}" for key, mean in self.means.items())


def plane_charts(section: Section) -> list[Chart]:
    """Validation and test accuracy over two settings, for each combination of the others.

    The settings are T and alpha, or the first two numeric ones that a sweep or search varies.
    """
    numeric = [name for name in section.labels if _is_numeric(section.groups, name)]
    varied = tuple(name for name in numeric if name in section.experiment.varied)
    pair = ("T", "alpha") if {"T", "alpha"} <= set(numeric) else varied[:2]
    if len(pair) < 2:
        return []
    others = [name for name in section.labels if name not in pair]
    parts: dict[str, list[Group]] = {}
    for group in section.groups:
        if set(pair) <= set(group.settings):
            parts.setdefault(label(group.settings, others), []).append(group)
    charts = []
    for name, groups in parts.items():
        for split, metric in (("best validation", WINNER), ("test", TEST)):
            plane = _plane(groups, pair, split, metric)
            if plane is not None:
                charts.append(_chart(plane, name))
    return charts


def _plane(
    groups: Sequence[Group], pair: Sequence[str], split: str, metric: Metric
) -> Plane | None:
    """None unless both settings vary."""
    x, y = pair
    means = {(g.settings[x], g.settings[y]): mean for g in groups if (mean := g.mean(metric))}
    best = groups[0].settings  # groups are sorted by validation accuracy
    plane = Plane(x, y, split, means, (best[x], best[y]))
    return plane if min(len(plane.values(0)), len(plane.values(1))) > 1 else None


def _chart(plane: Plane, name: str) -> Chart:
    columns, rows = len(plane.values(0)), len(plane.values(1))
    grid = len(plane.means) >= FILLED * columns * rows and max(columns, rows) <= LARGEST
    title = f"{plane.split.capitalize()} top-1 % by {plane.x} and {plane.y}"
    title += f", {name}" if name else ""
    epoch = "last epoch" if plane.split == "test" else "best epoch"
    marked = "Framed: best on validation."
    if not grid:
        marked = (
            f"Darker is higher, from {_low(plane):.2f} to {_high(plane):.2f} %. Circled: best on "
            "validation."
        )
    caption = f"Mean over n seeds, {epoch}. {marked}"
    kind, drawing = ("Heat map", _heat_map) if grid else ("Scatter plot", _scatter)
    return Chart(title, drawing(plane, f"{kind}. {title}. {plane.describe()}."), caption)


def _heat_map(plane: Plane, alt: str) -> Markup:
    xs, ys = plane.values(0), plane.values(1)
    column = max(NARROWEST, (WIDTH - LEFT) / len(xs))
    width, height = LEFT + column * len(xs), TOP + ROW * len(ys) + BOTTOM
    parts, frames = [], []
    for row, y in enumerate(reversed(ys)):
        top = TOP + row * ROW
        parts.append(element("text", y, x=LEFT - 6, y=top + ROW / 2 + 4, text_anchor="end"))
        for place, x in enumerate(xs):
            left = LEFT + place * column
            parts.append(_cell(plane, (x, y), left, top, column))
            if (x, y) == plane.best:
                frames.append(element("rect", x=left + 2, y=top + 2.0, width=column - 5,
                                      height=ROW - 5.0, class_="frame"))  # fmt: skip
    for place, x in enumerate(xs):
        middle = LEFT + (place + 0.5) * column
        parts.append(element("text", x, x=middle, y=height - 22.0, text_anchor="middle"))
    middle = (LEFT + width) / 2
    parts.append(element("text", plane.x, x=middle, y=height - 6.0, text_anchor="middle"))
    parts.append(element("text", plane.y, x=0.0, y=TOP - 7.0))
    return image(width, height, alt, *parts, *frames)


def _cell(plane: Plane, key: tuple[str, str], left: float, top: float, width: float) -> Markup:
    mean, name = plane.means.get(key), plane.name(key)
    box = {"x": left, "y": float(top), "width": width - 1.5, "height": ROW - 1.5, "rx": 3.0}
    if mean is None:
        title = element("title", f"{name}: no finished run")
        return element("g", title, element("rect", **box, class_="empty"))
    rgb = _shade(plane, mean)
    ink = "#ffffff" if luminance(*rgb) < TURN else "#000000"
    middle = left + width / 2 - 0.75
    spread = "" if mean.sd is None else f"± {mean.sd:.2f}  "
    texts = (
        (f"{mean.mean:.2f}", 20.0, 15, "600"),
        (f"{spread}n={mean.n}", 37.0, 10.5, "400"),
    )
    return element(
        "g",
        element("title", f"{name}: {_describe(mean)}"),
        element("rect", **box, fill=_css(rgb)),
        *(
            element("text", text, x=middle, y=top + down, text_anchor="middle", fill=ink,
                    font_size=size, font_weight=weight)
            for text, down, size, weight in texts
        ),
    )  # fmt: skip


def _scatter(plane: Plane, alt: str) -> Markup:
    x = _axis([float(v) for v in plane.values(0)], LEFT, WIDTH - 12)
    y = _axis([float(v) for v in plane.values(1)], SCATTER_HEIGHT - BOTTOM, TOP + 6)
    parts = frame(x, y, _tick_labels(x), _tick_labels(y), plane.x, plane.y)
    lowest_first = sorted(plane.means.items(), key=lambda item: item[1].mean)
    for key, mean in lowest_first:
        at = {"cx": x.at(float(key[0])), "cy": y.at(float(key[1]))}
        title = element("title", f"{plane.name(key)}: {_describe(mean)}")
        parts.append(
            element("circle", title, **at, r=6.0, class_="point", fill=_css(_shade(plane, mean)))
        )
        if key == plane.best:
            parts.append(element("circle", **at, r=9.5, class_="frame"))
    return image(WIDTH, SCATTER_HEIGHT, alt, *parts)


def _axis(values: Sequence[float], start: float, end: float) -> Axis:
    """Logarithmic where the values span more than a decade."""
    low, high = min(values), max(values)
    if low > 0 and high / low > 10:
        return Axis(low / 1.15, high * 1.15, start, end, log=True)
    margin = (high - low) * 0.06
    return Axis(low - margin, high + margin, start, end)


def _tick_labels(axis: Axis) -> list[tuple[float, str]]:
    values = log_ticks(axis.low, axis.high) if axis.log else ticks(axis.low, axis.high)
    return [(value, f"{value:g}") for value in values]


def _shade(plane: Plane, mean: Mean) -> tuple[int, int, int]:
    low, high = _low(plane), _high(plane)
    return colour(0.5 if high == low else (mean.mean - low) / (high - low))


def colour(share: float) -> tuple[int, int, int]:
    """The colour of a value, from 0 (the lowest) to 1."""
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


def _is_numeric(groups: Sequence[Group], name: str) -> bool:
    texts = [group.settings[name] for group in groups if name in group.settings]
    try:
        return all(abs(float(text)) < float("inf") for text in texts)  # false for nan, too
    except ValueError:
        return False


def _low(plane: Plane) -> float:
    return min(mean.mean for mean in plane.means.values())


def _high(plane: Plane) -> float:
    return max(mean.mean for mean in plane.means.values())


def _css(rgb: tuple[int, int, int]) -> str:
    return f"rgb({','.join(map(str, rgb))})"


def _describe(mean: Mean) -> str:
    return f"{mean.text()} %, n={mean.n}"
