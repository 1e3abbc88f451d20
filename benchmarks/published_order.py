"""Is the order of the methods the published one? Kendall's τ of a table and the published figures.

    python benchmarks/published_order.py docs/results.md "Every loss on one pair" --n 2
    python benchmarks/published_order.py docs/results.md "Every loss on the digits" --n 3

The table below the heading of this name has a row per loss, and its means and standard deviations
of `--n` seeds in the first column `test`. The published figures are those of resnet56 → resnet20 on
CIFAR-100 in `configs/published/`.
"""

import argparse
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy
from scipy.stats import kendalltau

from kdrun.report.published import read_published

DATASET, TEACHER, STUDENT = "cifar100", "resnet56", "resnet20"
DRAWS = 10_000
MINIMUM = 3  # methods


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("page", type=Path)
    parser.add_argument("heading", help="the beginning of the heading")
    parser.add_argument("--n", type=int, required=True, help="seeds of each row")
    arguments = parser.parse_args()
    means = read_table(arguments.page.read_text(encoding="utf-8"), arguments.heading)
    # any values with the mean and the deviation of the table
    spaced = [k - (arguments.n - 1) / 2 for k in range(arguments.n)]
    unit = statistics.stdev(spaced)
    tests = {
        name: [mean + deviation * value / unit for value in spaced]
        for name, (mean, deviation) in means.items()
    }
    print(order(tests, published_figures()))


def read_table(page: str, heading: str) -> dict[str, tuple[float, float]]:
    """Loss → (mean, deviation) of the first row that has it."""
    section = page.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    found: dict[str, tuple[float, float]] = {}
    column = 0
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "loss":
            column = cells.index("test") if "test" in cells else 0
        loss = re.fullmatch(r"`(\w+)`", cells[0])
        if loss and column:
            value = re.fullmatch(r"([\d.]+) ± ([\d.]+)", cells[column])
            if value and loss[1] not in found:
                found[loss[1]] = float(value[1]), float(value[2])
    return found


def published_figures() -> dict[str, float]:
    """Loss → published test top-1."""
    return {
        metric.loss: metric.value
        for metric in read_published()
        if (metric.dataset, metric.teacher, metric.student) == (DATASET, TEACHER, STUDENT)
        and metric.metric == "top1"
    }


def order(tests: Mapping[str, Sequence[float]], published: Mapping[str, float]) -> str:
    """Kendall's τ-b of the means and the published figures; with several seeds, its interval.

    tests: loss → test top-1 of each seed. The interval draws each method's mean from a normal
    distribution with the deviation of one seed, pooled over the methods with several, divided by
    √n. The published figures count as exact. Empty for too few methods.
    """
    names = [name for name, values in tests.items() if values and name in published]
    several = [tests[name] for name in names if len(tests[name]) > 1]
    if len(names) < MINIMUM:
        return ""
    theirs = [published[name] for name in names]
    ours = [statistics.fmean(tests[name]) for name in names]
    tau = kendalltau(theirs, ours)
    found = f"Kendall's tau with the published order of {len(names)} methods: {tau.statistic:.2f} ("
    chance = f"p = {tau.pvalue:.2f} for no relation)"
    if not several:
        return f"{found}{chance}, one seed"
    squares = sum((len(values) - 1) * statistics.variance(values) for values in several)
    deviation = math.sqrt(squares / sum(len(values) - 1 for values in several))
    scale = [deviation / math.sqrt(len(tests[name])) for name in names]
    drawn = numpy.random.default_rng(0).normal(ours, scale, (DRAWS, len(names)))
    taus = [kendalltau(theirs, draw).statistic for draw in drawn]
    low, high = numpy.quantile(taus, [0.025, 0.975])
    return (
        f"{found}95 % over the seeds: {low:.2f} to {high:.2f}; {chance}; "
        f"deviation of one seed {deviation:.2f} points"
    )


if __name__ == "__main__":
    main()
