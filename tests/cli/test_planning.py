"""Every mistake in a command is answered before anything is built, with what to type instead."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from omegaconf import OmegaConf

from kdrun.cli import composer, grammar, planning
from kdrun.cli.command_spec import CommandSpec
from kdrun.cli.composer import Composer
from kdrun.cli.main import run
from kdrun.cli.parser import parse_composed
from kdrun.config import composition
from kdrun.config.composition import hydra_ready
from kdrun.runs.sweeps import SweepFolder

Typed = Callable[..., str]

NAMES = [
    ("stduent=cnn_tiny", "Did you mean student=cnn_tiny?"),
    ("experimnt=x", "Did you mean experiment=x?"),
    ("student=cnn_tinny", "Did you mean 'cnn_tiny'?"),
    ("student=Cnn_Tiny", "names are case-sensitive, type 'cnn_tiny'"),
    ("student=cnn_tiny.yaml", "Did you mean 'cnn_tiny'?"),
    ("student=", "student= has no value"),
    ("student=null", "distill needs a student"),
    ("student=[cnn_tiny,cnn_large]", "-m student=cnn_tiny,cnn_large"),
    ("student=3", "There is no student '3'"),
    ("student@x=cnn_tiny", "type student=cnn_tiny"),
    ("student/x=3", "There is no group 'student/x'"),
    ("model=cnn_tiny", "type student=cnn_tiny or teacher=cnn_tiny"),
    ("teacher.schedule=cosine", "type schedule@teacher.schedule=cosine"),
    ("schedule@foo=short", "type schedule@teacher.schedule=short or schedule=short"),
    ("schedule@teacher.schedule=nope", "There is no schedule 'nope'"),
    ("experiment=qqqq", "There is no experiment 'qqqq'"),
    ("experiment=hinton2015/mnst", "Did you mean 'hinton2015/mnist'?"),
    ("experiment=mnist_without3", "Did you mean 'hinton2015/mnist_without_3'?"),
    ("experiment=mnist", "Did you mean 'hinton2015/mnist'?"),
    ("+experiment=x", "type experiment=x, without '+'"),
    ("+student=cnn_tiny", "type student=cnn_tiny, without '+'"),
    ("loss=[]", "The objective is empty: choose a loss, e.g. loss=kd"),
    ("loss=null", "distill needs a loss"),
    ("loss=[kd,dkdd]", "There is no loss 'dkdd'. Did you mean"),
    ("loss=tf_kd", "it is a scheme, type scheme=tf_kd"),
    ("scheme=dkd", "it is a loss, type loss=dkd"),
    ("loss=[[kd]]", "loss takes names"),
    ("~loss.kd", "The objective is empty"),
    ("~loss.sp", "loss.sp is not set"),
    ("~loss", "distill cannot do without loss"),
    ("~T", "distill cannot do without T"),
    ("loss.kd.temprature=2", "Did you mean loss.kd.temperature (=4.0)?"),
    ("loss.sp.weight=2", "'loss=[kd,sp]'"),
    ("+loss.sp.weight=2", "'loss=[kd,sp]'"),
    ("loss.kdd.weight=2", "Did you mean loss.kd?"),
    ("loss.kd=3", "set one of loss.kd.weight"),
    ("loss.kd=null", "type ~loss.kd"),
    ("dataset.augment=3", "set one of dataset.augment.crop_padding"),
    ("T.x=3", "T is a single value"),
    ("temperature=2", "Did you mean T=2?"),
    ("learning_rate=0.1", "Did you mean lr=0.1?"),
    ("momentum=0.5", "schedule.momentum (=0.9)"),
    ("qqq=1", "distill has: T, alpha"),
    ("+qqq=1", "nothing would read it"),
    ("++epohcs=1", "Did you mean epochs?"),
    ("student.depth=20", "+student.depth=20"),
    ("student.width=[2]", "Did you mean student.widths (=[4, 8])?"),
    ("schedule.moment=1", "Did you mean schedule.momentum"),
    ("hydra.foo=1", "Could not override 'hydra.foo'"),
    ("hydra/launcher=joblib", "is for sweeps"),
    ("sweep.fail_fast=true", "is for sweeps"),
    ("sweep=temperatur", "Did you mean 'temperature'?"),
    ("hydra/launcher=joblibb", "Did you mean 'joblib'?"),
    ("hydra/sweeper=other", "-m T=1,4,20"),
    ("hydra.searchpath=[file://x]", "--config-dir DIR"),
]
VALUES = [
    ("T=0", "T=0 must be above 0"),
    ("T=abc", "T='abc' is not a number"),
    ("T={a:1}", "is not a number"),
    ("alpha=1.5", "alpha=1.5 must lie between 0 and 1"),
    ("epochs=ten", "epochs='ten' is not a whole number"),
    ("epochs=1e3", "epochs=1000.0 is not a whole number"),
    ("epochs=[1,2]", "is not a whole number"),
    ("epochs=", "epochs='' is not a whole number"),
    ("seed=1 2", "seed='1 2' is not a whole number"),
    ("batch_size=0", "batch_size=0 must be at least 1"),
    ("precision=fp8", "fp32, tf32, bf16, fp16"),
    ("schedule.curve=cosin", "Did you mean 'cosine'?"),
    ("teacher.checkpoint=nope.pt", "kdrun train-teacher teacher=cnn_large dataset=digits"),
]
WRITTEN = [
    (["T=1,2"], "'T=1,2' names 2 values. To run once for each, add -m."),
    (["loss=kd,sp"], "type 'loss=[kd,sp]'"),
    (["student.widths=8,16"], "type 'student.widths=[8,16]'"),
    (["dataset.name=a,b"], "\"dataset.name='a,b'\""),
    (["student=cnn_tiny,cnn_large"], "add -m."),
    (["student", "=", "cnn_tiny"], "type student=cnn_tiny"),
    (["student", "=cnn_tiny"], "type student=cnn_tiny"),
    (["student=", "cnn_tiny"], "'cnn_tiny' has no value"),
    (["student", "cnn_tiny"], "e.g. student=cnn_tiny"),
    (["=3"], "no spaces around '='"),
    (["loss=[kd"], "'loss=[kd]'"),
    (["loss=[kd,", "sp]"], "type it in quotes, 'loss=[kd, sp]'"),
    (["dataset.name=a=b"], "before 'b'. If the value is meant as a text, quote it"),
    (["T=1,"], "Leave out the comma at its end: T=1."),
    (["dataset.name='abc"], "The closing quote is missing"),
    (["alpha=0.3", "loss.kd.weight=2"], "two names of one thing"),
    (["T=3", "loss.kd.temperature=2"], "two names of one thing"),
    (["epochs=3", "schedule.epochs=2"], "two names of one thing"),
    (["lr=3", "schedule.lr=2"], "two names of one thing"),
    (["--seed", "3"], "settings are typed without dashes, e.g. seed=3"),
    (["--mutirun"], "Did you mean '--multirun'?"),
    (["--config-name", "x"], "--config-dir DIR"),
    (["--config-dir", "nowhere"], "there is no such folder"),
    (["--cfg", "jobs"], "--cfg jobs is not one of job, hydra, all. Did you mean 'job'?"),
    (["--cfg", "job", "stduent=x"], "Did you mean student=x?"),
    (["--shell-completion", "install=bash"], "kdrun completion bash"),
]
SWEPT = [
    (["T=1,0", "seed=0,1"], "T=0 must be above 0"),
    (["seed=0,1", "alpha=0.1,1.5"], "alpha=1.5 must lie"),
    (["student=cnn_tiny,cnn_tinny"], "Did you mean 'cnn_tiny'?"),
    (["loss=[kd],[kd,spp]"], "There is no loss 'spp'"),
    (["loss=[kd],[]"], "The objective is empty"),
    (["loss=kd,ce", "loss.kd.weight=1,2"], "'loss=[ce,kd]'"),
    (["student=glob(q*)"], "matches no option of student"),
    (["T=interval(1,2)"], "e.g. T=1,2,4"),
    (["T=range(5,1)"], "T=range(5,1) has no values"),
    (["seed=0,1", "T=range(1,5,-1)"], "T=range(1,5,-1) has no values"),
    (["loss.kd.temprature=1,2"], "loss.kd.temperature"),
    (["epochs=1,ten"], "epochs='ten'"),
    (["T=1,2", "hydra/launcher=joblibb"], "There is no hydra/launcher 'joblibb'. Did you mean"),
    (["T=1,2", "sweep.job_minutes=0"], "sweep.job_minutes=0 must be above 0"),
    (["experiment=smoke,hinton2015/mnist_temperature_wide", "seed=0"], "defines a sweep over T"),
    (["T=1,2", "sweep.fail_last=true"], "Did you mean sweep.fail_fast (=false)?"),
]
OTHERS = [
    (["train-teacher", "student=cnn_tiny"], "does not use the group 'student'"),
    (["train-teacher", "T=3"], "'T' is a setting of distill, not of train-teacher"),
    (["train-teacher", "seed=3", "teacher.seed=2"], "two names of one thing"),
    (["train-teacher", "lr=1", "teacher.schedule.lr=2"], "two names of one thing"),
    (["train-teacher", "epochs=0"], "epochs=0 must be at least 1"),
    (["evaluate"], "run has no value: add run=..."),
    (["evaluate", "run=nowhere"], "kdrun ls runs"),
    (["evaluate", "run=.", "loss=kd"], "does not use the group 'loss'"),
    (["evaluate", "run=.", "dataset=nope"], "There is no dataset 'nope'"),
    (["evaluate", "run=.", "batch_size=0"], "batch_size=0 must be at least 1"),
]


@pytest.mark.parametrize(("word", "said"), [*NAMES, *VALUES])
def test_one_wrong_word(refused: Typed, word: str, said: str) -> None:
    assert said in refused("distill", word)


@pytest.mark.parametrize(("words", "said"), WRITTEN)
def test_wrongly_written(refused: Typed, words: list[str], said: str) -> None:
    assert said in refused("distill", *words)


@pytest.mark.parametrize(("words", "said"), SWEPT)
def test_wrong_value_in_a_sweep(refused: Typed, words: list[str], said: str) -> None:
    assert said in refused("distill", "-m", *words)


@pytest.mark.parametrize(
    ("swept", "named"),
    [
        ("augment.crop=resized,none", "(job 2 of 2: augment.crop=none)"),
        ("augment.crop=none,resized", "(job 1 of 2: augment.crop=none)"),
    ],
)
def test_a_mistake_in_one_job_names_it(refused: Typed, swept: str, named: str) -> None:
    assert named in refused("distill", "-m", "augment.scale=[0.3,1]", swept)


def test_a_mistake_in_every_job_names_none(refused: Typed) -> None:
    said = refused("distill", "-m", "augment.scale=[0.3,1]", "seed=1,2")
    assert "leave augment.scale out" in said
    assert "(job" not in said


@pytest.mark.parametrize(("words", "said"), OTHERS)
def test_other_verbs(refused: Typed, words: list[str], said: str) -> None:
    assert said in refused(*words)


@pytest.mark.parametrize("word", ["student.wdiths=[2]", "T.x=3", "stduent=x", "loss.sp.weight=2"])
def test_plus_is_advised_only_where_it_would_help(refused: Typed, word: str) -> None:
    assert "+" not in refused("distill", word)


def test_broken_file_of_the_user(refused: Typed, my_configs: Path) -> None:
    (my_configs / "student" / "bad.yaml").write_text("name: x\nwidths: [1, 2\nb: 3\n")
    said = refused("distill", "student=bad", "--config-dir", str(my_configs))
    assert "student/bad.yaml, line 3" in said


def test_wrong_default_in_a_file_of_the_user(refused: Typed, my_configs: Path) -> None:
    path = my_configs / "experiment" / "second.yaml"
    path.write_text("# @package _global_\ndefaults:\n  - override /student: cnn_tinny\n")
    said = refused("distill", "experiment=second", "--config-dir", str(my_configs))
    assert "Did you mean 'cnn_tiny'?" in said


def test_stray_key_in_a_file_of_the_user(refused: Typed, my_configs: Path) -> None:
    path = my_configs / "experiment" / "second.yaml"
    path.write_text("# @package _global_\nepohcs: 3\n")
    said = refused("distill", "experiment=second", "--config-dir", str(my_configs))
    assert "'epohcs': nothing would read it. Did you mean epochs?" in said


def test_own_variable_in_a_file_is_allowed(stages: Any, my_configs: Path) -> None:
    path = my_configs / "experiment" / "second.yaml"
    path.write_text("# @package _global_\nlength: 3\nepochs: ${length}\n")
    assert run(["distill", "experiment=second", f"--config-dir={my_configs}", "length=4"]) == 0
    assert stages.calls[0][1].schedule.epochs == 4


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["T=4", "alpha=0.3", "seed=5"],
        ["loss=[kd,sp]", "loss.sp.weight=10", "~loss.kd"],
        ["student=cnn_large", "student.widths=[3,4]", "+student.extra=1"],
        ["schedule@teacher.schedule=cosine", "teacher.schedule.lr=0.3", "epochs=7"],
        ["dataset.augment={flip:true}", "teacher.augment={crop_padding:2}"],
        ["schedule.milestones=[1,2]", "dataset.name='a b'", "output_root=x/y"],
    ],
)
def test_composes_what_hydra_composes(words: list[str]) -> None:
    composition.register()
    with hydra_ready():
        expected = compose("distill", words)
        composer = Composer(CommandSpec.of("distill"))
        found = composer.compose(grammar.parse(words))
    plain = OmegaConf.to_container(found)
    assert isinstance(plain, dict)
    plain.pop("hydra")
    assert plain == OmegaConf.to_container(expected)


def test_jobs_come_in_hydras_order_with_their_configurations(stages: Any) -> None:
    words = ["-m", "T=1,2", "loss=[kd],[kd,sp]", "seed=range(0,2)", "student=glob(cnn_t*)"]
    assert run(["distill", *words]) == 0
    ((folder, configs, _),) = stages.announced
    argvs = [job["command"] for job in SweepFolder(folder).read()["jobs"]]
    assert [call[1] for call in stages.calls] == configs
    assert [call[2] for call in stages.calls] == argvs
    assert [(c.T, list(c.loss), c.seed) for c in configs[:3]] == [
        (1.0, ["kd"], 0),
        (1.0, ["kd"], 1),
        (1.0, ["kd", "sp"], 0),
    ]
    assert len(configs) == 8


def test_sweep_named_in_an_experiment(stages: Any, my_configs: Path) -> None:
    path = my_configs / "experiment" / "grid.yaml"
    path.write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      T: 1,4\n"
    )
    assert run(["distill", "experiment=grid", "--config-dir", str(my_configs)]) == 0
    assert [call[1].T for call in stages.calls] == [1.0, 4.0]
    assert len(stages.announced[0][1]) == 2
    first = stages.calls[0][2]
    assert first[-1] == "hydra.mode=RUN"
    assert run(first) == 0
    assert [call[1].T for call in stages.calls] == [1.0, 4.0, 1.0]
    assert stages.calls[2][1:3] == (stages.calls[0][1], first)
    assert len(stages.announced) == 1


def test_values_are_set_where_a_sweep_has_chosen_what_has_them(stages: Any) -> None:
    experiments = ["hinton2015/mnist", "hinton2015/mnist_without_3"]
    words = [f"experiment={','.join(experiments)}", "dataset.root=x", "teacher.seed=3", "T=null"]
    assert run(["distill", "-m", *words, "+student.extra=[1,2]", "epochs=3"]) == 0
    configs = [call[1] for call in stages.calls]
    assert [config.dataset.kwargs["root"] for config in configs] == ["x", "x"]
    assert [config.transfer.by_class for config in configs] == [False, True]
    assert [stage[2][1] for stage in stages.calls] == [f"experiment={one}" for one in experiments]
    assert stages.announced[0][1] == configs


@pytest.mark.heavy
def test_a_named_sweep_of_experiments_takes_settings_of_their_data(stages: Any) -> None:
    assert run(["distill", "sweep=deit/short", "seed=1", "dataset.root=x"]) == 0
    configs = stages.announced[0][1]
    assert len(configs) == 12
    assert {config.dataset.kwargs["root"] for config in configs} == {"x"}
    assert {config.seed for config in configs} == {1}


def test_each_experiment_of_a_sweep_is_composed_once(
    stages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[list[str]] = []

    def compose(name: str, overrides: list[str], **options: Any) -> Any:
        composed.append(overrides)
        return hydra_compose(name, overrides, **options)

    hydra_compose = composer.compose
    monkeypatch.setattr(composer, "compose", compose)
    experiments = "smoke,sp2019/short_depth,sp2019/short_width"
    assert run(["distill", "-m", f"experiment={experiments}", "seed=0,1", "sweep=seeds"]) == 0
    assert len(stages.announced[0][1]) == 6
    in_jobs = [words for words in composed if any("experiment=" in word for word in words)]
    assert len(in_jobs) == 3 + 1  # and with the sweep's own settings


def test_a_job_keeps_what_its_named_sweep_sets(
    tmp_path: Path, stages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its recorded command would train something else, here for another time."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/sweep").mkdir(parents=True)
    for name, more in (("plain", ""), ("longer", "epochs: 3\n")):
        (tmp_path / f"mine/sweep/{name}.yaml").write_text(
            "# @package _global_\n"
            "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      T: 1,4\n" + more
        )
    found = {}
    for name in ("plain", "longer"):
        flags = parse_composed("distill", ["--config-dir", "mine", f"sweep={name}"])
        plan = planning.check("distill", flags)
        assert len(plan.configs) == 2
        for config, argv in zip(plan.configs, plan.argvs, strict=True):
            again = planning.check("distill", parse_composed("distill", argv[1:]))
            assert again.configs == [config]
        found[name] = plan.argvs[1][3:], plan.configs[1].schedule.epochs
    assert found["plain"] == (["T=4"], 60)
    assert found["longer"] == (["T=4", "sweep=longer", "hydra.mode=RUN"], 3)


def test_another_scheme_replaces_an_experiments_settings_of_its_own() -> None:
    """Else `scheme=offline` would still train the generations of the experiment."""

    def config(*words: str) -> Any:
        return planning.check("distill", parse_composed("distill", [*words])).configs[0]

    experiment = "experiment=deit/cnn_hard_two_cycles"
    assert config(experiment).scheme.rounds.generations == 2
    assert config(experiment, "scheme=born_again").scheme.rounds.keep_first
    one = config(experiment, "scheme=offline")
    assert (one.scheme.name, one.scheme.rounds) == ("offline", None)
    assert config("scheme=born_again").scheme.rounds.generations == 3


def test_mistake_in_a_large_sweep_is_found_early() -> None:
    values = ",".join(str(1 + i) for i in range(25))
    flags = parse_composed("distill", ["-m", f"T={values}", f"seed={values}", "batch_size=8,16,0"])
    composition.register()
    start = time.process_time()
    with pytest.raises(planning.ConfigError, match="batch_size=0"):
        planning.check("distill", flags)
    assert time.process_time() - start < 3


def test_an_experiment_of_another_verb_says_so(refused: Callable[..., str]) -> None:
    text = refused("train-teacher", "experiment=smoke")
    assert "experiment/smoke sets loss" in text
    assert "kdrun distill" in text


@pytest.mark.parametrize("order", [1, -1])
def test_the_kind_of_ce_is_typed_beside_its_weight(order: int) -> None:
    words = ["ce=0.5", "ce.kind=bce", "ce.sum=true"][::order]
    config = planning.check("distill", parse_composed("distill", words)).configs[0]
    assert (config.ce, config.schedule.ce_kind, config.schedule.ce_sum) == (0.5, "bce", True)
    assert config.teachers[0].schedule.ce_kind == "ce"
    swept = parse_composed("distill", ["-m", "ce.kind=ce,bce"])
    kinds = [one.schedule.ce_kind for one in planning.check("distill", swept).configs]
    assert kinds == ["ce", "bce"]
    flags = parse_composed("train-teacher", ["ce.kind=bce"])
    plan = planning.check("train-teacher", flags)
    assert plan.configs[0].teachers[0].schedule.ce_kind == "bce"


@pytest.mark.parametrize(
    "word", ["gpu=0", "cuda=0", "cuda:0", "gpu:0", "device=0", "device=cuda:0"]
)
def test_a_gpu_may_be_typed_in_several_ways(word: str) -> None:
    (config,) = planning.check("distill", parse_composed("distill", [word])).configs
    assert config.runtime.device == "cuda:0"


def test_jobs_may_be_spread_over_gpus() -> None:
    flags = parse_composed("distill", ["-m", "gpu=0,1"])
    plan = planning.check("distill", flags)
    assert [config.runtime.device for config in plan.configs] == ["cuda:0", "cuda:1"]
