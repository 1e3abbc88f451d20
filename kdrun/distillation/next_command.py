"""Suggested next commands, derived from the current command and ready to paste into a shell."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from kdrun.config.schema import named_teachers
from kdrun.runs.result import RunResult

# Top-level keys of overrides for data, teachers and paths.
KEPT = ("dataset", "val_fraction", "output_root", "threads", "device")
FLAGS_WITH_VALUE = ("--config-dir", "--trust")
_TEACHER = re.compile(r"[+~]*(?:\w+@)?teacher[0-9]*(?:[.=@]|$)")
_PLAIN = re.compile(r"[\w./:@%+~-]+$")


def after_distill(result: RunResult, folder: Path) -> list[str]:
    """Commands to try after a distillation. folder: of the run."""
    commands = [shlex.join(["kdrun", "evaluate", f"run={folder}"])]
    argv = typed_command(folder)
    if argv[:1] != ["distill"]:
        return commands
    if result.teachers and (result.scheme or "offline") == "offline" and result.loss == ("kd",):
        aliases = ("loss.kd.temperature", "loss.kd.weight")  # set by T and alpha
        plain = [word for word in argv if _key(word) not in aliases]
        sweep = _distill(plain, {"T": "1,4,20", "alpha": "0.1,0.9"})
        commands.append(f"{sweep}    # a sweep: one teacher, six students")
        # a small weight: the published one (3000) is tuned for CIFAR networks and long schedules
        more = _distill(argv, {"loss": "[kd,sp]", "loss.sp.weight": "10"}, sweep=False)
        commands.append(f"{more}    # another objective")
    else:
        sweep = _distill(argv, {"seed": "0,1,2"})
        commands.append(f"{sweep}    # mean and deviation of three seeds")
    return commands


def typed_command(folder: Path) -> list[str]:
    """The arguments of the command that started a run; empty if unreadable."""
    try:
        return shlex.split((folder / "command.txt").read_text(encoding="utf-8"))[1:]
    except (OSError, ValueError):
        return []


def _distill(argv: Sequence[str], changes: dict[str, str], sweep: bool = True) -> str:
    """A `distill` command with some keys changed or swept."""
    unchanged = [word for word in argv[1:] if _key(word) not in changes]
    changed = [f"{key}={value}" for key, value in changes.items()]
    return shlex.join(["kdrun", "distill", *(["-m"] if sweep else []), *unchanged, *changed])


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def after_train_teacher(
    argv: Sequence[str], weights: Sequence[Path], loaded: Sequence[bool]
) -> str:
    """`kdrun distill ...` with the teachers of a `kdrun train-teacher` command.

    argv: that command's words. weights: of each teacher. loaded: whether the command itself named
    them (`teacher.checkpoint`); the settings that describe such a teacher are kept. Other teachers
    are named by their store entries, whose cards describe them.
    """
    words, kept = list(argv[1:]), []
    keeps_teachers = any(loaded) or len(weights) > 1
    position = 0
    while position < len(words):
        word = words[position]
        if word in FLAGS_WITH_VALUE:
            kept += words[position : position + 2]
            position += 2
            continue
        root = re.split(r"[.=@]", word.lstrip("+~"), maxsplit=1)[0]
        describes_teacher = _TEACHER.match(word) is not None and keeps_teachers
        if root in KEPT or describes_teacher or word.startswith("experiment="):
            kept.append(word)
        position += 1
    for name, (path, from_file) in named_teachers(list(zip(weights, loaded, strict=True))):
        if not from_file:
            kept.append(f"{name}.checkpoint={quoted(str(path.parent))}")
    return shlex.join(["kdrun", "distill", *kept])


def quoted(text: str) -> str:
    """Quote a text for Hydra's grammar."""
    if _PLAIN.match(text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
