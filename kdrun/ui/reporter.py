"""Progress and messages of a run, on the screen and in `run.log`.

On a terminal: a live line for the current epoch and a permanent line for each finished one.
Otherwise: plain lines at a steady interval, without control characters.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from kdrun.engine.metrics import EpochSums
from kdrun.engine.state import TrainState
from kdrun.errors import Interrupted
from kdrun.limits import visible
from kdrun.recipes.lr_schedules import TrainingLength
from kdrun.ui import format
from kdrun.ui.console import PLAIN_WIDTH, console, is_live, note
from kdrun.world import world

PLAIN_INTERVAL_SECONDS = 10.0
LIVE_INTERVAL_SECONDS = 0.25
SLOW_EPOCH_SECONDS = 2.0  # in a pipe, the lines of quicker epochs are left to run.log


class Reporter:
    """Implements the loop's observer, and everything else a stage has to say.

    choice: auto | rich | plain | quiet (nothing on the screen but errors).
    on_lost: called once, with the reason, when the screen cannot be written any more: its reader
    has gone. It may raise; without it, Interrupted is raised.
    """

    def __init__(self, choice: str, on_lost: Callable[[str], None] | None = None) -> None:
        # of several processes that train together the first one speaks for all
        self.quiet = choice == "quiet" or not world().is_main
        self.live = not self.quiet and is_live(choice)
        self.console = console()
        self._on_lost = on_lost or _interrupt
        self._logs: list[TextIO] = []
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._watch = _Watch()
        self._length: TrainingLength | None = None
        self._epoch = 0
        self._interval = LIVE_INTERVAL_SECONDS if self.live else PLAIN_INTERVAL_SECONDS

    @contextmanager
    def logging_to(self, path: Path) -> Iterator[None]:
        """Also write every line to `path`, with the time before it."""
        if not world().is_main:
            yield
            return
        log = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed below, errors aside
        self._logs.append(log)
        try:
            yield
        finally:
            self._logs.remove(log)
            self.close()
            with suppress(OSError):
                log.close()

    def close(self) -> None:
        """Remove the live line."""
        if self._bar is not None:
            bar, self._bar = self._bar, None
            self._write(bar.stop)

    def _write(self, write: Callable[[], None]) -> None:
        """Write to the screen, unless it is lost."""
        if self.console.lost:
            return
        try:
            write()
        except OSError as error:
            self._bar = None
            self._on_lost(self.console.lose(error))

    def say(self, text: str = "", style: str | None = None) -> None:
        """Print a permanent line."""
        text = visible(text)
        self._log(text)
        if not self.quiet:
            self._write(lambda: self.console.print(text, style=style, markup=False))

    def say_last(self, text: str) -> None:
        """A line that says how to resume; on standard error if the screen is lost."""
        with suppress(Interrupted):
            self.say(text)
        if self.console.lost and not self.quiet:
            note(text)

    def milestone(self, text: str) -> None:
        """A line that a sweep shows too, where a job's other lines are in its log only."""
        self.say(text)

    def log_only(self, text: str) -> None:
        """A line for `run.log` that the screen gets in another way."""
        self._log(visible(text))

    def warn(self, text: str) -> None:
        """A warning; the run continues."""
        self.say(f"warning: {text}", style="yellow")

    def heading(self, text: str) -> None:
        """The start of a stage."""
        self.close()
        self.say()
        self.say(text, style="bold")

    def facts(self, rows: Iterable[tuple[str, str]]) -> None:
        """Print names and values, aligned."""
        rows = list(rows)
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            self.say(f"  {name:<{width}}  {value}")

    def show(self, table: RenderableType) -> None:
        """A table on the screen and, drawn plainly, in the log."""
        self.close()
        for log in self._logs:
            plain = Console(
                file=log,
                width=PLAIN_WIDTH,
                color_system=None,
                force_terminal=False,
                force_jupyter=False,  # it would show the table in the notebook instead
            )
            with suppress(OSError):
                plain.print(table)
        if not self.quiet:
            self._write(lambda: self.console.print(table, soft_wrap=False))

    def progress(self, what: str, done: int, total: int) -> None:
        """A long job outside training: decoding, downloading, measuring."""
        if self.live:
            text = f"{what}  {format.count(done)}/{format.count(total)}"
            self._draw(text, done, total)
            if done >= total:
                self.close()
        elif self._watch.due(self._interval):
            self.say(f"  {what}: {format.count(done)} of {format.count(total)}")

    # -- the loop's observer ----------------------------------------------------------------

    def training_started(self, length: TrainingLength, state: TrainState) -> None:
        """Training starts or resumes."""
        self._length = length
        self._epoch = state.epoch
        self._watch = _Watch(state.step)
        if state.step and state.step < length.steps:
            self.say(f"  resuming after step {state.step:,} of {length.steps:,}")

    def step_done(self, batches: int, sums: EpochSums, images: int) -> None:
        """A step has ended; most of the time nothing is drawn."""
        self._watch.step(images)
        if not self.quiet and self._watch.due(self._interval):
            assert self._length is not None
            self._show_step(batches, self._length)

    def _show_step(self, batches: int, length: TrainingLength) -> None:
        """How far the epoch is. batches: done in it."""
        text = (
            f"  epoch {self._epoch + 1}/{length.epochs}  {self._watch.rate:,.0f} img/s  "
            f"left {format.seconds(self._watch.left(length.steps))}"
        )
        if self.live:
            self._draw(text, batches, length.steps_per_epoch)
        else:
            self.say(f"{text}  step {batches}/{length.steps_per_epoch}")

    def epoch_done(self, row: dict[str, Any], length: TrainingLength) -> None:
        """An epoch has ended: its permanent line."""
        self._epoch = row["epoch"]
        last = row["step"] >= length.steps
        line = epoch_line(row, length, self._watch.left(length.steps))
        slow = row["epoch_seconds"] >= SLOW_EPOCH_SECONDS
        if last:
            self.close()
        if self.live or last or slow or self._watch.due(self._interval):
            self.say(line)
        else:
            self._log(line)

    # ---------------------------------------------------------------------------------------

    def _draw(self, text: str, done: int, total: int) -> None:
        self._write(lambda: self._draw_bar(text, done, total))

    def _draw_bar(self, text: str, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = Progress(
                BarColumn(bar_width=24),
                TextColumn("{task.description}", markup=False),
                console=self.console,
                transient=True,
                auto_refresh=False,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=total)
        assert self._task is not None
        self._bar.update(self._task, description=text, completed=done, total=total, refresh=True)

    def _log(self, text: str) -> None:
        for log in self._logs:
            with suppress(OSError):  # a full disk must not end a run
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n" if text else "\n")
                log.flush()


def epoch_line(row: dict[str, Any], length: TrainingLength, left_seconds: float) -> str:
    """One finished epoch, fixed order, with units."""
    parts = [
        f"  epoch {row['epoch']:>{len(str(length.epochs))}}/{length.epochs}",
        f"loss {format.loss(row['train/loss'])}",
    ]
    if "train/top1_percent" in row:
        parts.append(f"train {format.percent(row['train/top1_percent'])} %")
    if "val/top1_percent" in row:
        parts.append(f"val {format.percent(row['val/top1_percent'])} %")
    if "val/ema_top1_percent" in row:
        parts.append(f"ema {format.percent(row['val/ema_top1_percent'])} %")
    parts.append(f"lr {row['lr']:.3g}")
    parts.append(f"{row['images_per_second']:,.0f} img/s")
    parts.append(format.seconds(row["epoch_seconds"]))
    if row["step"] < length.steps:
        parts.append(f"left {format.seconds(left_seconds)}")
    return "  ".join(parts)


def _interrupt(reason: str) -> None:
    raise Interrupted(reason)


class _Watch:
    """Rate and time left since training began or went on, without the first step."""

    def __init__(self, first_step: int = 0) -> None:
        self.steps = first_step
        self.counted_steps = 0
        self.images = 0
        self.started: float | None = None
        self.drawn = time.monotonic()

    def step(self, images: int) -> None:
        self.steps += 1
        if self.started is None:  # the first step includes warming up
            self.started = time.monotonic()
            return
        self.counted_steps += 1
        self.images += images

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started if self.started is not None else 0.0

    @property
    def rate(self) -> float:
        return self.images / self.elapsed if self.elapsed > 0 else 0.0

    def left(self, steps: int) -> float:
        if not self.counted_steps:
            return 0.0
        return self.elapsed / self.counted_steps * (steps - self.steps)

    def due(self, interval: float) -> bool:
        """True at most once per interval."""
        now = time.monotonic()
        if now - self.drawn < interval:
            return False
        self.drawn = now
        return True
