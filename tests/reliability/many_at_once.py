"""Starts many runs in the same second with one output folder, and kills one that others wait for.

    python -m tests.reliability.many_at_once --runs 20

Three rounds, each in a new folder: nobody is killed; the process that decodes the images is
killed; the one that trains the teacher is killed. Every run that was not killed must complete in a
folder of its own, with the weights of the same run alone; one teacher is trained and one decoding
is finished.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.reliability import forks
from tests.reliability.kill_anywhere import KINDS
from tests.reliability.outcome import leftovers
from tests.reliability.pictures import write_pictures

KIND = "streaming"
# Who is killed: where the process is at that moment.
ROUNDS = {
    "nobody": None,
    "the one that decodes": "decoding",
    "the one that trains": "training the teacher",
}


@dataclass
class Round:
    """What came of one round. wrong: what must not be, in words."""

    runs: int
    killed: int = 0
    completed: int = 0
    teachers: int = 0
    decodings: int = 0
    wrong: list[str] = field(default_factory=list)


def argv(seed: int) -> list[str]:
    """The command of one of the runs; every second one has a student of its own."""
    shorter = [word.replace("epochs=4", "epochs=2") for word in KINDS[KIND]]
    return ["distill", *shorter, f"seed={seed % 2}"]


def note_ends(file: Path, slow_seconds: float) -> None:
    """A fault that is none: decoding takes a while, and every finished decoding and teacher is
    noted in `file`."""
    number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def noted(function: Any, what: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            time.sleep(slow_seconds)
            found = function(*args, **kwargs)
            os.write(number, f"{what}\n".encode())
            return found

        return call

    forks.replace("kdrun.data.decoding.cache", "_fill", lambda function: noted(function, "decoded"))
    forks.replace(
        "kdrun.distillation.teacher_recipe", "run_training", lambda f: noted(f, "trained")
    )


def at_once(runs: int, victim: str | None, folder: Path, alone: dict[int, bytes]) -> Round:
    """One round in `folder`. victim: the place of the process that is killed there.

    alone: seed → the weights of the same run alone.
    """
    folder.mkdir()
    notes = folder / "notes"
    began = partial(note_ends, notes, 0.3)
    children = [forks.start(folder, argv(seed), f"run{seed}", began) for seed in range(runs)]
    found = Round(runs)
    deadline = time.monotonic() + 120
    while victim is not None and not found.killed and time.monotonic() < deadline:
        for child in children:
            if child.place == victim and child.process.is_alive():
                time.sleep(0.1)  # in the middle of it
                child.kill()
                found.killed += 1
                break
        time.sleep(0.01)
    for child in children:
        code = child.wait(600)
        if code is None:
            child.kill()
        if code not in (0, -9):
            found.wrong.append(f"exit code {code}\n{child.output[-1500:]}")
    _count(folder, notes, alone, found)
    return found


def _count(folder: Path, notes: Path, alone: dict[int, bytes], found: Round) -> None:
    lines = notes.read_text().splitlines()
    found.teachers, found.decodings = lines.count("trained"), lines.count("decoded")
    trained = 0
    for path in folder.glob("outputs/distill/*/*/*/result.json"):
        result = json.loads(path.read_text())
        if path.parent.parent.name.startswith("none-") or result["status"] != "completed":
            continue
        found.completed += 1
        trained += not result["teachers"][0]["reused"]
        if (path.parent / "student.safetensors").read_bytes() != alone[result["seed"]]:
            found.wrong.append(f"{path.parent}: other weights than alone")
    if found.completed != found.runs - found.killed:
        found.wrong.append(f"{found.completed} of {found.runs - found.killed} completed")
    if trained > 1 or (found.teachers, found.decodings) != (1, 1):
        found.wrong.append(
            f"{trained} say they trained; {found.teachers} trained, {found.decodings} decoded"
        )
    found.wrong += leftovers(folder)


def alone(folder: Path) -> dict[int, bytes]:
    """Seed → the weights of that run, with nobody else in its folder."""
    found = {}
    for seed in (0, 1):
        own = folder / f"alone{seed}"
        own.mkdir()
        code, said = forks.run(own, argv(seed))
        assert code == 0, said
        (weights,) = own.glob("outputs/distill/*/[!n]*/*/student.safetensors")
        found[seed] = weights.read_bytes()
    return found


def main() -> int:
    """The command line; 1 when something ended as it must not."""
    parser = argparse.ArgumentParser(description="start many runs at once in one output folder")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where to work; it is kept")
    given = parser.parse_args()
    base = given.folder or Path(tempfile.mkdtemp(prefix="many-at-once-"))
    base.mkdir(parents=True, exist_ok=True)
    write_pictures(base / "photos")
    expected = alone(base)
    print("| killed | runs | completed | teachers trained | images decoded |")
    print("| --- | ---: | ---: | ---: | ---: |")
    wrong: list[str] = []
    for name, victim in ROUNDS.items():
        one = at_once(given.runs, victim, base / name.replace(" ", "-"), expected)
        print(f"| {name} | {one.runs} | {one.completed} | {one.teachers} | {one.decodings} |")
        wrong += one.wrong
    print(*wrong, sep="\n")
    if not wrong and given.folder is None:
        shutil.rmtree(base)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
