"""The one way to import torchvision."""

import importlib
import sys
from functools import cache
from types import ModuleType

import torch

# Kept for the life of the process: a library's schemas disappear with the object.
_libraries: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """torchvision, also where its compiled operators cannot be loaded.

    The torchvision of the Python package index is linked against CUDA. Beside a CPU-only torch its
    operators do not load, and the import itself then fails with "operator torchvision::nms does
    not exist", because it describes operators that nobody has declared. Declaring those two is
    enough for data sets, transforms and classification networks, none of which call them. It is
    done only after an import has failed for that reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]  # what the failed import left half-built
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    return importlib.import_module("torchvision")


@cache
def classifier_names() -> frozenset[str]:
    """The classification networks that torchvision builds by name, e.g. resnet18."""
    models = import_torchvision().models
    return frozenset(models.list_models(module=models))
