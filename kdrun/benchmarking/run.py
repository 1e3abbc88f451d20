"""`kdrun benchmark`: time per phase of a training step, compared with bare compute."""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar, cast

import torch

from kdrun.benchmarking.reference_loop import reference_variant
from kdrun.benchmarking.variants import (
    BareVariant,
    Bench,
    LoopVariant,
    Variant,
    WatchedVariant,
    variant_config,
)
from kdrun.config.dump import benchmark_plain
from kdrun.config.schema import BenchmarkConfig
from kdrun.data.loaders.rendering import storage
from kdrun.data.loaders.resident import resident_bytes
from kdrun.distillation.build import BuildPlan, dry_run_build
from kdrun.distillation.data_rows import data_rows
from kdrun.distillation.networks import dataset_to_dict
from kdrun.distillation.recording import recording
from kdrun.distillation.session import Session, open_data
from kdrun.engine import peak
from kdrun.engine.devices import check_precision
from kdrun.engine.timing import interleave, ratios, spread
from kdrun.files import write_json
from kdrun.models.card import NetworkCard
from kdrun.runs.benchmark_result import THIS, BenchmarkResult
from kdrun.runs.folder import RunFolder
from kdrun.runs.result import COMPLETED
from kdrun.ui import bench_tables

BARE, USUAL = "bare compute", "usual"
WATCHED, WATCHED_USUAL = "watched", "watched usual"
PHASES = ("data", "teacher forward", "student forward", "terms", "backward", "optimiser")
WITHOUT_REFERENCE = (
    "compare=usual: skipped, the usual loop is in the folder benchmarks/ of a checkout and not in "
    "the installed package"
)
Peaks = dict[str, Callable[[], float]]
AnyVariant = TypeVar("AnyVariant", bound=Variant)


def run_benchmark(
    config: BenchmarkConfig, folder: RunFolder, session: Session, argv: Sequence[str]
) -> dict[str, Any]:
    """Measure, write `benchmark.json`, show the tables; returns the result."""
    distill = config.distill
    check_precision(distill.schedule.precision, session.device)
    # everything that can be refused is, before the run's folder is made
    dataset = open_data(session, distill.dataset, distill.val_fraction)
    plan = dry_run_build(distill, dataset)
    known: dict[str, Any] = {
        "dataset": None,
        "objective": plan.objective,
        "device": str(session.device),
        "precision": distill.schedule.precision,
        "benchmark": None,
    }
    with recording(folder, session, "benchmark", benchmark_plain(config), argv, known):
        folder.result.update(dataset=dataset_to_dict(dataset))
        session.reporter.heading("kdrun benchmark")
        session.reporter.facts(
            [
                *data_rows(dataset),
                ("objective", plan.objective),
                ("device", f"{session.device_line()}, {distill.schedule.precision}"),
                ("batch", str(distill.schedule.batch_size)),
                ("networks", "untrained: their weights do not matter for the time"),
                *(("note", note) for note in dataset.notes),
            ]
        )
        measured = _measure(config, Bench(dataset, session, config.steps), plan)
        write_json(folder.path / "benchmark.json", measured)
        folder.result.update(status=COMPLETED, benchmark=measured)
        bench_tables.show(BenchmarkResult.from_dict(measured), session.reporter)
        session.reporter.say(f"  file: {folder.path}/benchmark.json")
    return folder.result.values


def _measure(config: BenchmarkConfig, bench: Bench, plan: BuildPlan) -> dict[str, Any]:
    """All measurements of `benchmark.json`."""
    with ExitStack() as stack:

        def opened(variant: AnyVariant) -> AnyVariant:
            stack.callback(variant.close)
            return variant

        loops = {THIS: opened(LoopVariant(variant_config("this", config.distill), bench))}
        variants: dict[str, Variant] = {BARE: BareVariant(loops[THIS])}
        for name in dict.fromkeys(config.compare):
            if name == USUAL:
                make = reference_variant()
                if make is None:
                    bench.session.reporter.say(f"  {WITHOUT_REFERENCE}")
                else:
                    usual = make(variant_config("plain", config.distill), bench)
                    variants[USUAL] = opened(usual)
            else:
                loops[name] = opened(LoopVariant(variant_config(name, config.distill), bench))
        return _measured(config, bench, plan, variants | loops, loops[THIS])


def _measured(
    config: BenchmarkConfig,
    bench: Bench,
    plan: BuildPlan,
    variants: dict[str, Variant],
    this: LoopVariant,
) -> dict[str, Any]:
    """The measurements of `variants`; this: the configuration as it is."""
    reporter = bench.session.reporter
    first: dict[str, float] = {}
    for name, variant in variants.items():
        reporter.progress(f"first steps: {name}", len(first), len(variants))
        began = time.perf_counter()
        variant.block()
        first[name] = time.perf_counter() - began
    peaks = _peaks(bench.session.device)
    blocks = {name: variant.block for name, variant in variants.items()}
    watched: dict[str, WatchedVariant] = {WATCHED: this}
    if USUAL in variants:
        watched[WATCHED_USUAL] = cast(WatchedVariant, variants[USUAL])
    blocks |= {name: variant.watched_block for name, variant in watched.items()}
    seconds = interleave(
        {**blocks, **peaks},
        config.rounds,
        lambda done: reporter.progress("rounds", done, config.rounds),
    )
    return {
        "schema": 1,
        **_facts(config, bench, plan),
        "variants": {name: _variant(seconds, name, first[name], config, plan) for name in variants},
        "bare_over_whole": ratios(seconds[BARE], seconds[THIS]).as_dict(),
        "phases_ms": _phases(this, seconds[WATCHED]),
        "usual_phases_ms": _phases(watched[WATCHED_USUAL], seconds[WATCHED_USUAL])
        if USUAL in variants
        else None,
        "peak_gflops": {name: round(max(seconds[name]) / 1e9, 1) for name in peaks},
        "memory": _memory(config, bench),
    }


def _facts(config: BenchmarkConfig, bench: Bench, plan: BuildPlan) -> dict[str, Any]:
    """The measured configuration."""
    return {
        "teachers": [_network(card) for card in plan.teachers],
        "student": _network(plan.student),
        "batch_size": config.distill.schedule.batch_size,
        "threads": bench.session.threads,
        "rounds": config.rounds,
        "steps_per_round": config.steps,
        "torch": torch.__version__,
    }


def _network(card: NetworkCard) -> dict[str, Any]:
    return {"name": card.name, "flops_per_image": card.flops, "params": card.params}


def _variant(
    seconds: dict[str, list[float]],
    name: str,
    first: float,
    config: BenchmarkConfig,
    plan: BuildPlan,
) -> dict[str, Any]:
    """Milliseconds, images and operations per second, and the ratio to the configuration.

    A backward pass counts as two forward passes; a cached teacher counts as if it were run.
    """
    batch = config.distill.schedule.batch_size
    flops = sum(card.flops for card in plan.teachers) + 3 * plan.student.flops
    step = spread(seconds[name])
    return {
        "step_ms": spread([1000 * value for value in seconds[name]]).as_dict(),
        "images_per_second": batch / step.median,
        "gflops": flops * batch / step.median / 1e9,
        "times_this": ratios(seconds[THIS], seconds[name]).as_dict(),
        "first_block_seconds": round(first, 3),
    }


def _phases(loop: WatchedVariant, watched: list[float]) -> dict[str, float]:
    """Milliseconds per step and phase; `other` is the remainder."""
    measured = {name: 1000 * loop.phases().get(name, 0.0) for name in PHASES}
    whole = 1000 * sum(watched) / len(watched)
    return {**measured, "other": whole - sum(measured.values()), "whole": whole}


def _peaks(device: torch.device) -> Peaks:
    """Operations per second of a matrix product and a convolution, in each fast precision."""
    blocks: Peaks = {}
    for precision in peak.precisions(device):
        for what, make in (("product", peak.matrix_product), ("convolution", peak.convolution)):
            operation, flops = make(device, precision)
            operation()
            blocks[f"{precision} {what}"] = partial(peak.flops_per_second, operation, flops, device)
    return blocks


def _memory(config: BenchmarkConfig, bench: Bench) -> dict[str, float]:
    """In MiB: peak memory of this process, and the part of the training images."""
    augment = storage(config.distill.augment)
    # kilobytes on Linux, bytes on macOS
    unit = 2**20 if sys.platform == "darwin" else 2**10
    measured = {
        "process_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
        "resident_images_mib": resident_bytes(bench.dataset.train, augment) / 2**20,
    }
    if bench.session.device.type == "cuda":
        measured["device_peak_mib"] = torch.cuda.max_memory_allocated(bench.session.device) / 2**20
    return {name: round(value, 1) for name, value in measured.items()}
