"""Frozen teachers ready to run: their own precision, folded, compiled, cached.

A teacher's outputs can be cached if every loss reads only its logits (or the embedding) of
plain views. Whether that changes a result is measured here, on this machine and this teacher,
before the first step.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.config.schema import DistillConfig, TeacherRuntimeConfig
from kdrun.data.dataset import Dataset
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.distillation.networks import seen_by
from kdrun.distillation.session import Session, eval_loader, train_loader
from kdrun.distillation.teacher import Teacher
from kdrun.engine.devices import describe_device
from kdrun.engine.finite import refusing, require_finite
from kdrun.engine.metrics import collect_logits
from kdrun.files import (
    ABANDONED_SECONDS,
    canonical_hash,
    read_json,
    remove_unfinished,
    write_json,
)
from kdrun.losses.objective import Objective
from kdrun.models.build import sample_images
from kdrun.models.taps import FeatureExtractor
from kdrun.schemes.base import StudentScheme
from kdrun.teachers.agreement import Agreement, agreement
from kdrun.teachers.cache_file import CacheFile, record_bytes
from kdrun.teachers.cached import (
    STORED,
    CachedTeacher,
    cached_teachers,
    chunk_size,
    view_count,
)
from kdrun.teachers.frozen import compile_frozen, make_frozen
from kdrun.types import Outputs
from kdrun.world import world

VERSION = 2  # raise it when the meaning of a record changes
FOLDER = "teacher-outputs"
LOGITS, EMBEDDING, AUTO, OFF = "logits", "embedding", "auto", "off"


@dataclass(frozen=True)
class Lesson:
    """What the preparation of all teachers of one training needs."""

    config: DistillConfig
    dataset: Dataset
    session: Session
    objective: Objective


def prepare(
    lesson: Lesson, extractor: Sequence[FeatureExtractor], ready: Sequence[Teacher]
) -> list[Any]:
    """Each teacher on its device, frozen, run as its settings say, and cached where possible.

    In the order of `extractor`; images → `Outputs`.
    """
    found = []
    for one, network, teacher in zip(lesson.config.teachers, extractor, ready, strict=True):
        lesson.session.place(network)
        network.requires_grad_(False).eval()
        frozen = _frozen(lesson, network, one.teaching, teacher)
        made = _cached_or_plain(lesson, network, frozen, one.teaching, teacher)
        card = teacher.card
        read = (card.info, card.normalisation, card.resized, card.outputs)
        key = repr((str(teacher.path), one.teaching, lesson.config.schedule.precision, read))
        found.append(lesson.session.shared_teacher(made, network, key))
    return found


def _frozen(
    lesson: Lesson, extractor: FeatureExtractor, teaching: TeacherRuntimeConfig, ready: Teacher
) -> nn.Module:
    session = lesson.session
    sample = sample_images(
        extractor.network, seen_by(lesson.dataset, ready.card.resized, ready.card.info.in_channels)
    )
    precision = lesson.config.schedule.precision
    compiled = session.runtime.compile if teaching.compile is None else teaching.compile
    frozen, folded, fused = make_frozen(extractor, teaching, precision, sample)
    _require_finite(lesson, frozen, teaching, ready)
    if teaching.fold:
        also = f", {fused} convolutions fused with what follows them" if fused else ""
        session.reporter.say(f"  {ready.card.name}: {folded} batch normalisations folded{also}")
    if fused and compiled:
        session.reporter.log_only("  not compiled: fused it is as fast, and there is no waiting")
    return compile_frozen(frozen, session.device) if compiled and not fused else frozen


def _require_finite(
    lesson: Lesson, frozen: nn.Module, teaching: TeacherRuntimeConfig, ready: Teacher
) -> None:
    """Raise CheckpointError for a teacher that is not finite on a batch as it will teach.

    Its measured accuracy is that of the float32 network; half precision and folding may overflow.
    """
    session, config = lesson.session.unshared(), lesson.config
    data, schedule = config.dataset, config.schedule
    loader = train_loader(
        session,
        lesson.dataset,
        replace(data, resident="false"),
        data.augment,
        schedule.batch_size,
        config.seed,
    )
    index = torch.arange(min(schedule.batch_size, loader.num_images))
    images = loader.images(index, loader.views(0).select(index))
    precision = teaching.precision or schedule.precision
    how = f"as it teaches ({precision}{', folded' if teaching.fold else ''})"
    remedy = "Set teacher.precision=fp32 teacher.fold=false, or choose another teacher."
    with refusing(f"The teacher {ready.path}, {how},", ready.network, "training", remedy):
        require_finite(_outputs_of(frozen, images))


@torch.no_grad()
def _outputs_of(teacher: nn.Module, images: Tensor) -> Tensor:
    outputs: Outputs = teacher(images)
    return outputs.logits


def require_finite_teachers(
    config: DistillConfig,
    dataset: Dataset,
    teachers: Sequence[Teacher],
    scheme: StudentScheme,
    session: Session,
) -> None:
    """Raise CheckpointError if a teacher is the cause of a loss that is not finite.

    Called when a training has failed: every training image goes through every teacher.
    """
    for ready, teacher in zip(teachers, scheme.frozen_teachers, strict=False):
        batches = eval_loader(
            session,
            dataset.train,
            dataset.normalisation,
            config.dataset,
            config.schedule.eval_batch_size,
        )
        network = teacher.teacher if isinstance(teacher, CachedTeacher) else teacher
        remedy = "Remove those images, or choose another teacher."
        with refusing(f"The teacher {ready.path}", ready.network, "training", remedy):
            collect_logits(network, batches, session.device, config.schedule.precision)


def _cached_or_plain(
    lesson: Lesson,
    extractor: FeatureExtractor,
    frozen: nn.Module,
    teaching: TeacherRuntimeConfig,
    ready: Teacher,
) -> nn.Module:
    """The teacher with its cache, or without; reports why where a cache was requested."""
    if teaching.cache == OFF:
        return frozen
    reason = _obstacle(lesson, extractor, teaching)
    if reason is None:
        made = _with_cache(lesson, extractor, frozen, teaching, ready)
        if isinstance(made, CachedTeacher):
            return made
        reason = made
    if teaching.cache != AUTO:
        lesson.session.reporter.warn(f"teacher.cache={teaching.cache} is not used: {reason}.")
    else:
        lesson.session.reporter.log_only(f"  teacher outputs are not cached: {reason}")
    return frozen


def _obstacle(
    lesson: Lesson, extractor: FeatureExtractor, teaching: TeacherRuntimeConfig
) -> str | None:
    """Why the objective needs more than the cache holds."""
    if world().size > 1:
        return "several processes train together"
    if extractor.names:
        return f"the objective reads feature maps ({', '.join(extractor.names)})"
    if lesson.objective.reads_strong_view:
        return "the objective reads a second, continuous view of every image"
    if extractor.embedding and teaching.cache != EMBEDDING:
        return "the objective reads the embedding (teacher.cache=embedding caches it too)"
    return None


def _with_cache(
    lesson: Lesson,
    extractor: FeatureExtractor,
    frozen: nn.Module,
    teaching: TeacherRuntimeConfig,
    ready: Teacher,
) -> CachedTeacher | str:
    """The cached teacher, or why there is none."""
    session, config, dataset = lesson.session.unshared(), lesson.config, lesson.dataset
    loader = train_loader(
        session,
        dataset,
        replace(config.dataset, resident="false"),
        config.dataset.augment,
        config.schedule.batch_size,
        config.seed,
    )
    images = _trial_images(loader, session.device)
    outputs = _outputs(frozen, images)
    if outputs.distillation:
        return "it has distillation heads"
    dtype, widths = _form(outputs, teaching)
    if dtype not in STORED:
        return f"its outputs are of type {dtype}"
    augment = config.dataset.augment
    folder = _folder(lesson, ready, teaching, dtype, widths)
    per_image = view_count(augment) * record_bytes(sum(widths), STORED[dtype][0])
    storable = min(len(dataset.train), int(teaching.cache_gb * 1e9) // per_image)
    if storable == 0:
        return f"one image needs {per_image:,} bytes, more than teacher.cache_gb allows"
    first, behind = world().share(min(config.schedule.batch_size, len(dataset.train)))
    batch_size = behind - first  # this process's share of a batch
    measured = _agreement(folder, frozen, images, batch_size, widths, session.device)
    if teaching.cache == AUTO and not (measured.batch and teaching.cache_dtype is None):
        return "it would change the last digits on this machine (teacher.cache=logits does)"
    if not measured.rows:
        session.reporter.warn(
            "on this machine a teacher's outputs depend in their last digits on the images beside "
            "it: with teacher.cache a repeated run may differ from the first one"
        )
    try:
        file = CacheFile(
            folder / "records.bin", storable * view_count(augment), sum(widths), STORED[dtype][0]
        )
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror})"
    sizes = {batch_size} if teaching.cache == AUTO else None
    reporter = session.reporter
    return CachedTeacher(
        frozen, file, storable, augment, dtype, widths, session.device, sizes, reporter.warn
    )


def _trial_images(loader: TrainLoader, device: torch.device) -> Tensor:
    """Enough training images, as the loader makes them, to try chunks and batches with."""
    count = max(2 * chunk_size(device), loader.batch_size)
    index = torch.arange(count) % loader.num_images
    return loader.images(index, loader.views(0).select(index))


@torch.no_grad()
def _outputs(frozen: nn.Module, images: Tensor) -> Outputs:
    outputs: Outputs = frozen(images[: chunk_size(images.device)])
    return outputs


def _form(outputs: Outputs, teaching: TeacherRuntimeConfig) -> tuple[torch.dtype, tuple[int, int]]:
    """(type of the stored values, (classes, embedding's width or 0))."""
    dtype = torch.float16 if teaching.cache_dtype == "float16" else outputs.logits.dtype
    wide = outputs.embedding if teaching.cache == EMBEDDING else None
    return dtype, (outputs.logits.shape[1], 0 if wide is None else wide.shape[1])


def _folder(
    lesson: Lesson,
    ready: Teacher,
    teaching: TeacherRuntimeConfig,
    dtype: torch.dtype,
    widths: tuple[int, int],
) -> Path:
    """Where the records of this teacher, these images and this way of computing lie."""
    session, dataset, config = lesson.session, lesson.dataset, lesson.config
    compiled = session.runtime.compile if teaching.compile is None else teaching.compile
    key = {
        "version": VERSION,
        "network": [ready.config.target, ready.config.kwargs, ready.card.resized],
        "weights": state_digest(ready.network),
        "normalisation": [asdict(dataset.normalisation), asdict(ready.normalisation)],
        "dataset": dataset.fingerprint,
        "train_images": canonical_hash(dataset.train_index.tolist()),
        "augment": asdict(config.dataset.augment),
        "precision": teaching.precision or config.schedule.precision,
        "fold": teaching.fold,
        "compile": compiled,
        "stored": [str(dtype), *widths],
        "device": describe_device(session.device),
        "threads": session.threads if session.device.type == "cpu" else None,
        "torch": torch.__version__,
        "chunk": chunk_size(session.device),
    }
    if ready.card.outputs is not None:
        key["outputs"] = list(ready.card.outputs)
    name = f"{ready.card.name}-{canonical_hash(key)[:16]}"
    folder = session.output_root / "cache" / FOLDER / name
    remove_unfinished(folder, age_seconds=ABANDONED_SECONDS)
    try:
        if not (folder / "key.json").exists():
            write_json(folder / "key.json", key)
    except OSError:
        pass  # the records cannot be written either, and that is said
    return folder


def _agreement(
    folder: Path,
    frozen: nn.Module,
    images: Tensor,
    batch_size: int,
    widths: tuple[int, int],
    device: torch.device,
) -> Agreement:
    """Measured once for each kind of computing and batch size, then read from beside the records.

    What it measures is a property of kernels, sizes and threads, which are all in the key.
    """
    path = folder / f"agreement-{batch_size}.json"
    try:
        return Agreement(**read_json(path))
    except (OSError, ValueError, TypeError):
        pass

    def run(part: Tensor) -> Tensor:
        outputs: Outputs = frozen(part)
        if not widths[1]:
            return outputs.logits
        assert outputs.embedding is not None
        return torch.cat((outputs.logits, outputs.embedding.to(outputs.logits.dtype)), dim=1)

    found = agreement(run, images, chunk_size(device), batch_size)
    with suppress(OSError):  # a full disk, or somebody else's folder: it is measured again
        write_json(path, asdict(found))
    return found


def state_digest(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def facts(teachers: Sequence[Any]) -> list[dict[str, Any]] | None:
    """The entry of `result.json` about teacher caches: counts since the run started or resumed."""
    found = [
        {
            "file": str(teacher.file.path),
            "images": teacher.counts.images,
            "computed": teacher.counts.computed,
            "found_percent": round(teacher.counts.share(), 2),
            "images_with_room": teacher.storable,
        }
        for teacher in _all_cached(teachers)
    ]
    return found or None


def _all_cached(teachers: Sequence[Any]) -> list[CachedTeacher]:
    """The cached teachers, also those in a wrapper that shares them between jobs."""
    return cached_teachers(
        [t if isinstance(t, CachedTeacher) else getattr(t, "teacher", t) for t in teachers]
    )


def say(teachers: Sequence[Any], session: Session) -> None:
    """Report one line per cache."""
    for entry in facts(teachers) or []:
        session.reporter.say(
            f"  teacher cache: {entry['found_percent']:.1f} % of "
            f"{entry['images']:,} found, {entry['computed']:,} computed"
        )


def shaping(plain: dict[str, Any]) -> dict[str, Any]:
    """A teacher's plain settings without those that change no result, for a run's identity."""
    defaults = asdict(TeacherRuntimeConfig())
    kept = {key: value for key, value in plain.items() if key not in defaults}
    changing: dict[str, Any] = {
        key: plain[key] for key in ("precision", "fold", "cache_dtype") if key in plain
    }
    if plain.get("cache", AUTO) not in (AUTO, OFF):
        changing["cache"] = plain["cache"]
    return kept | {k: v for k, v in changing.items() if v != defaults[k]}
