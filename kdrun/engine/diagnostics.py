"""What ends a training early, in words: numbers that are not finite, and memory that is used up."""

import torch
from torch import Tensor

from kdrun.config.schema import ScheduleConfig
from kdrun.engine.state import PART, TrainState
from kdrun.errors import TrainingError
from kdrun.recipes.lr_schedules import TrainingLength

WEIGHTED = "_weighted"
# A block of steps is reduced to one bit per value, so that a long epoch keeps little.
BLOCK_STEPS = 256


class NonFiniteTracker:
    """The values of every step since the last look, to tell which was not finite first.

    They stay on the device that computed them; nothing is read back before somebody asks.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._recent: list[dict[str, Tensor]] = []
        self._blocks: list[tuple[tuple[str, ...], Tensor]] = []

    def add(self, values: dict[str, Tensor]) -> None:
        """The scalars of one more step, by name; the names are those of the steps before."""
        self._recent.append(values)
        self.steps += 1
        if len(self._recent) == BLOCK_STEPS:
            self._reduce()

    def clear(self) -> None:
        """All was finite so far."""
        self.steps = 0
        self._recent.clear()
        self._blocks.clear()

    def first(self) -> tuple[int, list[str]] | None:
        """(step, from 0, names) of the first values that were not finite; None when all were."""
        self._reduce()
        before = 0
        for names, finite in self._blocks:
            bad = ~finite.cpu()
            steps = bad.any(dim=1).nonzero()
            if len(steps):
                step = int(steps[0].item())
                row = zip(names, bad[step].tolist(), strict=True)
                return before + step, [name for name, is_bad in row if is_bad]
            before += len(finite)
        return None

    def _reduce(self) -> None:
        if not self._recent:
            return
        names = tuple(self._recent[0])
        flat = torch.stack([values[name] for values in self._recent for name in names])
        self._blocks.append((names, flat.isfinite().view(len(self._recent), len(names))))
        self._recent = []


class NonFiniteLossError(TrainingError):
    """The loss of a step was NaN or infinite."""


def not_finite(
    state: TrainState,
    length: TrainingLength,
    trail: NonFiniteTracker,
    totals: dict[str, float],
    saved: int | None,
) -> NonFiniteLossError:
    """The error for sums that are not finite: the step, and the part that went first.

    trail: of the steps up to `state.step`. totals: the sums. saved: the last saved step, if any.
    """
    found = trail.first()
    step = state.step if found is None else state.step - trail.steps + found[0] + 1
    bad = [name for name, value in totals.items() if value - value] if found is None else found[1]
    parts = [name for name in totals if name.startswith(PART) and not name.endswith(WEIGHTED)]
    gone = [name for name in parts if name in bad]
    words = ", ".join(name.removeprefix(PART) for name in gone) or "the loss"
    if len(parts) > 1 and len(gone) == len(parts):
        why = f"all parts of the objective at once ({words}): the step before was too large"
    else:
        why = f"{words} went first"
    kept = f"the state after step {saved:,} is kept" if saved else "no state was saved before it"
    return NonFiniteLossError(
        f"Not finite in epoch {state.epoch + 1}, step {step:,} of {length.steps:,}: {why}. Try a "
        f"lower lr, schedule.grad_clip=1 or precision=fp32; {kept}."
    )


def out_of_memory(
    state: TrainState,
    schedule: ScheduleConfig,
    device: torch.device,
    settings: str,
    measuring: bool,
    saved: int | None,
) -> TrainingError:
    """The error for an allocation that failed: which batch to try, and what is kept.

    settings: what the schedule's names begin with on the command line (`schedule.` or
    `teacher.schedule.`). measuring: it happened on the validation split.
    """
    name = "eval_batch_size" if measuring else "batch_size"
    size = getattr(schedule, name)
    what = "measuring after" if measuring else "step"
    where = f"{what} step {state.step:,}" if measuring else f"{what} {state.step + 1:,}"
    fixes = [f"try {settings}{name}={max(1, size // 2)}"] if size > 1 else []
    if device.type == "cuda" and schedule.precision in ("fp32", "tf32"):
        fixes.append("precision=bf16")
    fixes.append("dataset.resident=false" if not fixes else "free memory that others use")
    kept = f"the state after step {saved:,}" if saved else "the run, at its beginning,"
    return TrainingError(
        f"Out of memory on {device} in {where}, with {name}={size}: {' or '.join(fixes)}. "
        f"{kept[0].upper()}{kept[1:]} is kept: kdrun resume goes on from there once there is "
        "memory; another batch size is another run."
    )
