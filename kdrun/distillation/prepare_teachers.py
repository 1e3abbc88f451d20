"""Prepare frozen teachers for training: device, precision, folding, compiling, cache."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.config.schema import DistillConfig, TeacherRuntimeConfig
from kdrun.data.dataset import Dataset
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.distillation.networks import seen_by
from kdrun.distillation.session import Session, eval_loader, train_loader
from kdrun.distillation.teacher import Teacher
from kdrun.engine.finite import refusing, require_finite
from kdrun.engine.metrics import collect_logits
from kdrun.losses.objective import Objective
from kdrun.models.build import sample_images
from kdrun.models.features.taps import FeatureExtractor
from kdrun.schemes.base import StudentScheme, freeze
from kdrun.teachers.cache_setup import AUTO, OFF, CacheRequest, obstacle_to_caching, open_cache
from kdrun.teachers.cached import CachedTeacher
from kdrun.teachers.frozen import compile_frozen, make_frozen
from kdrun.types import Outputs


def prepare_teachers(
    config: DistillConfig,
    dataset: Dataset,
    session: Session,
    objective: Objective,
    extractors: Sequence[FeatureExtractor],
    teachers: Sequence[Teacher],
) -> list[Any]:
    """The teachers as called in training: images → `Outputs`, in the order of `extractors`.

    dataset: the student's training images. Raises CheckpointError for a teacher that is not finite.
    """
    training = _Training(config, dataset, session, objective)
    return [
        _prepare(training, teacher_config.runtime, extractor, teacher)
        for teacher_config, extractor, teacher in zip(
            config.teachers, extractors, teachers, strict=True
        )
    ]


@dataclass(frozen=True)
class _Training:
    config: DistillConfig
    dataset: Dataset
    session: Session
    objective: Objective

    @cached_property
    def loader(self) -> TrainLoader:
        """The training images, not shared between jobs and not moved to the device."""
        config = self.config
        return train_loader(
            self.session.unshared(),
            self.dataset,
            replace(config.dataset, resident="false"),
            config.augment,
            config.schedule.batch_size,
            config.seed,
        )

    def precision(self, runtime: TeacherRuntimeConfig) -> str:
        """A teacher's precision: fp32 | bf16 | fp16."""
        return runtime.precision or self.config.schedule.precision

    def compiles(self, runtime: TeacherRuntimeConfig) -> bool:
        """Whether to compile a teacher."""
        return self.session.runtime.compile if runtime.compile is None else runtime.compile


def _prepare(
    training: _Training,
    runtime: TeacherRuntimeConfig,
    extractor: FeatureExtractor,
    teacher: Teacher,
) -> nn.Module:
    training.session.place(extractor)
    freeze(extractor)
    frozen = _frozen(training, runtime, extractor, teacher)
    prepared = _cached(training, runtime, extractor, frozen, teacher) or frozen
    card = teacher.card
    inputs = (card.info, card.normalisation, card.resized, card.outputs)
    key = repr((str(teacher.path), runtime, training.config.schedule.precision, inputs))
    return training.session.shared_teacher(prepared, extractor, key)


def _frozen(
    training: _Training,
    runtime: TeacherRuntimeConfig,
    extractor: FeatureExtractor,
    teacher: Teacher,
) -> nn.Module:
    """Apply precision, folding and compilation as configured."""
    session, card = training.session, teacher.card
    info = seen_by(training.dataset, card.resized, card.info.in_channels)
    sample = sample_images(extractor.network, info)
    precision = training.config.schedule.precision
    frozen, folded = make_frozen(extractor, runtime, precision, sample)
    _require_finite(training, frozen, runtime, teacher)
    if runtime.fold:
        session.reporter.say(f"  {card.name}: {folded} batch normalisations folded")
    return compile_frozen(frozen, session.device) if training.compiles(runtime) else frozen


def _require_finite(
    training: _Training, frozen: nn.Module, runtime: TeacherRuntimeConfig, teacher: Teacher
) -> None:
    """Raise CheckpointError if a teacher's logits are not finite on a batch of training images.

    Its accuracy was measured in float32; half precision and folding may overflow.
    """
    loader = training.loader
    index = torch.arange(min(training.config.schedule.batch_size, loader.num_images))
    images = loader.images(index, loader.teacher.views(0).select(index), loader.teacher)
    how = f"in {training.precision(runtime)}{' and folded' if runtime.fold else ''}"
    remedy = "Set teacher.precision=fp32 teacher.fold=false, or choose another teacher."
    with refusing(f"The teacher {teacher.path}, {how},", teacher.network, "training", remedy):
        require_finite(_logits(frozen, images))


@torch.no_grad()
def _logits(teacher: nn.Module, images: Tensor) -> Tensor:
    outputs: Outputs = teacher(images)
    return outputs.logits


def _cached(
    training: _Training,
    runtime: TeacherRuntimeConfig,
    extractor: FeatureExtractor,
    frozen: nn.Module,
    teacher: Teacher,
) -> CachedTeacher | None:
    """The teacher with its cache; None, with the reason reported, if it cannot be cached."""
    if runtime.cache == OFF:
        return None
    reason: CachedTeacher | str | None
    plan = training.loader.teacher.plan
    reason = obstacle_to_caching(extractor, training.objective, runtime, plan)
    if reason is None:
        reason = open_cache(_cache_request(training, runtime, frozen, teacher))
        if isinstance(reason, CachedTeacher):
            return reason
    reporter = training.session.reporter
    if runtime.cache == AUTO:
        show = reporter.log_only if plan.view_count is not None else reporter.say
        show(f"  teacher outputs are not cached: {reason}")
    else:
        reporter.warn(f"teacher.cache={runtime.cache} is not used: {reason}.")
    return None


def _cache_request(
    training: _Training, runtime: TeacherRuntimeConfig, frozen: nn.Module, teacher: Teacher
) -> CacheRequest:
    session, config = training.session, training.config
    return CacheRequest(
        frozen=frozen,
        network=teacher.network,
        config=teacher.config,
        card=teacher.card,
        runtime=runtime,
        dataset=training.dataset,
        precision=training.precision(runtime),
        compiled=training.compiles(runtime),
        device=session.device,
        threads=session.threads if session.device.type == "cpu" else None,
        batch_size=config.schedule.batch_size,
        loader=training.loader,
        folder=session.output_root / "cache",
        warn=session.reporter.warn,
    )


def require_finite_teachers(
    config: DistillConfig,
    dataset: Dataset,
    teachers: Sequence[Teacher],
    scheme: StudentScheme,
    session: Session,
) -> None:
    """Raise CheckpointError if a teacher causes a non-finite loss.

    Called after a training failed: every training image goes through every teacher.
    """
    for teacher, frozen in zip(teachers, scheme.frozen_teachers, strict=False):
        batches = eval_loader(
            session,
            dataset.train,
            dataset.normalisation,
            config.dataset,
            config.schedule.eval_batch_size,
        )
        network = frozen.teacher if isinstance(frozen, CachedTeacher) else frozen
        remedy = "Remove those images, or choose another teacher."
        with refusing(f"The teacher {teacher.path}", teacher.network, "training", remedy):
            collect_logits(network, batches, session.device, config.schedule.precision)
