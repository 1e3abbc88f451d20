"""The teacher store: `outputs/teachers/<dataset>/<network>-<fingerprint>/`.

An entry holds `teacher.safetensors`, `teacher.json` and `metrics.jsonl`; while it is being trained,
a lock and `checkpoints/`, from which any later run goes on.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from kdrun.checksums import seal, unseal
from kdrun.files import held
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

    def is_filled(self) -> bool:
        """True when a finished teacher lies here; the card is written last."""
        return (self.folder / f"{STEM}.json").is_file()

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


class TeacherStore:
    """All teachers under one output folder."""

    def __init__(self, output_root: Path) -> None:
        self.root = output_root / "teachers"

    def entry(self, dataset: str, network: str, digest: str) -> StoreEntry:
        """Where the teacher of that fingerprint is, or would be."""
        return StoreEntry(self.root / dataset / f"{network}-{digest[:12]}")

    def lock(self, entry: StoreEntry, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Hold the entry alone; `waiting` is called once when another run holds it."""
        name = f"{entry.folder.parent.name}-{entry.folder.name}.lock"
        return held(self.root / ".locks" / name, waiting)
