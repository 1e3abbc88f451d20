"""Damages the files of runs, and the disk below them.

Nothing may come of it but the right result or one sentence.

    python -m tests.reliability.damage --cases 600 --seed 0

Files: one file of a run, a teacher's entry, decoded images or a teacher's remembered outputs is
cut short or has a bit turned; then a command that reads it is run. It must end as it would with the
good file (`same`) or in one sentence and exit code 1 or 2 (`said`), without a traceback, and leave
every other file of the run as good as it was.

Disks: a run on a disk that is full after so many bytes (a small tmpfs, where the system lets one
mount it, or else a limit on file sizes) or in a folder that cannot be written. It must end in one
sentence and exit code 1 or 2; with the room it needs it must then go on to the right result.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.reliability import forks
from tests.reliability.kill_anywhere import KINDS, count_writes, die_at_write
from tests.reliability.outcome import Outcome, outcome, run_folder
from tests.reliability.pictures import write_pictures

KIND = "streaming"  # the one that has files of every sort
RUN = ["distill", *KINDS[KIND]]
SKIPPED = {".lock", "run.log"}  # holds nothing; is only written
NOBODY = 65534
AFTER = "after the new name"
Damage = Callable[[bytes, random.Random], bytes]


def cut(content: bytes, draw: random.Random) -> bytes:
    """The beginning of a file."""
    return content[: draw.randrange(len(content))]


def turned(content: bytes, draw: random.Random) -> bytes:
    """One bit of a file turned."""
    changed = bytearray(content)
    changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(changed)


DAMAGES: dict[str, Damage] = {"cut": cut, "bit": turned}


@dataclass
class Tally:
    """How often a case ended in which way. wrong: what must not be, in words."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def count(self, what: str, end: str) -> None:
        """One more case."""
        self.ends[what, end] += 1


@dataclass(frozen=True)
class Scene:
    """A state of an output folder, files in it, and the command that reads them."""

    name: str
    folder: Path
    argv: list[str]
    files: list[Path]


def scenes(base: Path) -> tuple[list[Scene], Outcome]:
    """An unfinished run, a finished one, and what a new run finds; and the right result."""
    whole = base / "whole"
    whole.mkdir()
    counter = whole / "writes"
    code, said = forks.run(whole, RUN, fault=partial(count_writes, counter))
    assert code == 0, said
    half = base / "half"
    half.mkdir()
    number = int(counter.stat().st_size * 0.85)  # in the last stage, with a state to go on from
    code, said = forks.run(half, RUN, fault=partial(die_at_write, number, AFTER))
    assert code == -signal.SIGKILL, said
    run, done = run_folder(half), run_folder(whole)
    assert run is not None
    assert done is not None
    assert (half / run / "checkpoints" / "previous.pt").is_file()
    new = base / "new"
    shutil.copytree(whole, new)
    shutil.rmtree(new / done)
    finished = _files(whole / done, whole)
    student = [path for path in finished if path.stem == "student"]
    rest = [path for path in finished if path not in student]
    found = [
        Scene("an unfinished run", half, ["resume", str(run)], _files(half / run, half)),
        Scene("a finished run", whole, ["resume", str(done)], rest),
        Scene("a finished student", whole, ["evaluate", f"run={done}", "ui=plain"], student),
        Scene("a teacher's entry", new, RUN, _files(new / "outputs" / "teachers", new)),
        Scene("decoded images", new, RUN, _cached(new, remembered=False)),
        Scene("remembered outputs", new, RUN, _cached(new, remembered=True)),
    ]
    return found, outcome(whole)


def _files(folder: Path, base: Path) -> list[Path]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in found if path.name not in SKIPPED and path.suffix != ".lock"]
    return [path.relative_to(base) for path in kept if path.stat().st_size]


def _cached(base: Path, remembered: bool) -> list[Path]:
    files = _files(base / "outputs" / "cache", base)
    return [path for path in files if ("teacher-outputs" in path.parts) is remembered]


def damage_files(base: Path, cases: int, draw: random.Random, tally: Tally) -> None:
    """`cases` damaged files, every file of every scene in turn."""
    found, right = scenes(base)
    every = [(scene, path) for scene in found for path in scene.files]
    for case in range(cases):
        scene, path = every[case % len(every)]
        kind = list(DAMAGES)[(case // len(every)) % len(DAMAGES)]
        folder = base / "case"
        shutil.copytree(scene.folder, folder)
        good = (folder / path).read_bytes()
        bad = DAMAGES[kind](good, draw)
        (folder / path).write_bytes(bad)
        code, said = forks.run(folder, scene.argv)
        if (folder / path).is_file() and (folder / path).read_bytes() == bad:
            (folder / path).write_bytes(good)  # it was not touched: all else is compared
        what = f"{scene.name}: {path.name}, {kind}"
        end = _judge(code, said, folder, right)
        tally.count(scene.name, end)
        if end not in ("same", "said"):
            tally.wrong.append(f"{what}: {end}\n{said[-1500:]}")
            shutil.copytree(folder, base / f"wrong{len(tally.wrong)}")
        shutil.rmtree(folder)


def _judge(code: int | None, said: str, folder: Path, right: Outcome) -> str:
    if "Traceback" in said:
        return "a traceback"
    if code in (1, 2):
        return "said" if said.count("error: ") == 1 else "no sentence"
    if code != 0:
        return f"exit code {code}"
    found = right.differences(outcome(folder))
    found += [name for name, test in _measured(folder) if test != _right(right, name)]
    return "same" if not found else f"another result: {', '.join(found)}"


def _measured(folder: Path) -> list[tuple[str, Any]]:
    """(student, figures) of every `kdrun evaluate` below the folder."""
    paths = folder.glob("outputs/evaluate/*/*/*/result.json")
    return [
        (path.parent.parent.name, json.loads(path.read_text())["student"]["test"]) for path in paths
    ]


def _right(right: Outcome, student: str) -> Any:
    (name,) = (name for name in right.results if f"-{student}-" in name and name[:4] != "none")
    return right.results[name]["student"]["test"]


# -- disks ---------------------------------------------------------------------------------------


def limit_file_size(number: int) -> None:
    """A fault: no file may grow beyond so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.RLIM_INFINITY))


def become_nobody() -> None:
    """A fault: an account that may read everything and write nothing of the others'."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


@contextmanager
def small_disk(folder: Path, size: int | None) -> Iterator[bool]:
    """A tmpfs of `size` bytes at `folder`; False for none, or where none may be mounted."""
    mounted = size is not None and _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def _mount(*words: str) -> bool:
    try:
        return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def fill_disks(base: Path, cases: int, draw: random.Random, right: Outcome, tally: Tally) -> None:
    """`cases` runs that meet the end of their disk, then find room and go on."""
    largest = max(len(content) for content in right.weights.values()) * 4
    for case in range(cases):
        folder = base / f"disk{case}"
        folder.mkdir()
        outputs = folder / "outputs"
        outputs.mkdir()
        size = draw.randrange(16, 4 * largest // 1024) * 1024
        with small_disk(outputs, size if case % 2 == 0 else None) as mounted:
            if mounted:
                code, said = forks.run(folder, RUN)
                _mount("-o", "remount,size=64m", str(outputs))
                tally.count("a full disk", _full(code, said, folder, right, tally))
            else:
                limit = partial(limit_file_size, draw.randrange(400, largest))
                code, said = forks.run(folder, RUN, fault=limit)
                tally.count("a limit on file sizes", _full(code, said, folder, right, tally))
        shutil.rmtree(folder, ignore_errors=True)


def _full(code: int | None, said: str, folder: Path, right: Outcome, tally: Tally) -> str:
    """How the run ended, and how it went on with the room it needs."""
    first = _judge(code, said, folder, right)
    if first == "said":
        run = run_folder(folder)
        code, more = forks.run(folder, RUN if run is None else ["resume", str(run)])
        then = _judge(code, more, folder, right)
        end = "said, then same" if then == "same" else f"said, then {then}"
        said += more
    else:
        end = first
    if end not in ("same", "said, then same"):
        tally.wrong.append(f"{folder}: {end}\n{said[-2500:]}")
    return end


def forbid_writing(base: Path, tally: Tally) -> None:
    """Folders that may not be written, each in turn; needs an account that can become another."""
    if os.geteuid() != 0:
        return
    for name in ("", "outputs", "outputs/distill", "outputs/teachers", "outputs/cache"):
        folder = base / f"closed-{name.replace('/', '-')}"
        (folder / "outputs" / "distill").mkdir(parents=True)
        for made in ("", "outputs", "outputs/distill", "outputs/teachers", "outputs/cache"):
            (folder / made).mkdir(exist_ok=True)
            (folder / made).chmod(0o755 if made == name or not made else 0o777)
        for log in ("log", "place"):
            (folder / f".log.{log}").touch()
        if not name:
            shutil.rmtree(folder / "outputs")
        code, said = forks.run(folder, RUN, fault=become_nobody)
        end = "said" if code in (1, 2) and "Traceback" not in said else f"exit code {code}"
        tally.count("a folder that cannot be written", end)
        if end != "said":
            tally.wrong.append(f"{folder}: {end}\n{said[-1500:]}")


def damage(cases: int, seed: int, base: Path) -> Tally:
    """Three quarters of the cases are files, the rest disks."""
    write_pictures(base / "photos")
    draw = random.Random(seed)
    tally = Tally()
    damage_files(base, cases * 3 // 4, draw, tally)
    fill_disks(base, cases // 4, draw, outcome(base / "whole"), tally)
    forbid_writing(base, tally)
    return tally


def table(tally: Tally) -> str:
    """The figures in Markdown."""
    lines = ["| what was damaged | how it ended | cases |", "| --- | --- | ---: |"]
    lines += [f"| {what} | {end} | {n} |" for (what, end), n in sorted(tally.ends.items())]
    return "\n".join(lines)


def main() -> int:
    """The command line; 1 when something ended as it must not."""
    parser = argparse.ArgumentParser(description="damage files and fill disks below runs")
    parser.add_argument("--cases", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; what went wrong is kept there")
    given = parser.parse_args()
    base = given.folder or Path(tempfile.mkdtemp(prefix="damage-"))
    base.mkdir(parents=True, exist_ok=True)
    base.chmod(0o755)  # for the account that may write nothing
    tally = damage(given.cases, given.seed, base)
    print(table(tally))
    print(*tally.wrong, sep="\n")
    if not tally.wrong and given.folder is None:
        shutil.rmtree(base)
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
