"""Fingerprint of a trained network: a digest of everything that determines its weights."""

from dataclasses import asdict
from typing import Any

from kdrun.config.convert import to_plain
from kdrun.config.schema import AugmentConfig, NetworkConfig, ScheduleConfig
from kdrun.config.settings import settings_of
from kdrun.config.unused import unread_keys
from kdrun.data.dataset import Dataset
from kdrun.files import canonical_hash
from kdrun.own_code import code_entry

VERSION = 1  # raise it when the meaning of a recipe changes, so that old entries are not found


def network_recipe(
    network: NetworkConfig,
    schedule: ScheduleConfig,
    seed: int,
    augment: AugmentConfig,
    dataset: Dataset,
    image_size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Everything that determines a network trained on labels; it is hashed and stored with it.

    The validation split counts, because a teacher must not have seen those images, and the code of
    the user's own networks, as it is now.
    image_size: what the images were resized to for it, if they were.
    """
    resized = {} if image_size is None else {"image_size": list(image_size)}
    quantised = {} if network.quantize is None else {"quantize": network.quantize}
    return {
        "version": VERSION,
        "dataset": dataset.fingerprint,
        "train_images": canonical_hash(dataset.train_index.tolist()),
        "normalisation": asdict(dataset.normalisation),
        "augment": to_plain(augment),
        "target": network.target,
        "kwargs": network.kwargs,
        "schedule": shaping_settings(schedule),
        "seed": seed,
        **resized,
        **quantised,
        **code_entry(asdict(network)),
    }


def shaping_settings(schedule: ScheduleConfig) -> dict[str, Any]:
    """The settings of a schedule that affect the weights; unread settings are left out."""
    settings = asdict(schedule)
    unread = unread_keys(schedule) | {"eval_batch_size"}
    if not schedule.early_stopping:
        unread |= {"eval_every", "early_stopping"}
    if schedule.steps is not None and schedule.curve != "step":
        unread.add("epochs")
    unread |= {  # added after teachers were trained without them
        each.name
        for each in settings_of(ScheduleConfig)
        if each.meta.quiet and settings[each.name] == each.default
    }
    return {name: value for name, value in settings.items() if name not in unread}


def fingerprint(recipe: dict[str, Any]) -> str:
    """Hexadecimal digest of a recipe."""
    return canonical_hash(recipe)
