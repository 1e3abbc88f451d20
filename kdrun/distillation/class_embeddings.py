"""Statistics of a teacher's embeddings, for losses: measured, or placeholders in a dry run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.data.loaders.loaders import EvalLoader
from kdrun.distillation.connect import EmbeddingSource
from kdrun.distillation.session import Session, layout
from kdrun.distillation.teacher import Teacher
from kdrun.engine import distributed
from kdrun.errors import ConfigError
from kdrun.losses.class_statistics import class_means, class_similarity
from kdrun.losses.context import TeacherEmbeddings
from kdrun.models.features.taps import FeatureExtractor
from kdrun.teachers.cache_setup import state_digest
from kdrun.teachers.class_embeddings import BATCH, ClassEmbeddings, statistics_key
from kdrun.teachers.store import TeacherStore
from kdrun.types import Outputs

FOLDER = "teacher-embeddings"


@dataclass(frozen=True)
class PlaceholderEmbeddings:
    """Numbers of the right shape for a dry run, which must not read the training images."""

    num_classes: int
    width: int

    def class_means(self) -> Tensor:
        """Ones, `[C, D]`."""
        return torch.ones(self.num_classes, self.width)

    def class_similarity(self) -> Tensor:
        """The identity, `[C, C]`."""
        return torch.eye(self.num_classes)


def placeholder_embeddings(
    position: int, extractor: FeatureExtractor, outputs: Outputs
) -> TeacherEmbeddings:
    """An `EmbeddingSource` for dry runs."""
    assert outputs.embedding is not None
    return PlaceholderEmbeddings(outputs.logits.shape[1], outputs.embedding.shape[1])


def embeddings_of_batches(
    batches: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> EmbeddingSource:
    """An `EmbeddingSource` for batches (images `[B, ...]`, labels `[B]` int64) of the training set.

    device: where the teachers run.
    """

    def source(position: int, extractor: FeatureExtractor, outputs: Outputs) -> TeacherEmbeddings:
        return _BatchEmbeddings(batches, extractor, outputs.logits.shape[1], device)

    return source


@dataclass(frozen=True)
class _BatchEmbeddings:
    batches: Iterable[tuple[Tensor, Tensor]]
    extractor: FeatureExtractor
    num_classes: int
    device: torch.device

    def class_means(self) -> Tensor:
        return class_means(*self._rows, self.num_classes)

    def class_similarity(self) -> Tensor:
        return class_similarity(*self._rows, self.num_classes)

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        """(embeddings `[N, D]` in float32, labels `[N]`) on the CPU."""
        self.extractor.to(self.device)
        rows = [(self._embedding(images), labels.cpu()) for images, labels in self.batches]
        self.extractor.cpu()
        if not rows:
            raise ConfigError("train has no batches: give an iterable of (images, labels).")
        embeddings, targets = zip(*rows, strict=True)
        return torch.cat(embeddings), torch.cat(targets)

    @torch.no_grad()
    def _embedding(self, images: Tensor) -> Tensor:
        outputs: Outputs = self.extractor.eval()(images.to(self.device))
        assert outputs.embedding is not None
        return outputs.embedding.float().cpu()


def measured_embeddings(
    config: DistillConfig, dataset: Dataset, session: Session, teachers: Sequence[Teacher]
) -> EmbeddingSource:
    """An `EmbeddingSource` that runs the teachers over the training images of `dataset`.

    The numbers are stored with a teacher of the store, else in the cache of the output root.
    """

    def source(position: int, extractor: FeatureExtractor, outputs: Outputs) -> TeacherEmbeddings:
        teacher = teachers[position]
        entry = teacher.path.parent
        is_stored = TeacherStore(session.output_root).root in entry.parents
        count = len(dataset.train)
        measured = ClassEmbeddings(
            folder=entry if is_stored else session.output_root / "cache" / FOLDER,
            key=statistics_key(
                state_digest(teacher.network), teacher.config, teacher.card, dataset, session.device
            ),
            targets=dataset.train.targets,
            num_classes=len(dataset.classes),
            forward=lambda: _forward(extractor, config, dataset, session),
            announce=lambda: session.reporter.say(
                f"  embeddings of teacher {teacher.card.name}: one pass over {count:,} training "
                "images"
            ),
        )
        return _SharedEmbeddings(measured, session)

    return source


@dataclass(frozen=True)
class _SharedEmbeddings:
    """Measured once for the jobs of a group and the processes of a run."""

    measured: ClassEmbeddings
    session: Session

    def class_means(self) -> Tensor:
        return self._once("means", self.measured.class_means)

    def class_similarity(self) -> Tensor:
        return self._once("similarity", self.measured.class_similarity)

    def _once(self, what: str, measure: Callable[[], Tensor]) -> Tensor:
        def make() -> Tensor:
            with distributed.main_first():
                return measure()

        key = ("class embeddings", what, str(self.measured.folder), self.measured.key)
        return self.session.once(key, make)


def _forward(
    extractor: FeatureExtractor, config: DistillConfig, dataset: Dataset, session: Session
) -> Iterator[tuple[Tensor, Tensor]]:
    """(embeddings `[B, D]` in float32, positions `[B]`) of all training images, on the CPU."""
    batches = EvalLoader(
        dataset.train,
        dataset.normalisation,
        BATCH,
        session.device,
        resident=config.dataset.resident,
        workers=config.dataset.workers,
        memory_format=layout(dataset.train),
    )
    was_training = extractor.training
    session.place(extractor.eval())
    try:
        for batch in batches:
            with torch.no_grad():
                outputs: Outputs = extractor(batch.images)
            assert outputs.embedding is not None
            yield outputs.embedding.float().cpu(), batch.index.cpu()
    finally:
        extractor.cpu().train(was_training)
