"""Errors: confusion matrices, reliability diagrams, and change of accuracy by class."""

import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from kdrun.engine.metrics import ECE_BINS as BINS
from kdrun.report.figures.drawing import ALONE, NAMED, Evidence, Theme, draw
from kdrun.report.figures.store import StoredFigure

NUMBERED = 12  # classes up to which a matrix shows its counts
EXTREMES = 15


def confusion(evidence: Evidence) -> StoredFigure:
    """Labels against predictions, for each network."""
    matrices = {who: confusion_matrix(z, evidence.targets) for who, z in evidence.logits.items()}
    side = 2.2 + 0.09 * min(len(evidence.classes), NAMED)

    def paint(canvas: Canvas, theme: Theme) -> None:
        grid = canvas.subplots(1, len(matrices), squeeze=False)[0]
        for number, (axes, (who, matrix)) in enumerate(zip(grid, matrices.items(), strict=True)):
            share = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
            axes.imshow(share.numpy(), cmap=theme.ramp, norm=PowerNorm(0.5, 0, 1))
            wrong = int(matrix.sum() - matrix.diagonal().sum())
            axes.set_title(f"{who}: {wrong} error{'' if wrong == 1 else 's'}")
            axes.set_xlabel("prediction")
            if number == 0:
                axes.set_ylabel("label")
            _class_ticks(axes, evidence, labelled=number == 0)
            if len(evidence.classes) <= NUMBERED:
                _counts(axes, matrix, share, theme)

    student = matrices[evidence.student]
    worst = _pairs(student, evidence)
    listed = ", ".join(worst) or "none"
    return draw(
        "confusion",
        "Confusion matrices",
        "Rows are labels, columns predictions. Colour: square root of the share of the label, so "
        f"that few errors show too. The student's most frequent errors: {listed}.",
        f"Confusion matrices of {', '.join(matrices)} on the test split. "
        f"The student's most frequent errors: {listed}.",
        (side * len(matrices), side + 0.35),
        paint,
    )


def reliability(evidence: Evidence) -> StoredFigure:
    """Accuracy by confidence; the diagonal is perfect calibration.

    Guo et al. 2017, arXiv 1706.04599, section 2.
    """
    curves = {who: calibration(z, evidence.targets) for who, z in evidence.logits.items()}

    def paint(canvas: Canvas, theme: Theme) -> None:
        grid = canvas.subplots(1, len(curves), squeeze=False, sharey=True)[0]
        for axes, (who, (share, confidence, accuracy, ece)) in zip(
            grid, curves.items(), strict=True
        ):
            full = share > 0
            places = (torch.arange(BINS) + 0.5) / BINS
            axes.bar(
                places[full].tolist(),
                accuracy[full].tolist(),
                0.9 / BINS,
                color=theme.of[who],
                alpha=0.75,
            )
            axes.plot(
                confidence[full].tolist(),
                accuracy[full].tolist(),
                "o",
                color=theme.ink,
                markersize=3,
            )
            axes.plot([0, 1], [0, 1], ":", color=theme.ink, linewidth=1.2)
            axes.bar(places.tolist(), (share * 0.3).tolist(), 0.9 / BINS, color=theme.edge)
            axes.set_title(f"{who}: ECE {ece:.2f} %")
            axes.set_xlabel("confidence")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
        grid[0].set_ylabel("accuracy")

    listed = ", ".join(f"{who} {ece:.2f} %" for who, (_, _, _, ece) in curves.items())
    return draw(
        "reliability",
        "Reliability diagrams",
        f"Accuracy by confidence, {BINS} bins; the dotted line is perfect calibration. Grey: the "
        "share of images with that confidence.",
        f"Reliability diagrams on the test split. Expected calibration error: {listed}.",
        (2.9 * len(curves), 2.9),
        paint,
    )


def class_change(evidence: Evidence) -> StoredFigure | None:
    """Accuracy of the distilled student minus that of the baseline, by class."""
    if ALONE not in evidence.logits or evidence.student == ALONE:
        return None
    rates = [_by_class(evidence.logits[who], evidence.targets) for who in (evidence.student, ALONE)]
    change = 100.0 * (rates[0] - rates[1])
    present = [c for c in range(len(change)) if bool(change[c].isfinite())]
    ranked = sorted(present, key=lambda c: -float(change[c]))
    shown = ranked if len(ranked) <= 2 * EXTREMES else ranked[:EXTREMES] + ranked[-EXTREMES:]
    values = [float(change[c]) for c in shown]

    def paint(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        colours = [theme.of[evidence.student] if v >= 0 else theme.of["teacher"] for v in values]
        axes.barh(range(len(shown)), values, color=colours)
        axes.axvline(0, color=theme.ink, linewidth=0.8)
        axes.invert_yaxis()
        axes.set_yticks(range(len(shown)), [evidence.name(c, 20) for c in shown])
        axes.set_xlabel("gain over the baseline, points")
        for place, value in enumerate(values):
            axes.annotate(f"{value:+.1f}", (value, place), xytext=(4 if value >= 0 else -4, 0),
                          textcoords="offset points", va="center", fontsize=8,
                          ha="left" if value >= 0 else "right")  # fmt: skip
        axes.margins(x=0.12)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)

    better, worse = sum(change[c] > 0 for c in present), sum(change[c] < 0 for c in present)
    facts = f"{int(better)} classes gain, {int(worse)} lose, of {len(present)}."
    cut = f" The {EXTREMES} best and worst are shown." if len(shown) < len(ranked) else ""
    return draw(
        "class_change",
        "Gain over the baseline by class",
        f"Test split, one run each. {facts}{cut}",
        f"Bars of the change in accuracy by class. {facts} Most: {evidence.name(ranked[0])} "
        f"{change[ranked[0]]:+.1f}; least: {evidence.name(ranked[-1])} {change[ranked[-1]]:+.1f}.",
        (7.0, 0.24 * len(shown) + 0.9),
        paint,
    )


def confusion_matrix(logits: Tensor, targets: Tensor) -> Tensor:
    """Counts `[C, C]`, label by prediction, from logits `[N, C]` and labels `[N]`."""
    classes = logits.shape[1]
    cells = targets * classes + logits.argmax(1)
    return torch.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def calibration(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """(share of images, mean confidence, accuracy) `[BINS]` each, and the ECE in percent."""
    confidence, answer = logits.double().softmax(1).max(1)
    place = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
    count = torch.bincount(place, minlength=BINS)
    sums = [
        torch.zeros(BINS, dtype=torch.float64).index_add(0, place, values)
        for values in (confidence, (answer == targets).double())
    ]
    means = [total / count.clamp(min=1) for total in sums]
    ece = 100.0 * float((sums[0] - sums[1]).abs().sum()) / len(targets)
    return count / len(targets), means[0], means[1], ece


def _by_class(logits: Tensor, targets: Tensor) -> Tensor:
    matrix = confusion_matrix(logits, targets).double()
    return matrix.diagonal() / matrix.sum(1)  # NaN for a class without test images


def _class_ticks(axes: Axes, evidence: Evidence, labelled: bool) -> None:
    count = len(evidence.classes)
    if count > NAMED:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    names = [evidence.name(c, 10) for c in range(count)]
    axes.set_xticks(range(count), names, rotation=90, fontsize=7)
    axes.set_yticks(range(count), names if labelled else [""] * count, fontsize=7)
    axes.tick_params(length=0)


def _counts(axes: Axes, matrix: Tensor, share: Tensor, theme: Theme) -> None:
    for label in range(len(matrix)):
        for answer in range(len(matrix)):
            if matrix[label, answer]:
                strong = share[label, answer] > 0.2
                axes.text(answer, label, str(int(matrix[label, answer])), ha="center", va="center",
                          fontsize=6, color=theme.back if strong else theme.ink)  # fmt: skip


def _pairs(matrix: Tensor, evidence: Evidence) -> list[str]:
    """The most frequent errors: `8 as 1 (5)`."""
    wrong = matrix - torch.diag(matrix.diagonal())
    values, places = wrong.flatten().topk(min(3, wrong.numel()))
    count = len(matrix)
    return [
        f"{evidence.name(place // count)} as {evidence.name(place % count)} ({value})"
        for value, place in zip(values.tolist(), places.tolist(), strict=True)
        if value
    ]
