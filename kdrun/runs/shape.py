"""What the values in a run's files can be, whoever wrote them.

Readers check the whole once and then rely on it: an entry that is there is of its kind and within
its range. Null, and an entry that is not there, always fit: a run fills its result in as it goes.
"""

from typing import Any

from kdrun.limits import finite


def percent(value: Any) -> bool:
    """0 to 100."""
    number = finite(value)
    return number is not None and 0 <= number <= 100


def points(value: Any) -> bool:
    """A difference of two percentages."""
    number = finite(value)
    return number is not None and -100 <= number <= 100


def count(value: Any) -> bool:
    """How many there are of something; a size, a time."""
    number = finite(value)
    return number is not None and 0 <= number < 1e18


def number(value: Any) -> bool:
    """Finite, of a size that sums and squares can be taken of."""
    found = finite(value)
    return found is not None and abs(found) < 1e18


def whole(value: Any) -> bool:
    """An integer, for a seed."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64


FIGURES = {"top1": percent, "top5": percent, "errors": count, "loss": number, "ece": percent}
BEST = {"epoch": count, "val_top1": percent, "test": FIGURES}
NETWORK = {
    "name": str,
    "params": count,
    "flops": count,
    "checkpoint": str,
    "sha256": str,
    "test": FIGURES,
    "val": FIGURES,
    "best_val": BEST,
}
RESULT = {
    "command": str,
    "status": str,
    "error": str,
    "identity": str,
    "dataset": {"name": str, "num_classes": count, "fingerprint": str},
    "objective": str,
    "scheme": str,
    "loss": [str],
    "T": number,
    "alpha": number,
    "ce": number,
    "seed": whole,
    "epochs": count,
    "device": str,
    "precision": str,
    "run": str,
    "teachers": [NETWORK],
    "student": NETWORK,
    "alone": {"test": FIGURES, "run": str},
    "agreement": percent,
    "gain": points,
    "time": {
        "seconds": count,
        "images_per_second": count,
        "data_seconds": count,
        "teacher_seconds": count,
    },
}
GROUP: dict[str, Any] = {"name": str}
GROUPS = ("dataset", "teacher", "student", "scheme", "logger", "schedule")
CONFIG: dict[str, Any] = {**dict.fromkeys(GROUPS, GROUP), "loss": {}}
WHOLE = ("objective", "epochs", "seed", "device", "precision")
EPOCH = {"epoch": count, "val/top1_percent": percent}


def fits(value: Any, shape: Any) -> bool:
    """Whether a value is of a shape.

    A shape is a type, a check, a list with the shape of its elements, or names with their shapes.
    """
    if value is None:
        return True
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(
            fits(value.get(name), inner) for name, inner in shape.items()
        )
    if isinstance(shape, list):
        return isinstance(value, list) and all(
            one is not None and fits(one, shape[0]) for one in value
        )
    return isinstance(value, shape) if isinstance(shape, type) else bool(shape(value))


def is_result(values: Any) -> bool:
    """Whether a value can be that of a `result.json`."""
    return isinstance(values, dict) and values.get("schema") == 1 and fits(values, RESULT)


def is_whole(values: dict[str, Any]) -> bool:
    """Whether a result of `kdrun distill` has all that a finished one is said to have."""
    networks = [values.get("student"), *(values.get("teachers") or [])]
    alone = values.get("alone")
    tests = [network.get("test") for network in networks if network]
    tests += [alone.get("test")] if alone else []
    return (
        all(networks)
        and all(network.get(key) is not None for network in networks for key in ("name", "params"))
        and all(teacher.get("sha256") is not None for teacher in networks[1:])
        and all(test and all(test.get(key) is not None for key in FIGURES) for test in tests)
        and all(values.get(key) is not None for key in WHOLE)
    )
