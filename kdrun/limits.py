"""Reading small text files that may come from anywhere: regular, of bounded size and depth.

A run folder or a card may have been made by a stranger, or be damaged. What is read of it is never
a pipe or a device, is no larger than its kind can be, and nests no deeper than its kind does;
YAML is plain data without anchors, whose expansion can be as large as it likes, and without tags.
What is shown of it holds no characters that would command a terminal.
"""

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

MIB = 2**20
LARGEST_JSON = 16 * MIB  # the result of a thousand classes has some hundred KiB
LARGEST_YAML = MIB
LARGEST_LINES = 256 * MIB  # metrics.jsonl: a line of some hundred bytes per epoch
DEEPEST = 40
# libyaml's reader is ten times as fast; PyYAML's wheels have it, a build from source may not.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# Control characters, which move a terminal's cursor or give it commands, and those that turn the
# direction of a text, so that it reads as another; line ends and tabs are left.
COMMANDING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with what would command a terminal written out: `\\x1b` for an escape."""
    return COMMANDING.sub(lambda found: repr(found.group())[1:-1], text)


def finite(value: Any) -> float | None:
    """The value, if it is a finite number; a truth value is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # of JSON's numbers without end
        return None
    return number if math.isfinite(number) else None


def read_text(path: Path, largest: int, errors: str = "strict") -> str:
    """The text of a regular file of at most `largest` bytes; ValueError for any other.

    errors: what is done with bytes that are no UTF-8, as in `bytes.decode`.
    """
    with open(path, "rb", opener=open_regular) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"{path} is larger than {largest // MIB} MiB")
    return content.decode("utf-8", errors)


def read_json(path: Path, largest: int = LARGEST_JSON) -> Any:
    """The JSON value in `path`; ValueError when it holds none, or one that is out of bounds."""
    return parse_json(read_text(path, largest))


def parse_json(text: str) -> Any:
    """The JSON value in `text`; ValueError when it is none, or nests too deep."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("the JSON nests too deep") from None
    _check_depth(value)
    return value


def read_yaml(path: Path) -> Any:
    """The plain data in `path`; ValueError in one line when it holds none or is out of bounds."""
    text = read_plain_yaml(path)
    try:
        return yaml.load(text, Loader=LOADER)
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None


def read_plain_yaml(path: Path) -> str:
    """The text of a YAML file that holds plain data alone; ValueError in one line otherwise."""
    text = read_text(path, LARGEST_YAML)
    try:
        if not _is_plainly_flat(text):
            _check_events(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).partition("\n")[0]) from None
    return text


def open_regular(path: str, flags: int) -> int:
    """An opener for `open`: waits for no pipe's writer; ValueError for what is not a file."""
    number = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ValueError(f"{path} is not a file")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for node in level
            if isinstance(node, dict | list)
            for inner in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise ValueError(f"it nests deeper than {DEEPEST} levels")


def _is_plainly_flat(text: str) -> bool:
    """Whether a glance shows that there are no anchors, tags or depth; parsing twice is slow."""
    if any(mark in text for mark in "&*!") or text.count("[") + text.count("{") > DEEPEST:
        return False
    return all(len(line) - len(line.lstrip(" -?:\t")) <= DEEPEST for line in text.splitlines())


def _check_events(text: str) -> None:
    """Refuse anchors and depth before a value is built: the events need no recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ValueError("it has anchors or aliases, which no file of kdrun's has")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"it has a tag, {event.tag}, which no file of kdrun's has")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise ValueError(f"it nests deeper than {DEEPEST} levels")
