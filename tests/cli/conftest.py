"""The command line with a recorder instead of the work of the verbs, in an empty folder."""

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import kdrun.sweeps
from kdrun.cli import output
from kdrun.cli.main import run
from kdrun.commands import distill, evaluate, train_teacher
from kdrun.runs.sweeps import SweepFolder


@dataclass
class Recorder:
    """What the command line called; `react` is called instead of the work and may raise."""

    calls: list[tuple[str, Any, list[str], Path | None, int]] = field(default_factory=list)
    announced: list[tuple[Path, list[Any], str]] = field(default_factory=list)
    progress: list[int] = field(default_factory=list)
    summarised: list[Path] = field(default_factory=list)
    resumed: list[Path] = field(default_factory=list)
    react: Callable[[Any], None] = lambda config: None
    react_to_announcement: Callable[[], None] = lambda: None

    def verb(self, name: str) -> Callable[..., None]:
        def called(
            config: Any, argv: list[str], sweep_dir: Path | None = None, job: int = 0
        ) -> None:
            self.calls.append((name, config, argv, sweep_dir, job))
            self.react(config)

        return called

    def announce(self, folder: SweepFolder, configs: list[Any], launcher: str) -> None:
        self.announced.append((folder.path, configs, launcher))
        self.react_to_announcement()

    def say_progress(self, folder: SweepFolder, job: int) -> None:
        self.progress.append(job)

    def summarise(self, folder: SweepFolder) -> None:
        self.summarised.append(folder.path)


@pytest.fixture(autouse=True)
def _no_handlers_left() -> Iterator[None]:
    """Hydra gives the root logger a handler on the output of the test that it ran in."""
    before = list(logging.root.handlers)
    yield
    logging.root.handlers[:] = before


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    """Verbs that only record their calls; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    # a loaded machine must not add a line of progress to what a test compares
    monkeypatch.setattr(output.Progress, "FIRST_SECONDS", 1e9)
    recorder = Recorder()
    for module in (train_teacher, distill, evaluate):
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, "execute", recorder.verb(name))
    resume = ModuleType("kdrun.distillation.resume")
    resume.resume_run = recorder.resumed.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, resume.__name__, resume)
    sweep = ModuleType("kdrun.sweeps.progress")
    for name in ("announce", "say_progress", "summarise"):
        setattr(sweep, name, getattr(recorder, name))
    monkeypatch.setitem(sys.modules, sweep.__name__, sweep)
    monkeypatch.setattr(kdrun.sweeps, "progress", sweep, raising=False)
    return recorder


@pytest.fixture
def refused(stages: Recorder, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Type a command that must be refused: exit code 2, one message, nothing run or written."""

    def type_it(*words: str) -> str:
        code = run(list(words))
        printed = capsys.readouterr()
        assert code == 2, printed
        assert printed.out == ""
        assert "Traceback" not in printed.err
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1, printed.err
        assert stages.calls == [] == stages.announced
        assert not Path("outputs").exists()
        return printed.err

    return type_it


@pytest.fixture
def my_configs(tmp_path: Path) -> Path:
    """A folder with a user's own student and experiment."""
    folder = tmp_path / "my"
    texts = {
        "student/mine.yaml": "# My own student.\n"
        "defaults: [/model/cnn_tiny@_here_, _self_]\nwidths: [2]\n",
        "experiment/first.yaml": "# @package _global_\n# My own experiment.\n"
        "defaults:\n  - override /loss: [sp]\nepochs: 3\nschedule:\n  lr: 0.125\n",
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
