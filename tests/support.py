"""What several test folders share: a small run, and reading what runs left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kdrun

# Two hundred images of 8×8 pixels: an epoch takes milliseconds, all code paths are the real ones.
SMALL = [
    "dataset=synthetic",
    "dataset.train_size=200",
    "dataset.test_size=60",
    "dataset.image_size=8",
    "dataset.num_classes=4",
    "epochs=3",
    "teacher.schedule.epochs=3",
    "ui=quiet",
    "threads=1",
]


def results(folder: Path, verb: str = "distill", name: str = "*") -> list[dict[str, Any]]:
    """All results under a verb, by the time of their folders; each with its `folder`."""
    found = []
    for path in sorted(folder.glob(f"outputs/{verb}/*/{name}/*/result.json"), key=str):
        found.append({**json.loads(path.read_text()), "folder": path.parent})
    return found


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what may differ between two equal runs: times, places, first or second."""
    differing = ("time", "folder", "alone", "teachers", "teacher_cache")
    kept = {k: v for k, v in result.items() if k not in differing}
    kept["alone"] = result["alone"] and result["alone"]["test"]
    kept["teachers"] = [
        {k: v for k, v in teacher.items() if k not in ("reused", "checkpoint")}
        for teacher in result["teachers"]
    ]
    return kept


def writing_once(write: Callable[..., None]) -> Callable[..., None]:
    """`write_onnx` that remembers what it wrote: tracing is the slow part, and always the same."""
    written: dict[tuple[str, int | None], bytes] = {}

    def remembered(
        network: Any, card: Any, dtype: str, path: Path, opset: int | None = None
    ) -> None:
        key = (card.sha256, opset)
        if key not in written:
            write(network, card, dtype, path, opset)
            written[key] = path.read_bytes()
        path.write_bytes(written[key])

    return remembered


def in_kdrun(body: str) -> Callable[[Any], None]:
    """A function of `config` that seems to be kdrun's own: errors of other files are the user's."""
    code: dict[str, Any] = {}
    exec(compile(f"def react(config):\n    {body}\n", kdrun.__file__, "exec"), code)
    react: Callable[[Any], None] = code["react"]
    return react
