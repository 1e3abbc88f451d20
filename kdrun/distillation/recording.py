"""Maintain a run's lock, log and status until it ends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from kdrun.distillation.session import Session
from kdrun.engine import distributed
from kdrun.errors import Interrupted, KdrunError, MachineError, known_error
from kdrun.own_code import edited_sentence
from kdrun.runs.folder import RunFolder
from kdrun.runs.reading import read_result, read_run
from kdrun.runs.result import COMPLETED, FAILED, INTERRUPTED, RESUMABLE, RUNNING
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
    """Execute the block as the run of `folder`; `result.json` always has the current status.

    The block sets `completed` just before it shows the result. However else it ends, the status
    becomes `failed` or `interrupted`, as long as the file can be written.

    part: a child run; its parent reports how it ends.
    known: initial entries of `result.json`, in their final order.
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
                    "run resumes from its config.yaml and its last checkpoint, and rewrites its "
                    "files."
                )
                folder.begin()  # invalidates the old checksums
            else:
                _warn_of_edits(folder, session)
            try:
                folder.result.start(command, **known)
                folder.begin()
                yield
                folder.seal()
                distributed.barrier()  # write the files before other processes read them
            except BaseException as caught:
                with session.stop.shielded():
                    error = _ended(caught, folder, session, command in RESUMABLE, part)
                if error is caught:
                    raise
                if error is not None:
                    raise error from caught
    finally:
        with session.stop.shielded():
            _settle(folder)
            folder.release()


def _warn_of_edits(folder: RunFolder, session: Session) -> None:
    code = (read_result(folder.path) or {}).get("code")
    edits = edited_sentence(code if isinstance(code, dict) else {}, "this run began")
    if edits is not None:
        session.reporter.warn(f"{edits} The run continues with the edited code.")


def _ended(
    caught: BaseException, folder: RunFolder, session: Session, resumable: bool, part: bool
) -> BaseException | None:
    """Record that `caught` ended the run; returns the exception to raise, if any.

    A completed run stays completed: only its last lines on the screen failed.
    """
    if folder.result.values.get("status") == COMPLETED:
        with suppress(OSError):
            folder.seal()
        screen_lost = isinstance(caught, Interrupted) and session.reporter.console.lost
        return None if screen_lost else caught
    if not isinstance(caught, Exception | SystemExit):  # signals
        _write_status(folder, INTERRUPTED, str(caught) or "stopped")
        session.reporter.close()
        if not part:
            why = f" ({caught})" if session.reporter.console.lost else ""
            session.reporter.say_last(
                f"Interrupted{why}; the state is saved. Resume: kdrun resume {folder.path}"
                if resumable
                else f"Interrupted{why}: type the command again."
            )
        return caught
    error: BaseException = known_error(caught) or caught
    if isinstance(error, SystemExit):
        error = KdrunError(f"User code ended the process: SystemExit({error.code!r}).")
    if isinstance(error, MachineError) and resumable and not part:
        error = MachineError(f"{error} Then resume: kdrun resume {folder.path}")
    text = str(error) if isinstance(error, KdrunError) else repr(error)
    _write_status(folder, FAILED, text)
    session.reporter.log_only(f"failed: {text}")
    return error


def _write_status(folder: RunFolder, status: str, text: str) -> None:
    with suppress(OSError, MemoryError):  # the disk itself may have failed
        folder.result.update(status=status, error=text)


def _settle(folder: RunFolder) -> None:
    """Replace `running` if a second exception interrupted the handling of the first."""
    if folder.result.values.get("status") == RUNNING:
        _write_status(folder, INTERRUPTED, "stopped")
