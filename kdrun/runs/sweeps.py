"""A sweep's folder: its jobs and their status, shared by all worker processes.

`sweep.json` is written before the first job. Each job has its own status file,
`jobs/<number>.json`, so that processes never write the same file.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdrun.errors import ConfigError
from kdrun.files import canonical_hash, read_json, remove_unfinished, require_plain, write_json
from kdrun.removal import remove

SWEEP_FILE = "sweep.json"
SCHEMA = 2
DIGEST = "sha256"
NOTE = r"[0-9]+\.json"  # in `jobs/`; other files there are not ours


class SweepFolder:
    """Reads and writes the files of one sweep.

    A job's status file (note) has `code` (exit code; None while the job runs), `run` (its folder),
    `reused` (whether a finished run was reused), `seconds`, and `error` (last line of the error).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._jobs = path / "jobs"

    def require_plain(self) -> None:
        """Raise ConfigError if a sweep file would replace something that is not a regular file."""
        require_plain(self.path)
        require_plain(self._jobs)

    def begin(self, command: Sequence[str], jobs: Sequence[Sequence[str]], **settings: Any) -> None:
        """Write `sweep.json` and delete the job status of an earlier attempt.

        command: arguments after `kdrun` for the whole sweep; jobs: arguments of each job.
        """
        self._refuse_unrelated()
        remove(self._jobs, like=NOTE)
        for folder in (self.path, self._jobs):
            remove_unfinished(folder)
        listed = [{"job": number, "command": list(words)} for number, words in enumerate(jobs)]
        values = {"schema": SCHEMA, "command": list(command), **settings, "jobs": listed}
        _write(self.path / SWEEP_FILE, values)

    def read(self) -> dict[str, Any]:
        """The content of `sweep.json`. Raises OSError or ValueError for a damaged file."""
        values = _read(self.path / SWEEP_FILE)
        if values.get("schema") != SCHEMA:
            raise ValueError(f"{self.path / SWEEP_FILE} is not a sweep file")
        return values

    def _refuse_unrelated(self) -> None:
        """Raise ConfigError if `sweep.json` or job notes exist that no sweep wrote."""
        path: Path | None = self.path / SWEEP_FILE
        try:
            self.read()
            return
        except FileNotFoundError:
            notes = sorted(self._jobs.glob("*.json"))
            path = next((note for note in notes if re.fullmatch(NOTE, note.name)), None)
        except (OSError, ValueError):
            pass
        if path is not None:
            raise ConfigError(
                f"{path} is not a sweep file, or is damaged, and is not overwritten: move it, "
                "or choose another folder for the sweep: hydra.sweep.dir=..."
            )

    def fault(self) -> str:
        """Error message for a modified or unreadable `sweep.json`; empty if intact."""
        return _fault(self.path / SWEEP_FILE)

    def note_fault(self, job: int) -> str:
        """Error message for a modified or unreadable job note; empty if intact."""
        return _fault(self._jobs / f"{job}.json")

    def add(self, **settings: Any) -> None:
        """Update `sweep.json`; creates it if needed."""
        present = self.read() if (self.path / SWEEP_FILE).is_file() else {"schema": SCHEMA}
        _write(self.path / SWEEP_FILE, {**present, **settings})

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs listed so far; empty before the first."""
        return list(self.read()["jobs"]) if (self.path / SWEEP_FILE).is_file() else []

    def data(self) -> list[str]:
        """The fingerprints of the sweep's data sets, as they were when it began."""
        return list(self.read().get("data", []))

    def total(self) -> int:
        """The number of jobs; of a search, which adds them one by one, that of its trials."""
        values = self.read()
        return int(values.get("total") or len(values["jobs"]))

    def add_job(self, job: int, command: Sequence[str], chosen: Sequence[str]) -> None:
        """Add or replace a job. chosen: the overrides that distinguish it from the other jobs."""
        listed = [entry for entry in self.jobs() if entry["job"] != job]
        entry = {"job": job, "command": list(command), "chosen": list(chosen)}
        self.add(jobs=sorted([*listed, entry], key=lambda item: int(item["job"])))

    def differences(self) -> list[list[str]]:
        """Per job: its chosen overrides, or the arguments that not all jobs share."""
        jobs = self.read()["jobs"]
        distinct = different([job["command"] for job in jobs])
        return [job.get("chosen", args) for job, args in zip(jobs, distinct, strict=True)]

    def update(self, job: int, **values: Any) -> None:
        """Update a job's note."""
        _write(self._jobs / f"{job}.json", {**(self.note(job) or {}), "job": job, **values})

    def note(self, job: int) -> dict[str, Any] | None:
        """A job's status; None before it starts."""
        try:
            return _read(self._jobs / f"{job}.json")
        except (OSError, ValueError):
            return None

    def notes(self) -> list[dict[str, Any]]:
        """The notes of all started jobs, in job order."""
        numbers = sorted(int(p.stem) for p in self._jobs.glob("*.json") if p.stem.isdecimal())
        return [note for number in numbers if (note := self.note(number)) is not None]

    def codes(self) -> list[int]:
        """The exit codes of all ended jobs."""
        return [note["code"] for note in self.notes() if note.get("code") is not None]


def _write(path: Path, values: dict[str, Any]) -> None:
    """Write JSON with an embedded digest, so that content and digest are replaced atomically."""
    plain = {key: value for key, value in values.items() if key != DIGEST}
    write_json(path, {**plain, DIGEST: canonical_hash(plain)})


def _read(path: Path) -> dict[str, Any]:
    """Read a file of `_write`; without a digest, nothing is verified.

    Raises OSError or ValueError.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not a sweep file")
    digest = values.pop(DIGEST, None)
    if digest is not None and digest != canonical_hash(values):
        raise ValueError(
            f"{path} is damaged: its content does not match its {DIGEST}. Restore it; if it "
            f"was changed on purpose, delete the {DIGEST} from it."
        )
    return values


def _fault(path: Path) -> str:
    try:
        _read(path)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        text = str(error)
        return text if "damaged" in text else f"{path} is damaged: it cannot be read."
    return ""


def different(commands: Sequence[Sequence[str]]) -> list[list[str]]:
    """The arguments of each command that not all commands share."""
    shared = set.intersection(*(set(words) for words in commands)) if len(commands) > 1 else set()
    return [[word for word in words if word not in shared] for words in commands]
