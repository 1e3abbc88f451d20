"""Everything that only a GPU can show, in one command of under nine minutes.

    python benchmarks/gpu --data DIR               CUDA tests, step times, a short training
    python benchmarks/gpu --data DIR --full        the full 240 epochs; stops and resumes

It needs a checkout, torch 2.9 or later with CUDA, and the data folder (CIFAR-100 as
`DIR/cifar100/{train,test}/<class>/*.png` or `DIR/cifar100-png.zip`, the teacher's weights as
`DIR/weights/resnet56.pth`). kdrun need not be installed. Missing packages are installed into
OUT/site with pip; without a network give a folder of wheels (`--wheels DIR`).
Writes OUT/gpu.json and OUT/gpu.md; `gpu.json` is rewritten after every part, so that a run that
is cut off keeps what it measured.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bootstrap
import parts
import table

# Latest start of each part as a share of the time; the training gets the rest.
TESTS_UNTIL, STEPS_UNTIL = 0.35, 0.70
RESERVE_SECONDS = 25


def main() -> int:
    arguments = parse()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    missing = bootstrap.missing_gpu(arguments.device)
    if missing:
        print(missing, file=sys.stderr)
        return 1
    problem = bootstrap.install_missing(out / "site", arguments.wheels)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    kit = parts.Kit(out, arguments.device, parts.find_data(arguments.data, out))
    if arguments.full:
        return kit.full_training()
    began, limit = time.monotonic(), 60 * arguments.minutes

    def left(share: float = 1.0) -> float:
        return limit * share - (time.monotonic() - began)

    results: dict[str, object] = {"machine": bootstrap.machine(arguments.device)}
    for name, run in (
        ("tests", lambda: kit.tests(lambda: left(TESTS_UNTIL))),
        ("steps", lambda: kit.step_times(left, STEPS_UNTIL)),
        ("training", lambda: kit.short_training(left() - RESERVE_SECONDS)),
    ):
        print(f"\n== {name} ({left():.0f} s left)", flush=True)
        results[name] = run()
        (out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        (out / "gpu.md").write_text(table.markdown(results))
    print("\n" + table.markdown(results))
    print(f"files: {out}/gpu.json, {out}/gpu.md")
    return 0 if parts.passed(results) else 1


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
