"""Two runs beside one another."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kdrun.errors import ConfigError
from kdrun.report.compare import Line, compare, one_run

Make = Callable[..., Path]


def lines(a: Path, b: Path, part: str) -> dict[str, Line]:
    found = compare(one_run(a), one_run(b))
    return {line.name: line for line in found.parts[part] if not line.same}


def test_settings_environment_and_results(make: Make) -> None:
    a = make(test=94.0, T=1.0, seed=0)
    b = make(test=95.5, T=4.0, seed=1, changes={"schedule.warmup_epochs": 5})
    (b / "env.json").write_text('{"python": "3.13.0", "threads": 1}')
    settings = lines(a, b, "settings")
    assert (settings["T"].a, settings["T"].b) == ("1", "4")
    assert (settings["seed"].a, settings["seed"].b) == ("0", "1")
    assert (settings["schedule.warmup_epochs"].a, settings["schedule.warmup_epochs"].b) == (
        "-",
        "5",
    )
    assert set(settings) == {"T", "seed", "schedule.warmup_epochs"}
    environment = lines(a, b, "environment")
    assert (environment["python"].a, environment["python"].b) == ("3.12.1", "3.13.0")
    assert environment["packages.torch"].b == "-"
    results = lines(a, b, "results")
    assert results["test top-1 %"] == Line("test top-1 %", "94.00", "95.50", "+1.50")
    assert results["test errors"].difference == "-6"


def test_a_run_that_failed_can_be_compared(make: Make) -> None:
    results = lines(make(), make(status="failed"), "results")
    assert (results["status"].a, results["status"].b) == ("completed", "failed")
    assert results["test top-1 %"].b == "-"
    assert results["test top-1 %"].difference == ""


def test_a_folder_above_one_run_is_that_run(make: Make, outputs: Path) -> None:
    run = make()
    assert one_run(outputs).folder == run
    make()
    with pytest.raises(ConfigError, match="holds 2 runs and compare takes one"):
        one_run(outputs)
