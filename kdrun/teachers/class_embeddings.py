"""Statistics of a teacher's embeddings by class, over all plain training images.

One forward pass measures them. They are stored in a file, so that later runs and all jobs of a
sweep use the same numbers. The file's name holds a hash of everything they depend on.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kdrun.config.schema import NetworkConfig
from kdrun.data.dataset import Dataset
from kdrun.engine.devices import describe_device
from kdrun.files import canonical_hash, write_atomically
from kdrun.losses.class_statistics import first_of_each_class, linear_cka, require_several
from kdrun.models.card import NetworkCard
from kdrun.own_code import code_entry

VERSION = 1  # increase it when the meaning of the numbers changes
BATCH = 256  # images per forward pass, independent of settings
HELD_BYTES = 1 << 30  # samples for the similarity are kept from a pass for the means up to this

# Batches of (embeddings [B, D] float32 on the CPU, positions [B] in the training set), in order.
Pass = Callable[[], Iterator[tuple[Tensor, Tensor]]]


@dataclass
class ClassEmbeddings:
    """Measured on first use, or read from `folder`.

    targets: `[N]` labels of the training images. key: hash of what the numbers depend on.
    forward: one pass over the training images. announce: called before it.
    """

    folder: Path
    key: str
    targets: Tensor
    num_classes: int
    forward: Pass
    announce: Callable[[], None] = lambda: None
    _samples: Tensor | None = field(default=None, init=False)

    def class_means(self) -> Tensor:
        """The mean embedding of each class, `[C, D]` float32; zeros for a class without images."""
        return self._stored("means", lambda: self._measure(False)[0])

    def class_similarity(self) -> Tensor:
        """Linear CKA `[C, C]` between classes, of the first n images of each, in float32.

        n: the size of the smallest class. Raises ConfigError for a class with a single image.
        """
        return self._stored("similarity", self._similarity)

    def _similarity(self) -> Tensor:
        places = first_of_each_class(self.targets, self.num_classes)
        require_several(places)
        samples = self._samples
        if samples is None:
            _, samples = self._measure(True)
            assert samples is not None
        return linear_cka(samples).float()

    def _measure(self, samples: bool) -> tuple[Tensor, Tensor | None]:
        """(means, samples `[C, n, D]` for the similarity, if asked for or small)."""
        self.announce()
        places = first_of_each_class(self.targets, self.num_classes)
        slots = torch.full((len(self.targets),), -1)
        kept = places >= 0
        slots[places[kept]] = torch.arange(places.numel()).view_as(places)[kept]
        sums: Tensor | None = None
        rows: Tensor | None = None
        for embeddings, index in self.forward():
            if sums is None:
                width = embeddings.shape[1]
                sums = torch.zeros(self.num_classes, width, dtype=torch.float64)
                if samples or places.numel() * width * 4 <= HELD_BYTES:
                    rows = torch.zeros(places.numel(), width)
            sums.index_add_(0, self.targets[index], embeddings.double())
            if rows is not None:
                wanted = slots[index] >= 0
                rows[slots[index][wanted]] = embeddings[wanted]
        assert sums is not None
        counts = torch.bincount(self.targets, minlength=self.num_classes).clamp_min(1)
        self._samples = None if rows is None else rows.view(*places.shape, -1)
        return (sums / counts[:, None]).float(), self._samples

    def _stored(self, what: str, measure: Callable[[], Tensor]) -> Tensor:
        """The tensor from its file, or measured and written to it."""
        path = self.folder / f"class-{what}-{self.key}.safetensors"
        found = _read(path)
        if found is not None:
            return found
        measured = measure().contiguous()
        with suppress(
            OSError
        ):  # a full disk, or a folder of another user: measured again next time
            path.parent.mkdir(parents=True, exist_ok=True)
            content = save({"values": measured}, {"sha256": _digest(measured)})
            write_atomically(path, content)
        return measured


def statistics_key(
    weights: str, config: NetworkConfig, card: NetworkCard, dataset: Dataset, device: torch.device
) -> str:
    """Hash of a teacher (`weights`: digest of its state), its images and the machine's kernels."""
    key: dict[str, Any] = {
        "version": VERSION,
        "network": [config.target, config.kwargs, card.resized],
        "weights": weights,
        "normalisation": [asdict(dataset.normalisation), asdict(card.normalisation)],
        "dataset": dataset.fingerprint,
        "train_images": canonical_hash(dataset.train_index.tolist()),
        "device": describe_device(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": torch.__version__,
    }
    return canonical_hash(key | code_entry(asdict(config)))[:16]


def _read(path: Path) -> Tensor | None:
    """The tensor in a file; None if there is none, or if it is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            values: Tensor = file.get_tensor("values")
            expected = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return values if _digest(values) == expected else None


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().data).hexdigest()
