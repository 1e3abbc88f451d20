"""Ways to spoil a good input: bytes, values of JSON and YAML, files of a folder, words."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

HOSTILE_TEXTS = (
    "",
    " ",
    "null",
    "true",
    "-1",
    "1e999",
    "NaN",
    "../../../../etc/passwd",
    "/dev/zero",
    "C:\\x",
    "a" * 5000,
    "\x00",
    "\x1b[2J\x1b]0;x\x07",
    "\u202egnp.exe",
    "\ud800",
    "[/red][bold",
    "<script>document.title='broken'</script>",
    "${oc.env:HOME}",
    "${a}",
    "???",
    "os.system",
    "builtins.exec",
    "torch.hub.load",
    "kdrun.cli.main.run",
    "한국어",
    "\n\nerror: fake",
    "=1+1",
    "%s%n{0}{x}",
    "'\"`$(touch marker)",
)
NUMBERS = (0, -1, 1, 2, 0.5, -0.0, 1e-320, 1e308, -1e308, 2**31, 2**63, 2**64, 10**30, 10**400)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": 0}, [1, 2, 3], {"a": {}})


def value(rng: random.Random) -> Any:
    """A value that is probably of the wrong kind or size."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(HOSTILE_TEXTS)
    if kind == 1:
        return rng.choice(NUMBERS)
    if kind == 2:
        return rng.choice((float("nan"), float("inf"), -float("inf")))
    return rng.choice(OTHERS)


def spots(node: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in plain data, the inner ones too."""
    found: list[tuple[Any, Any]] = []
    keys = node.keys() if isinstance(node, dict) else range(len(node))
    for key in keys:
        found.append((node, key))
        if isinstance(node[key], dict | list):
            found += spots(node[key])
    return found


def values(data: Any, rng: random.Random) -> Any:
    """Plain data with one thing changed: replaced, removed, renamed, doubled, wrapped, swapped."""
    places = spots(data) if isinstance(data, dict | list) else []
    if not places or rng.random() < 0.03:
        return value(rng)
    container, key = rng.choice(places)
    how = rng.randrange(8)
    if how == 0:
        del container[key]
    elif how == 1 and isinstance(container, dict):
        container[str(value(rng))[:40]] = container.pop(key)
    elif how == 2:
        container[key] = [container[key]]
    elif how == 3:
        container[key] = {"x": container[key]}
    elif how == 4:
        other, there = rng.choice(places)
        container[key] = other[there] if other is not container[key] else None
        if not _is_finite_tree(data):
            container[key] = None
    elif how == 5 and isinstance(container[key], int | float):
        container[key] = container[key] * rng.choice((-1, 0, 2, 1e9, 0.5)) + rng.choice((0, 1, 0.5))
    else:
        container[key] = value(rng)
    return data


def _is_finite_tree(data: Any) -> bool:
    try:
        repr(data)
        json.dumps(data, default=str)
    except (ValueError, RecursionError):
        return False
    return True


def content(raw: bytes, rng: random.Random) -> bytes:
    """A file's bytes, spoilt."""
    how = rng.randrange(9)
    place = rng.randrange(len(raw)) if raw else 0
    if how == 0:
        return raw[:place]
    if how == 1:
        return b""
    if how == 2:
        return rng.randbytes(rng.choice((1, 100, 5000)))
    if how == 3:
        return raw + raw
    if how == 4:
        return raw[:place] + rng.randbytes(rng.choice((1, 8, 300))) + raw[place:]
    if how == 5:
        return raw[:place] + bytes(rng.choice((1, 16, 256))) + raw[place + 256 :]
    if how == 6:
        return raw[place:]
    changed = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 4, 40))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def json_file(path: Path, rng: random.Random) -> None:
    """Change one value of a JSON file."""
    data = values(json.loads(path.read_text()), rng)
    path.write_text(json.dumps(data), encoding="utf-8", errors="surrogatepass")


def yaml_file(path: Path, rng: random.Random) -> None:
    """Change one value of a YAML file."""
    data = values(yaml.safe_load(path.read_text()), rng)
    path.write_text(yaml.safe_dump(data, allow_unicode=False), encoding="utf-8")


def lines_file(path: Path, rng: random.Random) -> None:
    """Change one value in a line of a file of JSON lines."""
    lines = path.read_text().splitlines()
    if lines:
        place = rng.randrange(len(lines))
        lines[place] = json.dumps(values(json.loads(lines[place]), rng))
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")


STRUCTURED: dict[str, Callable[[Path, random.Random], None]] = {
    ".json": json_file,
    ".yaml": yaml_file,
    ".jsonl": lines_file,
}


def folder(root: Path, rng: random.Random, outside: Path) -> str:
    """Spoil one thing in a folder of files; returns what, in words."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    path = rng.choice(files)
    name = path.relative_to(root).as_posix()
    how = rng.randrange(12)
    if how < 5 and path.suffix in STRUCTURED:
        STRUCTURED[path.suffix](path, rng)
        return f"a value of {name}"
    if how == 5:
        path.unlink()
        return f"{name} removed"
    if how == 6:
        path.unlink()
        path.mkdir()
        return f"{name} is a folder"
    if how == 7:
        path.unlink()
        path.symlink_to(rng.choice((outside, Path("/dev/zero"), Path("nowhere"), path)))
        return f"{name} is a link"
    if how == 8:
        path.unlink()
        os.mkfifo(path)
        return f"{name} is a pipe"
    if how == 9:
        other = rng.choice(files)
        path.write_bytes(other.read_bytes())
        return f"{name} holds {other.relative_to(root).as_posix()}"
    if how == 10 and path.parent != root:
        shutil.rmtree(path.parent)
        return f"{path.parent.relative_to(root)} removed"
    path.write_bytes(content(path.read_bytes(), rng))
    return f"bytes of {name}"


def word(text: str, rng: random.Random) -> str:
    """A word as somebody mistypes it."""
    how = rng.randrange(7)
    place = rng.randrange(len(text) + 1)
    if how == 0:
        return text[:place] + text[place + 1 :]
    if how == 1:
        return text[:place] + rng.choice("abz_=.,@/+~-:' \"[]{}()$%*?!#\\0\n\té한") + text[place:]
    if how == 2:
        return text[::-1]
    if how == 3:
        return text.upper()
    if how == 4:
        return text + rng.choice(HOSTILE_TEXTS).replace("\x00", "")
    if how == 5:
        return text * 2
    return text
