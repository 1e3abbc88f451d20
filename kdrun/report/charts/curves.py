"""Learning curves of a section's rows: validation accuracy by epoch, averaged over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdrun.report.aggregate import Group
from kdrun.report.charts.svg import (
    COLOURS,
    DASHES,
    WIDTH,
    Axis,
    Chart,
    element,
    frame,
    image,
    mark,
    swatch,
    ticks,
)
from kdrun.report.groups import baseline_runs
from kdrun.report.metrics_table import VAL
from kdrun.report.records import Run, number
from kdrun.report.statistics import mean_of

HEIGHT = 300
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 22, 38
# Rows beyond the coloured ones are grey; beyond those they are not drawn.
GREY = 60
# From this number of epochs on, the axis leaves out the steep first quarter.
LONG = 8


@dataclass(frozen=True)
class Line:
    """epoch → percent."""

    name: str
    points: dict[float, float]
    colour: int
    dash: str
    style: str = "line"


def learning_curves(groups: Sequence[Group], labels: Sequence[str], key: str = "") -> Chart | None:
    """None when no run has validation metrics. key: tells this chart's ids from others'."""
    lines = _lines(groups, labels)
    if not lines:
        return None
    named = [line for line in lines if line.name]
    ends = "; ".join(f"{line.name} ends at {_last(line):.2f} %" for line in named)
    alt = f"Learning curves: validation top-1 % by epoch, mean over seeds. {ends}."
    hidden = len([group for group in groups if _curve(group.runs)]) - COLOURS
    caption = "Validation split, mean over seeds."
    if hidden > 0:
        caption += f" Coloured: the {COLOURS} best on validation; grey: the others"
        caption += f", {hidden - GREY} of which are not drawn." if hidden > GREY else "."
    legend = tuple((swatch("line", line.colour, line.dash), line.name) for line in named)
    return Chart("Learning curves", _draw(alt, lines, f"curves{key}"), caption, legend)


def _lines(groups: Sequence[Group], labels: Sequence[str]) -> list[Line]:
    lines: list[Line] = []
    for group, name in zip(groups, labels, strict=True):
        points = _curve(group.runs)
        if not points or len(lines) >= COLOURS + GREY:
            continue
        place = len(lines)
        if place < COLOURS:
            lines.append(Line(name or "student", points, place, DASHES[place % len(DASHES)]))
        else:
            lines.append(Line("", points, 9, "", "line faint"))
    baseline = _curve(baseline_runs(groups[0])) if groups else {}
    if baseline:
        lines.append(Line("baseline of the first row", baseline, 8, "1 3"))
    return lines


def _curve(runs: Sequence[Run]) -> dict[float, float]:
    """epoch → mean validation top-1 over the runs that have it."""
    values: dict[float, list[float]] = {}
    for run in runs:
        for row in run.metrics:
            epoch, value = number(row, "epoch"), number(row, VAL)
            if epoch is not None and value is not None:
                values.setdefault(epoch, []).append(value)
    means = {epoch: mean_of(list(values[epoch])) for epoch in sorted(values)}
    return {epoch: mean.mean for epoch, mean in means.items() if mean is not None}


def _draw(alt: str, lines: Sequence[Line], clip_id: str) -> Markup:
    last = max(max(line.points) for line in lines)
    first = min(min(line.points) for line in lines)
    start = first + (last - first) / 4 if last - first >= LONG else first
    later = [v for line in lines for e, v in line.points.items() if e >= start]
    low, high = min(later), max(later)
    margin = max((high - low) * 0.05, 0.5)
    room = 0.5 if first == last else 0.0
    x = Axis(first - room, last + room, LEFT, WIDTH - RIGHT)
    y = Axis(max(0.0, low - margin), min(100.0, high + margin), HEIGHT - BOTTOM, TOP)
    axes = frame(
        x,
        y,
        [(t, f"{t:g}") for t in ticks(x.low, x.high) if t == int(t)],
        [(t, f"{t:g}") for t in ticks(y.low, y.high)],
        "epoch",
        "validation top-1 %",
    )
    box = {"x": float(LEFT), "y": float(TOP), "width": x.end - x.start, "height": y.start - y.end}
    clip = element("clipPath", element("rect", **box), id=clip_id)
    drawn = [
        element(
            "polyline",
            element("title", line.name),
            points=" ".join(f"{x.at(e):.1f},{y.at(v):.1f}" for e, v in line.points.items()),
            class_=f"{line.style} c{line.colour}",
            stroke_dasharray=line.dash or None,
        )
        for line in reversed(lines)  # the best on top
    ]
    for line in reversed(lines):
        if len(line.points) == 1:  # a line through one point is not visible
            ((epoch, value),) = line.points.items()
            drawn.append(mark("baseline", x.at(epoch), y.at(value), line.colour, line.name))
    inside = element("g", *drawn, clip_path=f"url(#{clip_id})")
    return image(WIDTH, HEIGHT, alt, clip, *axes, inside)


def _last(line: Line) -> float:
    return line.points[max(line.points)]
