"""What is said when numbers are not finite or memory is used up, and what is left then."""

import errno
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine.test_loop import SCHEDULE, Plain, Watcher, run, same_weights, training, without_times
from torch import Tensor

from kdrun.engine import loop
from kdrun.engine.checkpoint import read_checkpoint
from kdrun.engine.diagnostics import BLOCK_STEPS, NonFiniteTracker
from kdrun.engine.loop import fit
from kdrun.errors import Interrupted, TrainingError, is_out_of_memory, machine_error, mount_of
from kdrun.types import Batch, StepOutput

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"


def scalars(*values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in zip("abc", values, strict=True)}


@pytest.mark.parametrize("before", [0, 1, BLOCK_STEPS - 1, BLOCK_STEPS, 2 * BLOCK_STEPS + 7])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_value_that_is_not_finite_is_found(before: int, bad: float) -> None:
    trail = NonFiniteTracker()
    for step in range(before):
        trail.add(scalars(1.0, float(step), -1e30))
    assert trail.first() is None
    trail.add(scalars(1.0, bad, 2.0))
    for _ in range(3):
        trail.add(scalars(bad, bad, bad))
    assert trail.steps == before + 4
    assert trail.first() == (before, ["b"])
    trail.clear()
    trail.add(scalars(0.0, 0.0, 0.0))
    assert trail.first() is None


class Breaking(Plain):
    """Two parts, of which the second is infinite in step `step` (from 1)."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step, self.steps = step, 0

    def forward(self, batch: Batch) -> StepOutput:
        output = super().forward(batch)
        self.steps += 1
        other = output.logits.square().mean()
        if self.steps == self.step:
            other = other + math.inf
        parts = {**output.parts, "other": other.detach(), "other_weighted": other.detach() / 2}
        return StepOutput(output.loss + other / 2, output.logits, parts)


@pytest.mark.parametrize("step", [1, 3, 5, 12])
def test_step_and_part_are_named(tmp_path: Path, step: int) -> None:
    epoch = (step - 1) // 5 + 1
    told = rf"Not finite in epoch {epoch}, step {step} of 20: other failed first\."
    with pytest.raises(TrainingError, match=told):
        fit(Breaking(step), training(tmp_path, Watcher()))


def test_a_step_that_was_too_large_is_told_from_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a rate that no setting allows: everything overflows in one step
    monkeypatch.setattr(loop, "learning_rates", lambda schedule, length: [1e38] * length.steps)
    own = training(tmp_path, Watcher())
    with pytest.raises(TrainingError) as caught:
        fit(Breaking(99), own)
    told = "step 2 of 20: all losses at once (ce, other), so the previous step was too large"
    assert told in str(caught.value)
    assert "the checkpoint of step 1 is kept" in str(caught.value)


def test_the_last_good_state_is_kept_and_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the checkpoint of step 6 is kept"):
        fit(Breaking(8), training(tmp_path, Watcher(), checkpoint_steps=3))
    state = read_checkpoint(tmp_path / "last.pt")
    assert state["state"]["step"] == 6
    assert all(tensor.isfinite().all() for tensor in state["scheme"].values())
    expected, _, _ = run(tmp_path / "whole")
    found, _, _ = run(tmp_path)  # the objective as it should have been goes on from there
    assert found.keys() == expected.keys()


@pytest.mark.parametrize("every", [1, 3, 5, 7])
def test_states_are_saved_after_every_so_many_steps(tmp_path: Path, every: int) -> None:
    expected, whole, _ = run(tmp_path / "whole")
    for stop in (2, 6, 13, 19):

        class KilledError(Exception):
            pass

        class Killing(Watcher):
            def step_done(self, batches: int, sums: object, images: int, at: int = stop) -> None:
                self.steps += 1
                if self.steps == at:
                    raise KilledError

        folder = tmp_path / f"part{stop}"
        with pytest.raises(KilledError):
            fit(Plain(), training(folder, Killing(), checkpoint_steps=every))
        saved = folder / "last.pt"
        found = read_checkpoint(saved)["state"]["step"] if saved.exists() else 0
        # the step in which it was killed is not saved; an epoch's end may save once more
        assert found >= (stop - 1) // every * every
        weights, state, _ = run(folder)
        assert same_weights(weights, expected)
        assert without_times(state.history) == without_times(whole.history)


class Starving(Plain):
    """A network for which memory is used up in its call number `call`; of evaluation or not."""

    def __init__(self, call: int, error: Exception, evaluating: bool = False) -> None:
        super().__init__()
        self.calls = 0
        self.net.register_forward_pre_hook(lambda *_: self.count(call, error, evaluating))

    def count(self, call: int, error: Exception, evaluating: bool) -> None:
        if self.net.training is not evaluating:
            self.calls += 1
            if self.calls == call:
                raise error


@pytest.mark.parametrize(
    "error",
    [RuntimeError(NO_MEMORY), MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")],
    ids=["cpu", "python", "gpu"],
)
def test_memory_that_is_used_up_names_the_batch_and_leaves_the_run(
    tmp_path: Path, error: Exception
) -> None:
    expected, _, _ = run(tmp_path / "whole")
    named = "teacher.schedule."
    own = training(tmp_path / "part", Watcher(), checkpoint_steps=3, settings=named)
    with pytest.raises(TrainingError) as caught:
        fit(Starving(9, error), own)
    said = str(caught.value)
    assert "in step 9, with batch_size=8: try teacher.schedule.batch_size=4" in said
    assert "The checkpoint of step 6 is kept" in said
    found, _, _ = run(tmp_path / "part")
    assert same_weights(found, expected)


def test_memory_that_is_used_up_while_measuring_names_that_batch(tmp_path: Path) -> None:
    own = training(tmp_path, Watcher(), schedule=replace(SCHEDULE, eval_batch_size=64))
    starving = Starving(1, RuntimeError(NO_MEMORY), evaluating=True)
    with pytest.raises(TrainingError, match=r"with eval_batch_size=64: try schedule\.eval_batch"):
        fit(starving, own)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        fit(Starving(2, RuntimeError("shapes differ")), training(tmp_path, Watcher()))
    assert machine_error(RuntimeError("shapes differ")) is None
    assert machine_error(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
    assert not is_out_of_memory(Interrupted("stopped"))


def test_what_the_machine_refuses_is_a_sentence() -> None:
    found = machine_error(OSError(errno.ENOSPC, "No space left on device", "a/last.pt"))
    assert str(found) == (
        f"No space left on device (a/last.pt): free some space on the disk at {mount_of('a')} or "
        "set output_root=... to another disk."
    )
    assert found is not None
    assert found.exit_code == 1
    assert "Out of memory" in str(machine_error(MemoryError()))


def test_a_failed_compilation_names_the_compiler() -> None:
    kind = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})
    found = machine_error(kind("InvalidCxxCompiler: No working C++ compiler found\n\nSet TORCH..."))
    assert str(found).startswith(
        "torch.compile failed: InvalidCxxCompiler: No working C++ compiler found. On a CPU "
    )
    assert "compile=false" in str(found)
