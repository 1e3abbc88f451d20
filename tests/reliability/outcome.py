"""What a run leaves that must be the same however often it was stopped."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import without_times

TIMES = ("epoch_seconds", "images_per_second")
# Half-written files, and folders that are in use only while something is made.
LEFTOVERS = (".unfinished-*", "*.tmp", ".*.old", "previous.pt")


@dataclass(frozen=True)
class Outcome:
    """results, rows: of each finished run, by its group; weights: of each network, by its name."""

    results: dict[str, Any]
    rows: dict[str, Any]
    weights: dict[str, bytes]

    def differences(self, other: "Outcome") -> list[str]:
        """What is not the same in the two, in words."""
        found = []
        for what in ("results", "rows", "weights"):
            mine, theirs = getattr(self, what), getattr(other, what)
            keys = sorted(set(mine) | set(theirs))
            found += [f"{what} of {key}" for key in keys if mine.get(key) != theirs.get(key)]
        return found


def outcome(folder: Path) -> Outcome:
    """The outcome of the one run below `folder`, with its teacher and the student alone."""
    outputs = folder / "outputs"
    results, rows, weights = {}, {}, {}
    for path in sorted(outputs.glob("distill/*/*/*/result.json")):
        result = json.loads(path.read_text())
        group = path.parent.parent.name
        if result["status"] != "completed":
            continue
        assert group not in results, f"{group} was finished twice"
        results[group] = without_times(result)
        rows[group] = [
            {name: value for name, value in json.loads(line).items() if name not in TIMES}
            for line in (path.parent / "metrics.jsonl").read_text().splitlines()
        ]
        weights[group] = (path.parent / "student.safetensors").read_bytes()
    for path in outputs.glob("teachers/*/*/teacher.safetensors"):
        weights[path.parent.name] = path.read_bytes()
    return Outcome(results, rows, weights)


def leftovers(folder: Path) -> list[str]:
    """Files that only a run at work may have, relative to `folder`.

    What lies in folders that nobody holds does not count: that of a run which was killed before it
    began, and that of remembered outputs. A later run deletes it when it is an hour old.
    """
    paths = [path for pattern in LEFTOVERS for path in (folder / "outputs").rglob(pattern)]
    for never in folder.glob("outputs/distill/*/*/*"):
        if not (never / "result.json").exists():
            paths = [path for path in paths if not path.is_relative_to(never)]
    paths = [path for path in paths if "teacher-outputs" not in path.parts]
    paths += (folder / "outputs").glob("teachers/*/*/checkpoints")
    return sorted(str(path.relative_to(folder)) for path in paths)


def run_folder(folder: Path) -> Path | None:
    """The folder of the run itself or of the sweep, once it can be resumed."""
    sweeps = sorted(folder.glob("outputs/sweeps/**/sweep.json"))
    if sweeps:
        return sweeps[-1].parent.relative_to(folder)
    found = sorted(folder.glob("outputs/distill/*/*/*/config.yaml"))
    own = [path.parent for path in found if not path.parent.parent.name.startswith("none-")]
    return own[-1].relative_to(folder) if own else None
