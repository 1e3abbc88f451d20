"""Requests to stop: Ctrl-C, SIGTERM and a time limit, within a loop and outside it."""

import os
import signal
import time

import pytest

from kdrun.engine import devices
from kdrun.engine.interrupt import StopRequest
from kdrun.errors import Interrupted, TimeLimitError


def test_outside_a_loop_the_signal_stops_at_once() -> None:
    with StopRequest(), pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)


def test_within_a_loop_the_first_waits_and_the_same_again_does_not() -> None:
    with StopRequest() as stop, stop.deferred:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # a terminal's and a launcher's: one request
        assert stop.requested
        assert isinstance(stop.error("here"), Interrupted)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_end_of_the_time_is_a_request_and_then_an_error() -> None:
    with StopRequest(limit_seconds=0.3) as stop, stop.deferred:
        assert not stop.requested
        while not stop.requested:
            time.sleep(0.001)
        assert "job_minutes" in str(stop.error("after step 3"))
        with pytest.raises(TimeLimitError, match="did not respond"):
            time.sleep(5)


def test_outside_a_loop_the_end_of_the_time_stops_at_once() -> None:
    with StopRequest(limit_seconds=0.05), pytest.raises(TimeLimitError):
        time.sleep(5)
    time.sleep(0.1)  # nothing rings afterwards


def test_jobs_take_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [devices.spread(number) for number in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert devices.spread(3) == "auto"
