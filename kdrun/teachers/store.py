"""The teacher store: `outputs/teachers/<dataset>/<network>-<fingerprint>/`.

An entry holds `teacher.safetensors`, `teacher.json` and `metrics.jsonl`; while it is being trained,
a lock and `checkpoints/`, from which any later run goes on.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from kdrun.checksums import SUMS, is_listed, seal, unseal
from kdrun.engine.checkpoint import CheckpointFolder
from kdrun.files import UNFINISHED, held, remove_unfinished
from kdrun.models.card import NetworkCard, load_network, read_card, save_network
from kdrun.world import world

STEM = "teacher"
FILES = (f"{STEM}.safetensors", f"{STEM}.json", "metrics.jsonl", "metrics.csv")


@dataclass(frozen=True)
class StoreEntry:
    """One place in the store, filled or not."""

    folder: Path

    @property
    def weights(self) -> Path:
        """The weights' file."""
        return self.folder / f"{STEM}.safetensors"

    @property
    def checkpoints(self) -> CheckpointFolder:
        """The states of its training, until it is filled."""
        return CheckpointFolder(self.folder / "checkpoints")

    def is_filled(self) -> bool:
        """True when a finished teacher lies here; the card is written last.

        Also true of one whose card is lost: it is refused, not trained over.
        """
        card = self.folder / f"{STEM}.json"
        return card.is_file() or (not os.path.lexists(card) and is_listed(card))

    def card(self) -> NetworkCard:
        """The card of the teacher that lies here."""
        return read_card(self.folder / f"{STEM}.json")

    def load(self) -> tuple[nn.Module, NetworkCard]:
        """The teacher, its checksum verified."""
        return load_network(self.folder, STEM)

    def fill(self, network: nn.Module, card: NetworkCard) -> NetworkCard:
        """Put a finished teacher here."""
        unseal(self.folder)
        saved = save_network(self.folder, STEM, network, card)
        if world().is_main:
            seal(self.folder, FILES)
        return saved

    def has_leftovers(self) -> bool:
        """Whether the process that filled it was killed before it had tidied up, or still works."""
        return self.checkpoints.exists() or any(self.folder.glob(f"{UNFINISHED}*"))

    def tidy(self) -> None:
        """Delete what only a training needs; the caller holds the entry."""
        self.checkpoints.remove()
        remove_unfinished(self.folder)
        if not (self.folder / SUMS).exists():
            seal(self.folder, FILES)


class TeacherStore:
    """All teachers under one output folder."""

    def __init__(self, output_root: Path) -> None:
        self.root = output_root / "teachers"

    def entry(self, dataset: str, network: str, digest: str) -> StoreEntry:
        """Where the teacher of that fingerprint is, or would be."""
        return StoreEntry(self.root / dataset / f"{network}-{digest[:12]}")

    def lock_file(self, entry: StoreEntry) -> Path:
        """Lock of the process that trains the entry's teacher."""
        return self.root / ".locks" / f"{entry.folder.parent.name}-{entry.folder.name}.lock"

    def tidy(self, entry: StoreEntry) -> None:
        """Delete what a killed process left in a filled entry."""
        if world().is_main and entry.has_leftovers():
            # another process may hold the lock, or the disk may be full: a later run tidies
            with suppress(OSError), held(self.lock_file(entry), lambda: None):
                entry.tidy()
