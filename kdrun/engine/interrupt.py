"""Signals, a closed terminal and time limits: a training loop saves first, other code stops."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from kdrun.errors import Interrupted, TimeLimitError

# How long a loop may take to react to its time limit before it is aborted.
LONGEST_GRACE_SECONDS = 30.0
# Ctrl-C, `kill`, and a closed terminal (Windows has no SIGHUP).
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def handled_signals() -> tuple[signal.Signals, ...]:
    """The signals that stop a command; without SIGHUP if the process ignores it (`nohup`).

    Empty outside the main thread, where Python cannot install signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return ()
    return tuple(
        number
        for number in SIGNALS
        if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN
    )


class StopRequest:
    """While active, SIGINT, SIGTERM and SIGHUP become `Interrupted`, a timeout `TimeLimitError`.

    Inside `deferred` (a training loop) the first signal only sets `requested`, so that the loop can
    save a consistent checkpoint; repeating the signal stops at once. For a loop that hangs, a timer
    stops it after a grace period. A C call that never returns cannot be stopped.

    Inside `shielded` (the status of a run is being written) nothing is raised.

    limit_seconds: time limit, or None. at_once: whether a signal stopped the work without waiting
    for a loop. reason: name of the signal, e.g. `SIGHUP`.
    """

    def __init__(self, limit_seconds: float | None = None) -> None:
        self.limit_seconds = limit_seconds
        self.at_once = False
        self._asked = False
        self._signals: set[int] = set()
        self._timed_out = False
        self._alarms = 0
        self._deadline: float | None = None
        self._depth = 0
        self._shields = 0
        self.reason = ""
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the loop should save and stop."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._timed_out = True
        return self._asked or self._timed_out

    @requested.setter
    def requested(self, value: bool) -> None:
        self._asked = value

    def error(self, where: str) -> BaseException:
        """The exception to raise for the request; `where` describes the progress."""
        if self._asked or self.limit_seconds is None:
            return Interrupted(f"{where} ({self.reason})" if self.reason else where)
        return TimeLimitError(
            f"The job exceeded sweep.job_minutes={self.limit_seconds / 60:g} and was stopped "
            f"({where})."
        )

    def __enter__(self) -> "StopRequest":
        if self.limit_seconds is not None:
            self._deadline = time.monotonic() + self.limit_seconds
        for number in handled_signals():
            self._before[number] = signal.signal(number, self._handle)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and self.limit_seconds is not None and hasattr(signal, "setitimer"):
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._alarm)
            grace = min(LONGEST_GRACE_SECONDS, self.limit_seconds)
            signal.setitimer(signal.ITIMER_REAL, self.limit_seconds, grace)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if hasattr(signal, "SIGALRM") and signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = number in self._signals  # Ctrl-C and SIGTERM together are one request
        self._signals.add(number)
        self.ask(signal.Signals(number).name, again)

    def ask(self, reason: str, again: bool = False) -> None:
        """Request a stop; raises Interrupted at once outside of a `deferred` block.

        again: the same request was made before; raise even inside a `deferred` block.
        """
        self._asked = True
        self.reason = self.reason or reason
        if self._shields or (self._depth and not again):
            return
        self.at_once = True
        raise Interrupted(reason)

    def ask_all(self, reason: str) -> None:
        """Request a stop without raising; all processes of a training stop at the same step."""
        self._asked = True
        self.reason = self.reason or reason

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        self._timed_out = True
        self._alarms += 1
        if self._shields or (self._depth and self._alarms == 1):
            return
        raise self.error("it did not respond" if self._depth else "outside its training loop")

    @property
    def deferred(self) -> "_Deferred":
        """A block that checks `requested` itself: the first signal does not raise."""
        return _Deferred(self)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """A block that is never interrupted, e.g. while a run's final status is written."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1


class _Deferred:
    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def __enter__(self) -> None:
        self.stop._depth += 1

    def __exit__(self, *_: object) -> None:
        self.stop._depth -= 1
