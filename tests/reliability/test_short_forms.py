"""The harnesses in their short forms; the long ones are commands (docs/reliability.md)."""

import random
from pathlib import Path

import pytest

from tests.reliability import damage, kill_anywhere, many_at_once
from tests.reliability.outcome import outcome
from tests.reliability.pictures import write_pictures


@pytest.mark.parametrize("kind", ["offline"])
def test_killed_anywhere_it_ends_alike(tmp_path: Path, kind: str) -> None:
    tallies = kill_anywhere.kill_anywhere([kind], kills=2, seed=1, base=tmp_path, references=1)
    assert tallies[kind].kills >= 2
    assert tallies[kind].wrong == []


@pytest.mark.heavy
@pytest.mark.parametrize("kind", kill_anywhere.KINDS)
def test_killed_often_it_ends_alike(tmp_path: Path, kind: str) -> None:
    tallies = kill_anywhere.kill_anywhere([kind], kills=40, seed=2, base=tmp_path)
    assert tallies[kind].wrong == []


@pytest.mark.heavy
def test_damage_never_becomes_a_result(tmp_path: Path) -> None:
    tally = damage.damage(200, 2, tmp_path)
    assert tally.wrong == []


@pytest.mark.parametrize(
    ("runs", "victim"),
    [
        (2, "training the teacher"),
        pytest.param(20, None, marks=pytest.mark.heavy),
        pytest.param(20, "decoding", marks=pytest.mark.heavy),
    ],
)
def test_many_at_once(tmp_path: Path, runs: int, victim: str | None) -> None:
    write_pictures(tmp_path / "photos")
    expected = many_at_once.alone(tmp_path)
    found = many_at_once.at_once(runs, victim, tmp_path / "together", expected)
    assert found.wrong == []
    assert found.killed == (0 if victim is None else 1)
    assert found.completed == runs - found.killed


def test_a_full_disk_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos")
    whole = tmp_path / "whole"
    whole.mkdir()
    assert damage.forks.run(whole, damage.RUN)[0] == 0
    tally = damage.Tally()
    damage.fill_disks(tmp_path, 1, random.Random(3), outcome(whole), tally)
    assert tally.wrong == []
