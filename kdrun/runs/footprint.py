"""What a run's networks cost where they are deployed: bytes of the weights, FLOPs, latency.

A sweep with a budget writes `footprint.json` into its run folders, `kdrun export` writes the timing
in `export/export.json`.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdrun.files import read_json, write_json
from kdrun.limits import finite

FILE = "footprint.json"
EXPORT_FILE = Path("export") / "export.json"
SCHEMA = 1
STUDENT = "student"
PYTORCH, ONNX_RUNTIME = "PyTorch", "ONNX Runtime"


@dataclass(frozen=True)
class Conditions:
    """How a latency was measured. program: PyTorch | ONNX Runtime."""

    program: str
    batch_size: int
    threads: int
    processor: str

    def __str__(self) -> str:
        images = f"batch of {self.batch_size}" if self.batch_size > 1 else "one image"
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{self.program}, {images}, {threads}, {self.processor}"


@dataclass(frozen=True)
class Footprint:
    """Parameters, FLOPs per image and bytes of the weights; latency in ms, if measured."""

    params: int
    flops: int
    bytes: int
    latency_ms: float | None = None


@dataclass(frozen=True)
class RunFootprint:
    """The footprints of a run's networks. conditions: of the latencies; None: not measured."""

    student: Footprint
    teachers: tuple[Footprint, ...] = ()
    conditions: Conditions | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": SCHEMA, **asdict(self)}

    @staticmethod
    def from_dict(values: Any) -> "RunFootprint":
        """Raises KeyError, TypeError or ValueError for other values."""
        conditions = values["conditions"]
        return RunFootprint(
            _footprint(values["student"]),
            tuple(_footprint(teacher) for teacher in values["teachers"]),
            None if conditions is None else _conditions(conditions),
        )


@dataclass(frozen=True)
class MeasuredLatency:
    """A latency of one of a run's networks: `student`, or the name of a teacher."""

    network: str
    latency_ms: float
    conditions: Conditions


def write_footprint(run: Path, footprint: RunFootprint) -> None:
    """Write `footprint.json` into a run folder."""
    write_json(run / FILE, footprint.to_dict())


def read_footprint(run: Path) -> RunFootprint | None:
    """The footprint in a run folder; None if there is none or it cannot be read."""
    try:
        return RunFootprint.from_dict(read_json(run / FILE))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_latencies(
    run: Path, student: str, teachers: list[str], quantize: str | None = None
) -> list[MeasuredLatency]:
    """The latencies in a run folder.

    student, teachers: their names, those of the teachers in the run's order. quantize: of the
    student's training.
    """
    found = []
    footprint = read_footprint(run)
    if footprint is not None and footprint.conditions is not None:
        networks = [(STUDENT, footprint.student)]
        if len(teachers) == len(footprint.teachers):
            networks += zip(teachers, footprint.teachers, strict=True)
        found += [
            MeasuredLatency(name, network.latency_ms, footprint.conditions)
            for name, network in networks
            if network.latency_ms is not None
        ]
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        # Of a student that was trained for integers, only its integer file counts, and of any
        # other student, only its full precision.
        deployed = f"{STUDENT} {student} {quantize}" if quantize else f"{STUDENT} {student}"
        names = {deployed: STUDENT, **{f"teacher {name}": name for name in teachers}}
        found += _exported(read_json(run / EXPORT_FILE), names)
    return found


def _exported(values: Any, names: dict[str, str]) -> Iterator[MeasuredLatency]:
    """The timing of `export.json` for one image. names: of its rows → of the latencies."""
    timing = values["timing"] or {"rows": []}
    for row in timing["rows"]:
        for entry in row["latency"] if row["network"] in names else ():
            latency = finite(entry["p50_ms"])
            if latency and entry["batch_size"] == 1:
                conditions = Conditions(
                    str(row["program"]), 1, int(timing["threads"]), str(timing["processor"])
                )
                yield MeasuredLatency(names[row["network"]], latency, conditions)


def _footprint(values: Any) -> Footprint:
    params, flops, size = (int(values[key]) for key in ("params", "flops", "bytes"))
    latency = values["latency_ms"]
    if min(params, flops, size) < 0 or (latency is not None and not (finite(latency) or 0) > 0):
        raise ValueError(f"{values} is not a footprint")
    return Footprint(params, flops, size, latency)


def _conditions(values: Any) -> Conditions:
    return Conditions(
        str(values["program"]),
        int(values["batch_size"]),
        int(values["threads"]),
        str(values["processor"]),
    )
