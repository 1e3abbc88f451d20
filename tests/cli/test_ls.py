"""`kdrun ls` and `kdrun show`: options, runs and teachers, also damaged ones."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from kdrun.cli.columns import wrapped_columns
from kdrun.cli.config_groups import first_comment, list_groups, option_path
from kdrun.cli.main import run
from kdrun.config.shipped import shipped_configs

Typed = Callable[..., str]
RESULT = {
    "schema": 1,
    "command": "distill",
    "status": "completed",
    "error": None,
    "dataset": {"name": "digits"},
    "objective": "0.1*CE + 0.9*16*KL(T=4)",
    "seed": 0,
    "teachers": [{"name": "cnn_large", "params": 94186, "test": {"top1": 98.5, "errors": 5}}],
    "student": {
        "name": "cnn_tiny",
        "params": 438,
        "test": {"top1": 93.25, "errors": 24},
        "best_val": {"epoch": 7, "test": {"top1": 93.5, "errors": 23}},
    },
    "alone": {"test": {"top1": 91.0, "errors": 32}},
    "gain": 2.25,
    "agreement": 94.5,
}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs of different ages and a teacher below `outputs`."""
    monkeypatch.chdir(tmp_path)
    running = {"schema": 1, "command": "distill", "status": "running", "objective": "1*CE"}
    texts = {
        "distill/digits/a/one/result.json": json.dumps(RESULT),
        "distill/digits/a/two/result.json": json.dumps(running),
        "distill/digits/a/three/result.json": "{ half of a fi",
        "teachers/digits/cnn_large-abc/teacher.json": json.dumps(
            {"name": "cnn_large", "params": 94186, "extra": {"test": {"top1": 98.5}}}
        ),
        "teachers/digits/cnn_tiny-abc/teacher.json": "[]",
    }
    for age, (name, text) in enumerate(texts.items()):
        path = tmp_path / "outputs" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        os.utime(path, (time.time() - 60 * age, time.time() - 60 * age))
    return tmp_path / "outputs"


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(list(words)) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    return text


def test_groups(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "ls").splitlines()
    rows = {
        line.split()[0]: int(line.split()[1])
        for line in lines[1:]
        if line[:1].isalpha() and line.split()[1].isdigit()
    }
    expected = {group: len(names) for group, names in list_groups().items() if group != "model"}
    assert rows == expected


def test_options_in_a_folder_of_their_group(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "ls", "experiment/hinton2015").splitlines()
    folder = shipped_configs() / "experiment" / "hinton2015"
    there = sorted(f"hinton2015/{path.stem}" for path in folder.glob("*.yaml"))
    assert [line.split()[0] for line in lines] == there
    assert set(there) < set(list_groups()["experiment"])
    for name in ("experiment/hinton2015/mnist", "hinton2015/mnist"):
        assert "T: 20" in printed(capsys, "show", name)
    text = printed(capsys, "show", "hinton2015/mnist_without_3")
    assert "exclude_classes" in text
    assert "max_norm" in text  # of what it is made of


@pytest.mark.parametrize("word", ["loss", "losses", "loss/"])
def test_options_with_a_line_on_each(capsys: pytest.CaptureFixture[str], word: str) -> None:
    lines = printed(capsys, "ls", word).splitlines()
    assert [line.split()[0] for line in lines] == list_groups()["loss"]
    kd = next(line for line in lines if line.startswith("kd "))
    assert kd.endswith("T² · KL(teacher ‖ student).")


def test_every_shipped_option_says_what_it_is() -> None:
    missing = [
        f"{group}/{name}"
        for group, names in list_groups().items()
        for name in names
        if not first_comment(option_path(group, name) or shipped_configs())
    ]
    assert missing == []


def test_own_options(capsys: pytest.CaptureFixture[str], my_configs: Path) -> None:
    text = printed(capsys, "ls", "student", "--config-dir", str(my_configs))
    assert "mine" in text
    assert "My own student." in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ls", "scedule"], "Did you mean 'schedule'?"),
        (["ls", "qqq"], "There are augment, dataset"),
        (["ls", "loss", "student"], "one thing at a time"),
        (["ls", "--al"], "Did you mean '--all'?"),
        (["ls", "--config-dir", "nowhere"], "there is no such folder"),
        (["show"], "show takes one name"),
        (["show", "los/sp"], "Did you mean 'loss/sp'?"),
        (["show", "loss/spp"], "Did you mean 'loss/sp'? Options: "),
        (["show", "loss"], "kdrun ls loss"),
        (["show", "cnn_tiny"], "kdrun show student/cnn_tiny or kdrun show teacher/cnn_tiny"),
        (["show", "cifar24"], "Did you mean 'schedule/cifar240'?"),
        (["show", "."], "holds no result.json"),
    ],
)
def test_mistakes(refused: Typed, words: list[str], said: str) -> None:
    assert said in refused(*words)


def test_runs_newest_first(capsys: pytest.CaptureFixture[str], made: Path) -> None:
    head, *rows = printed(capsys, "ls", "runs").splitlines()
    assert head.split()[:4] == ["when", "status", "test", "top-1"]
    assert "gain" in head
    assert head.split()[-3:] == ["command", "objective", "folder"]
    assert [row.rsplit("/", 1)[1] for row in rows] == ["one", "two", "three"]
    assert "completed" in rows[0]
    assert "93.25 %" in rows[0]
    assert "0.1*CE + 0.9*16*KL(T=4)" in rows[0]
    assert "killed" in rows[1]  # nobody holds its folder
    assert "unreadable" in rows[2]


def test_runs_are_filtered_and_sorted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, loss, gain in (("a", ["kd"], 0.5), ("b", ["kd", "sp"], 2.0), ("c", ["sp"], -1.0)):
        folder = tmp_path / "outputs" / name
        folder.mkdir(parents=True)
        values = {**RESULT, "loss": loss, "gain": gain}
        (folder / "result.json").write_text(json.dumps(values))

    def folders(*words: str) -> list[str]:
        lines = printed(capsys, "ls", "runs", *words).splitlines()[1:]
        return [line.rsplit("/", 1)[1] for line in lines]

    assert folders("--sort=gain") == ["b", "a", "c"]
    assert sorted(folders("loss=sp")) == ["b", "c"]
    assert folders("loss=[kd,sp]") == ["b"]
    assert folders("loss=kd,sp", "--sort", "gain") == ["b", "a", "c"]
    assert printed(capsys, "ls", "runs", "loss=at") == "No run below outputs matches loss=at.\n"
    assert run(["ls", "runs", "--sort=gian"]) == 2
    assert "Did you mean 'gain'?" in capsys.readouterr().err
    assert run(["ls", "runs", "los=sp"]) == 2
    assert "Did you mean 'loss'?" in capsys.readouterr().err
    assert run(["ls", "loss", "--sort=gain"]) == 2
    assert "kdrun ls runs" in capsys.readouterr().err


def test_a_run_is_running_while_its_process_holds_the_folder(
    capsys: pytest.CaptureFixture[str], made: Path
) -> None:
    with FileLock(made / "distill/digits/a/two/.lock"):
        assert "running" in printed(capsys, "ls", "runs").splitlines()[2]
    assert "killed" in printed(capsys, "ls", "runs").splitlines()[2]


def test_long_list_of_runs_is_cut_and_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(23):
        folder = tmp_path / "outputs" / str(number)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(RESULT))
    assert printed(capsys, "ls", "runs").endswith("3 more: kdrun ls runs --all\n")
    assert len(printed(capsys, "ls", "runs", "--all").splitlines()) == 24


def test_teachers(capsys: pytest.CaptureFixture[str], made: Path) -> None:
    _, good, bad = printed(capsys, "ls", "teachers").splitlines()
    assert "98.50 %" in good
    assert "94,186" in good
    assert "unreadable" in bad


def test_nothing_made_yet(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "kdrun distill makes one" in printed(capsys, "ls", "runs")
    assert "kdrun train-teacher fills it" in printed(capsys, "ls", "teachers")
    assert "elsewhere/teachers" in printed(capsys, "ls", "teachers", "output_root=elsewhere")


@pytest.mark.parametrize("name", ["loss/sp", "sp", "loss=sp", "loss/sp.yaml"])
def test_show_option(capsys: pytest.CaptureFixture[str], name: str) -> None:
    text = printed(capsys, "show", name)
    assert text.startswith(f"# {shipped_configs() / 'loss' / 'sp.yaml'}\n# Similarity-preserving")
    assert "\nkdrun.losses.sp.SimilarityPreserving\n\n" in text
    assert "B²" in text  # the formula in the docstring


def test_show_follows_what_an_option_is_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "show", "student/cnn_tiny")
    assert str(shipped_configs() / "model" / "cnn_tiny.yaml") in text
    assert "\nkdrun.models.cnn.ConvNet\n\nOne 3x3 convolution" in text


def test_show_own_class_without_importing_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "mypackage_of_test"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import Net as MyNet\n")
    (package / "inner.py").write_text(
        'raise SystemExit("imported")\nclass Net:\n    """What my network is."""\n'
    )
    option = tmp_path / "my" / "student" / "own.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("# Mine.\n_target_: mypackage_of_test.MyNet\n")
    assert "What my network is." in printed(capsys, "show", "own", "--config-dir", "my")
    option.write_text("# Mine.\n_target_: nosuchpackage.Net\n")
    assert "nosuchpackage.Net (no documentation found)" in printed(
        capsys, "show", "own", "--config-dir", "my"
    )


def test_show_run(capsys: pytest.CaptureFixture[str], made: Path) -> None:
    text = printed(capsys, "show", "outputs/distill/digits/a/one")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "status completed" in lines
    assert "objective 0.1*CE + 0.9*16*KL(T=4)" in lines
    assert "data set digits" in lines
    assert "teacher cnn_large 98.50 % 5 94,186" in lines
    assert "student cnn_tiny 93.25 % 24 438" in lines
    assert "best validation epoch (7) 93.50 % 23 -" in lines
    assert "student alone 91.00 % 32 -" in lines
    assert "gain: +2.25 points" in lines
    assert "agreement: 94.50 %" in lines


def test_show_unfinished_run_and_teacher(capsys: pytest.CaptureFixture[str], made: Path) -> None:
    assert "running" in printed(capsys, "show", "outputs/distill/digits/a/two")
    text = printed(capsys, "show", "outputs/teachers/digits/cnn_large-abc")
    assert "98.50 %" in text


def test_show_unreadable_run(capsys: pytest.CaptureFixture[str], made: Path) -> None:
    assert run(["show", "outputs/distill/digits/a/three"]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value", [{"schema": 1, "student": 3, "teachers": 4}, {"teachers": [3]}, {"dataset": []}]
)
def test_strange_results_do_not_break_the_listing(
    capsys: pytest.CaptureFixture[str], made: Path, value: Any
) -> None:
    (made / "distill/digits/a/one/result.json").write_text(json.dumps(value))
    assert "one" in printed(capsys, "ls", "runs")
    assert "one" in printed(capsys, "show", "outputs/distill/digits/a/one")


@pytest.mark.parametrize("what", ["runs", "teachers"])
@pytest.mark.parametrize("link", ["outputs", "outputs/distill", "outputs/teachers"])
def test_a_disk_that_is_not_mounted_is_not_an_empty_folder(
    what: str, link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path(link).parent.mkdir(exist_ok=True)
    Path(link).symlink_to("/not/mounted")
    reached = link == "outputs" or (what == "teachers") == link.endswith("teachers")
    assert run(["ls", what]) == (2 if reached else 0)
    printed = capsys.readouterr()
    assert (f"{link} is a link to /not/mounted" in printed.err) is reached


def test_descriptions_wrap_within_the_terminal_and_stay_whole_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [("kd", "soft targets " * 12), ("a/name/longer/than/half/of/the/line", "short")]
    assert max(map(len, wrapped_columns(rows).splitlines())) > 60
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    text = wrapped_columns(rows)
    assert max(map(len, text.splitlines())) < 60
    assert " ".join(text.split()).count("soft targets") == 12
