"""Knowledge distillation. Importing this package imports no torch.

student = kdrun.load("outputs/distill/...")    # or an entry of the teacher store
logits = student(images)                       # [B, C, H, W], uint8 pixels or floats 0..1
student.predict("photo.jpg")                   # [("cat", 0.93), ...]

`__all__` here and in `kdrun.losses` is the public Python API (docs/python.md); everything else may
change between versions.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdrun.deploy.student import load as load
    from kdrun.distillation.distiller import Distiller as Distiller
    from kdrun.distillation.distiller import DistillOutput as DistillOutput

__version__ = "0.1.0"

# Public name → module; loaded when asked for, because most import torch.
PUBLIC = {
    "DistillOutput": "kdrun.distillation.distiller",
    "Distiller": "kdrun.distillation.distiller",
    "load": "kdrun.deploy.student",
}
__all__ = ["DistillOutput", "Distiller", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import public names lazily, because their modules import torch."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'kdrun' has no attribute '{name}'")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
