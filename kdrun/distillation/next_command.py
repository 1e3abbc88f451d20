"""The command that goes on with a teacher, as it can be pasted into a shell."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

# First words of overrides that describe data, teachers and the place of the files.
KEPT = ("dataset", "val_fraction", "output_root", "threads", "device")
_TEACHER = re.compile(r"[+~]*(?:\w+@)?teacher[0-9]*(?:[.=@]|$)")
_PLAIN = re.compile(r"[\w./:@%+~-]+$")


def distill_command(argv: Sequence[str], weights: Sequence[Path], loaded: Sequence[bool]) -> str:
    """`kdrun distill ...` with the teachers of a `kdrun train-teacher` command.

    argv: that command's words. weights: of each teacher. loaded: whether its weights came from a
    file that the command names; the settings that describe it stay. Others are named by their
    store entries, whose cards say the rest.
    """
    words, kept = list(argv[1:]), []
    position = 0
    while position < len(words):
        word = words[position]
        if word in ("--config-dir", "--trust"):
            kept += words[position : position + 2]
            position += 2
            continue
        root = re.split(r"[.=@]", word.lstrip("+~"), maxsplit=1)[0]
        own_teacher = _TEACHER.match(word) is not None and (any(loaded) or len(weights) > 1)
        if root in KEPT or own_teacher or word.startswith("experiment="):
            kept.append(word)
        position += 1
    for number, (path, from_file) in enumerate(zip(weights, loaded, strict=True), 1):
        name = "teacher" if len(weights) == 1 else f"teacher{number}"
        if not from_file:
            kept.append(f"{name}.checkpoint={_value(str(path.parent))}")
    return shlex.join(["kdrun", "distill", *kept])


def _value(text: str) -> str:
    """A text as a value in Hydra's grammar."""
    if _PLAIN.match(text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
