"""One case: its random numbers, its folder, and a command that is run within it."""

import contextlib
import io
import logging
import random
from dataclasses import dataclass, field
from pathlib import Path

from kdrun.cli.main import run
from tests.reliability.world import World, tree_digest


class Failed(Exception):  # noqa: N818 - what a case found
    """A case does not hold."""


@dataclass
class Case:
    """rng: its own. folder: the current one, empty at first. told: what was done, in words."""

    rng: random.Random
    world: World
    folder: Path
    told: list[str] = field(default_factory=list)

    def tell(self, text: object) -> None:
        """Note what is done, for the one who reads of a failure."""
        self.told.append(str(text))

    def story(self) -> str:
        """All that was noted."""
        return "\n".join(f"    {line[:500]}" for line in self.told)

    def kdrun(self, *words: str, may_change: tuple[str, ...] = ()) -> tuple[int, str]:
        """(exit code, what was printed) of a command; Failed when it breaks its contract.

        may_change: beginnings of the paths that a successful one may write.
        """
        self.tell(f"kdrun {list(words)}")
        before = tree_digest(self.folder)
        out, err = io.StringIO(), io.StringIO()
        handlers = list(logging.root.handlers)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run(list(words))
        finally:
            logging.root.handlers[:] = handlers
        said = out.getvalue() + err.getvalue()
        self.tell(f"exit code {code}: {said[-3000:]}")
        if code not in (0, 2) or "Traceback" in said or "bug in kdrun" in said:
            raise Failed(f"exit code {code}: {said[-2500:]}")
        if code == 2 and not err.getvalue().startswith("error: "):
            raise Failed(f"exit code 2 without a word: {said[:500]}")
        if "\x1b" in said or "\x07" in said:
            raise Failed(f"a control character is printed: {said!r}")
        after = tree_digest(self.folder)
        changed = {p for p in {*before, *after} if before.get(p) != after.get(p)}
        wrong = sorted(p for p in changed if not p.startswith(may_change or ("\0",)))
        if wrong:
            raise Failed(f"changed: {wrong[:5]}")
        return code, said
