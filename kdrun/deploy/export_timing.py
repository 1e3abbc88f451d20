"""Size and latency of teacher and student, in PyTorch and in ONNX Runtime, on this machine."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdrun.config.schema import ExportConfig
from kdrun.deploy import formats
from kdrun.deploy.export_source import Source
from kdrun.deploy.formats import Runner
from kdrun.deploy.latency import time_calls
from kdrun.deploy.student import LoadedNetwork, rebuild
from kdrun.distillation.session import Session
from kdrun.engine.devices import cpu_name
from kdrun.errors import ConfigError, KdrunError, MissingExtraError
from kdrun.files import writing_temporary
from kdrun.models.measure import count_bytes
from kdrun.runs.footprint import STUDENT
from kdrun.teachers.formats import read_any

BATCH_SIZES = (1, 128)
SECONDS_PER_CELL = 1.0
PYTORCH, RUNTIME = "PyTorch", "ONNX Runtime"


def measure_latency(
    source: Source, path: Path, config: ExportConfig, work: Path, session: Session
) -> dict[str, Any]:
    """One row per network and program: bytes of its file, latency at each batch size.

    path: the exported file. work: a folder for files that are only timed.
    """
    images = [_images(source, size) for size in BATCH_SIZES]
    rows = []
    for name, program, size, run in _programs(source, path, config, work, session):
        session.reporter.say(f"  timing {name} in {program}")
        found = [time_calls(partial(run, batch), len(batch), SECONDS_PER_CELL) for batch in images]
        rows.append(
            {
                "network": name,
                "program": program,
                "bytes": size,
                "latency": [one.as_dict() for one in found],
            }
        )
    return {"processor": cpu_name(), "threads": session.threads, "rows": rows}


def _images(source: Source, count: int) -> Tensor:
    """`count` test images, repeated where there are fewer."""
    index = torch.arange(count) % len(source.test)
    return source.test.gather(index).contiguous()


def _programs(
    source: Source, path: Path, config: ExportConfig, work: Path, session: Session
) -> Iterator[tuple[str, str, int, Runner]]:
    """(network, program, bytes of its file, how to run it)."""
    teachers = _teachers(source, session)
    members = [(f"teacher {one.card.name}", one, file) for one, file in teachers]
    stem = STUDENT if source.epoch else source.weights.stem
    role = stem if stem in (STUDENT, "teacher") else "network"
    members.append((f"{role} {source.card.name}", source.network, source.weights))
    for name, network, file in members:
        run = formats.module_runner(network)
        unfinished = network is source.network and source.epoch  # not exported yet
        size = count_bytes(network.network) if unfinished else file.stat().st_size
        yield name, PYTORCH, size, run
    dtype = source.dataset.pixel_type
    for name, network, _ in members:
        if network is source.network and source.card.quantize is not None:
            continue  # its ONNX file is the exported one
        target = work / "timed.onnx"
        try:
            if network is source.network and path.suffix == ".onnx" and not config.quantize:
                target = path
            else:
                with writing_temporary(work):
                    formats.write_onnx(network, network.card, dtype, target)
            run = formats.onnx_runner(target, session.threads)
        except MissingExtraError as missing:
            session.reporter.say(f"  not timed in ONNX Runtime: {missing}")
            return
        except ConfigError as error:
            session.reporter.warn(str(error))
            continue
        yield name, RUNTIME, target.stat().st_size, run
    if config.quantize:
        name = f"{members[-1][0]} {config.quantize}"
        yield name, RUNTIME, path.stat().st_size, formats.onnx_runner(path, session.threads)


def _teachers(source: Source, session: Session) -> Iterator[tuple[LoadedNetwork, Path]]:
    """The teachers of the student's run whose files still exist."""
    for teacher in source.result.teachers if source.result else ():
        file = Path(str(teacher.checkpoint))
        try:
            loaded = read_any(file, what="teacher")
            yield rebuild(loaded, str(file)), loaded.path
        except KdrunError as error:
            session.reporter.warn(f"the teacher is not timed: {error}")
