"""What distinguishes runs: their settings by short names, and which of them differ.

Left out: settings without effect on the result (output folder, screen, logger) and the seed, over
which metrics are averaged. A setting that another one implies appears once: `loss.kd.temperature`
as T, the weight of the soft-target loss as alpha.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdrun.config.schema import RuntimeConfig, named_teachers
from kdrun.report.records import Run, find
from kdrun.runs.result import RunResult

# The settings a reader thinks in, in the order of their columns.
MAIN = ("dataset", "teacher", "student", "loss", "scheme", "T", "alpha", "ce", "device")
# Settings of the objective; a run without one has a loss that does not read it.
OBJECTIVE = ("T", "alpha", "ce")
# Losses whose weight is alpha; those of the user's own keep their weight as a setting.
SOFT_LOSSES = {"ctkd", "deit_hard", "deit_soft", "kd", "logits", "mlkd", "skd"}
NONE = "none"
ABSENT = "-"

_WITHOUT_EFFECT = {
    *RuntimeConfig.__dataclass_fields__,
    *("logger", "seed", "alone", "teachers"),
    *("dataset.root", "dataset.download", "dataset.resident", "dataset.workers"),
}
# The schedule repeats these top-level settings.
_REPEATED = {f"schedule.{name}" for name in ("epochs", "batch_size", "lr", "precision")}

Settings = Mapping[str, str]


def settings_of(run: Run) -> dict[str, str]:
    """Name → value as text. T, alpha and ce are those of the objective, given or implied."""
    config, result = run.config, run.result
    names = {
        "dataset": result.dataset.name or find(config, "dataset", "name"),
        "teacher": _teachers(run),
        "student": find(config, "student", "name") or result.student.name,
        "loss": "+".join(map(str, result.loss or find(config, "loss") or ())),
        "scheme": find(config, "scheme", "name"),
        "device": result.device or "",
    }
    # a measured alpha (`weight: auto`) differs from seed to seed and is no setting
    measured = [weight.weight for weight in result.auto_weights.values()]
    alpha = None if result.alpha in measured else result.alpha
    for key, value in (("T", result.T), ("alpha", alpha)):
        names[key] = config.get(key) if value is None else value
    names["ce"] = None if alpha is not None and _alpha_implies_ce(result) else config.get("ce")
    settings = {key: text(value) for key, value in names.items() if value not in (None, "")}
    settings |= {f"{name} content": digest[:12] for name, digest in _contents(run).items()}
    for key, value in flatten(config).items():
        # unset equals absent: older versions did not write the key
        if value in (None, []) or _left_out(key, config):
            continue
        if not _implied(key, value, config, settings):
            settings[key] = text(value)
    return settings


def _contents(run: Run) -> dict[str, str]:
    """Digests of what a setting only names: images, weights, code. Equal names may differ there."""
    result = run.result
    known = {"dataset": result.dataset.fingerprint, "transfer": result.transfer.fingerprint}
    for where, teacher in named_teachers(result.teachers):
        if find(run.config, where, "checkpoint") is not None:
            known[f"{where}.checkpoint"] = teacher.sha256
    known |= {**result.teacher_files, **result.code}
    return {name: digest for name, digest in known.items() if digest is not None}


def differing(all_settings: Sequence[Settings]) -> list[str]:
    """The settings that differ, without those that take the same values as an earlier one.

    A setting of a network, a data set or a loss is compared only among runs that share its owner:
    `student.widths` differs when one student is tried with several widths.
    """
    names = {name for settings in all_settings for name in settings}
    ordered = [name for name in MAIN if name in names] + sorted(names - set(MAIN))
    columns: dict[tuple[str, ...], str] = {}
    for name in ordered:
        if _differs(name, all_settings):
            values = tuple(settings.get(name, ABSENT) for settings in all_settings)
            columns.setdefault(values, name)
    return list(columns.values())


def distinguishing(
    all_settings: Sequence[Settings], names: Sequence[str], always: Sequence[str]
) -> list[str]:
    """Those of `names` that are in `always`, and the fewest others that tell the rows apart.

    Settings outside `names` are used only where `names` do not suffice.
    """
    others = sorted({name for settings in all_settings for name in settings} - set(names))
    names = [*names, *others]
    chosen = [name for name in names if name in always and name not in others]

    def told_apart() -> int:
        return len({tuple(s.get(name, ABSENT) for name in chosen) for s in all_settings})

    rows = told_apart()
    for name in names:
        if name in chosen:
            continue
        chosen.append(name)
        if told_apart() > rows:
            rows = told_apart()
        else:
            chosen.remove(name)
    return sorted(chosen, key=names.index)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names; an empty one has no entry."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


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


def _alpha_implies_ce(result: RunResult) -> bool:
    alpha, ce = result.alpha, result.ce
    return alpha is not None and ce is not None and math.isclose(ce, 1 - alpha, abs_tol=1e-9)


def _left_out(key: str, config: Mapping[str, Any]) -> bool:
    first = key.split(".")[0]
    if key in MAIN or key in _WITHOUT_EFFECT or first in _WITHOUT_EFFECT or key in _REPEATED:
        return True
    if key.count(".") == 1 and key.endswith(".name"):
        return True  # a main setting has it
    # T overrides the temperature of every loss.
    return first == "loss" and key.endswith(".temperature") and config.get("T") is not None


def _implied(key: str, value: Any, config: Mapping[str, Any], settings: Settings) -> bool:
    """Whether T or alpha already says what this setting of a loss says."""
    group, _, rest = key.partition(".")
    loss, _, name = rest.rpartition(".")
    if group != "loss":
        return False
    if name == "temperature":
        return settings.get("T") == text(value)
    if name != "weight" or "alpha" not in settings:
        return False
    # alpha is the weight of the only soft-target loss
    if loss not in SOFT_LOSSES:
        return settings.get("loss") == loss
    return config.get("alpha") is not None or settings["alpha"] == text(value)


def _differs(name: str, all_settings: Sequence[Settings]) -> bool:
    values: dict[str, set[str]] = {}
    for settings in all_settings:
        owner = _owner(name, settings)
        if owner is not None:
            values.setdefault(owner, set()).add(settings.get(name, ABSENT))
    return any(len(variants) > 1 for variants in values.values())


def _owner(name: str, settings: Settings) -> str | None:
    """The network, data set or loss that the setting belongs to; None when the run has none."""
    first, _, rest = name.partition(".")
    if name in OBJECTIVE:
        implied = name == "ce" and "alpha" in settings
        return "" if name in settings or implied else None
    if not rest:
        return "dataset " + settings.get("dataset", "") if name == "dataset content" else ""
    if first == "loss":
        return "" if rest.split(".")[0] in settings.get("loss", "").split("+") else None
    if first.startswith("teacher") and first != "teacher":
        return settings.get("teacher")  # the second of several, and so on
    if first == "teacher" and rest.startswith(("schedule.", "seed")):
        return None if settings.get("teacher") == NONE else ""
    return settings.get(first, "") if first in MAIN else ""
