"""What other tools call the weights that a network starts from; here it is `checkpoint`."""

from collections.abc import Collection
from typing import Any

from hydra.core.override_parser.types import Override

from kdrun.cli.command_spec import full_key, value_text
from kdrun.cli.grammar import shell_quoted
from kdrun.config.build import CHECKPOINT_WORDS
from kdrun.config.teachers import NUMBERED
from kdrun.errors import ConfigError

SUFFIXES = (".pth", ".pt", ".th", ".ckpt", ".bin", ".safetensors", ".tar", ".pkl")


def names_a_file(value: Any) -> bool:
    """Whether a value looks like the path of weights or of a run."""
    text = str(value).strip("'\"")
    return "/" in text or text.endswith(SUFFIXES)


def instead(override: Override) -> str | None:
    """The sentence for `student.weights=FILE` and the like, a setting that is not there."""
    value = value_text(override)
    place = _place(full_key(override).lstrip("+"), value)
    if place is None:
        return None
    return (
        f"{override.key_or_group}={value} is not how weights are named: the file a {_who(place)} "
        f"starts from is {shell_quoted(f'{place}.checkpoint={value}')}."
    )


def of_neither(override: Override, names: Collection[str]) -> str | None:
    """The sentence for `checkpoint=FILE` and the like, of no network in particular.

    names: the settings and groups of the verb.
    """
    key, value = full_key(override).lstrip("+"), value_text(override)
    word = key.lower().replace("-", "_")
    places = [place for place in ("student", "teacher") if place in names]
    if word not in (*CHECKPOINT_WORDS, "checkpoint") or not names_a_file(value) or not places:
        return None
    meant = " or ".join(
        f"{shell_quoted(f'{place}.checkpoint={value}')} for the {place}" for place in places
    )
    return f"There is no setting '{key}'. Weights from a file are those of a network: {meant}."


def check(override: Override) -> None:
    """Raise ConfigError for a file given to a setting of the same name that takes none.

    `teacher.weights` counts teachers, and `pretrained` is true or false.
    """
    word = override.key_or_group.rpartition(".")[2]
    if word not in ("weights", "pretrained") or not names_a_file(value_text(override)):
        return
    text = instead(override)
    if text is not None:
        raise ConfigError(text)


def _who(place: str) -> str:
    return "student" if place == "student" else "teacher"


def _place(key: str, value: str) -> str | None:
    """`student` or `teacher` where the setting is meant as the checkpoint of one."""
    root, dot, word = key.partition(".")
    if dot:
        is_network = root == "student" or root == "teacher" or NUMBERED.match(root)
        known = word.lower() in CHECKPOINT_WORDS and "." not in word
        # pretrained=true and weights=[1,2] are settings of their own
        other = word in ("pretrained", "weights") and not names_a_file(value)
        return root if is_network and known and not other else None
    low = key.lower().replace("-", "_")
    for who in ("student", "teacher"):
        rest = low.removeprefix(f"{who}_").removesuffix(f"_{who}")
        if rest != low and rest in (*CHECKPOINT_WORDS, "checkpoint"):
            return who
    return None
