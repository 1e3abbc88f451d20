"""`kdrun report`: from run folders to a table, a page and files."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdrun.cli.output import say
from kdrun.cli.parser import parse
from kdrun.errors import EXIT_DONE, ConfigError, did_you_mean
from kdrun.files import make_folder

ORDER = 90
SUMMARY = "write tables, a page and figures of runs and sweeps"

USAGE = "kdrun report DIR... [pictures=best|all] [to=FOLDER]"
ABOUT = (
    "Reads run and sweep folders, finished or not, and trains nothing. Prints a table and writes "
    "report.html, report.md, report.csv (the table) and report-runs.csv (a row per run) next to "
    "the first DIR."
)
EXAMPLES = (
    ("kdrun report outputs/sweeps/...", "a sweep"),
    ("kdrun report outputs/distill/digits", "all runs on a data set"),
    ("kdrun report outputs", "everything"),
    (
        "kdrun report outputs/sweeps/... pictures=best",
        "also figures of the best row's first seed (loads its networks)",
    ),
    ("kdrun report outputs/sweeps/... pictures=all", "also figures of every finished run"),
    ("kdrun report A B to=reports", "write the files into another folder"),
    ("kdrun report A --config-dir my", "with your own published figures: my/published"),
)
FLAGS = {"--pictures": "the same as pictures=best"}
if TYPE_CHECKING:
    from kdrun.report.content import SectionTable
    from kdrun.report.records import Run

SETTINGS = ("pictures", "to")
FILES = ("report.html", "report.md", "report.csv", "report-runs.csv")
CHOICES = ("best", "all", "none")


@dataclass(frozen=True)
class Asked:
    """The parsed command line."""

    folders: list[Path]
    pictures: str
    to: Path | None


def run(argv: list[str]) -> int:
    """Make the report that `argv` asks for."""
    args = parse("report", argv)
    asked = _asked(argv, args.words, bool(args.given.get("pictures")))
    from kdrun.ownership import require_own
    from kdrun.report import files, page
    from kdrun.report.content import make_report
    from kdrun.report.published import read_published
    from kdrun.report.records import collect
    from kdrun.ui.report import show_report

    published = read_published(args.config_dir)
    report = make_report(collect(asked.folders), published)
    place = _place(asked)
    require_own(place, FILES, files.ELSEWHERE)  # all or nothing, and before any drawing
    if asked.pictures != "none":
        from kdrun.evaluation.figures import draw_figures

        draw_figures(_chosen(report.sections, asked.pictures))
    files.write_markdown(place / "report.md", report)
    files.write_csv(place / "report.csv", report)
    files.write_runs_csv(place / "report-runs.csv", report)
    page.write_page(place / "report.html", report, argv)
    with contextlib.suppress(SystemExit):  # rich raises it for a closed pipe (`| head`)
        show_report(report)
    say(f"\nfiles: {place / 'report.html'}, report.md, report.csv, report-runs.csv")
    return EXIT_DONE


def _asked(argv: list[str], plain: list[str], pictures_flag: bool) -> Asked:
    if any(word.startswith("output_root=") for word in argv):
        raise ConfigError("report has no output_root: name the folders themselves; to=... says "
                          "where its files go.")  # fmt: skip
    settings: dict[str, str] = {"pictures": "best"} if pictures_flag else {}
    folders = []
    for word in plain:
        name, equals, value = word.partition("=")
        if equals and name in SETTINGS:
            settings[name] = value
        elif equals and not Path(word).exists():
            hint = did_you_mean(name, SETTINGS) or f" It has {' and '.join(SETTINGS)}."
            raise ConfigError(f"report has no setting {name}.{hint} See kdrun report --help.")
        elif Path(word).name not in FILES:  # an earlier report, which a shell's * names as well
            folders.append(Path(word).expanduser())
    if not folders:
        raise ConfigError(
            "report needs a folder: kdrun report outputs/sweeps/... (kdrun ls runs lists the runs "
            "there are), or kdrun report outputs for all."
        )
    pictures = settings.get("pictures", "none")
    pictures = {"true": "best", "false": "none"}.get(pictures, pictures)
    if pictures not in CHOICES:
        hint = did_you_mean(pictures, CHOICES)
        raise ConfigError(f"pictures={pictures} is not one of {', '.join(CHOICES)}.{hint}")
    to = Path(settings["to"]).expanduser() if settings.get("to") else None
    return Asked(folders, pictures, to)


def _place(asked: Asked) -> Path:
    """The folder for the files: next to the first folder, but not above the current one."""
    first = asked.folders[0]
    place = asked.to or first.parent
    if asked.to is None and Path.cwd().resolve().is_relative_to(first.resolve()):
        place = Path()
    try:
        make_folder(place)
        if not os.access(place, os.W_OK):
            raise PermissionError(13, "it is not writable")
    except (OSError, ConfigError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise ConfigError(
            f"The report cannot be written into {place}: {reason}. Name another folder: to=..."
        ) from None
    return place


def _chosen(sections: Sequence["SectionTable"], which: str) -> list["Run"]:
    """The runs to draw figures of: each section's best row, first seed; or every run."""
    groups = [one.section.groups for one in sections]
    if which == "best":
        chosen = [rows[0].runs[0] for rows in groups]
    else:
        chosen = [run for rows in groups for group in rows for run in group.runs]
    return list({run.folder.resolve(): run for run in chosen}.values())
