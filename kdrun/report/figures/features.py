"""Features: similarity of the images of a batch, attention maps, class activation maps."""

from matplotlib.figure import Figure as Canvas
from torch import Tensor
from torch.nn.functional import cosine_similarity

from kdrun.losses.at import attention
from kdrun.losses.sp import gram_rows
from kdrun.report.figures.drawing import NAMED, TEACHER, Evidence, Theme, draw, show_image
from kdrun.report.figures.store import StoredFigure

MAPS, STAGES = 5, 3


def similarity(evidence: Evidence) -> StoredFigure | None:
    """The batch similarity matrices of the last stage, images sorted by class.

    Tung and Mori 2019, arXiv 1907.09682, figure 1 and eq. 1-2: Q·Qᵀ with each row divided by its
    norm.
    """
    last = {who: list(taps.values())[-1] for who, taps in evidence.features.items() if taps}
    if not last:
        return None
    targets = evidence.targets[evidence.sample]
    order = targets.argsort(stable=True)
    matrices = {who: gram_rows(features[order].float()).abs() for who, features in last.items()}
    counts = targets.bincount(minlength=len(evidence.classes))

    def paint(canvas: Canvas, theme: Theme) -> None:
        grid = canvas.subplots(1, len(matrices), squeeze=False)[0]
        for number, (axes, (who, matrix)) in enumerate(zip(grid, matrices.items(), strict=True)):
            axes.imshow(matrix.numpy(), cmap=theme.ramp, interpolation="nearest",
                        vmax=float(matrix.flatten().quantile(0.99)))  # fmt: skip
            axes.set_title(who)
            ends = counts.cumsum(0)
            middles = (ends - counts / 2 - 0.5).tolist()
            present = [c for c in range(len(counts)) if counts[c]]
            if len(present) <= NAMED:
                names = [evidence.name(c, 10) for c in present]
                places = [middles[c] for c in present]
                axes.set_yticks(places, names if number == 0 else [""] * len(names), fontsize=7)
                axes.set_xticks(places, names, rotation=90, fontsize=7)
            else:
                axes.set_xticks([])
                axes.set_yticks([])
            axes.tick_params(length=0)

    blocks = {who: _block_contrast(m, targets[order]) for who, m in matrices.items()}
    listed = ", ".join(f"{who} {value:.1f}" for who, value in blocks.items())
    return draw(
        "similarity",
        "Batch similarity, sorted by class",
        f"{len(order)} test images, features of the last stage, rows of Q·Qᵀ divided by their norm "
        "(Tung & Mori 2019). Squares on the diagonal: images of a class have similar features. "
        f"Mean within a class over mean between classes: {listed}.",
        f"Similarity matrices of {', '.join(matrices)} for {len(order)} test images sorted by "
        f"class. Mean within a class over mean between classes: {listed}.",
        (3.1 * len(matrices), 3.3),
        paint,
    )


def attention_maps(evidence: Evidence) -> StoredFigure | None:
    """Where in an image the features are large, by stage.

    Zagoruyko and Komodakis 2017, arXiv 1612.03928, eq. 1 with p = 2: the mean square over the
    channels.
    """
    maps = {who: _maps(taps) for who, taps in evidence.features.items()}
    maps = {who: by_tap for who, by_tap in maps.items() if by_tap}
    if not maps:
        return None
    chosen = _one_per_class(evidence)
    images = evidence.shown(evidence.sample[chosen])
    columns = [(who, tap) for who, by_tap in maps.items() for tap in by_tap]

    def paint(canvas: Canvas, theme: Theme) -> None:
        grid = canvas.subplots(len(chosen), 1 + len(columns), squeeze=False)
        for row, axes in enumerate(grid):
            show_image(axes[0], images[row])
            for place, (who, tap) in enumerate(columns, 1):
                axes[place].set_axis_off()
                axes[place].imshow(maps[who][tap][chosen[row]].numpy(), cmap="magma",
                                   interpolation="nearest")  # fmt: skip
                if row == 0:
                    axes[place].set_title(f"{who}\n{tap}", fontsize=8)

    likeness = _likeness(maps)
    return draw(
        "attention",
        "Attention maps",
        "Mean square of the features over the channels, by stage; bright: large. " + likeness,
        f"Attention maps of {', '.join(maps)} for {len(chosen)} test images. {likeness}".strip(),
        (1.0 * (1 + len(columns)), 1.0 * len(chosen) + 0.45),
        paint,
    )


def class_activation_maps(evidence: Evidence) -> StoredFigure | None:
    """Where each network finds evidence for the true class of an image.

    Zhou et al. 2016, arXiv 1512.04150: the classifier at each place of the last feature map, as
    loss=cat_kd compares it, without its bias.
    """
    maps = evidence.class_maps
    if not maps:
        return None
    chosen = _one_per_class(evidence)
    images = evidence.shown(evidence.sample[chosen])
    targets = evidence.targets[evidence.sample].tolist()

    def paint(canvas: Canvas, theme: Theme) -> None:
        grid = canvas.subplots(len(chosen), 1 + len(maps), squeeze=False)
        for row, axes in enumerate(grid):
            show_image(axes[0], images[row])
            axes[0].set_title(evidence.name(targets[chosen[row]]), fontsize=7)
            for place, (who, scores) in enumerate(maps.items(), 1):
                shown = scores[chosen[row]].numpy()
                limit = max(float(abs(shown).max()), 1e-12)
                axes[place].set_axis_off()
                axes[place].imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit,
                                   interpolation="nearest")  # fmt: skip
                if row == 0:
                    axes[place].set_title(who, fontsize=8)

    likeness = _likeness({who: {"map": scores} for who, scores in maps.items()})
    return draw(
        "class_maps",
        "Class activation maps",
        "Score of the image's true class at each place of the last feature map: red for it, blue "
        "against it; each map has its own scale. " + likeness,
        f"Class activation maps of {', '.join(maps)} for {len(chosen)} test images. "
        f"{likeness}".strip(),
        (1.15 * (1 + len(maps)), 1.15 * len(chosen) + 0.3),
        paint,
    )


def _maps(taps: dict[str, Tensor]) -> dict[str, Tensor]:
    """tap → `[S, H, W]` of the last stages with more than one position."""
    spatial = {t: f for t, f in taps.items() if f.dim() == 4 and f.shape[2] * f.shape[3] > 1}
    last = dict(list(spatial.items())[-STAGES:])
    return {tap: attention(f.float(), 2.0).reshape(len(f), *f.shape[2:]) for tap, f in last.items()}


def _one_per_class(evidence: Evidence) -> list[int]:
    """Positions in the sample: the first image of each of the first classes."""
    targets = evidence.targets[evidence.sample].tolist()
    first: dict[int, int] = {}
    for place, label in enumerate(targets):
        first.setdefault(label, place)
    return [first[label] for label in sorted(first)[:MAPS]]


def _likeness(maps: dict[str, dict[str, Tensor]]) -> str:
    """Mean cosine similarity of the last maps with the teacher's, where sizes agree."""
    if TEACHER not in maps:
        return ""
    teacher = list(maps[TEACHER].values())[-1]
    listed = []
    for who, by_tap in maps.items():
        last = list(by_tap.values())[-1]
        if who != TEACHER and last.shape == teacher.shape:
            alike = cosine_similarity(last.flatten(1), teacher.flatten(1)).mean()
            listed.append(f"{who} {float(alike):.2f}")
    return f"Mean cosine with the teacher's last map: {', '.join(listed)}." if listed else ""


def _block_contrast(matrix: Tensor, targets: Tensor) -> float:
    """Mean within classes (without the diagonal) divided by the mean between classes."""
    same = targets[:, None] == targets[None, :]
    off = ~same
    same = same.clone().fill_diagonal_(False)
    if not bool(same.any()) or not bool(off.any()):
        return float("nan")
    return float(matrix[same].mean() / matrix[off].mean())
