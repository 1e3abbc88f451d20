"""Tables, figures and a page of runs and sweeps; `kdrun.report(...)` calls `kdrun.api.report`."""

import importlib
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """`kdrun.report(...)` is public, and this package has the same name: calling it reports."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See `kdrun.api.report`."""
        return importlib.import_module("kdrun.api").report(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
