"""Every command of the READMEs is parsed, composed and checked; the first ones also run."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdrun.cli import planning
from kdrun.cli.main import run
from kdrun.cli.parser import parse_composed
from kdrun.cli.verbs import config_names

README = Path(__file__).resolve().parents[2] / "README.md"
TEXT = README.read_text()
KOREAN = README.with_name("README.ko.md").read_text()


def blocks(language: str, text: str = TEXT) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """Every `kdrun ...` line of a text block, without the comment after it."""
    found = []
    for block in blocks("text", text):
        for line in block.splitlines():
            if line.startswith("kdrun "):
                found.append(shlex.split(re.split(r"\s{3,}", line)[0])[1:])
    return found


COMMANDS = [list(argv) for argv in dict.fromkeys(map(tuple, commands(TEXT)))]
NEEDS_RUNS = ("resume", "report", "new")  # `new` is what the fixture runs
HYDRA = [argv for argv in COMMANDS if argv[0] in config_names()]
OTHER = [argv for argv in COMMANDS if argv[0] not in config_names()]


@pytest.fixture
def own_code(workdir: Path) -> Path:
    """The README's example loss and the files of `kdrun new`, where the commands expect them."""
    (loss,) = [block for block in blocks("python") if "my_losses.py" in block]
    (config,) = [block for block in blocks("yaml") if "my_configs" in block]
    (workdir / "my_losses.py").write_text(loss)
    (workdir / "my_configs" / "loss").mkdir(parents=True)
    (workdir / "my_configs" / "loss" / "cosine.yaml").write_text(config)
    for folder in ("photos/train/cat", "outputs/distill/..."):
        (workdir / folder).mkdir(parents=True)
    for weights in ("resnet56.pth", "resnet20.pth"):
        (workdir / weights).touch()
    for argv in OTHER:
        if argv[0] == "new":
            assert run(argv) == 0
    return workdir


def test_there_are_commands() -> None:
    assert len(HYDRA) >= 10
    assert len(blocks("bash")) == 2
    assert all(block.count("\n") == 1 for block in blocks("bash")), "one line each"


def weighed(argv: list[str]) -> Any:
    """A sweep over experiments composes each of them."""
    marks = [pytest.mark.heavy] if "sweep=repdistiller/table_1" in argv else []
    return pytest.param(argv, id=" ".join(argv), marks=marks)


@pytest.mark.parametrize("argv", [weighed(argv) for argv in HYDRA])
def test_each_command_is_accepted(argv: list[str], own_code: Path) -> None:
    plan = planning.check(argv[0], parse_composed(argv[0], argv[1:]))
    assert plan.configs


@pytest.mark.parametrize("argv", [a for a in OTHER if a[0] not in NEEDS_RUNS], ids=" ".join)
def test_each_other_verb_answers(argv: list[str], own_code: Path) -> None:
    assert run(argv) == 0


def test_the_own_loss_trains(own_code: Path, kdrun: Callable[..., int]) -> None:
    (argv,) = [argv for argv in HYDRA if "loss=[kd,cosine]" in argv]
    small = ["epochs=2", "teacher.schedule.epochs=2", "alone=false", "ui=quiet"]
    assert kdrun(*argv, *small) == 0


def test_the_korean_page_covers_the_same_ground() -> None:
    """The same commands, code and number of sections, and no link to nothing."""
    assert commands(KOREAN) == commands(TEXT)
    for language in ("bash", "python", "yaml"):
        assert blocks(language, KOREAN) == blocks(language)
    assert KOREAN.count("\n## ") == TEXT.count("\n## ")
    assert "](README.ko.md)" in TEXT
    assert "](README.md)" in KOREAN
    for path in re.findall(r"\]\((docs/[^)]+)\)", TEXT + KOREAN):
        assert (README.parent / path.partition("#")[0]).exists(), path


def test_the_loss_example_is_what_the_readme_says(own_code: Path) -> None:
    values = yaml.safe_load((own_code / "my_configs" / "loss" / "cosine.yaml").read_text())
    assert values["cosine"]["weight"] == 2.0


@pytest.mark.parametrize(
    "shorter",
    [
        ["epochs=1", "teacher.schedule.epochs=1"],
        pytest.param([], marks=pytest.mark.heavy, id="as written"),
    ],
)
def test_the_first_command_runs(
    shorter: list[str], kdrun: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """`kdrun distill`, the default run, piped: a table, no control characters."""
    line = blocks("bash")[0].strip().split("&&")[-1].split()
    assert line == ["kdrun", "distill"]
    assert kdrun("distill", *shorter) == 0
    output = capsys.readouterr().out
    for words in ("teacher  cnn_large", "student alone  cnn_tiny", "student distilled  cnn_tiny",
                  "gap closed", "agreement", "params", "FLOPs", "next:"):  # fmt: skip
        assert words in output, words
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", output)
