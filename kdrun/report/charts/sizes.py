"""Accuracy against parameters and FLOPs: teachers, baselines, distilled students."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdrun.report.aggregate import Group
from kdrun.report.charts.svg import (
    WIDTH,
    Axis,
    Chart,
    element,
    frame,
    image,
    log_ticks,
    mark,
    swatch,
    ticks,
)
from kdrun.report.statistics import Mean, mean_of
from kdrun.runs.result import NetworkResult
from kdrun.ui import format

HEIGHT = 280
LEFT, RIGHT, TOP, BOTTOM = 38, 14, 22, 38
KINDS = (("teacher", 1), ("baseline", 8), ("distilled", 0))
MEASURES = (("params", "parameters"), ("flops", "FLOPs per image"))


@dataclass(frozen=True)
class Point:
    """A network: its kind, size and test top-1."""

    kind: str
    name: str
    size: float
    test: Mean


def size_charts(groups: Sequence[Group], labels: Sequence[str], suffix: str = "") -> list[Chart]:
    """A chart for parameters and one for FLOPs; none where no network is measured."""
    charts = []
    for key, measure in MEASURES:
        points = _points(groups, labels, key)
        if not points:
            continue
        shown = "; ".join(
            f"{p.kind} {p.name}: {format.flops(p.size)}, {p.test.mean:.2f} %" for p in points[:20]
        )
        alt = f"Scatter plot: test top-1 % against {measure}. {shown}."
        kinds = [(kind, colour) for kind, colour in KINDS if any(p.kind == kind for p in points)]
        legend = tuple((swatch(kind, colour), _kind_name(kind)) for kind, colour in kinds)
        charts.append(
            Chart(
                f"Accuracy against {measure}{suffix}",
                _draw(alt, points, measure),
                "Test split, mean over seeds; bars: ± standard deviation.",
                legend,
            )
        )
    return charts


def _points(groups: Sequence[Group], labels: Sequence[str], key: str) -> list[Point]:
    networks: dict[tuple[str, str, float], dict[str, float]] = {}
    points = []
    for group, name in zip(groups, labels, strict=True):
        result = group.runs[0].result
        size = _size(result.student, key)
        if size and group.test:
            student = result.student.name or "student"
            points.append(Point("distilled", f"{student} {name}".strip(), size, group.test))
        for run in group.runs:
            for teacher in run.result.teachers:
                size = _size(teacher, key)
                _add(networks, "teacher", str(teacher.name), str(teacher.sha256), size, teacher)
        for seed, baseline in group.baselines.items():
            which = getattr(baseline, "run", None) or str(seed)
            size = _size(baseline, key) or _size(result.student, key)
            _add(networks, "baseline", result.student.name or "student", which, size, baseline)
    for (kind, name, size), values in networks.items():
        mean = mean_of(list(values.values()))
        if mean is not None:
            points.insert(0, Point(kind, name, size, mean))
    return points


def _size(network: NetworkResult, key: str) -> float | None:
    return network.params if key == "params" else network.flops


def _add(
    networks: dict[tuple[str, str, float], dict[str, float]],
    kind: str,
    name: str,
    which: str,
    size: float | None,
    network: NetworkResult,
) -> None:
    """Add a network once, however many rows name it. which: identifies it among its kind."""
    test = network.test.top1
    if size and test is not None:
        networks.setdefault((kind, name, size), {})[which] = test


def _draw(alt: str, points: Sequence[Point], measure: str) -> Markup:
    sizes = [point.size for point in points]
    tops = [p.test.mean + (p.test.sd or 0.0) for p in points]
    bottoms = [p.test.mean - (p.test.sd or 0.0) for p in points]
    margin = max((max(tops) - min(bottoms)) * 0.08, 0.5)
    x = Axis(min(sizes) / 1.6, max(sizes) * 1.6, LEFT, WIDTH - RIGHT, log=True)
    low, high = max(0.0, min(bottoms) - margin), min(100.0, max(tops) + margin)
    y = Axis(low, high, HEIGHT - BOTTOM, TOP)
    parts = frame(
        x,
        y,
        [(t, format.flops(t)) for t in log_ticks(x.low, x.high)],
        [(t, f"{t:g}") for t in ticks(y.low, y.high)],
        measure,
        "test top-1 %",
    )
    colours = dict(KINDS)
    for point in points:
        at, middle = x.at(point.size), y.at(point.test.mean)
        at += {"baseline": -7, "distilled": 0, "teacher": 0}[point.kind]  # side by side, not hidden
        if point.test.sd:
            ends = (y.at(point.test.mean - point.test.sd), y.at(point.test.mean + point.test.sd))
            style = f"bar c{colours[point.kind]}"
            parts.append(element("line", x1=at, x2=at, y1=ends[0], y2=ends[1], class_=style))
        title = f"{_kind_name(point.kind)} {point.name}: {point.test.mean:.2f} %"
        parts.append(mark(point.kind, at, middle, colours[point.kind], title))
    return image(WIDTH, HEIGHT, alt, *parts, *_names(points, x, y))


def _names(points: Sequence[Point], x: Axis, y: Axis) -> list[Markup]:
    """Each network's name once, next to its best mark, on the side with room."""
    best: dict[tuple[float, str], Point] = {}
    for point in points:
        name = point.name.split(" ")[0]
        there = best.get((point.size, name))
        if there is None or point.test.mean > there.test.mean:
            best[point.size, name] = point
    texts = []
    used: list[tuple[bool, float, float]] = []
    for (size, name), point in list(best.items())[:12]:
        left = x.at(size) > (x.start + x.end) / 2
        at, height = x.at(size), y.at(point.test.mean) + 4
        while any(
            side == left and abs(u - at) < 90 and abs(v - height) < 11 for side, u, v in used
        ):
            height += 11  # below the name that is there
        used.append((left, at, height))
        texts.append(
            element("text", name[:24], x=at + (-9 if left else 9), y=height,
                    text_anchor="end" if left else "start")
        )  # fmt: skip
    return texts


def _kind_name(kind: str) -> str:
    return {"distilled": "distilled student"}.get(kind, kind)
