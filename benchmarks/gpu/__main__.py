"""Everything that only a GPU can show, in one command of under nine minutes.

    python benchmarks/gpu --data DIR               CUDA tests, step times, a short training
    python benchmarks/gpu --data DIR --full        the full 240 epochs; stops and resumes

It needs a checkout, torch 2.9 or later with CUDA, torchvision, and the data folder (CIFAR-100 as
`DIR/cifar100/{train,test}/<class>/*.png` or `DIR/cifar100-png.zip`, the teacher's weights as
`DIR/weights/resnet56.pth`). kdrun need not be installed. Missing packages are installed into
OUT/site with pip; without a network connection give a folder of wheels (`--wheels DIR`).
Writes OUT/gpu.json and OUT/gpu.md; `gpu.json` is rewritten after every part, so that a run that
is cut off keeps what it measured.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bootstrap
import parts
import table

# Latest start of each part as a share of the time; the training gets the rest.
TESTS_UNTIL, STEPS_UNTIL = 0.35, 0.70
RESERVE_SECONDS = 25


def main() -> int:
    began, arguments = time.monotonic(), parse()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    try:
        return run(arguments, began)
    except KeyboardInterrupt:
        what = "resume" if arguments.full else "start again"
        print(f"\nStopped; repeat the command to {what}.", file=sys.stderr)
        return 130


def run(arguments: argparse.Namespace, began: float) -> int:
    """Exit code of the whole command, which began at `began` of the monotonic clock."""
    problem = bootstrap.missing_here(arguments.device)
    out = arguments.out.resolve()
    problem = problem or bootstrap.install_missing(out / "site", arguments.wheels)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    kit = parts.Kit(out, arguments.device, parts.find_data(arguments.data, out))
    results: dict[str, Any] = {"machine": bootstrap.machine(arguments.device)}
    if arguments.full:
        earlier = out / "gpu.json"
        results = (json.loads(earlier.read_text()) if earlier.is_file() else {}) | results
        results["full"] = kit.full_training()
        report(results, out)
        return int(results["full"]["exit_code"])
    limit = 60 * arguments.minutes

    def left(share: float = 1.0) -> float:
        return limit * share - (time.monotonic() - began)

    for name, part in (
        ("tests", lambda: kit.tests(lambda: left(TESTS_UNTIL))),
        ("steps", lambda: kit.step_times(left, STEPS_UNTIL)),
        ("training", lambda: kit.short_training(left() - RESERVE_SECONDS)),
    ):
        print(f"\n== {name} ({left():.0f} s left)", flush=True)
        results[name] = part()
        write(results, out)
    report(results, out)
    return 0 if parts.passed(results) else 1


def write(results: dict[str, Any], out: Path) -> None:
    """The results as JSON and as a table."""
    (out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "gpu.md").write_text(table.markdown(results))


def report(results: dict[str, Any], out: Path) -> None:
    """Write the results, and print the table and where they are."""
    write(results, out)
    print("\n" + table.markdown(results))
    print(f"files: {out}/gpu.json, {out}/gpu.md")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python benchmarks/gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, help="folder of CIFAR-100 and weights")
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), help="results")
    parser.add_argument("--minutes", type=float, default=8.5, help="time limit, without --full")
    parser.add_argument("--wheels", type=Path, help="folder of wheels, without a network")
    parser.add_argument("--device", default="cuda", help="cpu tries the kit itself, slowly")
    parser.add_argument("--full", action="store_true", help="240 epochs, resumed by repeating")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
