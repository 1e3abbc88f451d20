"""The baseline: the same student and recipe on labels only, without a teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from kdrun.config.augment import labels_only
from kdrun.config.schema import DistillConfig, EnsembleConfig, LossConfig
from kdrun.distillation.child_run import ChildRecipe
from kdrun.distillation.generations import OFFLINE
from kdrun.distillation.get_or_train import get_or_train
from kdrun.distillation.next_command import quoted
from kdrun.distillation.prepare import PreparedRun
from kdrun.distillation.token_heads import without_tokens, without_tokens_argv
from kdrun.runs.folder import RunFolder
from kdrun.runs.reading import read_run
from kdrun.ui import format

CE = LossConfig("ce", "kdrun.losses.ce.CrossEntropy", 1.0)
WITHOUT_LABELS = "skipped: the transfer set has no labels to train it on"


@dataclass(frozen=True)
class BaselineRecipe(ChildRecipe):
    """A baseline is identified by the fingerprint of its network and recipe."""

    KEY: ClassVar[str] = "fingerprint"
    MARKER: ClassVar[str] = "baseline"
    LOCK: ClassVar[str] = "alone"

    @property
    def name(self) -> str:
        return "the student alone"


def get_or_train_baseline(run: PreparedRun) -> dict[str, Any]:
    """The baseline's entry in the `result.json` of `run`; trains the baseline if needed."""
    reporter = run.session.reporter
    reporter.heading(f"Student alone: {run.config.student.name} on labels only")
    recipe = BaselineRecipe(
        baseline_config(run.config),
        run.digest,
        run.dataset,
        run.session,
        baseline_argv(run.argv, run.config),
    )
    folder = get_or_train(recipe, reporter).folder
    RunFolder(folder).tidy()
    student = read_run(folder).result.student
    assert student.test.top1 is not None
    reporter.say(f"  student alone: {format.percent(student.test.top1)} % ({folder})")
    entry = {
        "run": str(folder),
        **student.test_entries(),
        # a loss may replace the student, so that the baseline has another size
        "params": student.params,
        "flops": student.flops,
    }
    run.folder.result.update(alone=entry)
    return entry


def baseline_config(config: DistillConfig) -> DistillConfig:
    """The same student on the same transfer set, with labels only and its biases untouched.

    Distillation tokens are removed: no label trains them.
    """
    return replace(
        config,
        teachers=(),
        scheme=OFFLINE,
        ensemble=EnsembleConfig(),
        student=without_tokens(config.student),
        loss={"ce": CE},
        augment=labels_only(config.augment),
        T=None,
        alpha=None,
        ce=None,
        alone=False,
        transfer=replace(config.transfer, bias="none"),
    )


def baseline_argv(argv: Sequence[str], config: DistillConfig) -> list[str]:
    """The command that repeats the baseline of a run. argv, config: of that run.

    Overrides of settings that a baseline lacks are dropped; where such a setting comes from an
    experiment or a dictionary, an override resets it.
    """
    dropped = (
        *("loss", "scheme", "T=", "alpha=", "ce=", "alone=", "transfer.bias="),
        *("augment.teacher_view=", "augment.strong="),
    )
    args = [word for word in argv if not word.lstrip("+~").startswith(dropped)]
    args += without_tokens_argv(config.student)
    if config.scheme.name != OFFLINE.name:
        args.append(f"scheme={OFFLINE.name}")
    view = labels_only(config.augment).teacher_view
    if config.augment.teacher_view != view:
        args.append(f"augment.teacher_view={view}")
    if config.augment.strong is not None:
        args.append("augment.strong=null")
    if config.transfer.bias != "none":
        args.append("transfer.bias=none")
    if config.start is not None and not any(arg.startswith("student.checkpoint=") for arg in args):
        args.append(f"student.checkpoint={quoted(config.start.checkpoint)}")
    return [*args, "loss=ce", "T=null", "alpha=null", "ce=null", "alone=false"]
