"""The student alone: the same network and recipe on labels only, trained once and found again."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdrun.config.schema import DistillConfig, EnsembleConfig, SchemeConfig, TermConfig
from kdrun.distillation.session import Session
from kdrun.distillation.token_heads import without_tokens, without_tokens_argv
from kdrun.files import held
from kdrun.runs.folder import RunFolder
from kdrun.runs.reading import read_result
from kdrun.runs.search import find_run, group_folder
from kdrun.ui import format

OFFLINE = SchemeConfig("offline", "kdrun.schemes.offline.Offline")
CE = TermConfig("ce", "kdrun.losses.ce.CrossEntropy", 1.0)


def alone_config(config: DistillConfig) -> DistillConfig:
    """The configuration of the student alone: the same transfer set, its biases as they are.

    Labels teach it no distillation tokens.
    """
    return replace(
        config,
        teachers=(),
        scheme=OFFLINE,
        ensemble=EnsembleConfig(),
        student=without_tokens(config.student),
        loss={"ce": CE},
        T=None,
        alpha=None,
        ce=None,
        alone=False,
        transfer=replace(config.transfer, bias="none"),
    )


def alone_argv(argv: Sequence[str], config: DistillConfig) -> list[str]:
    """The command that repeats it, from the command and configuration of the run it is for."""
    dropped = ("loss", "scheme", "T=", "alpha=", "ce=", "alone=", "transfer.bias=")
    kept = [word for word in argv if not word.lstrip("+~").startswith(dropped)]
    kept += without_tokens_argv(config.student)
    return [*kept, "loss=ce", "T=null", "alpha=null", "ce=null", "alone=false"]


def find_or_train_alone(
    config: DistillConfig,
    digest: str,
    session: Session,
    train: Callable[[DistillConfig, RunFolder], None],
) -> dict[str, Any]:
    """Its entry in `result.json`: found by fingerprint among finished runs, or trained.

    One process trains, others wait for it; an unfinished one is continued.
    """
    wanted = alone_config(config)
    name = f"none-{config.student.name}-ce"
    group = group_folder(session.output_root, "distill", config.dataset.name, name)

    def find(warn: Callable[[str], None]) -> Path | None:
        return find_run(group, "fingerprint", digest, True, warn, weights=True)

    found = find(session.reporter.warn)
    if found is None:
        lock = session.output_root / "distill" / ".locks" / f"alone-{digest[:16]}.lock"
        with held(lock, lambda: session.reporter.say("  another run is training it; waiting")):
            found = find(lambda fault: None)  # it was said above
            if found is None:
                found = _unfinished(group, digest)
                folder = RunFolder(found) if found else RunFolder.new_in(group)
                train(wanted, folder)
                found = folder.path
    RunFolder(found).tidy()
    result = read_result(found)
    assert result is not None
    student = result["student"]
    top1 = format.percent(student["test"]["top1"])
    session.reporter.say(f"  student alone: {top1} % ({found})")
    # its own size: a method may keep another network than the plain student
    kept = {key: student[key] for key in student if key.startswith("test")}
    return {"run": str(found), **kept, "params": student["params"], "flops": student["flops"]}


def _unfinished(group: Path, digest: str) -> Path | None:
    """A baseline that was interrupted; runs of the user's own are left to the user."""
    found = find_run(group, "baseline", digest, finished=False)
    return found if found is not None and (found / "config.yaml").exists() else None
