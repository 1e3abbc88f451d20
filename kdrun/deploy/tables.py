"""The tables of `kdrun export` and the lines of `kdrun predict`."""

from typing import Any

from rich.table import Table

from kdrun.deploy.agreement import Agreement
from kdrun.ui import format
from kdrun.ui.tables import new_table


def agreement_table(name: str, file: str, agreement: Agreement) -> Table:
    """Metrics of network and file on the same test images."""
    table = new_table("test images", "top-1 %", "top-5 %", "errors", "ECE %", "loss")
    for label, metrics in ((f"{name} in PyTorch", agreement.original), (file, agreement.exported)):
        table.add_row(
            label,
            format.percent(metrics.top1),
            format.percent(metrics.top5),
            format.count(metrics.errors),
            format.percent(metrics.ece),
            format.loss(metrics.loss),
        )
    return table


def agreement_words(result: Agreement) -> str:
    """How closely file and network agree, in a sentence."""
    same, images = format.percent(result.agreement), format.count(result.images)
    return (
        f"same answer on {same} % of {images} test images; logits differ by at most "
        f"{result.max_difference:.2g} (the largest is {result.largest_logit:.3g})"
    )


def latency_table(timing: dict[str, Any]) -> Table:
    """Bytes and milliseconds per batch; from `measure_latency`."""
    sizes = [one["batch_size"] for one in timing["rows"][0]["latency"]]
    columns = [f"{what} ms, batch {size}" for size in sizes for what in ("p50", "p95")]
    title = f"{timing['processor']}, threads: {timing['threads']}"
    table = new_table("network", "runs in", "bytes", *columns, title=title)
    for row in timing["rows"]:
        cells = [milliseconds(one[key]) for one in row["latency"] for key in ("p50_ms", "p95_ms")]
        table.add_row(row["network"], row["program"], format.count(row["bytes"]), *cells)
    return table


def milliseconds(value: float) -> str:
    """Three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
