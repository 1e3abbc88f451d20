"""What Hydra composes from besides YAML files: defaults from the schema, and networks.

`runtime_keys`, `teacher_keys`, ... are nodes of defaults; a YAML takes one over with
`- /dataset_keys@_here_` in its defaults list. Read by help and completion: imports neither Hydra
nor torch.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kdrun.config import schema
from kdrun.config.settings import defaults_of, help_of, keys_of, settings_of

# `model/NAME.yaml` describes a network; it is chosen as student=NAME or teacher=NAME.
MODEL = "model"
NETWORK_GROUPS = ("student", "teacher")
TEACHER_COUNT_HELP = "number of teachers with this architecture; their seeds: seed, seed + 1, ..."


# Settings of the recipe that are typed by another name, because `ce` is a number: as in
# `ce=0.5 ce.kind=bce`. Short name → key of the student's (or the teacher's, where it is trained)
# schedule.
SHORT_NAMES = {"ce.kind": "ce_kind", "ce.threshold": "ce_threshold", "ce.sum": "ce_sum"}
# Verb's configuration → where the schedule is that it trains with.
TRAINED_SCHEDULE = {
    "distill": "schedule",
    "benchmark": "schedule",
    "search": "schedule",
    "train_teacher": "teacher.schedule",
}

# Top-level setting → its heading on help pages; others stand below "Settings".
SECTIONS = {
    **dict.fromkeys(("T", "alpha", "ce"), "Objective; null leaves each loss's own value"),
    "transfer": "Transfer set",
    **dict.fromkeys(
        ("epochs", "batch_size", "lr", "precision", *SHORT_NAMES), "Short names of the recipe"
    ),
    "search": "Search",
    "sweep": "Sweeps",
}
RUNTIME_SECTION = "Where and how the command runs"


def section_of(key: str) -> str:
    """The heading of a top-level setting on help pages."""
    default = RUNTIME_SECTION if key in keys_of(schema.RuntimeConfig) else "Settings"
    return SECTIONS.get(key, default)


@dataclass(frozen=True)
class Node:
    """Default values of a node, and one line of help for each of its keys."""

    values: dict[str, Any]
    help: dict[str, str]

    def with_key(self, key: str, default: Any, help: str, first: bool = False) -> "Node":
        """The node with another key, at its end or `first`."""
        value, line = {key: default}, {key: help}
        if first:
            return Node(value | self.values, line | self.help)
        return Node(self.values | value, self.help | line)

    def only(self, *keys: str) -> "Node":
        """The node with these keys alone, in this order."""
        return Node({key: self.values[key] for key in keys}, {key: self.help[key] for key in keys})

    def without(self, *keys: str) -> "Node":
        """The node without these keys."""
        return self.only(*(key for key in self.values if key not in keys))


@cache
def nodes() -> dict[str, Node]:
    """Every node of defaults, by the name that defaults lists use."""
    network = keys_of(schema.NetworkConfig)
    teacher = _node(schema.TeacherConfig).without(*network, "schedule")
    start, ensemble = _node(schema.StartConfig), _node(schema.EnsembleConfig)
    dataset = _node(schema.DatasetConfig).without("name", "_target_")
    return {
        "runtime_keys": _node(schema.RuntimeConfig),
        "dataset_keys": dataset.with_key(
            "num_classes", None, "of arrays whose labels have gaps; null: labels are 0, 1, ..."
        ),
        "teacher_keys": teacher.with_key("count", 1, TEACHER_COUNT_HELP, first=True),
        "teacher_file_keys": teacher.only("image_size", *keys_of(schema.TeacherInput)),
        "ensemble_keys": Node(ensemble.values | {"weights": None}, ensemble.help),
        "student_keys": Node(start.values | {"checkpoint": None}, start.help).with_key(
            "quantize", None, help_of(schema.NetworkConfig)["quantize"]
        ),
        "augment_keys": _node(schema.AugmentConfig),
        "schedule_keys": _node(schema.ScheduleConfig),
        "distill_keys": _top_level(schema.DistillConfig),
        "train_teacher_keys": _top_level(schema.TrainTeacherConfig),
        "benchmark_keys": _top_level(schema.BenchmarkConfig),
        "evaluate_keys": _top_level(schema.EvaluateConfig),
        "export_keys": _top_level(schema.ExportConfig),
        "search_keys": Node({"search": defaults_of(schema.SearchConfig)}, {"search": ""}),
    }


@cache
def nested_help() -> dict[str, dict[str, str]]:
    """Top-level group of settings that has no options → help of its keys."""
    return {
        "transfer": help_of(schema.TransferConfig),
        "sweep": help_of(schema.SweepConfig),
        "search": help_of(schema.SearchConfig),
    }


def model_names(folder: Path) -> list[str]:
    """The networks that a folder of configurations describes, sorted; `folder/name` below it."""
    root = folder / MODEL
    paths = (path.relative_to(root) for path in root.rglob("*.yaml"))
    return sorted(path.with_suffix("").as_posix() for path in paths)


def _node(cls: Any) -> Node:
    return Node(defaults_of(cls), help_of(cls))


def _top_level(cls: Any) -> Node:
    """The single settings of a verb, without those of the runtime."""
    declared = [one for one in settings_of(cls) if one.is_declared and not one.meta.inline]
    return _node(cls).only(*(one.key for one in declared))
