"""How a benchmark's figures are shown."""

from typing import Any

from kdrun.ui import format
from kdrun.ui.reporter import Reporter
from kdrun.ui.tables import new_table


def show(found: dict[str, Any], reporter: Reporter) -> None:
    """The tables of a `benchmark.json`."""
    _variants(found, reporter)
    _phases(found, reporter)
    peaks = ", ".join(f"{name} {value:.0f}" for name, value in found["peak_gflops"].items())
    reporter.say(f"  peak of this machine, GFLOP/s, best of {found['rounds']} rounds: {peaks}")
    memory = found["memory"]
    words = [
        f"{memory['process_peak_mib']:,.0f} MiB at most in this process",
        f"training images {memory['resident_images_mib']:,.1f} MiB in memory",
    ]
    if "device_peak_mib" in memory:
        words.append(f"{memory['device_peak_mib']:,.0f} MiB at most on the device")
    reporter.say(f"  memory: {', '.join(words)}")
    ratio = found["bare_over_whole"]
    reporter.say(
        f"  bare compute / whole step: {ratio['median']:.3f} "
        f"({ratio['low']:.3f} to {ratio['high']:.3f})"
    )


def _variants(found: dict[str, Any], reporter: Reporter) -> None:
    table = new_table("variant", "ms/step", "quartiles", "images/s", "GFLOP/s", "x this", "first s")
    for name, values in found["variants"].items():
        step, times = values["step_ms"], values["times_this"]
        table.add_row(
            name,
            f"{step['median']:.2f}",
            f"{step['low']:.2f} to {step['high']:.2f}",
            format.count(round(values["images_per_second"])),
            f"{values['gflops']:.1f}",
            f"{times['median']:.2f}",
            f"{values['first_block_seconds']:.1f}",
        )
    reporter.heading("Step")
    reporter.show(table)
    reporter.say(
        f"  medians of {found['rounds']} interleaved rounds of {found['steps_per_round']} steps; "
        "x this: how many times as fast as this configuration, round by round"
    )
    reporter.say(
        "  GFLOP/s: teachers' forward and the student's three, networks alone; first s: the first "
        "round, with warming up and compiling"
    )


def _phases(found: dict[str, Any], reporter: Reporter) -> None:
    phases, usual = found["phases_ms"], found["usual_phases_ms"]
    table = new_table("phase of a step", "ms", "share %", *(["usual loop ms"] if usual else []))
    for name, value in phases.items():
        cells = [f"{value:.3f}", format.percent(100 * value / phases["whole"])]
        table.add_row(name, *cells, *([f"{usual[name]:.3f}"] if usual else []))
    reporter.heading("Where the time goes")
    reporter.show(table)
