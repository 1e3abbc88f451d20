"""Ctrl-C and SIGTERM: the loop finishes the step in hand first, all else stops at once."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from kdrun.errors import Interrupted


class StopRequest:
    """While active, SIGINT and SIGTERM become `Interrupted`.

    Inside `deferred` (a training loop) the first signal only sets `requested`, so that the loop can
    save a consistent state; a second one stops at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._depth = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        # Python delivers signals to the main thread only; elsewhere there is nothing to install
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._depth and not self.requested:
            self.requested = True
            return
        self.requested = True
        raise Interrupted(signal.Signals(number).name)

    @property
    def deferred(self) -> "_Deferred":
        """A block in which the first signal waits for the block to look at `requested`."""
        return _Deferred(self)


class _Deferred:
    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def __enter__(self) -> None:
        self.stop._depth += 1

    def __exit__(self, *_: object) -> None:
        self.stop._depth -= 1
