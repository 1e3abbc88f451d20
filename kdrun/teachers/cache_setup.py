"""Decide whether a teacher's outputs can be cached, and open the cache.

Caching must not change a result by default. Whether it does depends on the kernels of this machine
and on this teacher, so it is measured (`agreement`) before the first step.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.config.schema import NetworkConfig, TeacherRuntimeConfig
from kdrun.data.augment.views import Plan
from kdrun.data.dataset import Dataset
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.engine.devices import describe_device
from kdrun.files import (
    ABANDONED_SECONDS,
    canonical_hash,
    read_json,
    remove_unfinished,
    write_json,
)
from kdrun.losses.objective import Objective
from kdrun.models.card import NetworkCard
from kdrun.models.compiled import begin_step
from kdrun.models.features.taps import FeatureExtractor
from kdrun.own_code import code_entry
from kdrun.teachers.agreement import Agreement, agreement
from kdrun.teachers.cache_file import CacheFile, record_bytes
from kdrun.teachers.cached import STORED, CachedTeacher, chunk_size, pack
from kdrun.types import Outputs
from kdrun.world import world

VERSION = 3  # increase it when the meaning of a record changes
FOLDER = "teacher-outputs"
LOGITS, EMBEDDING, AUTO, OFF = "logits", "embedding", "auto", "off"


@dataclass(frozen=True)
class CacheRequest:
    """A frozen teacher whose outputs may be cached, and everything they depend on.

    frozen: images → `Outputs`, exactly as training will call it. network, config, card: of the
    teacher, before it was folded or converted. precision, compiled, threads: how it is run; threads
    is None on a GPU. batch_size: of training, over all processes. loader: of the training images,
    for a trial. folder: the cache of the output root.
    """

    frozen: nn.Module
    network: nn.Module
    config: NetworkConfig
    card: NetworkCard
    runtime: TeacherRuntimeConfig
    dataset: Dataset
    precision: str
    compiled: bool
    device: torch.device
    threads: int | None
    batch_size: int
    loader: TrainLoader
    folder: Path
    warn: Callable[[str], None]


def obstacle_to_caching(
    extractor: FeatureExtractor, objective: Objective, runtime: TeacherRuntimeConfig, plan: Plan
) -> str | None:
    """Why the objective needs more than a cache holds: logits or embedding of the planned views."""
    if world().size > 1:
        return "several processes train together"
    if extractor.names:
        return f"the objective reads feature maps ({', '.join(extractor.names)})"
    if objective.reads_strong_view:
        return "the objective reads a second, continuous view of every image"
    if plan.view_count is None:
        return (
            "every epoch draws new augmentations (augment.cycle=K gives each image K views, whose "
            "outputs are cached)"
        )
    if extractor.embedding and runtime.cache != EMBEDDING:
        return "the objective reads the embedding (teacher.cache=embedding caches it too)"
    return None


def open_cache(request: CacheRequest) -> CachedTeacher | str:
    """The cached teacher, or the reason why it cannot be cached."""
    runtime, device = request.runtime, request.device
    images = _trial_images(request.loader, device)
    outputs = _run(request.frozen, images[: chunk_size(device)])
    if outputs.distillation:
        return "it has distillation heads"
    dtype, widths = _stored_form(outputs, runtime)
    if dtype not in STORED:
        return f"its outputs are of type {dtype}"
    num_views = request.loader.teacher.plan.view_count
    assert num_views is not None
    bytes_per_image = num_views * record_bytes(sum(widths), STORED[dtype][0])
    storable = min(len(request.dataset.train), int(runtime.cache_gb * 1e9) // bytes_per_image)
    if storable == 0:
        return f"one image needs {bytes_per_image:,} bytes, more than teacher.cache_gb allows"
    first, end = world().share(min(request.batch_size, len(request.dataset.train)))
    batch_size = end - first  # of this process
    folder = _records_folder(request, dtype, widths)
    measured = _measure_agreement(folder, request.frozen, images, batch_size, widths, device)
    if runtime.cache == AUTO and not (measured.batch and runtime.cache_dtype is None):
        return (
            "caching would change the last digits on this machine (teacher.cache=logits caches "
            "anyway)"
        )
    if not measured.rows:
        request.warn(
            "on this machine the last digits of a teacher's outputs depend on the other images of "
            "the batch: with teacher.cache, a repeated run may differ from the first one"
        )
    try:
        file = CacheFile(
            folder / "records.bin", storable * num_views, sum(widths), STORED[dtype][0]
        )
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror})"
    sizes = {batch_size} if runtime.cache == AUTO else None
    return CachedTeacher(
        request.frozen,
        file,
        storable,
        request.loader.teacher.plan,
        dtype,
        widths,
        device,
        sizes,
        request.warn,
    )


def _trial_images(loader: TrainLoader, device: torch.device) -> Tensor:
    """Enough training images, as the loader makes them, for chunks and batches."""
    count = max(2 * chunk_size(device), loader.batch_size)
    index = torch.arange(count) % loader.num_images
    return loader.images(index, loader.teacher.views(0).select(index), loader.teacher)


@torch.no_grad()
def _run(frozen: nn.Module, images: Tensor) -> Outputs:
    """The outputs of a trial call; with CUDA graphs, valid until the next one."""
    begin_step()
    outputs: Outputs = frozen(images)
    return outputs


def _stored_form(
    outputs: Outputs, runtime: TeacherRuntimeConfig
) -> tuple[torch.dtype, tuple[int, int]]:
    """(dtype of the stored values, (number of classes, width of the embedding or 0))."""
    dtype = torch.float16 if runtime.cache_dtype == "float16" else outputs.logits.dtype
    embedding = outputs.embedding if runtime.cache == EMBEDDING else None
    return dtype, (outputs.logits.shape[1], 0 if embedding is None else embedding.shape[1])


def _records_folder(request: CacheRequest, dtype: torch.dtype, widths: tuple[int, int]) -> Path:
    """The folder of this teacher's records; its name is a hash of all the outputs depend on."""
    card, dataset, runtime = request.card, request.dataset, request.runtime
    key: dict[str, Any] = {
        "version": VERSION,
        "network": [request.config.target, request.config.kwargs, card.resized],
        "weights": state_digest(request.network),
        "normalisation": [asdict(dataset.normalisation), asdict(card.normalisation)],
        "dataset": dataset.fingerprint,
        "train_images": canonical_hash(dataset.train_index.tolist()),
        **request.loader.teacher.plan.identity(),
        "precision": request.precision,
        "fold": runtime.fold,
        "compile": request.compiled,
        "stored": [str(dtype), *widths],
        "device": describe_device(request.device),
        "threads": request.threads,
        "torch": torch.__version__,
        "chunk": chunk_size(request.device),
    }
    key |= code_entry(asdict(request.config))
    if card.outputs is not None:
        key["outputs"] = list(card.outputs)
    folder = request.folder / FOLDER / f"{card.name}-{canonical_hash(key)[:16]}"
    remove_unfinished(folder, age_seconds=ABANDONED_SECONDS)
    with suppress(OSError):  # then the records cannot be written either, which is reported
        if not (folder / "key.json").exists():
            write_json(folder / "key.json", key)
    return folder


def _measure_agreement(
    folder: Path,
    frozen: nn.Module,
    images: Tensor,
    batch_size: int,
    widths: tuple[int, int],
    device: torch.device,
) -> Agreement:
    """`agreement`, measured once per folder and batch size, then read from its file.

    It is a property of kernels, sizes and threads, which are all in the folder's key.
    """
    path = folder / f"agreement-{batch_size}.json"
    try:
        return Agreement(**read_json(path))
    except (OSError, ValueError, TypeError):
        pass
    measured = agreement(
        lambda part: pack(_run(frozen, part), widths).clone(),
        images,
        chunk_size(device),
        batch_size,
    )
    with suppress(OSError):  # a full disk, or a folder of another user: measured again next time
        write_json(path, asdict(measured))
    return measured


def state_digest(network: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()
