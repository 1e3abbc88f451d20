"""Every experiment: its opening lines, and that it composes and is accepted."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from kdrun.config import parse, resolvers, validate
from kdrun.losses.objective import objective_of

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "experiment"
EXPERIMENTS = sorted(path.relative_to(FOLDER).as_posix()[:-5] for path in FOLDER.rglob("*.yaml"))
resolvers.register()


def test_there_are_experiments() -> None:
    assert len(EXPERIMENTS) >= 3


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_opens_with_source_command_figures_and_time(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for word in ("Source:", f"Command: kdrun distill experiment={name}", "Time:"):
        assert word in head, word


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_composes_and_is_accepted(name: str) -> None:
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        config = parse.distill_config(compose("distill", [f"experiment={name}"]))
    validate.validate_distill(config)
    assert objective_of(config).describe()
