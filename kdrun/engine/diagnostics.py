"""Error messages for training failures: non-finite losses and out of memory."""

import math

import torch
from torch import Tensor

from kdrun.config.schema import ScheduleConfig
from kdrun.engine.state import PART, TrainState
from kdrun.errors import ConfigError, TrainingError
from kdrun.recipes.lr_schedules import TrainingLength

WEIGHTED = "_weighted"
# After this many steps the values are reduced to one bit each, to bound memory in long epochs.
BLOCK_STEPS = 256


class NonFiniteTracker:
    """Records the scalars of every batch since `clear`, to find the first non-finite one.

    Values stay on their device until `first` is called, so that tracking never synchronises.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._recent: list[dict[str, Tensor]] = []
        self._blocks: list[tuple[tuple[str, ...], Tensor]] = []

    def add(self, values: dict[str, Tensor]) -> None:
        """Record one step's scalars; the names must be the same for all steps."""
        self._recent.append(values)
        self.steps += 1
        if len(self._recent) == BLOCK_STEPS:
            self._reduce()

    def clear(self) -> None:
        """Forget all recorded steps."""
        self.steps = 0
        self._recent.clear()
        self._blocks.clear()

    def first(self) -> tuple[int, list[str]] | None:
        """(step from 0, names) of the first non-finite values; None if all are finite."""
        self._reduce()
        offset = 0
        for names, finite in self._blocks:
            bad = ~finite.cpu()
            steps = bad.any(dim=1).nonzero()
            if len(steps):
                step = int(steps[0].item())
                row = zip(names, bad[step].tolist(), strict=True)
                return offset + step, [name for name, is_bad in row if is_bad]
            offset += len(finite)
        return None

    def _reduce(self) -> None:
        if not self._recent:
            return
        names = tuple(self._recent[0])
        flat = torch.stack([values[name] for values in self._recent for name in names])
        self._blocks.append((names, flat.isfinite().view(len(self._recent), len(names))))
        self._recent = []


class NonFiniteLossError(TrainingError):
    """A training step's loss was NaN or infinite."""


def not_finite(
    state: TrainState,
    length: TrainingLength,
    tracker: NonFiniteTracker,
    totals: dict[str, float],
    saved: int | None,
    accumulate: int = 1,
) -> NonFiniteLossError:
    """The error for non-finite sums: names the step and the part that failed first.

    tracker: of the batches up to `state.step`. totals: the sums. saved: the last saved step, if
    any. accumulate: batches per step.
    """
    first = tracker.first()
    step = state.step
    if first is not None:
        step += first[0] // accumulate + 1 - math.ceil(tracker.steps / accumulate)
    bad = [name for name, value in totals.items() if value - value] if first is None else first[1]
    parts = [name for name in totals if name.startswith(PART) and not name.endswith(WEIGHTED)]
    bad_parts = [name for name in parts if name in bad]
    names = ", ".join(name.removeprefix(PART) for name in bad_parts) or "the loss"
    if len(parts) > 1 and len(bad_parts) == len(parts):
        why = f"all losses at once ({names}), so the previous step was too large"
    else:
        why = f"{names} failed first"
    checkpoint = (
        f"the checkpoint of step {saved:,} is kept" if saved else "there is no checkpoint before it"
    )
    return NonFiniteLossError(
        f"Not finite in epoch {state.epoch + 1}, step {step:,} of {length.steps:,}: {why}. Try a "
        f"lower lr, schedule.grad_clip=1 or precision=fp32; {checkpoint}."
    )


def out_of_memory(
    state: TrainState,
    schedule: ScheduleConfig,
    device: torch.device,
    settings: str,
    validating: bool,
    saved: int | None,
) -> TrainingError:
    """The error for a failed allocation: which batch size to try and which checkpoint is kept.

    settings: prefix of the schedule's settings on the command line (`schedule.` or
    `teacher.schedule.`). validating: it happened on the validation split.
    """
    name = "eval_batch_size" if validating else "batch_size"
    size = getattr(schedule, name)
    where = f"validation after step {state.step:,}" if validating else f"step {state.step + 1:,}"
    fixes = [f"try {settings}{name}={max(1, size // 2)}"] if size > 1 else []
    if device.type == "cuda" and schedule.precision in ("fp32", "tf32"):
        fixes.append("precision=bf16")
    fixes.append("dataset.resident=false" if not fixes else "free memory used by other processes")
    resume = (
        f"The checkpoint of step {saved:,} is kept: once memory is free, kdrun resume continues "
        "from it"
        if saved
        else "Once memory is free, kdrun resume restarts the run"
    )
    return TrainingError(
        f"Out of memory on {device} in {where}, with {name}={size}: {' or '.join(fixes)}. "
        f"{resume}; a run with another batch size starts from scratch."
    )


def frozen_objective(settings: str) -> ConfigError:
    """The error for an objective that does not reach the classifier while all else is frozen."""
    return ConfigError(
        f"{settings}freeze_epochs trains only the classifier at first, and no loss of this "
        f"objective reaches it: add a loss on logits (e.g. kd or ce), or set "
        f"{settings}freeze_epochs=0."
    )


def no_deterministic_kernel(error: BaseException, device: torch.device) -> ConfigError:
    """The error for an operation that `deterministic=true` rules out on `device`."""
    operation = str(error).partition(" does not have")[0].strip()
    return ConfigError(
        f"deterministic=true: {operation} has no deterministic kernel on {device}: set "
        "deterministic=false, or use another loss or network."
    )
