"""A network is trained once for each recipe, whatever runs beside it."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.distillation.get_or_train import get_or_train
from kdrun.files import held
from kdrun.ui.reporter import Reporter


class Recipe:
    """Trains by making a folder, and counts how often."""

    def __init__(self, root: Path, error: Exception | None = None) -> None:
        self.folder = root / "network"
        self.lock_file = root / ".locks" / "network.lock"
        self.error = error
        self.trained = 0
        self.warnings: list[str] = []

    def find(self, warn: Callable[[str], None]) -> Path | None:
        warn("one damaged candidate")
        return self.folder if self.folder.is_dir() else None

    def train(self) -> Path:
        self.trained += 1
        if self.error is not None:
            raise self.error
        self.folder.mkdir()
        return self.folder


class Screen(Reporter):
    def __init__(self) -> None:
        super().__init__("quiet")
        self.lines: list[str] = []

    def say(self, text: str = "", style: str | None = None) -> None:
        self.lines.append(text)


def test_trains_once_and_then_finds(tmp_path: Path) -> None:
    recipe, screen = Recipe(tmp_path), Screen()
    folder, seconds = get_or_train(recipe, screen)
    assert folder == recipe.folder
    assert seconds is not None
    assert screen.lines == ["warning: one damaged candidate"]  # not repeated under the lock
    assert get_or_train(recipe, screen) == (recipe.folder, None)
    assert recipe.trained == 1


def test_waits_for_the_process_that_trains_it(tmp_path: Path) -> None:
    recipe, screen = Recipe(tmp_path), Screen()
    results: list[object] = []
    with held(recipe.lock_file, lambda: None):
        thread = threading.Thread(target=lambda: results.append(get_or_train(recipe, screen)))
        thread.start()
        while not any("another process is training it; waiting" in line for line in screen.lines):
            assert thread.is_alive()
        recipe.folder.mkdir()  # the other process finishes
    thread.join()
    assert results == [(recipe.folder, None)]
    assert recipe.trained == 0


def test_a_failed_training_releases_the_lock(tmp_path: Path) -> None:
    recipe, screen = Recipe(tmp_path, ValueError("no convergence")), Screen()
    with pytest.raises(ValueError, match="no convergence"):
        get_or_train(recipe, screen)
    recipe.error = None
    assert get_or_train(recipe, screen).training_seconds is not None
    assert recipe.trained == 2
