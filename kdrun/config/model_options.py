"""Networks: one YAML in `model/` each, an option of both `student` and `teacher`."""

from pathlib import Path

# `model/NAME.yaml` describes a network; it is chosen as student=NAME or teacher=NAME.
MODEL = "model"
NETWORK_GROUPS = ("student", "teacher")


def model_names(folder: Path) -> list[str]:
    """The networks that a folder of configurations describes, sorted; `folder/name` below it."""
    root = folder / MODEL
    paths = (path.relative_to(root) for path in root.rglob("*.yaml"))
    return sorted(path.with_suffix("").as_posix() for path in paths)
