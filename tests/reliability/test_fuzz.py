"""The fuzzer and the soak in short; in full they are commands (docs/reliability.md)."""

import contextlib
import io
from pathlib import Path

import pytest

from tests.reliability import soak
from tests.reliability.fuzz import KINDS, fuzz
from tests.reliability.world import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Good inputs."""
    folder = tmp_path_factory.mktemp("world")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        return make_world(folder)


def check(cases: int, seed: int, only: list[str], world: World) -> None:
    tally = fuzz(cases, seed, only, world, lambda text: None)
    assert sum(tally.cases.values()) == cases
    assert not tally.failures, "\n".join(f"{k} {n}: {words}" for k, n, words in tally.failures)


def test_bad_input_in_short(world: World) -> None:
    check(24, 0, ["overrides", "verbs", "pictures", "trees", "arrays", "checkpoints"], world)


def test_spoilt_runs_in_short(world: World) -> None:
    check(6, 0, ["runs"], world)


def test_the_fuzzer_sees_what_is_wrong(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that raises something else, and one that changes what it reads, are caught."""
    monkeypatch.setattr("tests.reliability.kinds_data.read_image", lambda *_: 1 / 0)
    tally = fuzz(4, 0, ["pictures"], world, lambda text: None)
    assert any("ZeroDivisionError" in words for _, _, words in tally.failures)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", list(KINDS))
def test_bad_input(world: World, kind: str) -> None:
    check(300, 1, [kind], world)


def test_growth_is_seen() -> None:
    even = [soak.Use(1e5 + 500 * (n % 3), 10, 3, 0) for n in range(60)]
    assert soak.problems(even) == []
    leaking = [soak.Use(1e5 + 100 * n, 10 + n, 3, n // 10) for n in range(60)]
    assert [text.split()[0] for text in soak.problems(leaking)] == [
        "handles",
        "temporary",
        "memory",
    ]


@pytest.mark.heavy
def test_nothing_grows(tmp_path: Path) -> None:
    held = soak.soak(60, 15, tmp_path)
    assert soak.problems(held) == []
