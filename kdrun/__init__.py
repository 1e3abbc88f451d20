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
    from kdrun.api import distill as distill
    from kdrun.api import report as report
    from kdrun.api import sweep as sweep
    from kdrun.api import train_teacher as train_teacher
    from kdrun.deploy.student import load as load
    from kdrun.distillation.distiller import Distiller as Distiller
    from kdrun.distillation.distiller import DistillOutput as DistillOutput
    from kdrun.runs.result import RunResult as RunResult

__version__ = "0.1.0"

# Public name → module; loaded when asked for, because most import torch.
PUBLIC = {
    "DistillOutput": "kdrun.distillation.distiller",
    "Distiller": "kdrun.distillation.distiller",
    "RunResult": "kdrun.runs.result",
    "distill": "kdrun.api",
    "load": "kdrun.deploy.student",
    "report": "kdrun.report",  # a package that can be called
    "sweep": "kdrun.api",
    "train_teacher": "kdrun.api",
}
__all__ = [
    "DistillOutput",
    "Distiller",
    "RunResult",
    "__version__",
    "distill",
    "load",
    "report",
    "sweep",
    "train_teacher",
]


def __getattr__(name: str) -> Any:
    """Import public names lazily, because their modules import torch."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'kdrun' has no attribute '{name}'")
    module = importlib.import_module(PUBLIC[name])
    return module if name == "report" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
