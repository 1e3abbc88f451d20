"""Predictions: soft labels at several temperatures, and disagreements of student and teacher."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from kdrun.report.figures.drawing import DISTILLED, TEACHER, Evidence, Theme, draw, show_image
from kdrun.report.figures.store import StoredFigure

TEMPERATURES = (1.0, 4.0, 20.0)
ROWS, TOP = 5, 5
DISAGREEMENTS, ACROSS = 12, 6


def soft_labels(evidence: Evidence) -> StoredFigure | None:
    """Test images with the class probabilities of teacher and student at several T.

    Chosen: per class, the correctly classified image whose second class is most probable.
    Hinton, Vinyals and Dean 2015, arXiv 1503.02531, section 1.
    """
    teacher = evidence.logits.get(TEACHER)
    if teacher is None:
        return None
    chosen = _telling(teacher, evidence.targets)
    if not chosen:
        return None
    of_run = evidence.temperature
    temperatures = sorted({*TEMPERATURES, *([of_run] if of_run else [])})
    student = evidence.logits[evidence.student]
    pairs = {TEACHER: teacher[chosen], evidence.student: student[chosen]}
    images = evidence.shown(torch.tensor(chosen))
    widths = [1, *[2] * len(temperatures)]
    order = teacher[chosen].topk(min(TOP, teacher.shape[1]), dim=1).indices

    def paint(canvas: Canvas, theme: Theme) -> None:
        grid = canvas.subplots(len(chosen), len(widths), squeeze=False, width_ratios=widths)
        for row, axes in enumerate(grid):
            show_image(axes[0], images[row])
            axes[0].set_title(evidence.name(int(evidence.targets[chosen[row]])))
            for column, T in enumerate(temperatures, 1):
                soft = {who: (z[row] / T).softmax(0) for who, z in pairs.items()}
                _bars(axes[column], soft, order[row], evidence, theme, names=column == 1)
                if row == 0:
                    axes[column].set_title(f"T = {T:g}{' (this run)' if of_run == T else ''}")
        handles, labels = grid[0][1].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower center", ncols=2)

    listed = "; ".join(
        f"{evidence.name(int(evidence.targets[i]))}: "
        + ", ".join(f"{evidence.name(int(c))} {p:.0%}" for c, p in
                    zip(order[k][:3], (teacher[i] / 4.0).softmax(0)[order[k][:3]], strict=True))
        for k, i in enumerate(chosen)
    )  # fmt: skip
    return draw(
        "soft_labels",
        "Soft labels: what the teacher knows beyond the label",
        "Correctly classified test images with the most probable second class, one per class, and "
        f"the {order.shape[1]} most probable classes. A higher T shows more of the others.",
        f"Bars of class probabilities of teacher and student for {len(chosen)} test images at "
        f"{len(temperatures)} temperatures. The teacher at T=4: {listed}.",
        (2.0 + 2.3 * len(temperatures), 1.25 * len(chosen) + 0.6),
        paint,
    )


def disagreements(evidence: Evidence) -> StoredFigure | None:
    """Test images that student and teacher classify differently, the most confident first."""
    teacher = evidence.logits.get(TEACHER)
    if teacher is None:
        return None
    student = evidence.logits[evidence.student]
    sure, answers = zip(*(z.softmax(1).max(1) for z in (teacher, student)), strict=True)
    different = (answers[0] != answers[1]).nonzero().flatten()
    if not len(different):
        return None
    ranked = different[(sure[0] + sure[1])[different].argsort(descending=True, stable=True)]
    chosen = ranked[:DISAGREEMENTS]
    images = evidence.shown(chosen)
    rows = -(-len(chosen) // ACROSS)

    def paint(canvas: Canvas, theme: Theme) -> None:
        grid = canvas.subplots(rows, ACROSS, squeeze=False).flatten()
        for axes in grid:
            axes.set_axis_off()
        for place, index in enumerate(chosen.tolist()):
            show_image(grid[place], images[place])
            label = evidence.name(int(evidence.targets[index]))
            grid[place].set_title(
                f"is {label}\n"
                + "\n".join(
                    f"{who}: {evidence.name(int(answer[index]), 9)} {p[index]:.0%}"
                    for who, answer, p in zip(("T", "S"), answers, sure, strict=True)
                ),
                fontsize=8,
                loc="left",
            )

    right = [int((a[different] == evidence.targets[different]).sum()) for a in answers]
    total = len(evidence.targets)
    facts = (
        f"They disagree on {len(different)} of {total} test images; there the teacher is right "
        f"{right[0]} times and the student {right[1]} times."
    )
    return draw(
        "disagreements",
        "Where student and teacher disagree",
        f"{facts} T: teacher, S: student, with their confidence; the most confident first.",
        f"{len(chosen)} test images on which student and teacher differ. {facts}",
        (1.55 * ACROSS, 2.05 * rows),
        paint,
    )


def _telling(teacher: Tensor, targets: Tensor) -> list[int]:
    """Positions: per class, the correct prediction with the most probable second class."""
    probabilities = teacher.softmax(1)
    second = probabilities.topk(2, dim=1).values[:, 1]
    second = torch.where(teacher.argmax(1) == targets, second, -1.0)
    best = []
    for label in targets.unique().tolist():
        in_class = torch.where(targets == label, second, -1.0)
        place = int(in_class.argmax())
        if in_class[place] >= 0:
            best.append((float(in_class[place]), place))
    return [place for _, place in sorted(best, reverse=True)[:ROWS]]


def _bars(
    axes: Axes,
    soft: dict[str, Tensor],
    order: Tensor,
    evidence: Evidence,
    theme: Theme,
    names: bool,
) -> None:
    height = 0.4
    for number, (who, probabilities) in enumerate(soft.items()):
        places = [k + (number - 0.5) * height for k in range(len(order))]
        values = probabilities[order].tolist()
        axes.barh(places, values, height, color=theme.of.get(who, theme.of[DISTILLED]), label=who)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1])
    axes.set_yticks(range(len(order)), [evidence.name(int(c), 10) for c in order] if names else [])
    axes.tick_params(length=0, labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
