"""Process-wide state set temporarily: environment variables and `sys.argv`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """Run the block with an environment variable set, then restore it."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def process_argv(argv: list[str]) -> Iterator[None]:
    """Run the block with `sys.argv` replaced."""
    before = sys.argv
    sys.argv = argv
    try:
        yield
    finally:
        sys.argv = before
