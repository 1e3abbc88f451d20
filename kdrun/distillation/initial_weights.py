"""The weights a student starts from (`student.checkpoint`): fine-tuning, a second distillation.

They are read like a teacher's. Recipe, seed and normalisation do not change. The baseline starts
from the same weights, so that the gain measures the teacher.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from kdrun.config.dump import start_plain
from kdrun.config.rules import PRUNED
from kdrun.config.schema import (
    DistillConfig,
    StartConfig,
    TeacherConfig,
    TeacherInput,
    named_teachers,
)
from kdrun.data.dataset import Dataset
from kdrun.distillation.loaded_teacher import PRETRAINED
from kdrun.distillation.token_heads import without_tokens
from kdrun.errors import ConfigError
from kdrun.files import sha256_of
from kdrun.models.quantisation.quantise import SUBMODULE
from kdrun.teachers.accuracy import drawn_test_notes
from kdrun.teachers.constants import stated_constants
from kdrun.teachers.formats import LoadedWeights, read_any
from kdrun.weights.load import WeightsChoice

SETTING = "student.checkpoint"


def check_teachers(teachers: Sequence[TeacherConfig]) -> None:
    """Raise CheckpointError for a teacher file without weights, before the data is opened."""
    for setting, path in _named_files(teachers):
        read_any(Path(path), setting)


def teacher_files(teachers: Sequence[TeacherConfig]) -> dict[str, str]:
    """Setting that names a file of a teacher, e.g. `teacher2.checkpoint` → SHA-256 of its weights.

    Raises CheckpointError for a file without weights.
    """
    return {setting: weights_sha256(path, setting) for setting, path in _named_files(teachers)}


def _named_files(teachers: Sequence[TeacherConfig]) -> Iterator[tuple[str, str]]:
    """Each setting that names a teacher's file, and the file."""
    for where, teacher in named_teachers(teachers):
        if teacher.checkpoint not in (None, PRETRAINED):
            yield f"{where}.checkpoint", str(teacher.checkpoint)
        if teacher.start is not None:
            yield f"{where}.start", teacher.start


def teacher_files_entry(teachers: Sequence[TeacherConfig]) -> dict[str, dict[str, str]]:
    """`teacher_files` as an entry of `result.json` and of an identity; empty without any."""
    files = teacher_files(teachers)
    return {"teacher_files": files} if files else {}


def check_start(config: DistillConfig) -> None:
    """Raise for unreadable or incompatible weights, before the data is opened."""
    if config.start is None:
        return
    _read(config.start)
    if config.alone and without_tokens(config.student) != config.student:
        raise ConfigError(
            "The student alone has no distillation tokens and cannot start from the weights of a "
            "network that has them: add alone=false."
        )


def refuse_changed(config: DistillConfig, before: dict[str, Any] | None) -> None:
    """Raise ConfigError if the student's or a teacher's file has changed since the run started.

    before: the run's `result.json`; None for a new run.
    """
    _refuse_other_teachers(config, (before or {}).get("teacher_files"))
    known = (before or {}).get("student_checkpoint")
    if config.start is None or not isinstance(known, dict):
        return
    if known.get("sha256") not in (None, start_sha256(config.start)):
        raise ConfigError(
            f"{SETTING}={config.start.checkpoint} has changed since this run began with it: "
            "restore the file, or start a new run."
        )


def _refuse_other_teachers(config: DistillConfig, known: Any) -> None:
    if not isinstance(known, dict):
        return
    for setting, sha256 in teacher_files(config.teachers).items():
        if known.get(setting) not in (None, sha256):
            raise ConfigError(
                f"The weights that {setting} names have changed since this run began with them: "
                "restore the file, or start a new run."
            )


def load_start(network: nn.Module, config: DistillConfig, dataset: Dataset) -> list[str]:
    """Load `student.checkpoint` into a new student; returns notes for the header.

    Raises CheckpointError for incompatible weights.
    """
    if config.start is None:
        return []
    start = config.start
    loaded = _without_ranges(_read(start))
    reading = start.reading
    choice = WeightsChoice("student", reading.key, reading.rename, start.new_classifier)
    notes = loaded.load_into(network, config.student, dataset.info, choice)
    return [*notes, *_card_notes(loaded, start, dataset)]


def has_trained_statistics(config: DistillConfig) -> bool:
    """Whether the initial weights bring batch statistics of the student's own activations.

    Weights that were just cut from a teacher have those of the whole network; they have no card.
    """
    if config.start is None:
        return False
    return config.student.target != PRUNED or _read(config.start).card is not None


def _without_ranges(loaded: LoadedWeights) -> LoadedWeights:
    """The weights of an int8-aware student; its activation ranges are observed again."""
    if loaded.card is None or loaded.card.quantize is None:
        return loaded
    prefix = f"{SUBMODULE}."
    tensors = {name: t for name, t in loaded.tensors.items() if not name.startswith(prefix)}
    return replace(loaded, tensors=tensors)


def _card_notes(loaded: LoadedWeights, start: StartConfig, dataset: Dataset) -> list[str]:
    """Differences between the card of the weights and the data set."""
    if loaded.card is None:
        return _stated_notes(loaded, start, dataset)
    notes = drawn_test_notes(loaded.card, dataset)
    if loaded.card.classes != dataset.classes and not start.new_classifier:
        shown = ", ".join(loaded.card.classes[:3])
        notes.append(
            f"its classes were others ({shown}, ...): student.new_classifier=true starts without "
            "its classifier"
        )
    if loaded.card.normalisation != dataset.normalisation:
        notes.append("it was trained with other normalisation constants; the data set's are used")
    return notes


def _stated_notes(loaded: LoadedWeights, start: StartConfig, dataset: Dataset) -> list[str]:
    """What a file without a card states otherwise than the data set is."""
    orders = loaded.stated.class_orders.values()
    notes = [
        f"the file names its outputs in another order ({', '.join(order[:3])}, ...): "
        "student.new_classifier=true starts without its classifier"
        for order in orders
        if set(order) == set(dataset.classes)
        and order != dataset.classes
        and not start.new_classifier
    ]
    own = dataset.normalisation
    given = TeacherInput(mean=own.mean, std=own.std)
    stated = stated_constants(
        loaded.stated.constants, given, len(own.mean), dataset.pixel_type, "student"
    )
    if stated.notes:
        notes.append("it was trained with other normalisation constants; the data set's are used")
    return notes


def format_start(start: StartConfig, notes: list[str]) -> str:
    """One line for the run header."""
    return "; ".join([f"{start.checkpoint} (sha256 {start_sha256(start)[:8]}…)", *notes])


def initial_weights_to_dict(config: DistillConfig) -> dict[str, Any]:
    """`student_checkpoint` in `result.json`; empty for a randomly initialised student."""
    if config.start is None:
        return {}
    return {"student_checkpoint": {**start_plain(config.start), **start_identity(config)["start"]}}


def start_identity(config: DistillConfig) -> dict[str, Any]:
    """Fingerprint entries of the initial weights: the file and how it is read."""
    if config.start is None:
        return {}
    settings = {k: v for k, v in start_plain(config.start).items() if k != "checkpoint"}
    return {"start": {"sha256": start_sha256(config.start), **settings}}


def start_sha256(start: StartConfig) -> str:
    """SHA-256 of the current file."""
    return weights_sha256(start.checkpoint, SETTING)


def weights_sha256(checkpoint: str, setting: str) -> str:
    """SHA-256 of the weights that `setting=checkpoint` names."""
    path = Path(checkpoint).expanduser()
    stamp = path.stat() if path.exists() else None
    return _sha256(checkpoint, setting, stamp and (stamp.st_mtime_ns, stamp.st_size))


@lru_cache(maxsize=64)
def _sha256(checkpoint: str, setting: str, stamp: object) -> str:
    path = Path(checkpoint).expanduser()
    return sha256_of(path) if path.is_file() else read_any(path, setting).sha256


def _read(start: StartConfig) -> LoadedWeights:
    return read_any(Path(start.checkpoint), SETTING)
