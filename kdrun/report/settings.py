"""What distinguishes runs: their settings by short names, and which of them differ.

Settings that change nothing a run learns (where it writes, its screen, its logger) are left out,
and so is the seed, over which figures are averaged.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdrun.config.schema import RuntimeConfig
from kdrun.report.records import Run, find

# The settings a reader thinks in, in the order of their columns.
MAIN = ("dataset", "teacher", "student", "loss", "scheme", "T", "alpha", "ce", "device")
NONE = "none"
ABSENT = "-"

_WITHOUT_EFFECT = {
    *RuntimeConfig.__dataclass_fields__,
    *(
        "logger",
        "seed",
        "alone",
        "teachers",
        "dataset.root",
        "dataset.download",
        "dataset.resident",
    ),
    "dataset.workers",
}
# The top level says these; the schedule repeats them.
_REPEATED = {f"schedule.{name}" for name in ("epochs", "batch_size", "lr", "precision")}

Settings = Mapping[str, str]


def settings_of(run: Run) -> dict[str, str]:
    """Name → value as text. T and alpha are those of the objective, given or not."""
    config = run.config
    names = {
        "dataset": run.result.dataset.name or find(config, "dataset", "name"),
        "teacher": _teachers(run),
        "student": find(config, "student", "name") or run.result.student.name,
        "loss": "+".join(map(str, run.result.loss or find(config, "loss") or ())),
        "scheme": find(config, "scheme", "name"),
        "device": run.result.device or "",
    }
    for key, value in (("T", run.result.T), ("alpha", run.result.alpha)):
        names[key] = config.get(key) if value is None else value
    names["ce"] = config.get("ce")  # otherwise it follows from alpha and the loss
    found = {key: text(value) for key, value in names.items() if value not in (None, "")}
    content = run.result.dataset.fingerprint
    if content is not None:
        found["dataset content"] = content[:12]
    for key, value in flatten(config).items():
        # unset is the same as not there: an older kdrun did not write the key at all
        if value not in (None, []) and not _left_out(key, config):
            found[key] = text(value)
    return found


def differing(all_settings: Sequence[Settings]) -> list[str]:
    """The settings to tell them apart by, without those that say the same as an earlier one.

    A setting that belongs to a network, a data set or a term is compared only among those that
    have the same: `student.widths` differs when one student is tried with several widths.
    """
    names = {name for settings in all_settings for name in settings}
    ordered = [name for name in MAIN if name in names] + sorted(names - set(MAIN))
    columns: dict[tuple[str, ...], str] = {}
    for name in ordered:
        if _differs(name, all_settings):
            values = tuple(settings.get(name, ABSENT) for settings in all_settings)
            columns.setdefault(values, name)
    return list(columns.values())


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names; an empty one has no entry."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def text(value: Any) -> str:
    """A value as it would be typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return str(value)


def label(settings: Settings, names: Iterable[str]) -> str:
    """`T=4 alpha=0.9`."""
    return " ".join(f"{name}={settings[name]}" for name in names if name in settings)


def _teachers(run: Run) -> str:
    names = [teacher.name for teacher in run.result.teachers if teacher.name]
    configured = find(run.config, "teacher", "name")
    return "+".join(names) or (str(configured) if configured else NONE)


def _left_out(key: str, config: Mapping[str, Any]) -> bool:
    first = key.split(".")[0]
    if key in MAIN or key in _WITHOUT_EFFECT or first in _WITHOUT_EFFECT or key in _REPEATED:
        return True
    if key.count(".") == 1 and key.endswith(".name"):
        return True  # the main settings say it
    # T and alpha replace what the terms say themselves.
    return first == "loss" and key.endswith(".temperature") and config.get("T") is not None


def _differs(name: str, all_settings: Sequence[Settings]) -> bool:
    values: dict[str, set[str]] = {}
    for settings in all_settings:
        owner = _owner(name, settings)
        if owner is not None:
            values.setdefault(owner, set()).add(settings.get(name, ABSENT))
    return any(len(found) > 1 for found in values.values())


def _owner(name: str, settings: Settings) -> str | None:
    """What the setting belongs to in this run; None when the run has no such thing."""
    first, _, rest = name.partition(".")
    if not rest:
        return "dataset " + settings.get("dataset", "") if name == "dataset content" else ""
    if first == "loss":
        return "" if rest.split(".")[0] in settings.get("loss", "").split("+") else None
    if first.startswith("teacher") and first != "teacher":
        return settings.get("teacher")  # the second of several, and so on
    if first == "teacher" and rest.startswith(("schedule.", "seed")):
        return None if settings.get("teacher") == NONE else ""
    return settings.get(first, "") if first in MAIN else ""
