"""The tables of a benchmark."""

from kdrun.runs.benchmark_result import BenchmarkResult
from kdrun.ui import format
from kdrun.ui.reporter import Reporter
from kdrun.ui.tables import new_table


def show(result: BenchmarkResult, reporter: Reporter) -> None:
    """Print speed, phases, peak performance and memory."""
    _show_variants(result, reporter)
    _show_phases(result, reporter)
    peaks = ", ".join(f"{name} {value:.0f}" for name, value in result.peak_gflops.items())
    reporter.say(f"  peak of this machine, GFLOP/s, best of {result.rounds} rounds: {peaks}")
    reporter.say(f"  peak memory: {', '.join(_format_memory(result))}")
    ratio = result.bare_over_whole
    reporter.say(
        f"  bare compute / whole step: {_number(ratio.median, 3)} "
        f"({_number(ratio.low, 3)} to {_number(ratio.high, 3)})"
    )


def _show_variants(result: BenchmarkResult, reporter: Reporter) -> None:
    table = new_table("variant", "ms/step", "quartiles", "images/s", "GFLOP/s", "x this", "first s")
    for name, variant in result.variants.items():
        step = variant.step_ms
        table.add_row(
            name,
            _number(step.median, 2),
            f"{_number(step.low, 2)} to {_number(step.high, 2)}",
            format.count(round(variant.images_per_second or 0)),
            _number(variant.gflops, 1),
            _number(variant.times_this.median, 2),
            _number(variant.first_block_seconds, 1),
        )
    reporter.heading("Step")
    reporter.show(table)
    reporter.say(
        f"  medians of {result.rounds} interleaved rounds of {result.steps_per_round} steps; "
        "x this: speed relative to this configuration, paired by round"
    )
    reporter.say(
        "  GFLOP/s: forward passes of the teachers and three of the student, networks only; "
        "first s: the first round, with warm-up and compilation"
    )


def _show_phases(result: BenchmarkResult, reporter: Reporter) -> None:
    phases, usual = result.phases_ms, result.usual_phases_ms
    table = new_table("phase of a step", "ms", "share %", *(["usual loop ms"] if usual else []))
    for name, value in phases.items():
        cells = [f"{value:.3f}", format.percent(100 * value / phases["whole"])]
        table.add_row(name, *cells, *([f"{usual[name]:.3f}"] if usual else []))
    reporter.heading("Where the time goes")
    reporter.show(table)


def _format_memory(result: BenchmarkResult) -> list[str]:
    memory = result.memory
    parts = [
        f"{memory.process_peak_mib or 0:,.0f} MiB in this process",
        f"training images {memory.resident_images_mib or 0:,.1f} MiB",
    ]
    if memory.device_peak_mib is not None:
        parts.append(f"{memory.device_peak_mib:,.0f} MiB on the device")
    return parts


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
