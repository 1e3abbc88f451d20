"""What a process may compute on when several train together."""

import pytest

from kdrun.engine import distributed
from kdrun.errors import ConfigError
from kdrun.world import World


@pytest.mark.parametrize(
    ("gpus", "name", "found"),
    [(0, "auto", "cpu"), (2, "auto", "cuda:1"), (2, "cuda", "cuda:1"), (2, "cpu", "cpu")],
)
def test_each_process_has_its_own_device(
    monkeypatch: pytest.MonkeyPatch, gpus: int, name: str, found: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr(distributed, "world", lambda: World(1, 2, 1, 2))
    assert distributed.local_device(name) == found


@pytest.mark.parametrize(("gpus", "name"), [(1, "auto"), (0, "cuda"), (2, "cuda:0"), (2, "mps")])
def test_one_device_for_several_is_refused(
    monkeypatch: pytest.MonkeyPatch, gpus: int, name: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    for rank in (0, 1):  # by all of them alike
        monkeypatch.setattr(distributed, "world", lambda rank=rank: World(rank, 2, rank, 2))
        with pytest.raises(ConfigError):
            distributed.local_device(name)
