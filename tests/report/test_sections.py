"""Sections: which runs share a table, how rows are labelled, what belongs to a row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdrun.report.charts.curves import learning_curves
from kdrun.report.charts.heatmap import plane_charts
from kdrun.report.content import Report, SectionTable, best_lines, summary

Make = Callable[..., Path]
ReportOf = Callable[..., Report]


def sweep_of(
    outputs: Path, runs: list[Path], words: list[list[str]], verb: str = "distill"
) -> Path:
    """A sweep's folder over existing runs. words: the command of each job after the verb."""
    folder = (
        outputs / ("searches" if verb == "search" else "sweeps") / f"s{len(words)}{words[0][0]}"
    )
    (folder / "jobs").mkdir(parents=True)
    jobs: list[dict[str, Any]] = []
    for number, (run, own) in enumerate(zip(runs, words, strict=True)):
        job = {"job": number, "command": ["distill", "epochs=3", *own]}
        jobs.append({**job, "chosen": own} if verb == "search" else job)
        note = {"job": number, "code": 0, "run": str(run)}
        (folder / "jobs" / f"{number}.json").write_text(json.dumps(note))
    values = {"schema": 2, "command": [verb, "-m"], "jobs": jobs}
    (folder / "sweep.json").write_text(json.dumps(values))


def rows(table: SectionTable) -> list[str]:
    return [table.section.row_label(place) for place in range(len(table.section.groups))]


def test_data_sets_schemes_and_transfer_sets_have_their_own_sections(
    make: Make, outputs: Path, report_of: ReportOf
) -> None:
    make(T=1.0, val=90.0)
    make(T=4.0)
    make(changes={"dataset.name": "mnist"})
    make(changes={"scheme.name": "online"})
    make(changes={"transfer": {"fraction": 0.1, "labels": True, "bias": "none"}})
    report = report_of(outputs)
    assert [one.title for one in report.sections] == [
        "digits · single runs · cnn_large → cnn_tiny · kd",
        "digits · online · cnn_large → cnn_tiny · kd",
        "digits · single runs · cnn_large → cnn_tiny · kd · transfer.fraction=0.1",
        "mnist · single runs · cnn_large → cnn_tiny · kd",
    ]
    assert rows(report.sections[0]) == ["T=4", "T=1"]
    assert "4 experiments on 2 data sets" in summary(report)


def test_a_sweep_is_a_section_and_later_seeds_join_it(
    make: Make, outputs: Path, report_of: ReportOf
) -> None:
    first = [make(T=T, seed=0) for T in (1.0, 4.0)]
    sweep_of(outputs, first, [["T=1"], ["T=4"]])
    make(T=4.0, seed=1, val=97.0)  # a single run with the settings of a job
    losses = [
        make(T=4.0),
        make(loss={"sp": {"weight": 3000.0}}, outcome={"T": None, "alpha": None}),
    ]
    sweep_of(outputs, losses, [["loss=kd"], ["loss=sp"]])
    make(changes={"student.name": "resnet8"})
    report = report_of(outputs)
    titles = [one.title for one in report.sections]
    assert titles == [
        "digits · sweep over T · cnn_large → cnn_tiny · kd",
        "digits · sweep over loss · cnn_large → cnn_tiny",
        "digits · single runs · cnn_large → resnet8 · kd",
    ]
    assert rows(report.sections[0]) == ["T=4", "T=1"]
    assert [len(group.runs) for group in report.sections[0].section.groups] == [2, 1]
    assert rows(report.sections[1]) == ["loss=kd", "loss=sp"]  # T and alpha follow from the loss
    assert report.sections[1].section.names == ["loss"]


def test_a_sweep_over_data_sets_has_a_section_for_each(
    make: Make, outputs: Path, report_of: ReportOf
) -> None:
    names = [(name, T) for name in ("digits", "mnist") for T in (1.0, 4.0)]
    runs = [make(T=T, changes={"dataset.name": name}) for name, T in names]
    sweep_of(outputs, runs, [[f"dataset={name}", f"T={T:g}"] for name, T in names])
    titles = [one.title for one in report_of(outputs).sections]
    assert titles == [f"{name} · sweep over T · cnn_large → cnn_tiny · kd"
                      for name in ("digits", "mnist")]  # fmt: skip


def test_the_curve_of_a_baseline_outside_the_report_is_drawn(
    make: Make, outputs: Path, report_of: ReportOf
) -> None:
    labels = {"teacher": None, "loss": {"ce": {"weight": 1.0}}}
    baseline = make(val=70.0, outcome={"baseline": "d"}, **labels)
    run = make(outcome={"alone": {"run": str(baseline), "test": {"top1": 92.0}}})
    (table,) = report_of(run).sections
    chart = learning_curves(table.section.groups, ["T=4"])
    assert chart is not None
    assert "baseline of the first row ends at 70.00 %" in chart.drawing


def test_implied_settings_appear_once(make: Make, outputs: Path, report_of: ReportOf) -> None:
    """T and alpha, typed or as the loss has them; ce where alpha does not imply it."""
    for T, alpha in ((1.0, 0.1), (8.0, 0.5)):
        make(T=T, alpha=alpha, outcome={"ce": 1 - alpha}, ce=1 - alpha)
        kd = {"_target_": "a.KD", "weight": alpha, "temperature": T * 2}
        make(loss={"kd": kd}, outcome={"ce": 1 - alpha})
    make(T=1.0, alpha=0.1, outcome={"ce": 0.5}, ce=0.5)
    (one,) = report_of(outputs).sections
    assert one.section.names == ["T", "alpha", "ce"]
    assert set(rows(one)) == {
        "T=1 alpha=0.1", "T=2 alpha=0.1", "T=8 alpha=0.5", "T=16 alpha=0.5",
        "T=1 alpha=0.1 ce=0.5"}  # fmt: skip


def test_weights_of_losses_beside_the_soft_one_are_settings(
    make: Make, outputs: Path, report_of: ReportOf
) -> None:
    kd = {"_target_": "a.KD", "weight": 0.9, "temperature": 4.0}
    for weight in (1.0, 4.0):
        dkd = {"_target_": "a.DKD", "weight": weight, "temperature": 4.0}
        make(loss={"kd": kd, "dkd": dkd}, alpha=0.5, outcome={"loss": ["kd", "dkd"]})
    (one,) = report_of(outputs).sections
    assert one.section.names == ["loss.dkd.weight"]


def test_measured_weights_are_no_settings(make: Make, outputs: Path, report_of: ReportOf) -> None:
    for seed, weight in enumerate((0.8913, 0.8874)):
        kd = {"_target_": "a.KD", "weight": "auto", "temperature": 4.0}
        measured = {"kd": {"weight": weight, "ratio": 1.0, "batches": 10}}
        outcome = {"alpha": weight, "ce": 1 - weight, "auto_weights": measured}
        make(seed=seed, loss={"kd": kd}, outcome=outcome)
    (one,) = report_of(outputs).sections
    assert [len(group.runs) for group in one.section.groups] == [2]


def test_alpha_is_a_setting_where_another_weight_is_measured(
    make: Make, outputs: Path, report_of: ReportOf
) -> None:
    measured = {"sp": {"weight": 1400.0, "ratio": 1.0, "batches": 10}}
    for alpha in (0.5, 0.9):
        kd = {"_target_": "a.KD", "weight": alpha, "temperature": 4.0}
        sp = {"_target_": "a.SP", "weight": "auto"}
        outcome = {"alpha": alpha, "ce": 1 - alpha, "auto_weights": measured}
        make(loss={"kd": kd, "sp": sp}, outcome=outcome)
    (one,) = report_of(outputs).sections
    assert one.section.names == ["alpha"]


def test_what_differs_but_is_not_needed_is_named_below(
    make: Make, outputs: Path, report_of: ReportOf
) -> None:
    make(changes={"student.name": "resnet8"}, lr=0.1)
    make(lr=0.2)
    (one,) = report_of(outputs).sections
    assert (one.section.names, one.section.labels) == (["student", "lr"], ["student"])
    assert [column.name for column in one.columns if column.setting] == ["student", "lr"]


def test_assistants_belong_to_their_chain_and_never_win(
    make: Make, outputs: Path, tmp_path: Path, report_of: ReportOf
) -> None:
    for seed in range(2):
        assistant = make(
            seed=seed, test=99.0, val=99.5, outcome={"round": "digest"},
            changes={"student.name": "resnet8"},
        )  # fmt: skip
        entry = {"name": "resnet8", "role": "assistant 1", "params": 77754, "run": str(assistant),
                 "test": {"top1": 98.0 + seed}}  # fmt: skip
        make(
            seed=seed, test=95.0, changes={"scheme.name": "chain"},
            outcome={"generations": [entry, {"name": "cnn_tiny", "role": "student"}]},
        )  # fmt: skip
    outputs = outputs.rename(tmp_path / "moved")  # the paths in result.json lead nowhere now
    report = report_of(outputs)
    (one,) = report.sections
    assert one.title == "digits · chain · cnn_large → cnn_tiny · kd"
    assert best_lines(one.section)[0].startswith("loss=kd T=4 alpha=0.9: test 95.00")
    parts = [[column.cells[0].text for column in one.parts]]
    assert parts == [["loss=kd T=4 alpha=0.9", "assistant 1", "resnet8", "98.50 ± 0.71", "77,754"]]
    assert "2 runs served other runs" in summary(report)


def test_parts_without_their_run_are_a_section_of_their_own(
    make: Make, outputs: Path, report_of: ReportOf
) -> None:
    make(outcome={"round": "digest"}, val=99.0)
    make(T=1.0)
    titles = [one.title for one in report_of(outputs).sections]
    assert titles == [
        "digits · parts of other runs · cnn_large → cnn_tiny · kd",
        "digits · single runs · cnn_large → cnn_tiny · kd",
    ]


def test_a_run_of_the_user_s_own_stays_a_row_when_a_chain_uses_it(
    make: Make, outputs: Path, report_of: ReportOf
) -> None:
    own = make(changes={"student.name": "resnet8"})
    make(changes={"scheme.name": "chain"}, outcome={"generations": [{"run": str(own)}, {}]})
    assert len(report_of(outputs).sections) == 2


@pytest.mark.parametrize("verb", ["search", "distill"])
def test_settings_without_a_grid_are_a_scatter_plot(
    make: Make, outputs: Path, report_of: ReportOf, verb: str
) -> None:
    points = [(1.0 + n, round(0.1 + 0.06 * n, 4)) for n in range(14)]
    runs = [make(T=T, alpha=alpha, val=80.0 + T) for T, alpha in points]
    sweep_of(outputs, runs, [[f"T={T:g}", f"alpha={a:g}"] for T, a in points], verb)
    (one,) = report_of(outputs).sections
    kind = "search" if verb == "search" else "sweep"
    assert one.title.startswith(f"digits · {kind} over T, alpha")
    validation, _ = plane_charts(one.section)
    assert "Scatter plot" in validation.drawing
    assert validation.drawing.count('class="point"') == 14
    assert "T=14 alpha=0.88: 94.00 %, n=1" in validation.drawing
    assert "from 81.00 to 94.00 %. Circled: best on validation." in validation.caption


def test_two_contents_of_a_data_set_are_two_sections(
    make: Make, outputs: Path, report_of: ReportOf
) -> None:
    make()
    make(outcome={"dataset": {"name": "digits", "fingerprint": "a" * 64}})
    titles = [one.title for one in report_of(outputs).sections]
    assert [title.rpartition(" · ")[2] for title in titles] == ["data ffffff", "data aaaaaa"]


def test_verdicts_are_a_column_and_say_how_many_seeds_are_missing(
    make: Make, outputs: Path, report_of: ReportOf
) -> None:
    for seed, gain in enumerate((3.0, 2.9, 3.1)):
        make(T=1.0, seed=seed, test=92 + gain, alone=92.0)
        make(T=4.0, seed=seed, test=92 - gain, alone=92.0, val=90.0)
        make(T=8.0, seed=seed, test=92 + (seed - 0.5) * gain, alone=92.0, val=80.0)
    make(T=20.0, val=70.0)
    (one,) = report_of(outputs).sections
    columns = {column.name: column for column in one.columns}
    assert [cell.value for cell in columns["verdict"].cells] == [
        "helps", "does not help", "undecided", None]  # fmt: skip
    needed = [cell.value for cell in columns["seeds needed"].cells]
    assert needed == [None, None, needed[2], None]
    assert 10 < (needed[2] or 0) < 30
    order = [column.title for column in one.columns][:7]
    assert order == ["setting", "baseline", "distilled", "gain", "n", "teacher", "verdict"]
