"""Published figures: their files, and which runs they stand beside."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.cli.config_groups import list_groups
from kdrun.errors import ConfigError
from kdrun.report.content import Report
from kdrun.report.published import PublishedMetric, match, read_file, read_published

Make = Callable[..., Path]
FIGURES = read_published()


def test_every_name_in_the_files_exists() -> None:
    groups = list_groups()
    # an image folder is called by its own name, a network of torchvision by its name there
    datasets, elsewhere = [*groups["dataset"], "imagenet"], ["regnet_y_16gf"]
    for figure in FIGURES:
        assert figure.dataset in datasets, figure
        assert figure.student in [*groups["student"], *elsewhere], figure
        for teacher in figure.teacher.split("+"):
            assert teacher in [*groups["teacher"], *elsewhere, "none"], figure
        assert all(name in groups["loss"] for name in figure.loss.split("+")), figure


def test_no_figure_is_there_twice() -> None:
    keys = [
        (f.dataset, f.teacher, f.student, f.loss, f.T, f.meaning, f.together, f.tokens,
         f.regions, tuple(f.transfer.items()))
        for f in FIGURES
    ]  # fmt: skip
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("dataset", "teacher", "student", "loss", "T", "shown"),
    [
        ("cifar100", "resnet32x4", "resnet8x4", "sp", None,
         "teacher 79.42 %, alone 72.50 %, distilled 72.94 % (full schedule, 240 epochs)"),
        ("cifar100", "wrn_40_2", "shufflenetv1", "crd", None,
         "teacher 75.61 %, alone 70.50 %, distilled 76.05 % (full schedule, 240 epochs)"),
        ("cifar100", "resnet56", "resnet20", "nd+kd", None,
         "teacher 72.34 %, alone 69.06 %, distilled 72.53 % (full schedule, 240 epochs)"),
        ("cifar100", "resnet56", "resnet20", "kd", "4",
         "teacher 72.34 %, alone 69.06 %, distilled 70.66 % (full schedule, 240 epochs)"),
        ("cifar100", "resnet56", "resnet20", "kd", "20",
         "teacher 72.34 %, alone 69.06 % (full schedule, 240 epochs)"),
        ("mnist", "mlp1200", "mlp800", "kd", "20",
         "teacher 67 errors, alone 146 errors, distilled 74 errors "
         "(full schedule, its length is not published)"),
        ("mnist", "none", "mlp800", "ce", None,
         "alone 146 errors (full schedule, its length is not published)"),
    ],
)  # fmt: skip
def test_runs_meet_their_figures(
    dataset: str, teacher: str, student: str, loss: str, T: str | None, shown: str
) -> None:
    settings = {"dataset": dataset, "teacher": teacher, "student": student, "loss": loss}
    found = match({**settings, **({"T": T} if T else {})}, FIGURES)
    assert found is not None
    assert found.shown == shown


MNIST = {"dataset": "mnist", "teacher": "mlp1200", "student": "mlp800", "loss": "kd", "T": "20"}
SPEECH = {"dataset": "speech_digits", "teacher": "mlp6x512", "student": "mlp6x512", "loss": "kd"}
USUAL = {"transfer.exclude_classes": "[]", "transfer.fraction": "1", "transfer.labels": "true"}


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({**MNIST, **USUAL}, "teacher 67 errors, alone 146 errors, distilled 74 errors"),
        (
            {**MNIST, "transfer.exclude_classes": "[3]", "transfer.bias": "match"},
            "teacher 67 errors, distilled 206 errors, distilled 133 errors in the left-out "
            "classes, distilled, bias corrected, 109 errors, distilled, bias corrected, 14 errors "
            "in the left-out classes",
        ),
        (
            {**MNIST, "transfer.only_classes": "[7,8]"},
            "teacher 67 errors, distilled 47.30 % error, distilled, bias corrected, 13.20 % error",
        ),
        ({**MNIST, "transfer.exclude_classes": "[4]"}, "teacher 67 errors"),
        ({**MNIST, "transfer.fraction": "0.03"}, "teacher 67 errors"),
        ({**MNIST, "teacher": "mlp1200+mlp1200"}, "teacher 67 errors, alone 146 errors"),
        (
            {**SPEECH, "T": "2", "transfer.fraction": "0.03"},
            "teacher 58.90 %, teacher 63.40 % in training, teacher 10.90 % word error, "
            "alone 44.50 %, alone 67.30 % in training, distilled 57.00 %, "
            "distilled 65.40 % in training",
        ),
        (
            {**SPEECH, "T": "2", "teacher": "+".join(["mlp6x512"] * 10)},
            "teacher 58.90 %, teacher 63.40 % in training, teacher 10.90 % word error, "
            "teachers together 61.10 %, teachers together 10.70 % word error, alone 58.90 %, "
            "alone 63.40 % in training, alone 10.90 % word error, distilled 60.80 %, "
            "distilled 10.70 % word error",
        ),
        (
            {"dataset": "cifar100", "teacher": "resnet50", "student": "mobilenetv2", "loss": "dkd",
             "loss.dkd.regions": "[1,2,4]"},
            "teacher 79.34 %, alone 64.60 %, distilled 71.36 %",
        ),
        (
            {"dataset": "cifar100", "teacher": "resnet50", "student": "vgg8", "loss": "dkd"},
            "teacher 79.34 %, alone 70.36 %",
        ),
        (
            {"dataset": "cifar10", "teacher": "wrn_16_2", "student": "wrn_16_1", "loss": "sp"},
            "teacher 6.07 % error, not verified, alone 8.74 % error, not verified, "
            "distilled 7.52 % error, not verified",
        ),
        (
            {"dataset": "imagenet", "teacher": "regnet_y_16gf", "student": "deit_tiny",
             "loss": "deit_hard", "student.distillation_tokens": "1"},
            "teacher 82.90 %, alone 72.20 %, distilled 74.50 %",
        ),
        (
            {"dataset": "imagenet", "teacher": "regnet_y_16gf", "student": "deit_tiny",
             "loss": "deit_hard", "student.distillation_tokens": "2"},
            "teacher 82.90 %, alone 72.20 %",
        ),
        (
            {"dataset": "mnist", "teacher": "none", "student": "mlp800", "loss": "ce",
             "transfer.exclude_classes": "[3]"},
            None,
        ),
    ],
)  # fmt: skip
def test_transfer_sets_ensembles_and_tokens_count(
    settings: dict[str, str], shown: str | None
) -> None:
    found = match(settings, FIGURES)
    assert (found and found.shown.rpartition(" (")[0]) == shown


def test_what_only_chooses_the_images_does_not_count() -> None:
    more = {"transfer.seed": "4", "transfer.bias": "3.5"}
    assert match({**MNIST, **more}, FIGURES) == match(MNIST, FIGURES)


def test_other_runs_meet_none() -> None:
    settings = {"dataset": "digits", "teacher": "cnn_large", "student": "cnn_tiny", "loss": "kd"}
    assert match(settings, FIGURES) is None


def test_the_column_is_labelled_and_its_source_named(
    make: Make, report_of: Callable[..., Report]
) -> None:
    names = {"dataset.name": "mnist", "teacher.name": "mlp1200", "student.name": "mlp800"}
    report = report_of(make(changes=names, T=20.0))
    columns = {one.name: one for one in report.sections[0].columns}
    column = columns["published (full schedule)"]
    assert column.name == "published (full schedule)"
    assert column.cells[0].text.startswith("teacher 67 errors")
    assert any("1503.02531" in source for source in report.sources)


def test_a_user_s_own_figures_come_first(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "mine.yaml").write_text(
        "source: my notes\ndataset: mnist\nmetric: errors\nrows:\n"
        "  - {teacher: mlp1200, student: mlp800, loss: kd, value: 80}\n"
    )
    figures = read_published(tmp_path)
    settings = {"dataset": "mnist", "teacher": "mlp1200", "student": "mlp800", "loss": "kd"}
    found = match({**settings, "T": "20"}, figures)
    assert found is not None
    assert [(type(one), one.value) for one in found.distilled] == [(PublishedMetric, 80)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows: 3", "needs rows"),
        ("rows: [", "cannot be read"),
        ("rows: [5]", "row 1 is not of the form"),
        ("rows: [{student: a, loss: kd, value: 1, dataset: b}]", "row 1 has no metric"),
        ("metric: top1\nrows: [{studnt: a}]", "Did you mean 'student'"),
        ("metric: top1\nrows: [{student: a, loss: kd, value: x, dataset: b}]", "not a number"),
        ("metric: wer\nrows: [{student: a, loss: kd, value: 1, dataset: b}]", "top1 or error or"),
        (
            "metric: top1\nrows: [{student: a, loss: kd, value: 1, dataset: b, transfer: 3}]",
            "transfer is not of the form",
        ),
        (
            "metric: top1\nrows: [{student: a, loss: kd, value: 1, dataset: b, "
            "transfer: {fractoin: 1}}]",
            "Did you mean 'fraction'",
        ),
        ("sorce: a\nrows: []", "Did you mean 'source'"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_file(path)
