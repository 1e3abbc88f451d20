"""The one way to import torchvision, for kdrun itself and for modules of the user's own."""

import importlib
import importlib.machinery
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

ABSENT, LOADED, DECLARED = "not installed", "loaded", "declared"
# The operators that `import torchvision` describes, whether or not they could be loaded.
OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# Kept for the life of the process: a library's schemas disappear with the object.
_libraries: list[torch.library.Library] = []


@cache
def repair_torchvision() -> str:
    """Make `import torchvision` work, also where its compiled operators cannot be loaded.

    The torchvision of the Python package index is linked against CUDA. Beside a CPU-only torch its
    operators do not load, and the import then fails with "operator torchvision::nms does not
    exist", because it describes operators that nobody has declared. Declaring those two is enough
    for data sets, transforms and classification networks, none of which call them. Nothing is
    declared where the operators load, and torchvision itself is not imported here.

    Returns `ABSENT`, `LOADED` or `DECLARED`. Without effect once torchvision is imported.
    """
    if "torchvision" in sys.modules:
        return DECLARED if _libraries else LOADED
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]  # what an import that failed left half-built
    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return ABSENT
    for folder in spec.submodule_search_locations:
        for file in sorted(Path(folder).glob("_C.*")):
            try:
                torch.ops.load_library(str(file))
            except (OSError, RuntimeError):
                continue
    if _exists("nms"):
        return LOADED
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in OPERATORS:
        library.define(f"{operator}{SCHEMA}")
    _libraries.append(library)
    return DECLARED


def _exists(operator: str) -> bool:
    try:
        getattr(torch.ops.torchvision, operator)
    except AttributeError:
        return False
    return True


def import_torchvision() -> ModuleType:
    """torchvision, repaired where it has to be."""
    repair_torchvision()
    return importlib.import_module("torchvision")


@cache
def classifier_names() -> frozenset[str]:
    """The classification networks that torchvision builds by name, e.g. resnet18."""
    models = import_torchvision().models
    return frozenset(models.list_models(module=models))
