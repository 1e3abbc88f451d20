"""The usual training loop that a checkout keeps in `benchmarks/reference`, loaded from there."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from kdrun.benchmarking.variants import Bench, WatchedVariant
from kdrun.config.schema import DistillConfig

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "reference"
NAME = "kdrun_reference"

MakeVariant = Callable[[DistillConfig, Bench], WatchedVariant]


def reference_variant() -> MakeVariant | None:
    """The class of the usual loop as a variant; None in an installed package, which lacks it."""
    if NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            NAME, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
        )
        if spec is None or spec.loader is None or not (FOLDER / "variant.py").is_file():
            return None
        module = importlib.util.module_from_spec(spec)
        sys.modules[NAME] = module
        spec.loader.exec_module(module)
    made: MakeVariant = importlib.import_module(f"{NAME}.variant").UsualVariant
    return made
