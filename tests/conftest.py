"""Fixtures and gates shared by all tests."""

import contextlib
import copy
import gc
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported, here and in every process a test starts: the networks are tiny, and
# two processes with two threads each would fight over two processors.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A test run in the background (`nohup ... &`) ignores these signals, and so would the processes
# that tests start and send one to.
with contextlib.suppress(ValueError):  # not the main thread
    for _number, _handler in (
        (signal.SIGINT, signal.default_int_handler),
        (getattr(signal, "SIGHUP", signal.SIGTERM), signal.SIG_DFL),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(_number) == signal.SIG_IGN:
            signal.signal(_number, _handler)

# What tests name (`student._target_=my_nets.Mine`) is not remembered in the developer's home.
_state = tempfile.TemporaryDirectory(prefix="kdrun-tests-")
os.environ["XDG_STATE_HOME"] = _state.name


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real data sets, or a skip that says how to name one."""
    root = os.environ.get("KDRUN_TEST_DATA")
    if not root:
        pytest.skip("needs real data: set KDRUN_TEST_DATA to the folder that holds it")
    return Path(root)


@pytest.fixture(scope="session", autouse=True)
def _compose_once() -> None:
    """Hydra composes the same groups of kdrun's own YAML files once per process, not per command.

    Composing takes most of a rejected command's time. A user's folder may change between two
    commands, so nothing is kept for one.
    """
    from hydra._internal.hydra import Hydra
    from omegaconf import flag_override

    compose_config = Hydra.compose_config
    composed: dict[Any, Any] = {}

    def compose(self: Hydra, config_name: str, overrides: list[str], **options: Any) -> Any:
        paths = tuple(entry.path for entry in self.config_loader.get_search_path().get_path())
        key = (paths, config_name, tuple(overrides), *sorted(options.items()))
        if any("searchpath" in override for override in overrides):
            return compose_config(self, config_name, overrides, **options)
        if key not in composed:
            composed[key] = compose_config(self, config_name, overrides, **options)
        found = copy.deepcopy(composed[key])
        with flag_override(found, "readonly", False), flag_override(found.hydra, "readonly", False):
            found.hydra.runtime.cwd = os.getcwd()
        return found

    Hydra.compose_config = compose  # type: ignore[method-assign]


def pytest_collection_finish() -> None:
    """Thousands of tests and imported modules stay; the collector need not look at them again.

    Every run collects garbage when it starts, which would take longer than a small run.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown() -> None:
    """What a test leaves (imported modules, composed configurations) stays as well."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip GPU tests where there is no GPU."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
