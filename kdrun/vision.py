"""Import torchvision, with a workaround for builds whose operators do not load."""

import importlib
import importlib.machinery
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

ABSENT, LOADED, DECLARED = "not installed", "loaded", "declared"
# Operators for which `import torchvision` registers fake kernels, even if they failed to load.
OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# Kept alive for the process: the schemas disappear with the library object.
_libraries: list[torch.library.Library] = []


@cache
def repair_torchvision() -> str:
    """Make `import torchvision` work even if its compiled operators cannot be loaded.

    The default torchvision wheel links against CUDA. With a CPU-only torch its operators do not
    load, and the import fails with "operator torchvision::nms does not exist", because it registers
    fake kernels for undeclared operators. Declaring the two operators suffices for data sets,
    transforms and classification networks, which never call them. Declares nothing if the operators
    load, and does not import torchvision itself.

    Returns `ABSENT`, `LOADED` or `DECLARED`. No effect once torchvision is imported.
    """
    if "torchvision" in sys.modules:
        return DECLARED if _libraries else LOADED
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]  # left over from a failed import
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
    """Import torchvision after `repair_torchvision`."""
    repair_torchvision()
    return importlib.import_module("torchvision")


@cache
def classifier_names() -> frozenset[str]:
    """Names of torchvision's classification networks, e.g. resnet18."""
    models = import_torchvision().models
    return frozenset(models.list_models(module=models))
