"""The sections of a report: one per data set and experiment.

An experiment is a sweep or a search by the settings it varies, or the single runs of a scheme.
Sweeps over the same settings share a section, so that further seeds of a sweep join its rows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdrun.report.aggregate import Group
from kdrun.report.groups import Grouped, is_part
from kdrun.report.published import transfer_of
from kdrun.report.records import Sweep
from kdrun.report.settings import MAIN, NONE, Settings, differing, distinguishing, label
from kdrun.report.statistics import significant

SWEEP, SEARCH, RUNS, PARTS = "sweep", "search", "single runs", "parts of other runs"
OFFLINE = "offline"
# Settings that label single runs wherever they differ.
ALWAYS = ("teacher", "student", "loss", "scheme", "T", "alpha")


@dataclass(frozen=True)
class Experiment:
    """What tells sections apart. varied: settings that a sweep or search varies, sorted.

    content: fingerprint of the data. scheme: empty where it is varied. transfer: settings of the
    transfer set, as typed.
    """

    dataset: str
    content: str
    kind: str
    varied: tuple[str, ...]
    scheme: str
    transfer: str


@dataclass(frozen=True)
class Section:
    """Groups of one experiment, highest validation accuracy (best epoch) first.

    names: the settings in which the rows differ. labels: those that suffice to tell rows apart.
    significant: positions of the groups whose gain passes Holm's correction over the section.
    """

    title: str
    experiment: Experiment
    groups: list[Group]
    names: list[str]
    labels: list[str]
    significant: set[int]

    @property
    def tested(self) -> int:
        """Number of tested gains."""
        return sum(group.p is not None for group in self.groups)

    def row_label(self, place: int) -> str:
        """`T=4 alpha=0.9`: what tells a row from the others."""
        settings = self.groups[place].settings
        values = {name: settings.get(name, _unset(name)) for name in self.labels}
        shown = [name for name in self.labels if values[name]]
        return label(values, shown) or label(settings, ("loss", "T", "alpha")) or "all runs"


def sections(grouped: Grouped, sweeps: Sequence[Sweep]) -> list[Section]:
    """The sections, by data set, then in the order of their first runs."""
    parts: dict[Experiment, list[Group]] = {}
    for group, members in zip(grouped.groups, grouped.members, strict=True):
        joined = [sweep for sweep in sweeps if members & sweep.runs]
        for experiment in dict.fromkeys(_experiments(group, joined)):
            parts.setdefault(experiment, []).append(group)
    ordered = sorted(parts.items(), key=lambda item: (item[0].dataset, _first_run(item[1])))
    return _with_distinct_titles([_section(*item) for item in ordered])


def _experiments(group: Group, sweeps: Sequence[Sweep]) -> list[Experiment]:
    """The experiments that a group is a row of; a sweep over data sets is one for each of them."""
    settings = group.settings
    dataset, content = settings.get("dataset", ""), settings.get("dataset content", "")
    scheme = settings.get("scheme", OFFLINE)
    chosen = transfer_of(settings)
    transfer = " ".join(f"transfer.{key}={value}" for key, value in chosen.items())
    if all(is_part(run) for run in group.runs):
        return [Experiment(dataset, content, PARTS, (), "", "")]
    experiments = []
    for sweep in sweeps:
        varied = tuple(sorted(set(sweep.varied) - {"dataset"}))
        if not varied:
            continue
        experiments.append(
            Experiment(
                dataset,
                content,
                SEARCH if sweep.search else SWEEP,
                varied,
                "" if "scheme" in varied else scheme,
                "" if any(key.startswith("transfer.") for key in varied) else transfer,
            )
        )
    return experiments or [Experiment(dataset, content, RUNS, (), scheme, transfer)]


def _section(experiment: Experiment, groups: list[Group]) -> Section:
    all_settings = [group.settings for group in groups]
    names = differing(all_settings)
    labels = distinguishing(all_settings, names, experiment.varied or ALWAYS)
    names += [name for name in labels if name not in names]
    return Section(
        _title(experiment, all_settings),
        experiment,
        groups,
        names,
        labels,
        significant({place: group.p for place, group in enumerate(groups)}),
    )


def _title(experiment: Experiment, all_settings: Sequence[Settings]) -> str:
    """`digits · sweep over T, alpha · cnn_large → cnn_tiny · kd`."""
    shared = set.intersection(*(set(settings.items()) for settings in all_settings))
    same = dict(shared)
    kind = experiment.kind
    if experiment.varied:
        kind += f" over {', '.join(experiment.varied)}"
    scheme = experiment.scheme if experiment.scheme != OFFLINE else ""
    if kind == RUNS and scheme:
        kind, scheme = scheme, ""
    teacher, student = same.get("teacher", ""), same.get("student", "")
    teacher = "" if teacher == NONE else teacher
    pieces = [
        experiment.dataset,
        kind,
        scheme,
        " → ".join(filter(None, (teacher, student))) if student else "",
        same.get("loss", ""),
        experiment.transfer,
    ]
    return " · ".join(filter(None, pieces))


def _unset(name: str) -> str:
    """How a row without this setting shows it: not at all where its network or loss has none."""
    first = name.split(".")[0]
    return "" if first in MAIN else "null"


def _with_distinct_titles(unnamed: list[Section]) -> list[Section]:
    """Add the start of the data's fingerprint where one data set has several contents."""
    contents: dict[str, set[str]] = {}
    for section in unnamed:
        contents.setdefault(section.experiment.dataset, set()).add(section.experiment.content)
    seen: Counter[str] = Counter()
    named = []
    for section in unnamed:
        title, content = section.title, section.experiment.content
        if len(contents[section.experiment.dataset]) > 1:
            title += f" · data {content[:6]}"
        seen[title] += 1
        number = f" ({seen[title]})" if seen[title] > 1 else ""
        named.append(replace(section, title=title + number))
    return named


def _first_run(groups: Sequence[Group]) -> str:
    return min(run.folder.name for group in groups for run in group.runs)
