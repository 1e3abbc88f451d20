"""`report.html`: one self-contained file.

The template escapes everything it shows, and a content security policy allows only the page's own
script and style, and no connection.
"""

import base64
import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import kdrun
from kdrun.ownership import write_own
from kdrun.report import content, layout
from kdrun.report.aggregate import Group
from kdrun.report.charts.curves import learning_curves
from kdrun.report.charts.heatmap import plane_charts
from kdrun.report.charts.sizes import size_charts
from kdrun.report.charts.svg import Chart
from kdrun.report.columns import Column
from kdrun.report.content import Report, SectionTable
from kdrun.report.figures.store import StoredFigure, read_figures
from kdrun.report.files import ELSEWHERE
from kdrun.report.records import Run
from kdrun.report.sections import Section
from kdrun.report.settings import ABSENT, MAIN

TEMPLATE = "page.html"
# The entries of env.json that tell machines and versions apart.
FACTS = (
    "kdrun",
    "git_commit",
    "python",
    "platform",
    "processor",
    "processors",
    "threads",
    "device",
)


@dataclass(frozen=True)
class RowDetails:
    """The runs of a row of a table, with their commands."""

    label: str
    runs: list[Run]
    repeats: int


@dataclass(frozen=True)
class PageSection:
    """A section as the template shows it. number: from 1, for anchors."""

    number: int
    title: str
    lines: list[str]
    columns: list[Column]
    parts: list[Column]
    charts: list[Chart]
    rows: list[RowDetails]
    differences: list[tuple[str, str]]
    shared: list[tuple[str, str]]


@dataclass(frozen=True)
class RunFigures:
    """The figures of one run."""

    label: str
    folder: Path
    figures: list[StoredFigure]


def write_page(path: Path, report: Report, args: Sequence[str]) -> None:
    """Write the page. args: of the command, after `kdrun report`."""
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["heading"] = _heading
    html = environment.get_template(TEMPLATE).render(
        version=kdrun.__version__,
        made=time.strftime("%Y-%m-%d %H:%M"),
        command=" ".join(["kdrun report", *args]),
        style=style,
        script=script,
        policy=_policy(style, script),
        summary=content.summary(report),
        sections=[_section(number, t) for number, t in enumerate(report.sections, 1)],
        notes=content.notes(report),
        meanings=_meanings(report),
        size_charts=_size_charts(report),
        figures=_run_figures(report),
        others=report.others,
        unfinished=content.status_rows(report),
        environments=environments(report.collected.runs),
    )
    write_own(path, html.encode(), ELSEWHERE)


def _section(number: int, table: SectionTable) -> PageSection:
    section = table.section
    labels = [section.row_label(place) for place in range(len(section.groups))]
    curves = learning_curves(section.groups, labels, str(number))
    return PageSection(
        number,
        table.title,
        content.best_lines(section),
        table.columns,
        table.parts,
        [*plane_charts(section), *([curves] if curves else [])],
        [RowDetails(n, g.runs, g.repeats) for n, g in zip(labels, section.groups, strict=True)],
        differences(section.groups, section.names),
        shared(section.groups),
    )


def differences(groups: Sequence[Group], names: Sequence[str]) -> list[tuple[str, str]]:
    """(setting, its values, each with its number of rows)."""
    listed = []
    for name in names:
        counted = Counter(group.settings.get(name, ABSENT) for group in groups)
        listed.append((name, ", ".join(f"{value} ({n})" for value, n in counted.items())))
    return listed


def shared(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Settings that all rows share, the main ones first."""
    if not groups:
        return []
    same = set.intersection(*(set(group.settings.items()) for group in groups))
    return sorted(same, key=lambda item: (item[0] not in MAIN, item[0]))


def environments(runs: Sequence[Run]) -> list[tuple[list[tuple[str, str]], int]]:
    """(facts, number of runs) of each machine and set of versions, the most frequent first."""
    counted: Counter[tuple[tuple[str, str], ...]] = Counter()
    for run in runs:
        values = run.environment
        facts = [(name, str(values[name])) for name in FACTS if values.get(name) is not None]
        packages = values.get("packages")
        if isinstance(packages, dict):
            facts += [(str(name), str(version)) for name, version in packages.items()]
        if facts:
            counted[tuple(facts)] += 1
    return [(list(facts), count) for facts, count in counted.most_common()]


def _heading(title: str) -> Markup:
    """A column's title in two lines at most."""
    return Markup("<br>").join(layout.heading_lines(title))


def _meanings(report: Report) -> list[tuple[str, str]]:
    """(heading, meaning) of every column of any section, settings excluded."""
    columns = [
        column for table in report.sections for column in table.columns if not column.setting
    ]
    named = {column.name: (column.title, column.name, column.about) for column in columns}
    return [
        (title if title == name else f"{title} ({name})", about)
        for title, name, about in named.values()
    ]


def _size_charts(report: Report) -> list[Chart]:
    """Accuracy against size, for each data set."""
    by_dataset: dict[str, list[tuple[Section, int]]] = {}
    for table in report.sections:
        for place in range(len(table.section.groups)):
            by_dataset.setdefault(table.section.experiment.dataset, []).append(
                (table.section, place)
            )
    charts = []
    for name, places in by_dataset.items():
        rows = {id(section.groups[at]): (section, at) for section, at in places}
        groups = [section.groups[at] for section, at in rows.values()]
        labels = [section.row_label(at) for section, at in rows.values()]
        suffix = f", {name}" if len(by_dataset) > 1 else ""
        charts += size_charts(groups, labels, suffix)
    return charts


def _run_figures(report: Report) -> list[RunFigures]:
    """The figures of runs that have some, each run once."""
    by_folder: dict[Path, RunFigures] = {}
    for table in report.sections:
        for place, group in enumerate(table.section.groups):
            for run in group.runs:
                figures = read_figures(run.folder)
                if figures and run.folder not in by_folder:
                    seed = f"seed {run.seed}" if run.seed is not None else ""
                    label = " ".join(filter(None, (table.section.row_label(place), seed)))
                    by_folder[run.folder] = RunFigures(label, run.folder, figures)
    return list(by_folder.values())


def _asset(name: str) -> Markup:
    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))


def _policy(style: Any, script: Any) -> str:
    def digest(text: Any) -> str:
        return base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()

    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'"
    )
