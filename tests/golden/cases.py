"""Commands of the golden runs: each scheme, cache, sweep, launcher and kind of transfer set."""

from dataclasses import dataclass, replace

FAST = ["epochs=2", "threads=1", "ui=quiet"]
# The teacher of most cases; trained by the first one, found by the others.
TEACHER = ["teacher.schedule.epochs=2"]
BASE = [*FAST, *TEACHER]
# Measured constants may differ in their last bits from machine to machine, and are part of a
# teacher's fingerprint.
PORTABLE = ["device=cpu", "dataset.mean=[0.3]", "dataset.std=[0.4]"]
STEPS = {"epochs=2": "schedule.steps=4", TEACHER[0]: "teacher.schedule.steps=4"}


@dataclass(frozen=True)
class Case:
    """One command. `{run:NAME}` in it stands for the run folder that the case NAME made.

    interrupt: send SIGINT once the first epoch of the student is on disk.
    ci: part of the short list that the ordinary tests run.
    """

    name: str
    argv: list[str]
    interrupt: bool = False
    ci: bool = False


def shortened(case: Case) -> Case:
    """The case with four steps for each training, so that all machines agree on the rest."""
    if case.argv[0] == "evaluate":
        return case
    steps = STEPS | ({"epochs=2": STEPS[TEACHER[0]]} if case.argv[0] == "train-teacher" else {})
    return replace(case, argv=[*(steps.get(word, word) for word in case.argv), *PORTABLE])


def _distill(name: str, *words: str, ci: bool = False) -> Case:
    return Case(name, ["distill", *BASE, *words], ci=ci)


def _self(name: str, *words: str, ci: bool = False) -> Case:
    """A scheme without teachers."""
    return Case(name, ["distill", *FAST, *words], ci=ci)


CASES = [
    Case("train_teacher", ["train-teacher", *FAST], ci=True),
    _distill("kd", ci=True),
    _distill("objective", "T=2", "alpha=0.5", ci=True),
    _distill("kd_sp", "loss=[kd,sp]", "loss.sp.weight=1000", ci=True),
    _distill("crd", "loss=crd"),
    _distill("fitnet", "loss=fitnet", "loss.fitnet.pretrain_epochs=1"),
    _distill("no_cache", "teacher.cache=off", "student.widths=[3]"),
    _distill("cache_logits", "teacher.cache=logits", "loss=dkd"),
    _distill("cache_embedding", "teacher.cache=embedding", "loss=srrl"),
    _distill("ensemble", "teacher.count=3", "teacher.average=soft_targets", "alone=false", ci=True),
    _distill("two_teachers", "teacher=[cnn_large,mlp30]", "loss=[kd,sp]", "alone=false"),
    _self("online", "scheme=online", "scheme.peers=[cnn_large]", ci=True),
    _self("one", "scheme=one", "student=resnet8", "alone=false"),
    _self("byot", "scheme=byot", "student=resnet8", "alone=false"),
    _self("tf_kd", "scheme=tf_kd"),
    _self("self_training", "scheme=tf_kd", "scheme.variant=self_training"),
    _self("cs_kd", "scheme=cs_kd"),
    _distill("born_again", "scheme=born_again", "scheme.generations=2", ci=True),
    _distill("chain", "scheme=chain", "scheme.assistants=[mlp30]"),
    _distill(
        "deit",
        "student=deit_micro",
        "student.distillation_tokens=1",
        "loss=deit_hard",
        "schedule=adamw",
        "schedule.warmup_epochs=0",
        "epochs=1",
    ),
    _distill("left_out", "transfer.exclude_classes=[3]", "transfer.bias=match", ci=True),
    _distill("unlabelled", "transfer.labels=false", "alpha=1"),
    _distill("fraction", "transfer.fraction=0.3", "schedule.early_stopping=1"),
    _distill("adam_step", "schedule=adam", "schedule.curve=step", "schedule.milestones=[1]"),
    _distill("dot", "schedule.optimizer=dot", "alone=false"),
    Case("sweep", ["distill", "-m", *BASE, "T=1,4", "seed=0,1"], ci=True),
    Case("sweep_again", ["distill", "-m", *BASE, "T=1,4", "seed=0,1"], ci=True),
    Case("lockstep", ["distill", "-m", *BASE, "gang=true", "T=3,5", "seed=0,1"]),
    Case(
        "joblib",
        ["distill", "-m", *BASE, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "T=6,7"],
    ),
    Case("teacher_sweep", ["train-teacher", "-m", *FAST, "seed=1,2"]),
    Case("interrupted", ["distill", *BASE, "epochs=40", "T=8", "alone=false"], interrupt=True),
    Case("resumed", ["resume", "{run:interrupted}"]),
    Case("evaluate", ["evaluate", "run={run:kd}", "threads=1", "ui=quiet"], ci=True),
    Case(
        "from_run",
        ["distill", *FAST, "teacher.checkpoint={run:kd_sp}", "student.widths=[2]"],
        ci=True,
    ),
    Case("speech_refused", ["distill", *BASE, "dataset=speech_digits"]),
    Case("alpha_refused", ["distill", *BASE, "loss=sp", "alpha=0.5"], ci=True),
    Case("typo_refused", ["distill", *BASE, "losss=kd"], ci=True),
    Case("type_refused", ["distill", *BASE, "epochs=many"], ci=True),
]
