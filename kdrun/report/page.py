"""`report.html`: one file that needs nothing else, readable on any screen and by any reader.

Everything shown is escaped by the template (class names, overrides and paths come from strangers),
and a content security policy allows this page's own script and style only, and no connection.
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
from kdrun.report import content
from kdrun.report.aggregate import Group
from kdrun.report.content import Report
from kdrun.report.curves import learning_curves
from kdrun.report.figure_store import Picture, read_album
from kdrun.report.files import ELSEWHERE
from kdrun.report.heatmap import heat_maps
from kdrun.report.records import Run
from kdrun.report.settings import ABSENT, MAIN
from kdrun.report.sizes import size_charts

TEMPLATE = "page.html"
# Columns that a sentence replaces when they are the same in every row.
MAY_BE_SAID = ("teacher top-1 %", "params", "FLOPs", "published (full schedule)")
# What of env.json tells machines and versions apart.
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
    """What is behind one row of the main table: its runs, with their commands."""

    label: str
    runs: list[Run]
    repeats: int


@dataclass(frozen=True)
class Album:
    """The pictures of one run."""

    label: str
    folder: Path
    pictures: list[Picture]


def write_page(path: Path, report: Report, words: Sequence[str]) -> None:
    """Write the page. words: of the command that made it, after `kdrun report`."""
    groups = report.grouped.groups
    labels = [content.group_label(report, place) for place in range(len(groups))]
    same = [column for column in report.columns if column.same and column.name in MAY_BE_SAID]
    style, script = (_own(name) for name in ("page.css", "page.js"))
    curves = learning_curves(groups, labels)
    charts = [*heat_maps(report.grouped), *([curves] if curves else [])]
    charts += size_charts(groups, labels)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    html = environment.get_template(TEMPLATE).render(
        version=kdrun.__version__,
        made=time.strftime("%Y-%m-%d %H:%M"),
        command=" ".join(["kdrun report", *words]),
        style=style,
        script=script,
        policy=_policy(style, script),
        report=report,
        shown=[column for column in report.columns if column not in same],
        same=same,
        summary=content.summary(report),
        notes=content.notes(report),
        charts=charts,
        rows=[RowDetails(n, g.runs, g.repeats) for n, g in zip(labels, groups, strict=True)],
        unfinished=content.status_rows(report),
        differences=differences(groups, report.grouped.names),
        shared=shared(groups),
        environments=environments(report.collected.runs),
        albums=_albums(groups, labels),
    )
    write_own(path, html.encode(), ELSEWHERE)


def differences(groups: Sequence[Group], names: Sequence[str]) -> list[tuple[str, str]]:
    """(setting, its values with the number of rows that have each)."""
    found = []
    for name in names:
        counted = Counter(group.settings.get(name, ABSENT) for group in groups)
        found.append((name, ", ".join(f"{value} ({n})" for value, n in counted.items())))
    return found


def shared(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Settings that all rows have alike, the main ones first."""
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


def _albums(groups: Sequence[Group], labels: Sequence[str]) -> list[Album]:
    found = []
    for group, name in zip(groups, labels, strict=True):
        for run in group.runs:
            pictures = read_album(run.folder)
            if pictures:
                seed = f"seed {run.seed}" if run.seed is not None else ""
                found.append(Album(" ".join(filter(None, (name, seed))), run.folder, pictures))
    return found


def _own(name: str) -> Markup:
    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))


def _policy(style: Any, script: Any) -> str:
    def digest(text: Any) -> str:
        return base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()

    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'"
    )
