"""SVG elements, axes and legends; the page's style sheet colours them.

All text passes through `element`, which escapes it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

# Pixels; about the width of a phone, where letters stay readable.
WIDTH = 360
FONT = 11
COLOURS = 8
DASHES = ("", "6 3", "2 3", "9 3 2 3")


def element(name: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """`<name ...>children</name>`; `class_` is class, `stroke_width` stroke-width."""
    parts = [name]
    for key, value in attributes.items():
        if value is None:
            continue
        shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
        parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    inside = Markup("").join(escape(child) for child in children)
    return Markup(f"<{' '.join(parts)}>{inside}</{name}>")


@dataclass(frozen=True)
class Chart:
    """A drawing with its title, caption and legend: (sample, name) pairs."""

    title: str
    drawing: Markup
    caption: str
    legend: tuple[tuple[Markup, str], ...] = ()


def image(width: float, height: float, alt: str, *children: Markup) -> Markup:
    """An SVG image with a description for screen readers; a wide one keeps its size."""
    wide = width > 1.5 * WIDTH
    return element(
        "svg",
        element("title", alt),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        width=width if wide else None,
        class_="wide" if wide else None,
        aria_label=alt,
        font_size=FONT,
    )


@dataclass(frozen=True)
class Axis:
    """Maps values low..high to pixels start..end, linearly or logarithmically."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = (math.log10(x) for x in (low, high, value))
        share = 0.5 if high == low else (value - low) / (high - low)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values from low to high, about `most` at most."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(m * size for m in (1, 2, 5, 10) if m * size >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten; only the powers where these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    inside = [x for x in fine if low <= x <= high]
    return inside if len(inside) <= 6 else [x for x in inside if f"{x:e}".startswith("1.0")]


def frame(
    x: Axis,
    y: Axis,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    x_name: str,
    y_name: str,
) -> list[Markup]:
    """Grid, tick labels and names of both axes."""
    parts = []
    for value, text in y_ticks:
        at = y.at(value)
        parts.append(element("line", x1=x.start, x2=x.end, y1=at, y2=at, class_="grid"))
        parts.append(element("text", text, x=x.start - 5, y=at + 4, text_anchor="end"))
    for value, text in x_ticks:
        at = x.at(value)
        parts.append(element("line", x1=at, x2=at, y1=y.end, y2=y.start, class_="grid"))
        parts.append(element("text", text, x=at, y=y.start + 15, text_anchor="middle"))
    middle = (x.start + x.end) / 2
    parts.append(element("text", x_name, x=middle, y=y.start + 31, text_anchor="middle"))
    parts.append(element("text", y_name, x=0.0, y=y.end - 8))
    return parts


def swatch(kind: str, colour: int, dash: str = "") -> Markup:
    """The sample in a legend: a line or a mark."""
    if kind == "line":
        inside = element("line", x1=1.0, x2=23.0, y1=6.0, y2=6.0, class_=f"line c{colour}",
                         stroke_dasharray=dash or None)  # fmt: skip
    elif kind == "front":
        inside = element("line", x1=1.0, x2=23.0, y1=6.0, y2=6.0, class_="front")
    else:
        inside = mark(kind, 12.0, 6.0, colour)
    return element("svg", inside, viewBox="0 0 24 12", class_="swatch", aria_hidden="true")


def mark(kind: str, x: float, y: float, colour: int, title: str = "") -> Markup:
    """A triangle (teacher), ring (baseline) or dot (distilled): distinct without colour."""
    named = [element("title", title)] if title else []
    if kind == "teacher":
        points = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y + 4:.1f} {x - 5:.1f},{y + 4:.1f}"
        return element("polygon", *named, points=points, class_=f"dot c{colour}")
    style = f"ring c{colour}" if kind == "baseline" else f"dot c{colour}"
    return element("circle", *named, cx=x, cy=y, r=4.0, class_=style)
