"""Throws bad input at kdrun, thousands of times, and checks what every case must hold.

    python -m tests.reliability.fuzz --cases 5000 --seed 0
    python -m tests.reliability.fuzz --only runs --cases 300

A case begins with something good (a command, a file, a folder), spoils it, and gives it to kdrun in
this very process. It must end with exit code 0 or 2 (or the error that becomes 2), with a sentence
and no traceback, within the limit of time, with nothing changed that it had no business with, with
no code run, and, where it ends well, with the result of the good input or of what was asked.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability import kinds_commands, kinds_data, kinds_runs
from tests.reliability.case import Case, Failed
from tests.reliability.world import World, make_world

Kind = Callable[[Case], str]
KINDS: dict[str, tuple[Kind, int]] = {  # name → (what does one case, its share of all cases)
    "overrides": (kinds_commands.overrides, 6),
    "verbs": (kinds_commands.verbs, 3),
    "configs": (kinds_commands.configs, 2),
    "pictures": (kinds_data.pictures, 6),
    "trees": (kinds_data.trees, 3),
    "listed": (kinds_data.listed, 4),
    "arrays": (kinds_data.arrays, 3),
    "checkpoints": (kinds_data.checkpoints, 5),
    "runs": (kinds_runs.runs, 6),
    "resumes": (kinds_runs.resumes, 1),
    "phases": (kinds_runs.phases, 1),
    "sweeps": (kinds_runs.sweeps, 1),
}
CPU_SECONDS, REAL_SECONDS = 30.0, 300.0
MEMORY_BYTES = 12 * 2**30


@dataclass
class Tally:
    """What happened. failures: (kind, number, words)."""

    cases: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, int, str]] = field(default_factory=list)


class Hang(BaseException):
    """A case takes too long."""


def fuzz(cases: int, seed: int, only: list[str], world: World, say: Callable[[str], None]) -> Tally:
    """Run so many cases; each is made by its own number, so that it can be run alone."""
    tally = Tally()
    names = only or list(KINDS)
    shares = [KINDS[name][1] for name in names]
    chosen = random.Random(seed).choices(names, shares, k=cases)
    for number, name in enumerate(chosen):
        one(name, number, seed, world, tally)
        if (number + 1) % 500 == 0:
            say(f"{number + 1} cases, {len(tally.failures)} failures")
    return tally


def one(name: str, number: int, seed: int, world: World, tally: Tally) -> None:
    """One case of a kind."""
    tally.cases[name] += 1
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="kdrun-fuzz-") as folder:
        os.chdir(folder)
        case = Case(random.Random(f"{name} {seed} {number}"), world, Path(folder))
        try:
            with limited():
                tally.ends[KINDS[name][0](case)] += 1
            if (Path(folder) / "marker").exists():
                raise Failed("code was run")
        except Failed as failure:
            tally.failures.append((name, number, f"{failure}\n{case.story()}"))
        except Hang:
            where = "".join(traceback.format_exc().splitlines(True)[-12:])
            tally.failures.append((name, number, f"it hangs\n{case.story()}\n{where}"))
        except Exception:
            tally.failures.append((name, number, f"{traceback.format_exc()}\n{case.story()}"))
        finally:
            os.chdir(before)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise Hang in the block when it takes too long, by the processor's clock or the wall's."""

    def stop(signum: int, frame: object) -> None:
        raise Hang

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, REAL_SECONDS)
    try:
        yield
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def main() -> int:
    """Fuzz as the command line says; the exit code is 1 when a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=[])
    parser.add_argument("--number", type=int, help="one case alone, of the one kind of --only")
    parser.add_argument("--out", type=Path, help="write failures and figures as JSON")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kdrun-world-") as folder:
        os.environ["XDG_STATE_HOME"] = f"{folder}/state"
        os.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            world = make_world(Path(folder))
        if given.number is not None:
            tally = Tally()
            one(given.only[0], given.number, given.seed, world, tally)
        else:
            tally = fuzz(given.cases, given.seed, given.only, world, lambda text: say(text))
        os.chdir("/")
    for name, number, words in tally.failures:
        say(f"--- {name} {number}: {words}")
    say(f"{sum(tally.cases.values())} cases ({_shown(tally.cases)})")
    say(f"ends: {_shown(tally.ends)}")
    say(f"{len(tally.failures)} failures in {time.monotonic() - started:.0f} s")
    if given.out:
        given.out.write_text(json.dumps({"cases": tally.cases, "failures": tally.failures}))
    return 1 if tally.failures else 0


def say(text: str) -> None:
    """A line, at once."""
    print(text, file=sys.__stdout__, flush=True)


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
