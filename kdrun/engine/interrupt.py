"""Signals, a closed screen and a time limit: a loop finishes its step first, all else stops."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from kdrun.errors import Interrupted, TimeLimitError

# How long a loop may take to notice that its time is up before it is stopped where it is.
LONGEST_GRACE_SECONDS = 30.0
# Ctrl-C, `kill`, and a closed terminal (Windows has no SIGHUP).
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def handled_signals() -> tuple[signal.Signals, ...]:
    """The signals that stop a command; not SIGHUP where `nohup` made the process ignore it.

    None outside the main thread: only there can Python install handlers.
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
    save a consistent state; the same one again stops at once. So does a timer after a time of
    grace, for a loop that hangs. What hangs in a call into C that never returns cannot be stopped
    from here.

    Inside `shielded` (the status of a run is being written) nothing is raised at all.

    limit_seconds: the time it may take, or None. at_once: whether a signal stopped the work where
    it was, without waiting for a loop. reason: what asked for the stop, e.g. `SIGHUP`.
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
        """What to raise for the request; `where` says how far the work had come."""
        if self._asked or self.limit_seconds is None:
            return Interrupted(f"{where} ({self.reason})" if self.reason else where)
        return TimeLimitError(
            f"It took longer than sweep.job_minutes={self.limit_seconds / 60:g} and was ended "
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
        """Request a stop; raises Interrupted at once where no loop will look at the request.

        again: the same request has been made before, so the loop is not waited for.
        """
        self._asked = True
        self.reason = self.reason or reason
        if self._shields or (self._depth and not again):
            return
        self.at_once = True
        raise Interrupted(reason)

    def ask_all(self, reason: str) -> None:
        """Request a stop that the loops of all processes of a training make together."""
        self._asked = True
        self.reason = self.reason or reason

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        self._timed_out = True
        self._alarms += 1
        if self._shields or (self._depth and self._alarms == 1):
            return
        raise self.error("it did not react" if self._depth else "before or after its training")

    @property
    def deferred(self) -> "_Deferred":
        """A block in which the first signal waits for the block to look at `requested`."""
        return _Deferred(self)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """A block that no request interrupts: it writes down how a run has ended."""
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
