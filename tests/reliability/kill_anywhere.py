"""Stops runs at random moments, resumes them, and compares the results with an unstopped run.

    python -m tests.reliability.kill_anywhere --kills 300 --seed 0
    python -m tests.reliability.kill_anywhere --stop hangup --stop pipe --only offline --kills 20

A run is stopped in one of these ways (`--stop`, several times; `kill` alone by default):
- kill: SIGKILL, every second run at a moment drawn evenly from its duration, the others within one
  of their writes: before the new file takes its name, after it, or when half of it is written;
- hangup: SIGHUP to the whole process group, as a closed terminal sends it;
- pipe: the reader of standard output leaves after a number of lines, as `| head` does.

The resumed run is stopped again with the probability `--again`. After a hangup or a closed pipe the
exit code must be 130 and no run may be left with the status `running`. The end must be that of a
run that was never stopped: weights bit for bit, results and rows of metrics except times, no file
left over.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kdrun.errors import EXIT_INTERRUPTED
from tests.reliability import forks
from tests.reliability.outcome import Outcome, leftovers, outcome, run_folder
from tests.reliability.pictures import write_pictures
from tests.support import SMALL

IMAGES = [word for word in SMALL if word.startswith("dataset")]
RECIPE = ["threads=1", "device=cpu", "ui=plain", "batch_size=32", "epochs=4", "checkpoint_steps=3"]
TEACHER = ["teacher.schedule.epochs=4", "teacher.schedule.batch_size=32"]
KINDS = {
    "offline": [*IMAGES, *RECIPE, *TEACHER, "loss=kd"],
    "online": [*IMAGES, *RECIPE, "loss=kd", "scheme=online", "scheme.peers=[student]"],
    "crd": [*IMAGES, *RECIPE, *TEACHER, "loss=[kd,crd]", "loss.crd.negatives=16"],
    "pretrain": [*IMAGES, *RECIPE, *TEACHER, "loss=[kd,ft]", "loss.ft.pretrain_epochs=2"],
    "fitnet": [
        *IMAGES,
        *RECIPE,
        *TEACHER,
        "loss=[kd,fitnet]",
        "loss.fitnet.variant=paper",
        "loss.fitnet.pretrain_epochs=2",
    ],
    "ab": [*IMAGES, *RECIPE, *TEACHER, "loss=[kd,ab]", "loss.ab.pretrain_epochs=2"],
    "fsp": [
        *IMAGES,
        *RECIPE,
        *TEACHER,
        "loss=[kd,fsp]",
        "loss.fsp.connectors=true",
        "loss.fsp.pretrain_epochs=2",
    ],
    "sweep": ["-m", *IMAGES, *RECIPE, *TEACHER, "loss=kd,sp"],
    "streaming": [
        *RECIPE,
        *TEACHER,
        "dataset=imagefolder",
        "dataset.root=../photos",
        "dataset.resident=false",
        "dataset.workers=2",
        "dataset.augment.crop_padding=1",
        "dataset.augment.flip=true",
        "loss=kd",
    ],
}
MOST_KILLS = 4
PATIENCE = 300.0  # seconds; a process that takes longer hangs
STOPS = ("kill", "hangup", "pipe")
SCREEN_LINES = 40  # about as many as a run prints
AT_WRITE = ("before the new name", "after the new name", "half written")


@dataclass
class Tally:
    """What happened to the runs of one kind.

    lost: could not go on. different: ended otherwise. left: ended with half-written files about.
    wrong: all of these in words.
    """

    runs: int = 0
    places: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    different: int = 0
    left: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How many times a process was killed."""
        return self.places.total()


@dataclass(frozen=True)
class Reference:
    """A run that was never stopped: its end, how long it took, how many files it wrote."""

    outcome: Outcome
    seconds: float
    writes: int


def measure(kind: str, base: Path, times: int = 2) -> Reference:
    """The reference of a kind; it is run so many times, which must end alike."""
    ends = []
    for name in range(times):
        folder = base / f"{kind}-{name}"
        folder.mkdir()
        counter = folder / "writes"
        began = time.monotonic()
        count = partial(count_writes, counter)
        code, output = forks.run(folder, ["distill", *KINDS[kind]], fault=count)
        seconds = time.monotonic() - began
        assert code == 0, output
        assert leftovers(folder) == []
        ends.append((outcome(folder), seconds, counter.stat().st_size))
        shutil.rmtree(folder)
    assert ends[0][0].differences(ends[-1][0]) == [], f"{kind} does not repeat itself"
    return Reference(*ends[-1])


def trial(
    kind: str,
    reference: Reference,
    folder: Path,
    draw: random.Random,
    tally: Tally,
    stop: str,
    again: float,
) -> None:
    """One run, stopped at least once where the moment drawn comes before its end.

    again: how likely the resumed run is stopped too.
    """
    folder.mkdir()
    tally.runs += 1
    argv = ["distill", *KINDS[kind]]
    at_a_write = tally.runs % 2 == 0
    for attempt in range(MOST_KILLS + 1):
        stopped = attempt < MOST_KILLS and (attempt == 0 or draw.random() < again)
        fault: Callable[[], None] | None = None
        if stopped and stop == "pipe":
            fault = partial(close_pipe_after, draw.randrange(SCREEN_LINES))
        elif stopped and stop == "kill" and at_a_write:
            number = draw.randrange(reference.writes) + 1
            fault = partial(die_at_write, number, draw.choice(AT_WRITE))
        child = forks.start(folder, argv, f"attempt{attempt}", fault)
        by_time = stopped and fault is None
        code = child.wait(draw.uniform(0, reference.seconds) if by_time else PATIENCE)
        place = child.place
        if code is None and stop == "hangup" and by_time:
            child.signal(signal.SIGHUP)
            code = child.wait(PATIENCE)
        elif code is None:
            child.kill()
            code = -signal.SIGKILL if by_time else None
        if code == 0:
            break
        wrong = _unclean(stop, code, folder, child.output)
        if wrong:
            tally.lost += 1
            tally.wrong.append(f"{folder}: {wrong}\n{child.output[-2000:]}")
            return
        tally.places[place] += 1
        tally.stops[stop] += 1
        there = run_folder(folder)
        argv = argv if there is None else ["resume", str(there)]
    judge(reference, folder, tally)


def _unclean(stop: str, code: int | None, folder: Path, output: str) -> str | None:
    """What is wrong with the end of a process that was stopped."""
    if stop == "kill":
        return None if code == -signal.SIGKILL else f"exit code {code}"
    if code != EXIT_INTERRUPTED:
        return f"exit code {code} after {stop}"
    if "Traceback" in output:
        return f"a traceback after {stop}"
    for path in folder.glob("outputs/*/*/*/*/result.json"):
        if json.loads(path.read_text())["status"] == "running":
            return f"{path} says running after {stop}"
    return None


def judge(reference: Reference, folder: Path, tally: Tally) -> None:
    """Compare the end of a run with that of the reference; removes the folder when all is well."""
    found = reference.outcome.differences(outcome(folder))
    left = leftovers(folder)
    if found or left:
        tally.different += bool(found)
        tally.left += bool(left)
        tally.wrong.append(f"{folder}: {', '.join(found + left)}")
    else:
        shutil.rmtree(folder)


def count_writes(counter: Path) -> None:
    """A fault that is none: a byte in `counter` for every file that takes its name."""
    with open(counter, "wb", buffering=0) as file:
        number = os.dup(file.fileno())
    replace = os.replace

    def counted(*args: Any) -> None:
        os.write(number, b".")
        replace(*args)

    os.replace = counted  # type: ignore[assignment]


def die_at_write(number: int, when: str) -> None:
    """The process ends itself with SIGKILL at the `number`-th file that takes its name."""
    replace, calls = os.replace, [0]

    def dying(source: Any, target: Any) -> None:
        calls[0] += 1
        if calls[0] == number:
            if when == "after the new name":
                replace(source, target)
            elif when == "half written":
                os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = dying


def close_pipe_after(lines: int) -> None:
    """Standard output becomes a pipe whose reader leaves after so many lines."""
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(writer)

    def read() -> None:
        left = lines
        while left > 0:
            left -= os.read(reader, 1).count(b"\n")
        os.close(reader)

    threading.Thread(target=read, daemon=True).start()


def kill_anywhere(
    kinds: list[str],
    kills: int,
    seed: int,
    base: Path,
    references: int = 2,
    stops: Sequence[str] = ("kill",),
    again: float = 1 / 3,
) -> dict[str, Tally]:
    """Trials of every kind in turn until each has its share of the kills."""
    write_pictures(base / "photos")
    tallies = {}
    for kind in kinds:
        draw = random.Random(f"{seed} {kind}")
        reference = measure(kind, base, references)
        tally = tallies[kind] = Tally()
        while tally.kills < kills / len(kinds):
            stop = stops[tally.runs % len(stops)]
            trial(kind, reference, base / f"{kind}-{tally.runs}", draw, tally, stop, again)
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """The figures in Markdown: by kind, then where the kills fell."""
    lines = ["| kind | runs | kills | lost | different | files left |", f"| --- |{' ---: |' * 5}"]
    for kind, one in tallies.items():
        figures = (one.runs, one.kills, one.lost, one.different, one.left)
        lines.append(f"| {kind} | {' | '.join(map(str, figures))} |")
    places = sum((one.places for one in tallies.values()), Counter[str]())
    lines += ["", "| killed while | times |", "| --- | ---: |"]
    lines += [f"| {place} | {count} |" for place, count in places.most_common()]
    return "\n".join(lines)


def main() -> int:
    """The command line; 1 when a run was lost or ended differently."""
    parser = argparse.ArgumentParser(description="kill runs at random moments and compare ends")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS, action="append", help="a kind (several times)")
    parser.add_argument("--folder", type=Path, help="where to work; what went wrong is kept there")
    parser.add_argument("--stop", choices=STOPS, action="append", help="how (several times)")
    parser.add_argument("--again", type=float, default=1 / 3)
    parser.add_argument("--references", type=int, default=2, help="unstopped runs of each kind")
    given = parser.parse_args()
    base = given.folder or Path(tempfile.mkdtemp(prefix="kill-anywhere-"))
    base.mkdir(parents=True, exist_ok=True)
    stops = given.stop or ["kill"]
    tallies = kill_anywhere(
        given.only or list(KINDS),
        given.kills,
        given.seed,
        base,
        given.references,
        stops,
        given.again,
    )
    print(table(tallies))
    print("stopped by:", sum((one.stops for one in tallies.values()), Counter[str]()))
    wrong = [text for one in tallies.values() for text in one.wrong]
    print(*wrong, sep="\n")
    if not wrong and given.folder is None:
        shutil.rmtree(base)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
