"""The report on terminals of several widths."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from report.test_sections import sweep_of

from kdrun.report import layout
from kdrun.report.content import Report
from kdrun.ui import report as ui
from kdrun.ui.console import Screen

Make = Callable[..., Path]
Draw = Callable[[int], list[str]]

AT_80 = """\
15 runs, 15 finished. 3 experiments on 1 data set, a section each.

digits · sweep over T, alpha · cnn_large → cnn_tiny · kd
  best on validation: T=4 alpha=0.9, test 94.10 ± 0.46 %, baseline
  92.20 ± 0.20 %, gain +1.90 points, teacher 99.00 % (n=3)
  verdict: helps, gain +1.90 points (95 % interval +1.00 to +2.80, n=3 seeds)
  in every row: agreement % 95.00 ± 0.00, ECE % 2.50 ± 0.00, params 438, FLOPs
  14 k, seconds 12.0

 setting            baseline     distilled          gain  n  teacher  verdict
 ────────────────────────────────────────────────────────────────────────────
 T=4 alpha=0.9  92.20 ± 0.20  94.10 ± 0.46  +1.90 ± 0.36  3    99.00  helps
 T=4 alpha=0.1  92.20 ± 0.20  95.10 ± 0.46  +2.90 ± 0.36  3    99.00  helps
 T=1 alpha=0.9  92.20 ± 0.20  96.10 ± 0.46  +3.90 ± 0.36  3    99.00  helps
 T=1 alpha=0.1  92.20 ± 0.20  97.10 ± 0.46  +4.90 ± 0.36  3    99.00  helps

  in the files: best val top-1 %, gap closed %, p, test errors, last val
  top-1 %, best-val test top-1 %

digits · chain · cnn_large → cnn_tiny · kd
  loss=kd T=4 alpha=0.9: test 95.00 %, baseline 92.00 %, gain +3.00 points,
  teacher 99.00 % (n=1)
  n=1: no verdict; repeat with -m seed=0,1,2

                                                             best val       gap
 setting             baseline  distilled   gain  n  teacher   top-1 %  closed %
 ──────────────────────────────────────────────────────────────────────────────
 loss=kd T=4            92.00      95.00  +3.00  1    99.00     96.00        43
 alpha=0.9

  in the files: agreement %, ECE %, test errors, last val top-1 %, best-val test
  top-1 %, params, FLOPs, seconds

digits · single runs · kd
  best on validation: student=mobilenetv2, test 95.00 %, baseline 92.00 %, gain
  +3.00 points, teacher 99.00 % (n=1)
  n=1: no verdict; repeat with -m seed=0,1,2
  in every row: gap closed % 43, agreement % 95.00, ECE % 2.50, test errors 18,
  best-val test top-1 % 94.50, params 438, FLOPs 14 k, seconds 12.0

                                                              best val
 setting              baseline  distilled   gain  n  teacher   top-1 %
 ─────────────────────────────────────────────────────────────────────
 student=mobilenetv2     92.00      95.00  +3.00  1    99.00     96.00
 student=cnn_tiny        92.00      95.00  +3.00  1    99.00     90.00

  in the files: last val top-1 %
  also different: dataset.split_seed, lr, schedule.label_smoothing,
  schedule.warmup_epochs

Rows are sorted by validation top-1 of the best epoch, averaged over seeds; test
accuracies are those of the last epoch and choose nothing. ± is the standard
deviation over n seeds.
p: paired t-test over seeds, two-sided; * below 0.05 after Holm's correction for
its table.
15 finished runs have no checksums (SHA256SUMS) and cannot be checked for
damage.
"""


@pytest.fixture
def draw(
    sweep: Path,
    make: Make,
    report_of: Callable[..., Report],
    monkeypatch: pytest.MonkeyPatch,
) -> Draw:
    """The report of a sweep, a scheme and two unlike single runs, at a width."""
    runs = sorted(sweep.glob("distill/*"))
    words = [[f"T={T}", f"alpha={a}", f"seed={s}"] for T in (1, 4) for a in (0.1, 0.9)
             for s in range(3)]  # fmt: skip
    sweep_of(sweep, runs, words)
    make(changes={"scheme.name": "chain"})
    make(changes={"student.name": "mobilenetv2", "schedule.label_smoothing": 0.1}, lr=0.05)
    make(changes={"dataset.split_seed": 3, "schedule.warmup_epochs": 2.0}, lr=0.1, val=90.0)
    report = report_of(sweep)

    def drawn(width: int) -> list[str]:
        text = io.StringIO()
        screen = Screen(file=text, width=width, highlight=False, soft_wrap=True)
        monkeypatch.setattr(ui, "console", lambda: screen)
        ui.show_report(report)
        return [line.rstrip() for line in text.getvalue().splitlines()]

    return drawn


def test_the_screen_at_80_columns(draw: Draw) -> None:
    assert "\n".join(draw(80)) + "\n" == AT_80


def test_the_screen_at_200_columns(draw: Draw) -> None:
    lines = draw(200)
    start = next(n for n, line in enumerate(lines) if line.startswith(" setting"))
    titles = re.split(r" {2,}", lines[start].strip())
    assert titles[:7] == ["setting", "baseline", "distilled", "gain", "n", "teacher", "verdict"]
    row = re.split(r" {2,}", lines[start + 2].strip())
    assert row[:7] == ["T=4 alpha=0.9", "92.20 ± 0.20", "94.10 ± 0.46", "+1.90 ± 0.36", "3",
                       "99.00", "helps"]  # fmt: skip
    assert lines[start + 3].strip().startswith("T=4 alpha=0.1")  # a line per row


@pytest.mark.parametrize("width", [60, 80, 100, 110, 120, 160, 200])
def test_no_line_is_too_long_and_no_word_is_broken(draw: Draw, width: int) -> None:
    lines = draw(width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for name in ("baseline", "distilled", "teacher", "verdict", "student=mobilenetv2",
                 "alpha=0.9", "92.20 ± 0.20", "94.10 ± 0.46"):  # fmt: skip
        assert name in text
    legend = [n for n, line in enumerate(lines) if line.startswith("Rows are sorted")]
    assert len(lines) - legend[0] <= 8 if width >= 80 else True


@pytest.mark.parametrize("width", [50, 80, 100])
def test_long_labels_break_at_separators(
    make: Make, outputs: Path, report_of: Callable[..., Report], monkeypatch: pytest.MonkeyPatch,
    width: int,
) -> None:  # fmt: skip
    losses = ("crd+reviewkd+ofd+semckd", "fitnet+at+sp+cc+vid+rkd+pkt")
    for seed in range(3):
        for loss in losses:
            terms = {name: {"weight": 1.0} for name in loss.split("+")}
            test, alone = 85.0 - 9 * seed, 92.0 + 3.5 * seed
            names = {"teacher.name": "mobilenetv2_100_imagenet"}
            make(test=test, alone=alone, seed=seed, loss=terms, changes=names)
    report = report_of(outputs)
    text = io.StringIO()
    screen = Screen(file=text, width=width, highlight=False, soft_wrap=True)
    monkeypatch.setattr(ui, "console", lambda: screen)
    ui.show_report(report)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    table = "\n".join(lines)
    for part in ("reviewkd+", "semckd", "distilled", "76.00 ± 9.00", "-19.50 ± 12.50"):
        assert part in table


def test_headings_break_between_words_only() -> None:
    assert layout.heading_lines("best-val test top-1 %") == ["best-val", "test top-1 %"]
    assert layout.heading_lines("agreement %") == ["agreement %"]
    assert layout.wrapped("T=4 alpha=0.9", 9) == ["T=4", "alpha=0.9"]
    assert layout.wrapped("teacher.seed=0.25 a", 9) == ["teacher.", "seed=0.25", "a"]
    assert layout.wrapped("abcdefghijkl", 5) == ["abcde", "fghij", "kl"]
    assert layout.wrapped("", 5) == [""]
    assert layout.paragraph("  a path/that/is/long b", 10) == ["  a", "  path/that/is/long", "  b"]


def test_proposals_over_the_budget_are_counted_by_limit() -> None:
    whys = ["377,768 bytes (limit 100,000)", "400,000 bytes (limit 100,000)"]
    whys += ["0.985 ms (limit 0.5), 14,100 FLOPs (limit 9,000)"]
    rows = [("over budget", "sweep", "kdrun distill", f"over budget: {why}") for why in whys]
    assert ui.over_budget_reasons([*rows, ("failed", "run", "", "boom")]) == {
        "over budget: bytes (limit 100,000)": 2,
        "over budget: ms (limit 0.5), FLOPs (limit 9,000)": 1,
    }
