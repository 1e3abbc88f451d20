"""Sources take the shared read options as keyword arguments of their own."""

import inspect
from pathlib import Path

import pytest

from kdrun.config import build
from kdrun.data.decoding.options import ReadOptions, takes_options
from kdrun.data.images import RawDataset
from kdrun.errors import ConfigError

received: list[tuple[str, ReadOptions]] = []


@takes_options("background", "cache", "cache_root")
def source(*, root: str = "here", cache: bool = False, options: ReadOptions) -> RawDataset:
    """A source with a `cache` argument of its own."""
    received.append((root, options))
    return None  # type: ignore[return-value]


def test_the_signature_lists_specific_and_shared_arguments() -> None:
    parameters = inspect.signature(source).parameters
    assert list(parameters) == ["root", "cache", "background", "cache_root"]
    assert parameters["background"].default == "white"
    assert parameters["cache"].default is False


def test_shared_arguments_arrive_as_options() -> None:
    source(root="there", background="black", cache_root=Path("kept"))
    root, options = received.pop()
    assert root == "there"
    assert options == ReadOptions(background="black", cache_root=Path("kept"))


def test_arguments_are_checked_by_name_and_type() -> None:
    with pytest.raises(ConfigError, match=r"dataset\.value_range does not exist"):
        build.check_arguments(source, {"value_range": "auto"}, "dataset")
    with pytest.raises(ConfigError, match=r"dataset\.background=1\.5 is not of type"):
        build.check_arguments(source, {"background": 1.5}, "dataset")
    with pytest.raises(TypeError):
        source(skip_broken=True)


@pytest.mark.parametrize(
    "values", [{"channels": 2}, {"image_size": 0}, {"test_fraction": 1.5}, {"background": "no"}]
)
def test_invalid_options_are_refused_before_anything_is_read(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"dataset.{next(iter(values))}="):
        ReadOptions(**values)  # type: ignore[arg-type]
