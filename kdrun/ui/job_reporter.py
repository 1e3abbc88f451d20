"""What a job of a sweep shows: one live line on a terminal; everything else goes to its log."""

from collections.abc import Callable
from typing import Any

from rich.console import RenderableType

from kdrun.recipes.lr_schedules import TrainingLength
from kdrun.ui import format
from kdrun.ui.reporter import Reporter

# Without a terminal, a long job shows a line this often.
PLAIN_SECONDS = 60.0


class JobReporter(Reporter):
    """A Reporter for one job. label: `job 3/4`."""

    def __init__(
        self, choice: str, label: str, on_lost: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(choice, on_lost)
        self.label = label
        self.stage = ""
        if not self.live:
            self._interval = PLAIN_SECONDS

    def say(self, text: str = "", style: str | None = None) -> None:
        """In the log."""
        self.log_only(text)

    def say_last(self, text: str) -> None:
        """In the log: the sweep says how to resume."""
        self.log_only(text)

    def heading(self, text: str) -> None:
        """In the log; also named in the live line."""
        self.stage = text
        self.log_only("")
        self.log_only(text)

    def milestone(self, text: str) -> None:
        """On the screen: it concerns more than this job."""
        self.close()
        super().say(text)

    def warn(self, text: str) -> None:
        """On the screen, with the job's number."""
        self.close()
        super().say(f"warning: {self.label}: {text}", style="yellow")

    def show(self, table: RenderableType) -> None:
        """In the log."""
        quiet, self.quiet = self.quiet, True
        super().show(table)
        self.quiet = quiet

    def progress(self, what: str, done: int, total: int) -> None:
        """In the live line."""
        if self.live:
            super().progress(f"{self.label}  {what}", done, total)

    def _show_step(self, batches: int, length: TrainingLength) -> None:
        """The live line; without a terminal, a line a minute."""
        left = format.seconds(self._watch.left(length.steps))
        text = f"{self.label}  {self.stage}  epoch {self._epoch + 1}/{length.epochs}  {left} left"
        if self.live:
            self._draw(text, batches, length.steps_per_epoch)
        else:
            super().say(f"  {text}")

    def epoch_done(self, row: dict[str, Any], length: TrainingLength) -> None:
        """In the log."""
        live, quiet = self.live, self.quiet
        self.live, self.quiet = False, True
        super().epoch_done(row, length)
        self.live, self.quiet = live, quiet
