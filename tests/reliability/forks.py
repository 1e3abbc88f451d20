"""Processes that run kdrun for a test: forks of one that has torch already, so that they start at
once, each in a process group of its own that can be killed and watched.

A child writes where it is (`PLACES`) into a file, and may carry a fault: a function that is called
before the command and breaks something.
"""

import contextlib
import functools
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# (module, attribute, what goes on while it runs); the innermost one counts.
PLACES = (
    ("kdrun.distillation.session", "open_dataset", "opening the data"),
    ("kdrun.data.decoding.cache", "_build", "decoding"),
    ("kdrun.distillation.teacher_recipe", "_train", "training the teacher"),
    ("kdrun.distillation.run", "get_or_train_baseline", "training the student alone"),
    ("kdrun.distillation.run", "_teachers", "handing over the teacher"),
    ("kdrun.distillation.run", "train_student", "training the student"),
    ("kdrun.engine.loop", "evaluate", "validation"),
    ("kdrun.distillation.train", "evaluate", "measuring the test split"),
    ("kdrun.distillation.teacher", "evaluate", "measuring the test split"),
    ("kdrun.engine.checkpoint", "CheckpointFolder.save", "writing a checkpoint"),
    ("kdrun.distillation.student", "save_network", "the final write"),
    ("kdrun.teachers.store", "save_network", "the final write"),
    ("kdrun.runs.result", "write_json", "writing result.json"),
    ("kdrun.runs.folder", "write_metrics", "writing metrics"),
)
START = "start-up, hand-over, end"
PLACE_BYTES = 40
ROOT = Path(__file__).resolve().parents[2]
PRELOADED = f"{__package__}.preloaded"
Fault = Callable[[], None]


@dataclass
class Child:
    """One kdrun command in a process group of its own."""

    process: BaseProcess
    log: Path
    place_file: Path

    @property
    def place(self) -> str:
        """What it was last seen doing."""
        try:
            return self.place_file.read_text().strip("\0 ") or START
        except OSError:
            return START

    @property
    def output(self) -> str:
        """What it has said so far, on both streams."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait(self, seconds: float = 120.0) -> int | None:
        """Its exit code, negative for a signal; None when it still runs after `seconds`."""
        self.process.join(seconds)
        return self.process.exitcode

    def signal(self, number: int) -> None:
        """A signal for the whole group, as a terminal sends it."""
        assert self.process.pid is not None
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:  # it has no group of its own yet, or has ended
            self.process.join(0.1)
            if self.process.is_alive():
                os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL for the whole group."""
        assert self.process.pid is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group of its own yet, or has ended
            self.process.kill()
        self.process.join()


def at_step(training: int, step: int, react: Callable[[], None]) -> None:
    """A fault: call `react` before a step of the n-th training of the process, both from 1.

    In `kdrun distill` the trainings are the teacher's, the baseline's and the student's.
    """
    from kdrun.engine.loop import _Fit

    run, train_step, counts = _Fit.run, _Fit._step, {"training": 0, "step": 0}

    def counted_run(fit: _Fit) -> Any:
        counts.update(training=counts["training"] + 1, step=0)
        return run(fit)

    def counted_step(fit: _Fit, batch: Any) -> Any:
        counts["step"] += 1
        if counts == {"training": training, "step": step}:
            react()
        return train_step(fit, batch)

    _Fit.run, _Fit._step = counted_run, counted_step  # type: ignore[method-assign]


def signal_at_step(training: int, step: int, number: int) -> None:
    """A fault: the process sends itself a signal before a step; see `at_step`."""
    at_step(training, step, lambda: os.kill(os.getpid(), number))


def wait_at_step(training: int, step: int, marker: Path) -> None:
    """A fault: make the file `marker` before a step, then wait until it is deleted."""

    def wait() -> None:
        marker.touch()
        while marker.exists():
            time.sleep(0.01)

    at_step(training, step, wait)


def until(condition: Callable[[], object], child: Child, seconds: float = 300.0) -> None:
    """Wait for a condition; fails when the child ends before it holds."""
    limit = time.monotonic() + seconds
    while not condition():
        assert child.process.is_alive() or condition(), child.output
        assert time.monotonic() < limit, child.output
        time.sleep(0.005)


@functools.cache
def _context() -> multiprocessing.context.ForkServerContext:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    with contextlib.chdir(ROOT):  # the server imports from its current folder
        forkserver.ensure_running()
    return context


def start(
    folder: Path, argv: Sequence[str], name: str = "log", fault: Fault | None = None
) -> Child:
    """`kdrun argv...` in `folder`; `name`: of the files for its output and its place."""
    log, place = folder / f".{name}.log", folder / f".{name}.place"
    for left in (log, place):
        left.unlink(missing_ok=True)
    process = _context().Process(target=_live, args=(folder, list(argv), log, place, fault))
    process.start()
    return Child(process, log, place)


def run(
    folder: Path, argv: Sequence[str], name: str = "log", fault: Fault | None = None
) -> tuple[int | None, str]:
    """(exit code, output) of `kdrun argv...` in `folder`; a child that hangs is killed."""
    child = start(folder, argv, name, fault)
    code = child.wait()
    if code is None:
        child.kill()
    return code, child.output


def run_pytest(folder: Path, *args: str) -> tuple[int | None, str]:
    """(exit code, output) of `python -m pytest -q args...` in `folder`."""
    log = folder / ".pytest.log"
    process = _context().Process(target=_live_pytest, args=(folder, list(args), log))
    process.start()
    process.join(600)
    return process.exitcode, log.read_text(errors="replace")


def _live_pytest(folder: Path, args: list[str], log: Path) -> None:
    _enter(folder, log)
    import pytest

    sys.path.insert(0, str(folder))  # as `python -m` does
    code = pytest.main(["-q", "-p", "no:cacheprovider", *args])
    sys.stdout.flush()
    os._exit(code)


def _enter(folder: Path, log: Path) -> None:
    """A process group of its own in `folder`, with both streams into `log`."""
    assert PRELOADED in sys.modules, "the server could not import what a child needs"
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)


def _live(folder: Path, argv: list[str], log: Path, place: Path, fault: Fault | None) -> None:
    """The child's life."""
    _enter(folder, log)
    from kdrun.cli.main import run as run_kdrun
    from kdrun.cli.main import stop_on_signals

    stop_on_signals()  # as in a command of its own
    multiprocessing.set_start_method("fork", force=True)  # as in a command of its own, for loaders
    watch_places(os.open(place, os.O_WRONLY | os.O_CREAT, 0o666))
    if fault is not None:
        fault()
    code = run_kdrun(argv)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def watch_places(file: int) -> None:
    """Have every function of `PLACES` write its place into `file` while it runs."""
    inside: list[str] = [START]

    def say() -> None:
        os.pwrite(file, inside[-1].ljust(PLACE_BYTES).encode(), 0)

    def watched(function: Callable[..., Any], place: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            inside.append(place)
            say()
            try:
                return function(*args, **kwargs)
            finally:
                inside.pop()
                say()

        return call

    for module, attribute, place in PLACES:
        replace(module, attribute, lambda function, place=place: watched(function, place))


def replace(module: str, attribute: str, change: Callable[[Any], Any]) -> None:
    """Put `change(what is there)` in the place of `module.attribute` (`Class.method` too)."""
    holder: Any = importlib.import_module(module)
    *classes, name = attribute.split(".")
    for one in classes:
        holder = getattr(holder, one)
    setattr(holder, name, change(getattr(holder, name)))
