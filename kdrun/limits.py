"""Safe reading of small text files from untrusted sources.

A run folder or a card may be untrusted or damaged. Only regular files of limited size and nesting
are read. YAML must be plain data without anchors, whose expansion is unbounded, and without tags.
Displayed text contains no terminal control characters.
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
LARGEST_JSON = 16 * MIB  # results with a thousand classes have a few hundred KiB
LARGEST_YAML = MIB
LARGEST_LINES = 256 * MIB  # metrics.jsonl has a few hundred bytes per epoch
DEEPEST = 40
# libyaml is ten times faster; PyYAML's wheels include it, a source build may not.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# Terminal control characters, except line ends and tabs, and characters that change the direction
# of text and could disguise it.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with control characters spelled out: `\\x1b` for an escape."""
    return CONTROL.sub(lambda match: repr(match.group())[1:-1], text)


def finite(value: Any) -> float | None:
    """The value as a float if it is a finite number and not a bool, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON integers are unbounded
        return None
    return number if math.isfinite(number) else None


def read_text(path: Path, largest: int, errors: str = "strict") -> str:
    """The text of a regular file of at most `largest` bytes. Raises ValueError otherwise.

    errors: handling of invalid UTF-8, as in `bytes.decode`.
    """
    with open(path, "rb", opener=open_regular) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"{path} is larger than {largest // MIB} MiB")
    return content.decode("utf-8", errors)


def read_json(path: Path, largest: int = LARGEST_JSON) -> Any:
    """The JSON value in `path`. Raises ValueError for invalid or too large content."""
    return parse_json(read_text(path, largest))


def parse_json(text: str) -> Any:
    """The JSON value in `text`. Raises ValueError if it is invalid or too deeply nested."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    _check_depth(value)
    return value


def read_yaml(path: Path) -> Any:
    """The plain data in `path`. Raises a one-line ValueError for invalid content."""
    text = read_plain_yaml(path)
    try:
        return yaml.load(text, Loader=LOADER)
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None


def read_plain_yaml(path: Path) -> str:
    """The text of a YAML file with plain data only. Raises a one-line ValueError otherwise."""
    text = read_text(path, LARGEST_YAML)
    try:
        if not _is_plainly_flat(text):
            _check_events(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).partition("\n")[0]) from None
    return text


def open_regular(path: str, flags: int) -> int:
    """An opener for `open` that never blocks on a pipe. Raises ValueError unless it is a file."""
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
    """Whether a cheap scan rules out anchors, tags and deep nesting; parsing twice is slow."""
    if any(mark in text for mark in "&*!") or text.count("[") + text.count("{") > DEEPEST:
        return False
    return all(len(line) - len(line.lstrip(" -?:\t")) <= DEEPEST for line in text.splitlines())


def _check_events(text: str) -> None:
    """Refuse anchors, tags and deep nesting from parser events, which need no recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ValueError("it has anchors or aliases, which kdrun's files never have")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"it has a tag, {event.tag}, which kdrun's files never have")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise ValueError(f"it nests deeper than {DEEPEST} levels")
