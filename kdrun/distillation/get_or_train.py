"""Find a trained network by the fingerprint of its recipe, or train it while holding a lock.

Teachers, baselines and earlier generations are all trained through `get_or_train`. A network with a
given fingerprint is trained once; later runs load it, and processes that need it at the same time
wait for the one that trains it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from kdrun.files import held
from kdrun.ui.reporter import Reporter


class NetworkRecipe(Protocol):
    """A network that is fully determined by its recipe."""

    @property
    def lock_file(self) -> Path:
        """Lock that a process holds while it trains this network."""

    def find(self, warn: Callable[[str], None]) -> Path | None:
        """The folder of the finished network; None if it has not been trained.

        warn: called with a sentence about each damaged candidate.
        """

    def train(self) -> Path:
        """Train the network, or resume its interrupted training; returns its folder."""


class TrainedNetwork(NamedTuple):
    """The folder of a trained network. training_seconds: None if it was found."""

    folder: Path
    training_seconds: float | None


def get_or_train(recipe: NetworkRecipe, reporter: Reporter) -> TrainedNetwork:
    """Find the network of a recipe, or train it. Raises whatever the training raises."""
    folder = recipe.find(reporter.warn)
    if folder is not None:
        return TrainedNetwork(folder, None)
    with held(recipe.lock_file, lambda: reporter.say("  another process is training it; waiting")):
        folder = recipe.find(lambda fault: None)  # faults were reported above
        if folder is not None:
            return TrainedNetwork(folder, None)
        started = time.monotonic()
        folder = recipe.train()
        return TrainedNetwork(folder, time.monotonic() - started)
