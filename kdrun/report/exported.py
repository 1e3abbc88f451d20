"""The exported files of the runs: full precision and integers side by side, seeds averaged."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from kdrun.report.columns import EMPTY, Cell, Column, mean_cell
from kdrun.report.records import Run, find, number, read_object
from kdrun.report.settings import NONE, differing, distinguishing, label, settings_of
from kdrun.report.statistics import mean_of
from kdrun.ui import format

FILE = "export/export.json"  # in a run's folder
FLOATS = "fp32"
SHOWN = ("student", "dataset", "teacher", "loss")  # settings with a column of their own


@dataclass(frozen=True)
class Exported:
    """One exported file. network, teacher, loss, trained, file: what tells rows apart."""

    network: str
    dataset: str
    teacher: str
    loss: str
    trained: str
    file: str
    recipe: tuple[Any, ...]
    seed: int | None
    facts: dict[str, Any]

    @property
    def row(self) -> tuple[Any, ...]:
        """Equal for the files of all seeds of a recipe."""
        return (self.dataset, self.network, self.recipe, self.trained, self.file)


def exported_columns(runs: Sequence[Run]) -> list[Column]:
    """A row per recipe and kind of file, seeds averaged; accuracies on the images of the check.

    runs: in the order of their times; of runs that repeat a seed, the newest counts.
    """
    rows: dict[tuple[Any, ...], dict[int | None, Exported]] = defaultdict(dict)
    for run in runs:
        for file in _files(run):
            rows[file.row][file.seed] = file
    groups = sorted((list(seeds.values()) for seeds in rows.values()), key=lambda f: _order(f[0]))
    firsts = [files[0] for files in groups]

    def means(name: str, about: str, *path: str) -> Column:
        found = [mean_of(_numbers(files, *path)) for files in groups]
        return Column(name, about, [mean_cell(mean) for mean in found], means=found)

    sizes = [_numbers(files, "bytes") for files in groups]
    times = [[ms for file in files if (ms := _milliseconds(file.facts))] for files in groups]
    return [
        Column.texts("network", (one.network for one in firsts)),
        Column.texts("dataset", (one.dataset for one in firsts)),
        Column.texts("teacher", (one.teacher for one in firsts)),
        Column.texts("loss", (one.loss for one in firsts)),
        Column.texts("setting", _labels(firsts), "What else tells the recipes apart."),
        Column.texts("trained in", (one.trained for one in firsts),
                     "student.quantize of the training."),
        Column.texts("file", (one.file for one in firsts), "What was exported."),
        Column("n", "Exported seeds.", [Cell(str(len(f)), float(len(f))) for f in groups]),
        Column("test images", "Of the check.", [_images(files) for files in groups]),
        means("network top-1 %", "Of the network in PyTorch.", "check", "original", "top1"),
        means("file top-1 %", "Of the exported file.", "check", "exported", "top1"),
        means("same answer %", "Images that both classify alike.", "check", "agreement"),
        Column("KB", "Size of the file.", [_median(v, 1e3, ".1f") for v in sizes]),
        Column(
            "ms", "Median latency of one image, if it was timed.",
            [_median(v, 1.0, ".3f") for v in times],
        ),
    ]  # fmt: skip


def _labels(files: Sequence[Exported]) -> list[str]:
    """The settings in which recipes differ that are alike in the other columns."""
    recipes = [dict(one.recipe) for one in files]
    shown = [tuple(recipe.get(name) for name in SHOWN) for recipe in recipes]
    alike: dict[tuple[Any, ...], list[dict[str, str]]] = defaultdict(list)
    for key, recipe in zip(shown, recipes, strict=True):
        alike[key].append(recipe)
    apart = {key: distinguishing(those, differing(those), ()) for key, those in alike.items()}
    return [label(recipe, apart[key]) for key, recipe in zip(shown, recipes, strict=True)]


def _files(run: Run) -> list[Exported]:
    """The exported files of a finished run; none of weights that have changed since."""
    if not run.finished:
        return []
    settings = settings_of(run)
    seedless = {k: v for k, v in settings.items() if k not in ("seed", "student.quantize")}
    files = find(read_object(run.folder / FILE), "files")
    exported = []
    for name, facts in files.items() if isinstance(files, dict) else ():
        if not isinstance(facts, dict) or not (run.folder / "export" / name).is_file():
            continue
        trained = settings.get("student.quantize", FLOATS)
        # A safetensors file holds the weights in floats, whatever they were trained for.
        inside = trained if facts.get("format") == "pt2" else FLOATS
        kind = f"{facts.get('format')} {facts.get('quantize') or inside}"
        exported.append(
            Exported(
                settings.get("student", ""),
                _dataset(run, facts, settings.get("dataset", "")),
                settings.get("teacher", NONE),
                settings.get("loss", ""),
                trained,
                f"{name.split('.')[0]} as {kind}" if not name.startswith("student.") else kind,
                tuple(sorted(seedless.items())),
                run.seed,
                facts,
            )
        )
    return exported


def _dataset(run: Run, facts: dict[str, Any], own: str) -> str:
    """The data that a file was checked on. own: of the run."""
    name, images = (find(facts, "dataset", key) for key in ("name", "fingerprint"))
    if not isinstance(name, str) or run.result.dataset.fingerprint in (None, images):
        return own
    return f"{name}, other images" if name == own else name


def _order(file: Exported) -> tuple[Any, ...]:
    """Baselines before students; full precision before integers."""
    floats = (file.trained != FLOATS, file.trained, FLOATS not in file.file, file.file)
    return (file.dataset, file.network, file.teacher != NONE, file.loss, str(file.recipe), *floats)


def _numbers(files: Sequence[Exported], *path: str) -> list[float]:
    values = (number(file.facts, *path) for file in files)
    return [value for value in values if value is not None]


def _images(files: Sequence[Exported]) -> Cell:
    """How many images the files were checked on: one number, or the range of the seeds."""
    counts = sorted(set(_numbers(files, "check", "images")))
    if not counts:
        return Cell("", None)
    return Cell(
        "–".join(format.count(int(count)) for count in counts[:: len(counts) - 1 or 1]), counts[-1]
    )


def _milliseconds(facts: dict[str, Any]) -> float | None:
    """Median latency of one image."""
    rows = facts.get("latency")
    for row in rows if isinstance(rows, list) else ():
        if find(row, "batch_size") == 1:
            return number(row, "p50_ms")
    return None


def _median(values: Sequence[float], unit: float, form: str) -> Cell:
    if not values:
        return EMPTY
    value = median(values) / unit
    return Cell(f"{value:{form}}", value)
