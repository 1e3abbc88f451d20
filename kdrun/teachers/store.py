"""The teacher store: `outputs/teachers/<dataset>/<network>-<fingerprint>/`.

An entry holds `teacher.safetensors`, `teacher.json` and `metrics.jsonl`; while it is being trained,
a lock and `checkpoints/`, from which a later run resumes.
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
from kdrun.teachers.formats import averaged_stem
from kdrun.world import world

STEM = "teacher"
AVERAGED = averaged_stem(STEM)
FILES = (
    f"{STEM}.safetensors",
    f"{STEM}.json",
    f"{AVERAGED}.safetensors",
    f"{AVERAGED}.json",
    "metrics.jsonl",
    "metrics.csv",
)


@dataclass(frozen=True)
class StoreEntry:
    """A place in the store, with or without a teacher."""

    folder: Path

    @property
    def weights(self) -> Path:
        """The weights' file."""
        return self.folder / f"{STEM}.safetensors"

    @property
    def checkpoints(self) -> CheckpointFolder:
        """Checkpoints of its training, until it is filled."""
        return CheckpointFolder(self.folder / "checkpoints")

    def is_filled(self) -> bool:
        """Whether it holds a finished teacher; the card is written last.

        Also true if the card was lost: such a teacher is rejected, not overwritten.
        """
        card = self.folder / f"{STEM}.json"
        return card.is_file() or (not os.path.lexists(card) and is_listed(card))

    def card(self) -> NetworkCard:
        """The card of its teacher."""
        return read_card(self.folder / f"{STEM}.json")

    def load(self) -> tuple[nn.Module, NetworkCard]:
        """(network, card), with a verified checksum."""
        return load_network(self.folder, STEM)

    def fill(self, network: nn.Module, card: NetworkCard) -> NetworkCard:
        """Save a finished teacher."""
        unseal(self.folder)
        saved = save_network(self.folder, STEM, network, card)
        if world().is_main:
            seal(self.folder, FILES)
        return saved

    def has_leftovers(self) -> bool:
        """Whether files of its training are left: its process was killed or is still working."""
        return self.checkpoints.exists() or any(self.folder.glob(f"{UNFINISHED}*"))

    def tidy(self) -> None:
        """Delete the files of its training; the caller holds the lock."""
        self.checkpoints.remove()
        remove_unfinished(self.folder)
        if not (self.folder / SUMS).exists():
            seal(self.folder, FILES)


class TeacherStore:
    """All teachers under one output folder."""

    def __init__(self, output_root: Path) -> None:
        self.root = output_root / "teachers"

    def entry(self, dataset: str, network: str, digest: str) -> StoreEntry:
        """The place of the teacher with that fingerprint."""
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
