"""Golden runs: record what about forty commands leave, to compare two checkouts bit for bit.

    python tests/golden/record.py before.json                  # in the one checkout
    python tests/golden/record.py after.json                   # in the other
    python tests/golden/record.py --compare before.json after.json
    python tests/golden/record.py --ci tests/golden/expected.json

Recorded per case: the exit code; of each new run the resolved configuration, `result.json` and the
SHA-256 of its weights; of each new teacher its fingerprint and weights. Times, paths and random
folder names are left out. Weights depend on the CPU and on torch: compare their
checksums only between recordings of one machine. `--ci` runs the short list with a few steps and
leaves out what depends on the machine; `test_golden.py` compares it with `expected.json`.
"""

import argparse
import json
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from tests.golden.cases import CASES, Case, shortened  # noqa: E402

# Entries of result.json that differ between equal runs.
VOLATILE = ("time", "seconds", "compile_seconds", "teacher_cache")
STAMP = re.compile(r"\d{8}-\d{6}-\d{3}-[0-9a-f]{6}")


def record(cases: list[Case], folder: Path) -> dict[str, Any]:
    """Run the cases in order in `folder`; what each of them left."""
    os.chdir(folder)
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    from kdrun.cli.main import run

    seen: set[Path] = set()
    made: dict[str, Path] = {}
    found: dict[str, Any] = {"machine": machine(), "cases": {}}
    for case in cases:
        argv = [re.sub(r"\{run:(\w+)\}", lambda m: str(made[m[1]]), word) for word in case.argv]
        started = time.perf_counter()
        if case.interrupt:
            _interrupt_after_first_epoch(seen)
        code = run(argv)
        entry: dict[str, Any] = {"code": code}
        new = sorted({p.parent for p in folder.glob("outputs/*/**/result.json")} - seen, key=str)
        seen |= set(new)
        runs = [facts(path) for path in new]
        entry["runs"] = sorted(runs, key=lambda one: json.dumps(one, sort_keys=True))
        teachers = sorted(
            {p.parent for p in folder.glob("outputs/teachers/**/teacher.json")} - seen
        )
        seen |= set(teachers)
        entry["teachers"] = {path.name: weights(path) for path in teachers}
        if new:
            made[case.name] = max(new, key=lambda path: (path / "result.json").stat().st_mtime_ns)
        if case.name == "resumed":
            entry["runs"] = [facts(made["interrupted"])]
        if case.interrupt:  # how far it came is chance
            entry["runs"] = [{"status": one["result"]["status"]} for one in entry["runs"]]
        found["cases"][case.name] = entry
        seconds = time.perf_counter() - started
        print(f"{case.name:18} exit {code}, {len(new)} runs, {seconds:.1f} s", file=sys.stderr)
    return found


def facts(run: Path) -> dict[str, Any]:
    """What one run folder says, without times and places."""
    result = json.loads((run / "result.json").read_text())
    path = run / "config.yaml"
    config = stable(path.read_text()) if path.exists() else None
    if "<cwd>" in (config or ""):
        result.pop("identity", None)  # it covers the path of the teacher's checkpoint
    return {
        "group": str(run.parent.relative_to(Path.cwd() / "outputs")),
        "config": config,
        "result": stable(result),
        "weights": weights(run),
    }


def weights(folder: Path) -> dict[str, str]:
    """File name to SHA-256 of every weight file in a folder."""
    import hashlib

    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.safetensors"))
    }


def stable(value: Any) -> Any:
    """A value without times, and without places and random names in its texts."""
    if isinstance(value, dict):
        return {
            k: stable(v) for k, v in value.items() if k not in VOLATILE and not k.endswith("_ms")
        }
    if isinstance(value, list):
        return [stable(one) for one in value]
    if isinstance(value, str):
        return STAMP.sub("<stamp>", value.replace(str(Path.cwd()), "<cwd>"))
    return value


def machine() -> dict[str, str]:
    """What weights depend on."""
    import torch

    return {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
    }


def _interrupt_after_first_epoch(seen: set[Path]) -> None:
    """Send this process SIGINT once a new run has a line of metrics."""

    def watch() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            rows = [
                p
                for p in Path("outputs/distill").glob("*/*/*/metrics.jsonl")
                if p.parent.resolve() not in seen and p.stat().st_size
            ]
            if rows:
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.005)

    threading.Thread(target=watch, daemon=True).start()


def record_short(folder: Path) -> dict[str, Any]:
    """What the short list leaves after a few steps, without what depends on the machine."""
    cases = [shortened(case) for case in CASES if case.ci]
    found: dict[str, Any] = portable(record(cases, folder)["cases"])
    for entry in found.values():
        entry["runs"].sort(key=lambda run: json.dumps(run, sort_keys=True))
    return found


def portable(value: Any) -> Any:
    """A recorded value with "number" for each number and "sha256" for the weights' checksums.

    Exit codes, configurations and fingerprints stay.
    """
    if isinstance(value, dict):
        return {
            key: item if key in ("code", "config", "fingerprint", "identity") else portable(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [portable(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return "sha256"
    return value


def differences(before: Any, after: Any, place: str = "") -> list[str]:
    """One line for each value that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        lines = []
        for key in [*before, *(k for k in after if k not in before)]:
            here = f"{place}.{key}" if place else str(key)
            if key not in before:
                lines.append(f"{here}: new: {str(after[key])[:100]}")
            elif key not in after:
                lines.append(f"{here}: gone: {str(before[key])[:100]}")
            else:
                lines += differences(before[key], after[key], here)
        return lines
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = zip(before, after, strict=True)
        return [x for n, (a, b) in enumerate(pairs) for x in differences(a, b, f"{place}[{n}]")]
    if before == after:
        return []
    if isinstance(before, str) and "\n" in before:
        import difflib

        lines = difflib.unified_diff(before.splitlines(), str(after).splitlines(), n=0, lineterm="")
        return [f"{place}: {line}" for line in list(lines)[2:] if not line.startswith("@@")]
    return [f"{place}: {str(before)[:100]} -> {str(after)[:100]}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--compare", action="store_true", help="compare two recorded files")
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument(
        "--ci", action="store_true", help="the short list, without what depends on the machine"
    )
    args = parser.parse_args()
    if args.compare:
        before, after = (json.loads(path.read_text()) for path in args.files)
        lines = differences(before, after)
        print("\n".join(lines) or "no differences")
        return bool(lines)
    target = args.files[0].resolve()
    cases = [case for case in CASES if not args.only or case.name in args.only]
    with tempfile.TemporaryDirectory() as folder:
        found = record_short(Path(folder)) if args.ci else record(cases, Path(folder))
        os.chdir("/")
    target.write_text(json.dumps(found, indent=1, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
