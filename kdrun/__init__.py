"""Knowledge distillation from the command line. Importing this package imports no torch.

student = kdrun.load("outputs/distill/...")    # or an entry of the teacher store
logits = student(images)                       # [B, C, H, W], uint8 pixels or floats 0..1
student.predict("photo.jpg")                   # [("cat", 0.93), ...]
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdrun.deploy.student import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import `kdrun.load` lazily, because its module imports torch."""
    if name == "load":
        return importlib.import_module("kdrun.deploy.student").load
    raise AttributeError(f"module 'kdrun' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), "load"])
