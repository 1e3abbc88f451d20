"""Run folders, cards and sweeps that were damaged or made up."""

import json
from pathlib import Path
from typing import Any

from kdrun.deploy import student
from tests.reliability import spoil
from tests.reliability.case import Case, Failed
from tests.reliability.world import TINY, copied

SUMS = "SHA256SUMS"
QUIET = ("ui=quiet", "threads=1", "device=cpu")


def _spoilt(case: Case, source: Path) -> Path:
    """A copy of a run folder with something wrong in it, in half of the cases unsealed."""
    rng = case.rng
    folder = copied(source, case.folder / "given")
    outside = case.folder / "outside"
    outside.write_text("not to be changed")
    if rng.random() < 0.5:
        (folder / SUMS).unlink(missing_ok=True)
        case.tell("without checksums")
    for _ in range(rng.choice((1, 1, 1, 2))):
        case.tell(spoil.folder(folder, rng, outside))
    return folder


def runs(case: Case) -> str:
    """A spoilt run folder for every verb that reads one."""
    rng = case.rng
    folder = str(_spoilt(case, case.world.run).relative_to(case.folder))
    verb = rng.choice(("ls", "show", "report", "compare", "evaluate", "export", "predict", "load",
                       "checkpoint", "pictures"))  # fmt: skip
    if verb == "ls":
        code, _ = case.kdrun("ls", "runs", "output_root=.")
    elif verb == "show":
        code, _ = case.kdrun("show", folder)
    elif verb == "report":
        code, _ = case.kdrun("report", folder, "to=made", may_change=("made/",))
    elif verb == "pictures":
        words = ("report", folder, "to=made", "pictures=best")
        code, _ = case.kdrun(*words, may_change=("made/", "given/pictures/", "outputs/"))
    elif verb == "compare":
        code, _ = case.kdrun("compare", folder, str(case.world.run), "--all")
    elif verb == "evaluate":
        code, _ = case.kdrun("evaluate", f"run={folder}", *QUIET, may_change=("outputs/",))
        _check_figures(case, code)
    elif verb == "export":
        words = ("export", f"run={folder}", "format=safetensors", "latency=false", "ui=quiet")
        code, _ = case.kdrun(*words, may_change=("given/export/",))
    elif verb == "predict":
        image = str(case.world.photos / "train" / "cat" / "0.png")
        code, _ = case.kdrun("predict", f"run={folder}", image)
    elif verb == "load":
        return _load(folder)
    else:
        words = ("distill", *TINY, f"teacher.checkpoint={folder}", "epochs=1")
        code, _ = case.kdrun(*words, may_change=("outputs/",))
    return f"{verb}: exit code {code}"


def _load(folder: str) -> str:
    from kdrun.errors import KdrunError

    try:
        student.load(folder)
    except KdrunError as error:
        if error.exit_code != 2:
            raise Failed(f"kdrun.load: {error}") from error
        return "load: refused"
    return "load: loaded"


def _check_figures(case: Case, code: int) -> None:
    """With the checksums in place, a figure that is printed is the true one."""
    sealed = (case.folder / "given" / SUMS).is_file()
    if code != 0 or not sealed:
        return
    found = next(case.folder.glob("outputs/evaluate/*/*/*/result.json"))
    top1 = json.loads(found.read_text())["student"]["test"]["top1"]
    true = json.loads((case.world.run / "result.json").read_text())["student"]["test"]["top1"]
    if top1 != true:
        raise Failed(f"evaluated to {top1}, true is {true}")


def resumes(case: Case) -> str:
    """A spoilt run that was interrupted, gone on with: the true end, or refused."""
    folder = _spoilt(case, case.world.begun)
    sealed = (folder / SUMS).is_file()
    (case.folder / "begun").symlink_to(case.world.root / "begun")
    before = json.loads((case.world.run / "result.json").read_text())
    code, _ = case.kdrun("resume", "given", may_change=("given/", "outputs/", "begun"))
    if code == 0 and sealed and (folder / "result.json").is_file():
        after: dict[str, Any] = json.loads((folder / "result.json").read_text())
        same = after["student"]["test"] == before["student"]["test"]
        weights = [path / "student.safetensors" for path in (folder, case.world.run)]
        if not same or weights[0].read_bytes() != weights[1].read_bytes():
            raise Failed("the run that went on ends differently")
    return f"resume: exit code {code}"


def phases(case: Case) -> str:
    """A spoilt run that was interrupted in the phase before its main one: resumed, or refused."""
    _spoilt(case, case.world.phase)
    (case.folder / "begun").symlink_to(case.world.root / "begun")
    code, _ = case.kdrun("resume", "given", may_change=("given/", "outputs/", "begun"))
    return f"resume of a phase: exit code {code}"


def sweeps(case: Case) -> str:
    """A spoilt sweep's folder."""
    rng = case.rng
    folder = copied(case.world.sweep, case.folder / "given")
    outside = case.folder / "outside"
    outside.write_text("not to be changed")
    case.tell(spoil.folder(folder, rng, outside))
    if rng.random() < 0.5:
        code, _ = case.kdrun("report", "given", "to=made", may_change=("made/",))
        return f"report of a sweep: exit code {code}"
    code, _ = case.kdrun("resume", "given", may_change=("given/", "outputs/"))
    return f"resume of a sweep: exit code {code}"
