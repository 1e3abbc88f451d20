"""The settings that say how a file's weights are read, of a teacher and of a student.

`checkpoint` names the file, `checkpoint_key` the set of weights in it, `rename` its modules, and
`new_classifier` (of a student) keeps the network's own classifier. Unset ones are left out of the
plain form, so that runs made before there were such settings stay the same runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdrun.errors import ConfigError

# What other tools call `checkpoint`.
CHECKPOINT_WORDS = frozenset(
    (
        *("weights", "weights_file", "weights_path", "pretrained", "pretrained_path"),
        *("pretrained_weights", "init", "init_from", "init_weights", "initial_weights"),
        *("init_checkpoint", "initialize", "initialise", "ckpt", "ckpt_path", "checkpoint_path"),
        *("checkpoints", "from_checkpoint", "load", "load_from", "load_path", "load_weights"),
        *("resume", "resume_from", "restore", "restore_from", "start", "start_from", "from_file"),
        *("state_dict", "finetune", "finetune_from", "fine_tune", "warm_start", "model_path"),
        *("path", "file"),
    )
)
SUFFIXES = (".pth", ".pt", ".th", ".ckpt", ".bin", ".safetensors", ".tar", ".pkl")
READING_KEYS = ("checkpoint_key", "rename")
START_KEYS = ("checkpoint", *READING_KEYS, "new_classifier")


@dataclass(frozen=True)
class ReadingConfig:
    """How the tensors of a file become those of a network.

    key: dotted place of the set of weights in the file; None finds it.
    rename: name of a module in the file → its name in the network; None leaves it out.
    """

    key: str | None = None
    rename: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class StartConfig:
    """The weights a student starts from. new_classifier: all but its classifier."""

    checkpoint: str
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    new_classifier: bool = False


def names_a_file(value: Any) -> bool:
    """Whether a value reads like the path of weights or of a run."""
    text = str(value).strip("'\"")
    return "/" in text or text.endswith(SUFFIXES)


def reading_config(node: Mapping[str, Any], where: str) -> ReadingConfig:
    """`checkpoint_key` and `rename` of a network's node."""
    key, rename = node.get("checkpoint_key"), node.get("rename")
    if rename is None:
        rename = {}
    if not isinstance(rename, dict):
        raise ConfigError(
            f"{where}.rename={rename!r} is not a mapping: type '{where}.rename={{linear: fc}}', a "
            "module's name in the file and its name in the network."
        )
    for old, new in rename.items():
        if not str(old) or not (new is None or isinstance(new, str | int)):
            raise ConfigError(
                f"{where}.rename: {old}: {new!r} is no pair of names; null leaves a module out."
            )
    pairs = {str(old): None if new is None else str(new) for old, new in rename.items()}
    return ReadingConfig(None if key is None else str(key), pairs)


def start_config(node: Mapping[str, Any], where: str = "student") -> StartConfig | None:
    """The start of a student's node; None for a network that is drawn at random.

    Raises ConfigError for settings that nothing would read.
    """
    reading = reading_config(node, where)
    new = node.get("new_classifier", False)
    if not isinstance(new, bool):
        raise ConfigError(f"{where}.new_classifier={new!r} is neither true nor false.")
    path = node.get("checkpoint")
    if path is None:
        require_checkpoint(reading, where)
        if new:
            raise ConfigError(
                f"{where}.new_classifier=true needs {where}.checkpoint=FILE, the weights whose "
                "classifier is left out."
            )
        return None
    return StartConfig(str(path), reading, new)


def require_checkpoint(reading: ReadingConfig, where: str) -> None:
    """Raise ConfigError for settings of a file where none is named."""
    for name, value in (("checkpoint_key", reading.key), ("rename", reading.rename)):
        if value:
            raise ConfigError(
                f"{where}.{name} says how a file is read, and none is named: add "
                f"{where}.checkpoint=FILE."
            )


def reading_plain(reading: ReadingConfig) -> dict[str, Any]:
    """Plain values for `reading_config`, without those that are unset."""
    key = {} if reading.key is None else {"checkpoint_key": reading.key}
    return key | ({"rename": dict(reading.rename)} if reading.rename else {})


def start_plain(start: StartConfig | None) -> dict[str, Any]:
    """Plain values for `start_config`, without those that are unset."""
    if start is None:
        return {}
    new = {"new_classifier": True} if start.new_classifier else {}
    return {"checkpoint": start.checkpoint, **reading_plain(start.reading), **new}
