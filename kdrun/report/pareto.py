"""Pareto fronts: networks that no other network beats in both size and accuracy."""

from collections.abc import Callable, Sequence

from kdrun.report.aggregate import Group
from kdrun.report.records import Run

# Column → size of the student.
SIZES: dict[str, Callable[[Run], float | None]] = {
    "params": lambda run: run.result.student.params,
    "FLOPs": lambda run: run.result.student.flops,
    "bytes": lambda run: run.weight_bytes,
    "latency": lambda run: run.latency_ms,
}


def front(points: Sequence[tuple[float, float]]) -> set[int]:
    """Positions of the (size, accuracy) pairs that no other pair dominates; equal pairs stay."""
    return {
        place
        for place, (size, accuracy) in enumerate(points)
        if not any(s <= size and a >= accuracy and (s, a) != (size, accuracy) for s, a in points)
    }


def fronts(groups: Sequence[Group]) -> list[list[str]]:
    """For each group, the sizes by which it is on the front of validation accuracy.

    A size that is equal or unknown for all groups is left out.
    """
    found: list[list[str]] = [[] for _ in groups]
    for name, read in SIZES.items():
        sized = {}
        for place, group in enumerate(groups):
            size = mean_size(group.runs, read)
            if size is not None and group.rank is not None:
                sized[place] = (size, group.rank)
        if len({size for size, _ in sized.values()}) < 2:
            continue
        places = list(sized)
        for position in sorted(front(list(sized.values()))):
            found[places[position]].append(name)
    return found


def mean_size(runs: Sequence[Run], read: Callable[[Run], float | None]) -> float | None:
    """The mean over the runs that have it; None if none has."""
    values = [value for run in runs if (value := read(run)) is not None]
    return sum(values) / len(values) if values else None
