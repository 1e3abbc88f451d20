"""The record of one run around whatever it does: lock, log, status, and how it ended."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from kdrun.engine import distributed
from kdrun.errors import KdrunError, MachineError, known_error
from kdrun.runs.folder import RunFolder
from kdrun.runs.reading import read_result, read_run
from kdrun.runs.result import FAILED, INTERRUPTED
from kdrun.stages.session import Session
from kdrun.world import world


@contextmanager
def recording(
    folder: RunFolder,
    session: Session,
    command: str,
    config: dict[str, Any],
    argv: Sequence[str],
    known: dict[str, Any],
    part: bool = False,
) -> Iterator[None]:
    """Run the block as the run of `folder`; `result.json` says at any moment how it stands.

    The block itself sets `completed`, as its last act before it shows the result.

    part: of another run, which says the rest.
    known: entries of `result.json` that are known from the start, in their final order.
    """
    folder.acquire()
    try:
        with session.reporter.logging_to(folder.path / "run.log"):
            facts = {"device": str(session.device), "processes": world().size}
            if not (folder.path / "config.yaml").exists():
                folder.describe(config, argv, facts)
            elif read_result(folder.path) is None:
                session.reporter.warn(
                    f"{read_run(folder.path).fault or 'result.json is missing or damaged.'} The "
                    "run goes on from its config.yaml and its last saved state, and writes its "
                    "files again."
                )
                folder.begin()  # the list of before does not hold any more
            folder.result.start(command, **known)
            folder.begin()
            try:
                yield
                folder.seal()
                distributed.wait()  # the files are there before another process looks for them
            except KeyboardInterrupt as stopped:
                with suppress(OSError):
                    folder.result.update(status=INTERRUPTED, error=str(stopped) or "stopped")
                session.reporter.close()
                if not part:
                    session.reporter.say(
                        f"Interrupted; all is saved. Go on: kdrun resume {folder.path}"
                    )
                raise
            except Exception as caught:
                error = known_error(caught) or caught
                if isinstance(error, MachineError) and not part:
                    error = MachineError(f"{error} Then go on: kdrun resume {folder.path}")
                text = str(error) if isinstance(error, KdrunError) else repr(error)
                with suppress(OSError):  # it may be the disk that failed
                    folder.result.update(status=FAILED, error=text)
                session.reporter.log_only(f"failed: {text}")
                if error is caught:
                    raise
                raise error from caught
    finally:
        folder.release()
