"""Every experiment: its opening lines, and that it composes and is accepted; named sweeps too."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.types import Override

from kdrun.cli import config_groups, planning, suggestions
from kdrun.cli.command_spec import CommandSpec, values
from kdrun.cli.composer import Composer
from kdrun.cli.grammar import parse
from kdrun.cli.parser import parse_composed
from kdrun.config import composition
from kdrun.config.composition import hydra_ready
from kdrun.losses.objective import objective_of

FOLDER = Path(__file__).resolve().parents[2] / "configs"
EXPERIMENTS = config_groups.list_groups()["experiment"]
SWEEPS = config_groups.list_groups()["sweep"]
composition.register()


FAMILIES = "hinton2015 sp2019 repdistiller deit deit/short smoke ttm2024 itrd2022 wkd2024 nd2023"


@pytest.mark.parametrize("family", [*FAMILIES.split(), "sdd2024", "skd2026", "crld2024"])
def test_there_are_experiments(family: str) -> None:
    assert any(name.startswith(family) for name in EXPERIMENTS)


def test_every_pair_of_the_published_tables_is_there() -> None:
    pairs = [name for name in EXPERIMENTS if name.startswith("repdistiller/")]
    swept = [_experiments(f"repdistiller/table_{number}") for number in (1, 2)]
    assert sorted(swept[0] + swept[1]) == sorted(pairs)
    assert (len(swept[0]), len(swept[1])) == (7, 6)


def test_the_short_table_has_all_teachers_of_the_long_one() -> None:
    long, short = _experiments("deit/all"), _experiments("deit/short")
    assert [name.replace("deit/", "deit/short/") for name in long] == short
    assert sorted(long + short) == [n for n in EXPERIMENTS if n.startswith("deit/")]


def _overrides(sweep: str) -> list[Override]:
    content = yaml.safe_load((FOLDER / "sweep" / f"{sweep}.yaml").read_text())
    assert content["hydra"]["mode"] == "MULTIRUN"
    return parse([f"{key}={value}" for key, value in content["hydra"]["sweeper"]["params"].items()])


def _experiments(sweep: str) -> list[str]:
    (override,) = [one for one in _overrides(sweep) if one.key_or_group == "experiment"]
    return [str(value) for value in values(CommandSpec.of("distill"), override)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_opens_with_source_command_figures_and_time(name: str) -> None:
    text = (FOLDER / "experiment" / f"{name}.yaml").read_text()
    head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    figures = ["Expected:"] if name == "smoke" else ["Published", "Measured"]
    for word in ("Source:", f"Command: kdrun distill experiment={name}", "Time:", *figures):
        assert word in head, word


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_composes_and_is_accepted(name: str) -> None:
    with hydra_ready():
        composer = Composer(CommandSpec.of("distill"))
        config: Any = composer.typed(parse([f"experiment={name}"]))
    assert objective_of(config).describe()


@pytest.mark.parametrize("name", SWEEPS)
def test_a_named_sweep_names_what_there_is(name: str) -> None:
    asked, overrides = CommandSpec.of("distill"), _overrides(name)
    suggestions.check_names(asked, overrides)
    assert math.prod(len(values(asked, one)) for one in overrides) > 1


@pytest.mark.heavy
@pytest.mark.parametrize("name", SWEEPS)
def test_every_job_of_a_named_sweep_is_accepted(name: str) -> None:
    plan = planning.check("distill", parse_composed("distill", [f"sweep={name}"]))
    assert len(plan.configs) > 1
    assert all("sweep=" not in word for job in plan.argvs for word in job)
