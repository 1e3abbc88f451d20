"""Types of settings that several configurations share: named choices and bounded numbers."""

from typing import Annotated

from kdrun.ranges import Choices, Items, Range, Share
from kdrun.recipes.lr_schedules import LR_SCHEDULES
from kdrun.recipes.optimizers import OPTIMIZERS

Curve = Annotated[str, LR_SCHEDULES]
Optimizer = Annotated[str, OPTIMIZERS]
Precision = Annotated[str, Choices(("fp32", "tf32", "bf16", "fp16"))]
Duplicates = Annotated[str, Choices(("warn", "error", "drop"))]
Resident = Annotated[str, Choices(("auto", "true", "false"))]
Format = Annotated[str, Choices(("onnx", "pt2", "safetensors"))]
Quantize = Annotated[str, Choices(("int8",))]
StoppingMetric = Annotated[str, Choices(("accuracy", "loss"))]
Average = Annotated[str, Choices(("terms", "soft_targets"))]
Interface = Annotated[str, Choices(("auto", "rich", "plain", "quiet"))]
Betas = Annotated[list[Share], Items(2, 2)]
# More threads than any machine has make OpenMP crash while it starts them.
Threads = Annotated[int, Range(low=1, high=1024)]
Workers = Annotated[int, Range(low=0, high=1024)]
ValFraction = Annotated[float, Range(low=0, below=1, usual="0.1")]
