"""The columns of the main table, once for the screen, Markdown, CSV and HTML."""

from collections.abc import Callable
from dataclasses import dataclass

from kdrun.report.groups import Group, Grouped
from kdrun.report.published import Figure, match
from kdrun.report.records import Run, find, number
from kdrun.report.settings import ABSENT
from kdrun.report.statistics import LEAST_PAIRS, TEST_NAME, Mean
from kdrun.ui import format
from kdrun.ui.tables import group_name

Value = str | float | None


@dataclass(frozen=True)
class Cell:
    """What is shown, and what it is sorted by and computed with (None: nothing there)."""

    text: str
    value: Value


@dataclass(frozen=True)
class Column:
    """about: one sentence for who does not know the word. wide: left out of narrow tables."""

    name: str
    about: str
    cells: list[Cell]
    numeric: bool = True
    mean: list[Mean | None] | None = None

    @property
    def same(self) -> bool:
        """Whether all of several rows show the same."""
        return len(self.cells) > 1 and len({cell.text for cell in self.cells}) == 1


def columns(grouped: Grouped, figures: list[Figure]) -> list[Column]:
    """Settings that differ, then what was measured; a column without any value is left out."""
    found = [_setting(name, grouped.groups) for name in grouped.names]
    measured = [*_measured(grouped), *_whole_groups(grouped.groups)]
    found += [column for column in measured if _has_values(column)]
    published = [match(group.settings, figures) for group in grouped.groups]
    if any(published):
        cells = [Cell(one.shown, one.shown) if one else Cell("", None) for one in published]
        about = "From the paper, at its own schedule and settings: not a measurement of kdrun."
        found.append(Column("published (full schedule)", about, cells, numeric=False))
    return found


def spread(value: Mean | None, show: Callable[[float], str], n: int | None = None) -> str:
    """`97.21 ± 0.31`; with the number of values where it is not the `n` of the row."""
    if value is None:
        return ""
    text = show(value.mean)
    if value.sd is not None:
        text += f" ± {show(value.sd).lstrip('+')}"
    return text if value.n == n else f"{text} ({value.n})"


def _measured(grouped: Grouped) -> list[Column]:
    groups = grouped.groups
    return [
        _means("best val top-1 %", "Validation split, best epoch; the table is sorted by it.",
               groups, lambda g: g.best_val, format.percent),
        _means("test top-1 %", "The student's last epoch on the test split: mean ± standard "
               "deviation (number of seeds).", groups, lambda g: g.test, format.percent, True),
        _means("alone top-1 %", "The same student, recipe and seeds on labels only, test split.",
               groups, lambda g: g.alone_test, format.percent),
        _means("gain", "Distilled minus alone, in points, seed by seed.", groups,
               lambda g: g.gain, format.points),
        _p_values(grouped),
        _plain("gap closed", "Share of the way from student alone to teacher, of the means.",
               [g.gap_closed for g in groups], lambda value: f"{round(value)} %"),
        _means("teacher top-1 %", "On the test split; of several teachers the best.", groups,
               lambda g: g.teacher, format.percent),
        _of_runs("teachers together %", "Test top-1 of several teachers' mean answer.", groups,
                 ("teacher_ensemble", "test", "top1"), format.percent),
        _of_runs("agreement %", "Share of test images on which student and teacher answer alike.",
                 groups, ("agreement",), format.percent),
        _of_runs("ECE %", "Expected calibration error of the distilled student, 15 bins.", groups,
                 ("student", "test", "ece"), format.percent),
        _of_runs("errors", "Wrong answers of the distilled student on the test split.", groups,
                 ("student", "test", "errors"), _few),
        *_left_out(groups),
        _means("last val top-1 %", "Validation split, last epoch.", groups, lambda g: g.last_val,
               format.percent),
        _of_runs("best-val test top-1 %", "Test split, best validation epoch.", groups,
                 ("student", "best_val", "test", "top1"), format.percent),
        _of_runs("params", "Trainable parameters of the student.", groups,
                 ("student", "params"), lambda value: format.count(round(value))),
        _of_runs("FLOPs", "Of one image forward; a multiply-add counts as 2.", groups,
                 ("student", "flops"), format.flops),
        _of_runs("time", "Training the student, without teacher and student alone.", groups,
                 ("time", "seconds"), format.seconds),
    ]  # fmt: skip


def _left_out(groups: list[Group]) -> list[Column]:
    """Errors in the classes that the transfer set left out, and after their bias was corrected."""

    def errors(*path: str) -> Callable[[Run], float | None]:
        def read(run: Run) -> float | None:
            rows = find(run.result, "student", *path, "errors_per_class")
            left_out = find(run.result, "transfer", "classes_left_out") or ()
            if not isinstance(rows, list) or not left_out:
                return None
            return sum(number(row, "errors") or 0 for row in rows if row.get("class") in left_out)

        return read

    def averaged(read: Callable[[Run], float | None]) -> Callable[[Group], Mean | None]:
        return lambda group: group.mean(read)

    def corrected(run: Run) -> float | None:
        return number(run.result, "student", "bias_corrected", "test", "errors")

    read = {
        "left-out errors": (errors(), "Wrong answers in the classes that the transfer set had no "
                            "image of."),
        "corrected errors": (corrected, "Wrong answers after the left-out classes' bias was "
                             "corrected."),
        "corrected left-out errors": (errors("bias_corrected"), "Of these, those in the left-out "
                                      "classes."),
    }  # fmt: skip
    return [_means(name, about, groups, averaged(one), _few) for name, (one, about) in read.items()]


def _few(value: float) -> str:
    """`206`, or `205.7` as a mean."""
    return f"{value:.1f}".removesuffix(".0")


def _whole_groups(groups: list[Group]) -> list[Column]:
    """Errors of images that are answered together (the words of a recording), where there are."""
    students = (run.result.get("student") for group in groups for run in group.runs)
    names = {group_name(student) for student in students if isinstance(student, dict)} - {None}
    return [
        _of_runs(f"{name} error %", f"{name}s answered wrongly, all their parts taken together.",
                 groups, ("student", f"test_{name}s", f"{name}_error_percent"), format.percent)
        for name in sorted(map(str, names))
    ]  # fmt: skip


def _setting(name: str, groups: list[Group]) -> Column:
    values = [group.settings.get(name, ABSENT) for group in groups]
    cells = [Cell(value, _number(value)) for value in values]
    numeric = all(isinstance(cell.value, float) or cell.text == ABSENT for cell in cells)
    if not numeric:
        cells = [Cell(value, value) for value in values]
    return Column(name, "A setting in which the runs differ.", cells, numeric)


def _means(
    name: str,
    about: str,
    groups: list[Group],
    read: Callable[[Group], Mean | None],
    show: Callable[[float], str],
    always_n: bool = False,
) -> Column:
    means = [read(group) for group in groups]
    cells = [
        Cell(spread(m, show, None if always_n else len(group.runs)), m.mean if m else None)
        for m, group in zip(means, groups, strict=True)
    ]
    return Column(name, about, cells, mean=means)


def _of_runs(
    name: str,
    about: str,
    groups: list[Group],
    path: tuple[str, ...],
    show: Callable[[float], str],
) -> Column:
    def read(run: Run) -> float | None:
        return number(run.result, *path)

    same = name in ("params", "FLOPs", "time", "errors", "best-val test top-1 %")
    column = _means(name, about, groups, lambda group: group.mean(read), show)
    if not same:
        return column
    cells = [
        Cell(show(m.mean) if m else "", m.mean if m else None) for m in column.mean or ()
    ]  # the spread of these says little
    return Column(name, about, cells, mean=column.mean)


def _p_values(grouped: Grouped) -> Column:
    cells = []
    for place, group in enumerate(grouped.groups):
        p = group.p
        star = " *" if place in grouped.significant else ""
        cells.append(Cell("" if p is None else f"{_p(p)}{star}", p))
    about = (
        f"Of the gain being chance: {TEST_NAME}, with {LEAST_PAIRS} seeds or more. A star: below "
        f"0.05 after Holm's correction for all {grouped.tested} tests in the table."
    )
    return Column("p", about, cells)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _plain(
    name: str, about: str, values: list[float | None], show: Callable[[float], str]
) -> Column:
    return Column(name, about, [Cell("" if v is None else show(v), v) for v in values])


def _has_values(column: Column) -> bool:
    return any(cell.value is not None for cell in column.cells)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
