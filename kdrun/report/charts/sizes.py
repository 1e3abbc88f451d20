"""Accuracy against size: teachers, baselines and distilled students, and their Pareto front.

Sizes are parameters, FLOPs, bytes of the weights where a student is quantised, and latency where
it was measured, a chart for each way of measuring it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

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
from kdrun.report.pareto import front, mean_size
from kdrun.report.records import Run, find
from kdrun.report.statistics import Mean, mean_of
from kdrun.runs.footprint import STUDENT, Conditions
from kdrun.runs.result import NetworkResult
from kdrun.ui import format

HEIGHT = 280
LEFT, RIGHT, TOP, BOTTOM = 38, 14, 22, 38
KINDS = (("teacher", 1), ("baseline", 8), ("distilled", 0))
FRONT = "Pareto front: no network is smaller and as accurate. It describes these results and "
FRONT += "chooses nothing."


@dataclass(frozen=True)
class Measure:
    """What accuracy is drawn against. name: of the axis. how: how it was measured.

    student, teacher: the size of a run's student, and of its teacher with that number.
    """

    name: str
    student: Callable[[Run], float | None]
    teacher: Callable[[Run, int], float | None]
    show: Callable[[float], str] = format.flops
    how: str = ""


@dataclass(frozen=True)
class Point:
    """A network: its kind, size and test top-1."""

    kind: str
    name: str
    size: float
    test: Mean


def size_charts(groups: Sequence[Group], labels: Sequence[str], suffix: str = "") -> list[Chart]:
    """A chart for each measure that any network has."""
    charts = []
    for measure in _measures(groups):
        points = _points(groups, labels, measure)
        if not points:
            continue
        best = sorted(front([(p.size, p.test.mean) for p in points]), key=lambda n: points[n].size)
        shown = "; ".join(
            f"{p.kind} {p.name}: {measure.show(p.size)}, {p.test.mean:.2f} %" for p in points[:20]
        )
        alt = f"Scatter plot: test top-1 % against {measure.name}. {shown}."
        kinds = [(kind, colour) for kind, colour in KINDS if any(p.kind == kind for p in points)]
        legend = tuple((swatch(kind, colour), _kind_name(kind)) for kind, colour in kinds)
        caption = "Test split, mean over seeds; bars: ± standard deviation."
        if len(best) > 1:
            named = ", ".join(f"{points[n].name} ({points[n].kind})" for n in best)
            alt += f" Pareto front: {named}."
            legend += ((swatch("front", 0), "Pareto front"),)
            caption += f" {FRONT}"
        if measure.how:
            caption += f" Latency: {measure.how}."
        charts.append(
            Chart(
                f"Accuracy against {measure.name}{suffix}",
                _draw(alt, points, [points[n] for n in best], measure),
                caption,
                legend,
            )
        )
    return charts


def _measures(groups: Sequence[Group]) -> list[Measure]:
    runs = [run for group in groups for run in group.runs]
    measures = [
        Measure(
            "parameters",
            lambda run: run.result.student.params,
            lambda run, number: run.result.teachers[number].params,
        ),
        Measure(
            "FLOPs per image",
            lambda run: run.result.student.flops,
            lambda run, number: run.result.teachers[number].flops,
        ),
    ]
    if any(find(run.config, "student", "quantize") for run in runs):
        measures.append(
            Measure("bytes of the weights", lambda run: run.weight_bytes, _teacher_bytes)
        )
    conditions = dict.fromkeys(one.conditions for run in runs for one in run.latencies)
    return [*measures, *(_latency(one) for one in conditions)]


def _teacher_bytes(run: Run, number: int) -> float | None:
    teachers = run.footprint.teachers if run.footprint else ()
    return teachers[number].bytes if number < len(teachers) else None


def _latency(conditions: Conditions) -> Measure:
    def measured(run: Run, name: str) -> float | None:
        values = [
            one.latency_ms
            for one in run.latencies
            if one.network == name and one.conditions == conditions
        ]
        return values[0] if values else None

    return Measure(
        f"latency in ms ({conditions.program})",
        lambda run: measured(run, STUDENT),
        lambda run, number: measured(run, str(run.result.teachers[number].name)),
        lambda value: f"{value:.3g}",
        str(conditions),
    )


def _points(groups: Sequence[Group], labels: Sequence[str], measure: Measure) -> list[Point]:
    networks: dict[tuple[str, str, float], dict[str, float]] = {}
    points = []
    for group, name in zip(groups, labels, strict=True):
        result = group.runs[0].result
        size = mean_size(group.runs, measure.student)
        if size and group.test:
            student = result.student.name or "student"
            points.append(Point("distilled", f"{student} {name}".strip(), size, group.test))
        for run in group.runs:
            for number, teacher in enumerate(run.result.teachers):
                key = str(teacher.sha256)
                teacher_size = measure.teacher(run, number)
                _add(networks, "teacher", str(teacher.name), key, teacher_size, teacher)
        for seed, baseline in group.baselines.items():
            which = getattr(baseline, "run", None) or str(seed)
            own = _baseline_size(baseline, group, measure, size)
            _add(networks, "baseline", result.student.name or "student", which, own, baseline)
    for (kind, name, size), values in networks.items():
        mean = mean_of(list(values.values()))
        if mean is not None:
            points.insert(0, Point(kind, name, size, mean))
    return points


def _baseline_size(
    baseline: NetworkResult, group: Group, measure: Measure, student: float | None
) -> float | None:
    """Its own size; by measures that it lacks, the student's if it is the same network."""
    if measure.name == "parameters":
        return baseline.params or student
    if measure.name == "FLOPs per image":
        return baseline.flops or student
    same = baseline.params in (None, group.runs[0].result.student.params)
    return student if same else None


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


def _draw(alt: str, points: Sequence[Point], best: Sequence[Point], measure: Measure) -> Markup:
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
        [(t, measure.show(t)) for t in log_ticks(x.low, x.high)],
        [(t, f"{t:g}") for t in ticks(y.low, y.high)],
        measure.name,
        "test top-1 %",
    )
    if len(best) > 1:
        corners = [f"{x.at(p.size):.1f},{y.at(p.test.mean):.1f}" for p in _steps(best)]
        parts.append(element("polyline", points=" ".join(corners), class_="front"))
    colours = dict(KINDS)
    for point in points:
        at, middle = x.at(point.size), y.at(point.test.mean)
        if point.kind == "baseline" and point not in best:
            at -= 7  # side by side, not hidden
        if point.test.sd:
            spread = (point.test.mean - point.test.sd, point.test.mean + point.test.sd)
            ends = [y.at(min(max(end, low), high)) for end in spread]
            style = f"bar c{colours[point.kind]}"
            parts.append(element("line", x1=at, x2=at, y1=ends[0], y2=ends[1], class_=style))
        title = f"{_kind_name(point.kind)} {point.name}: {point.test.mean:.2f} %"
        parts.append(mark(point.kind, at, middle, colours[point.kind], title))
    return image(WIDTH, HEIGHT, alt, *parts, *_names(points, x, y))


def _steps(best: Sequence[Point]) -> list[Point]:
    """The corners of a staircase through the points, which are sorted by size."""
    corners = [best[0]]
    for before, after in pairwise(best):
        corners += [replace(after, test=before.test), after]
    return corners


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
    for (size, _), point in list(best.items())[:12]:
        left = x.at(size) > (x.start + x.end) / 2
        at, height = x.at(size), y.at(point.test.mean) + 4
        while any(
            side == left and abs(u - at) < 90 and abs(v - height) < 11 for side, u, v in used
        ):
            height += 11  # below the name that is there
        used.append((left, at, height))
        texts.append(
            element("text", _short(point.name)[:28], x=at + (-9 if left else 9), y=height,
                    text_anchor="end" if left else "start", class_="name")
        )  # fmt: skip
    return texts


def _short(name: str) -> str:
    """Network and its own settings: `pruned ratio=0.5` of `pruned student.ratio=0.5 T=4`."""
    network, *settings = name.split(" ")
    own = [word.removeprefix("student.") for word in settings if word.startswith("student.")]
    return " ".join([network, *(word.removeprefix("quantize=") for word in own)])


def _kind_name(kind: str) -> str:
    return {"distilled": "distilled student"}.get(kind, kind)
