"""From real runs to a report with pictures."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import SMALL, results

from kdrun.report.figures.store import read_figures
from kdrun.report.records import number

Run = Callable[..., int]


def test_runs_sweeps_and_pictures(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kdrun("distill", "-m", *SMALL, "T=1,4", "alpha=0.1,0.9") == 0
    (sweep,) = workdir.glob("outputs/sweeps/*")
    capsys.readouterr()
    assert kdrun("report", str(sweep), "pictures=best") == 0
    page = (workdir / "outputs/sweeps/report.html").read_text()
    assert "sweep over T, alpha" in page
    drawn = [run for run in results(workdir) if (run["folder"] / "pictures").exists()]
    assert len(drawn) == 1
    pictures = {picture.name: picture for picture in read_figures(drawn[0]["folder"])}
    assert {
        "soft_labels",
        "confusion",
        "reliability",
        "similarity",
        "attention",
        "class_maps",
        "class_change",
    } <= (set(pictures))
    assert page.count("<img") == len(pictures)
    # the networks that are drawn are those that were measured
    for name, entry in (
        ("teacher", drawn[0]["teachers"][0]),
        ("student alone", drawn[0]["alone"]),
        ("student distilled", drawn[0]["student"]),
    ):
        ece = number(entry, "test", "ece")
        assert f"{name} {ece:.2f} %" in pictures["reliability"].alt


def test_pictures_without_the_teacher_say_so(
    kdrun: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kdrun("distill", *SMALL, "alone=false") == 0
    for path in workdir.glob("outputs/teachers/*/*/*"):
        if path.is_file():
            path.unlink()
    (run,) = results(workdir)
    assert kdrun("report", str(run["folder"]), "--pictures") == 0
    printed = capsys.readouterr().out
    names = [picture.name for picture in read_figures(run["folder"])]
    assert "confusion" in names
    assert "soft_labels" not in names
    assert "teacher is left out of the figures" in printed
