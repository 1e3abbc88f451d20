"""Adding a verb adds a file: help, completion, suggestions and running it follow."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdrun import commands
from kdrun.cli import parser, verbs
from kdrun.cli.main import run
from kdrun.commands.completion import candidates

SOURCE = '''
"""`kdrun count-words`: an example."""

import torch  # heavy: must not be imported to list the verb

ORDER = 25
SUMMARY = "count the words that follow"


def run(argv):
    print(len(argv))
    return 0
'''


@pytest.fixture
def _new_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "count_words.py").write_text(SOURCE)
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    parser.forget()
    yield
    sys.modules.pop("kdrun.commands.count_words", None)
    monkeypatch.undo()
    parser.forget()


@pytest.mark.usefixtures("_new_verb")
def test_a_file_is_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["count-words", "a", "b"]) == 0
    assert capsys.readouterr().out == "2\n"
    assert run(["--help"]) == 0
    page = capsys.readouterr().out
    assert "  count-words    count the words that follow" in page
    assert page.index("  distill ") < page.index("count-words") < page.index("  evaluate ")
    assert run(["count-word"]) == 2
    assert "Did you mean 'count-words'?" in capsys.readouterr().err
    assert candidates("kdrun coun", verbs.names()) == ["count-words"]


def test_every_verb_has_what_the_others_rely_on() -> None:
    assert set(verbs.config_names()) == {
        *("train-teacher", "distill", "evaluate", "export", "benchmark", "search")
    }
    for name in verbs.names():
        module = verbs.module(name)
        assert callable(module.run)
        if name in verbs.config_names():
            assert module.EXAMPLES
            assert callable(module.config)
