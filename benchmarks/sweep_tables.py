"""Shared by programs that run `kdrun` and print tables: arguments, commands, mean ± deviation."""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def parser(description: str | None) -> argparse.ArgumentParser:
    """With `--out`, `--seeds`, and further settings at the end of the command."""
    made = argparse.ArgumentParser(description=description)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--out", type=Path, required=True, help="output root of all runs")
    made.add_argument("--seeds", type=int, default=3)
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; makes the folder `out`."""
    arguments = made.parse_args()
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def chosen(description: str | None, names: Iterable[str]) -> list[str]:
    """The pairs named on the command line, all of which are among `names`."""
    names = list(names)
    made = argparse.ArgumentParser(description=description)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("pairs", nargs="*", metavar="PAIR", help=", ".join(names))
    named: list[str] = made.parse_args().pairs
    if unknown := [name for name in named if name not in names]:
        made.error(f"unknown pairs: {', '.join(unknown)}; choose from {', '.join(names)}")
    return named


def seed_word(seeds: int) -> str:
    """`seed=0,1,2`."""
    return f"seed={','.join(map(str, range(seeds)))}"


def kdrun(*words: str) -> str | None:
    """Print and run a command; None, or the last line of what it says when it fails."""
    print("kdrun " + " ".join(words), flush=True)
    line = [sys.executable, "-m", "kdrun", *words, "ui=plain"]
    done = subprocess.run(line, capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1]


def require(*words: str) -> None:
    """Run a command; ends the program if it fails."""
    failure = kdrun(*words)
    if failure is not None:
        sys.exit(failure)


def spread(values: Iterable[float], sign: str = "") -> str:
    """Mean ± standard deviation, `93.10 ± 0.42`; empty without values. sign: `+` shows it."""
    numbers = list(values)
    if not numbers:
        return ""
    deviation = f" ± {statistics.stdev(numbers):.2f}" if len(numbers) > 1 else ""
    return f"{statistics.fmean(numbers):{sign}.2f}{deviation}"
