"""Draw the pictures of docs/results.md from the folders of measured runs.

    python benchmarks/draw_results.py temperature outputs/distill/mnist
    python benchmarks/draw_results.py gamma outputs/distill/c20
    python benchmarks/draw_results.py loss-error outputs/distill/c20
    python benchmarks/draw_results.py bias outputs/distill/mnist

Each writes docs/images/results_<kind>.png (or into the folder of --to) from the finished runs below
the folders: mean and standard deviation over seeds, errors of the last epoch on the test split.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogFormatter, NullLocator

from kdrun.errors import ConfigError
from kdrun.report.aggregate import Group
from kdrun.report.figures.drawing import ALONE, DISTILLED, Theme, draw
from kdrun.report.groups import group
from kdrun.report.records import Run, collect, number
from kdrun.report.statistics import mean_of

TEST_ERROR = "test error, %"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1b2530", "#6b7178")
MARKERS = "osD^vP*X"
SP = "loss.sp.weight"


def main() -> None:
    """Draw one kind of picture."""
    parser = argparse.ArgumentParser(description="Draw a picture of docs/results.md.")
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("runs", nargs="+", type=Path, help="folders that hold runs")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "images")
    given = parser.parse_args()
    try:
        groups = group(collect(given.runs).runs).groups
        title, inches, paint = KINDS[given.kind](groups)
    except ConfigError as error:
        sys.exit(f"error: {error}")
    name = f"results_{given.kind.replace('-', '_')}"
    given.to.mkdir(parents=True, exist_ok=True)
    (given.to / f"{name}.png").write_bytes(draw(name, title, "", title, inches, paint).light)
    print(given.to / f"{name}.png")


Drawn = tuple[str, tuple[float, float], Callable[[Figure, Theme], None]]


def temperature(groups: Sequence[Group]) -> Drawn:
    """Test error over T, a panel for each student."""
    by_student = _by(groups, "T", "student")

    def paint(figure: Figure, theme: Theme) -> None:
        places = figure.subplots(1, len(by_student), squeeze=False)[0]
        for axes, (student, found) in zip(places, by_student.items(), strict=True):
            _over_setting(axes, theme, found, "T")
            axes.set(title=f"student {student}", xlabel="temperature T", ylabel=TEST_ERROR)
            axes.legend()

    return "Test error over the temperature", (4.2 * len(by_student), 3.2), paint


def gamma(groups: Sequence[Group]) -> Drawn:
    """Test error over the weight of SP."""
    only_sp = [one for one in groups if one.settings.get("loss") == "sp"]
    chosen = [one for one in only_sp if float(one.settings.get(SP, 0)) > 0]
    by_pair = _by(chosen, SP, "teacher", "student")

    def paint(figure: Figure, theme: Theme) -> None:
        places = figure.subplots(1, len(by_pair), squeeze=False)[0]
        for axes, (pair, found) in zip(places, by_pair.items(), strict=True):
            _over_setting(axes, theme, found, SP)
            axes.set(title=pair.replace(" / ", " → "), xlabel="γ, the weight of SP",
                     ylabel=TEST_ERROR)  # fmt: skip
            axes.legend()

    return "Test error over the weight of SP", (4.6 * len(by_pair), 3.2), paint


def loss_error(groups: Sequence[Group]) -> Drawn:
    """Test error against the SP loss on the training images in the last epoch, a dot for a run."""
    dots: dict[tuple[str, str, float], list[tuple[float, float]]] = {}
    for one in groups:
        student, weight = one.settings.get("student", ""), float(one.settings.get(SP, 0))
        loss_name = one.settings.get("loss", "")
        for run in one.runs:
            loss, error = _last(run, "train/sp"), _error(run)
            if loss is not None and error is not None:
                dots.setdefault((student, loss_name, weight), []).append((loss, error))
    _require(dots, "no run with an sp term (loss=sp; loss.sp.weight=0 only notes it)")

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        students = sorted({student for student, _, _ in dots})
        objectives = sorted({(loss != "sp", loss, weight) for _, loss, weight in dots})
        markers = dict(zip(students, cycle(MARKERS), strict=False))
        colours = dict(zip(objectives, cycle(COLOURS), strict=False))
        for (student, loss, weight), found in sorted(dots.items()):
            x, y = zip(*found, strict=True)
            more = "" if loss == "sp" else f"{loss}, "
            axes.plot(x, y, markers[student], color=colours[loss != "sp", loss, weight],
                      markersize=6, label=f"{student}, {more}γ={weight:g}")  # fmt: skip
        axes.set(xscale="log", xlabel="SP loss on the training images, last epoch",
                 ylabel=TEST_ERROR)  # fmt: skip
        _plain(axes.xaxis)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))

    return "Test error against the SP loss", (7.2, 3.6), paint


def bias(groups: Sequence[Group]) -> Drawn:
    """Errors over the shift of the left-out classes' bias."""
    chosen = {
        _left_out(one): one for one in groups if one.runs[0].result.student.extra.get("bias_curve")
    }
    _require(chosen, "no run with transfer.bias")

    def paint(figure: Figure, theme: Theme) -> None:
        places = figure.subplots(1, len(chosen), squeeze=False)[0]
        for axes, (title, one) in zip(places, chosen.items(), strict=True):
            _bias_curve(axes, theme, one)
            axes.set(title=title, xlabel="shift of the left-out classes' logits",
                     ylabel="test errors", yscale="log")  # fmt: skip
            _plain(axes.yaxis)
            axes.legend()

    return "Errors over the bias of left-out classes", (4.6 * len(chosen), 3.4), paint


def _bias_curve(axes: Axes, theme: Theme, one: Group) -> None:
    curves: list[dict[str, list[float]]] = [
        run.result.student.extra["bias_curve"] for run in one.runs
    ]
    shifts = curves[0]["shift"]
    for key, name, style in (("errors", "all test images", "-"), ("errors_left_out",
                             "images of left-out classes", "--")):  # fmt: skip
        means = [mean_of([curve[key][place] for curve in curves]) for place in range(len(shifts))]
        values = [max(found.mean, 0.5) for found in means if found is not None]
        axes.plot(shifts, values, style, color=theme.of[DISTILLED], label=name)
    matched = mean_of([run.result.student.bias_corrected.shift for run in one.runs])
    if matched is not None:
        axes.axvline(matched.mean, color=theme.of[ALONE], linestyle=":", label="match")


def _left_out(one: Group) -> str:
    left_out = one.runs[0].result.transfer.classes_left_out
    kept = one.settings.get("transfer.only_classes")
    return f"without {', '.join(left_out)}" if not kept else f"only {kept}"


def _over_setting(axes: Axes, theme: Theme, found: list[Group], name: str) -> None:
    """Mean and deviation of the error over a setting, and those of the student alone."""
    points = sorted(
        (float(one.settings[name]), 100 - one.test.mean, one.test.sd or 0.0)
        for one in found
        if one.test is not None
    )
    x, y, sd = zip(*points, strict=True)
    axes.errorbar(x, y, sd, fmt="o-", capsize=3, color=theme.of[DISTILLED], label="distilled")
    alone = mean_of([v.test.top1 for one in found for v in one.baselines.values()])
    if alone is not None:
        colour = theme.of[ALONE]
        axes.axhline(100 - alone.mean, color=colour, linestyle="--", label="student alone")
        axes.axhspan(100 - alone.mean - (alone.sd or 0), 100 - alone.mean + (alone.sd or 0),
                     color=colour, alpha=0.15, linewidth=0)  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(x))
    axes.xaxis.set_minor_locator(NullLocator())
    _plain(axes.xaxis)


def _plain(axis: Axis) -> None:
    """Numbers as such, instead of powers of ten."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))


def _by(groups: Sequence[Group], varied: str, *names: str) -> dict[str, list[Group]]:
    """Groups that have the varied setting, by what they have in common; two values at least."""
    found: dict[str, list[Group]] = {}
    for one in groups:
        if varied in one.settings and one.settings.get("loss") != "ce":
            words = [_named(one, name) for name in names]
            found.setdefault(" / ".join(words), []).append(one)
    several = {
        key: kept
        for key, kept in sorted(found.items())
        if len({one.settings[varied] for one in kept}) > 1
    }
    _require(several, f"no two runs that differ in {varied}")
    return several


def _named(one: Group, name: str) -> str:
    """`mlp (300,300)`: a network's name, with the widths that tell it from others."""
    hidden = one.settings.get(f"{name}.hidden")
    shown = one.settings.get(name, "")
    return f"{shown} {hidden}" if hidden is not None else shown


def _error(run: Run) -> float | None:
    top1 = run.result.student.test.top1
    return None if top1 is None else 100 - top1


def _last(run: Run, name: str) -> float | None:
    values = [number(row, name) for row in run.metrics]
    return next((value for value in reversed(values) if value is not None), None)


def _require(found: Any, what: str) -> None:
    if not found:
        raise ConfigError(f"These folders hold {what}.")


KINDS: dict[str, Callable[[Sequence[Group]], Drawn]] = {
    "temperature": temperature,
    "gamma": gamma,
    "loss-error": loss_error,
    "bias": bias,
}


if __name__ == "__main__":
    main()
