"""A run or sweep from elsewhere reads no environment and does not choose where kdrun writes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from kdrun.cli import untrusted
from kdrun.config import composition, dump, parse, places, trust
from kdrun.config.schema import DistillConfig, LoggerConfig
from kdrun.data.torchvision_sets import download_once
from kdrun.errors import ConfigError, DataError
from kdrun.models.card import read_card
from kdrun.runs.config import read_config

composition.register()


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DistillConfig:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        return parse.distill_config(compose("distill", []))


@pytest.mark.parametrize(
    "node",
    [
        {"output_root": "${oc.env:HOME}"},
        {"student": {"name": "${oc.env:HOME}"}},
        {"student": {"${oc.env:HOME}": 1}},
        {"student": {"name": [{"deep": "x${y}"}]}},
        {"student": {" ": 1}},
        {"T": float("nan")},
        {"seed": 2**70},
    ],
)
def test_escapes_do_not_hide_an_interpolation(
    config: DistillConfig, tmp_path: Path, node: dict[str, object]
) -> None:
    plain = dump.distill_plain(config)
    for key, value in node.items():
        plain[key] = {**plain[key], **value} if isinstance(value, dict) else value
    text = json.dumps(plain).replace("$", r"\x24").replace("NaN", ".nan")  # JSON is YAML
    (tmp_path / "config.yaml").write_text(text)
    assert "${" not in text
    with pytest.raises(ConfigError, match=r"config\.yaml: "):
        read_config(tmp_path, parse.distill_config)


def test_a_card_holds_plain_values(tmp_path: Path) -> None:
    import torch

    from kdrun.models.card import NetworkCard, save_network
    from kdrun.types import InputInfo, Normalisation

    info = InputInfo(2, 1, (8, 8))
    constants = Normalisation((0.5,), (0.5,))
    target = "kdrun.models.cnn.ConvNet"
    card = NetworkCard("n", target, {"widths": [2]}, {}, ("a", "b"), info, constants, 1, 1, "")
    with pytest.raises(ConfigError, match="not a plain value"):
        save_network(tmp_path, "student", torch.nn.Linear(1, 1),
                     replace(card, kwargs={"x": "${oc.env:HOME}"}))  # fmt: skip
    path = tmp_path / "student.json"
    path.write_text(path.read_text().replace("${", r"\u0024{"))
    with pytest.raises(ConfigError, match="not a plain value"):
        read_card(path)


@pytest.mark.parametrize(
    "word",
    [
        "+student@hydra.callbacks.x=custom",
        "++student@_global_.hydra.callbacks.x=custom",
        "student@_global_=custom",
        "hydra/launcher=submitit_local",
        "+hydra/callbacks@hydra.callbacks=x",
        "~hydra.sweeper",
        "~hydra/launcher",
        "hydra.sweep.dir=/tmp",
        "+hydra.callbacks.x={_target_: os.system}",
        "hydra.launcher.n_jobs=${oc.env:N}",
        "T=${oc.env:N}",
        "student.name='${oc.env:HOME}'",
        "'T=choice(${oc.env:N},2)'",
    ],
)
def test_a_foreign_sweep_reaches_no_node_of_hydra(config: DistillConfig, word: str) -> None:
    with (
        pytest.raises(ConfigError, match="not started by you"),
        untrusted.command(
            "distill", [word.strip("'") if word.startswith("'") else word], "theirs/sweep.json"
        ),
    ):
        raise AssertionError("its words were accepted")


def test_what_is_harmless_goes_on(config: DistillConfig) -> None:
    words = ["T=1,4", "schedule@teacher.schedule=adam", "hydra/launcher=joblib",
             "hydra.launcher.n_jobs=2", "teacher=[cnn_tiny,cnn_large]", "~loss.kd"]  # fmt: skip
    with untrusted.command("distill", words, "theirs/sweep.json"):
        pass


@pytest.mark.parametrize("key", ["output_root", "logger", "dataset"])
def test_a_foreign_sweep_chooses_no_place(config: DistillConfig, tmp_path: Path, key: str) -> None:
    theirs = _theirs(config, tmp_path)
    theirs = (
        replace(config, **{key: getattr(theirs, key)})
        if key != "output_root"
        else replace(config, runtime=theirs.runtime)
    )
    with (
        trust.untrusted_source("theirs/sweep.json"),
        pytest.raises(ConfigError, match="where kdrun writes"),
    ):
        places.record(theirs)
    places.record(theirs)  # typed once, it is the user's own
    with trust.untrusted_source("theirs/sweep.json"):
        places.record(theirs)


def test_a_resumed_run_writes_where_it_lies(config: DistillConfig, tmp_path: Path) -> None:
    theirs = _theirs(config, tmp_path)
    folder = tmp_path / "mine" / "distill" / "digits" / "a-b-kd" / "stamp"
    folder.mkdir(parents=True)
    found, notes = places.resumed(theirs, folder, "distill")
    assert Path(found.runtime.output_root) == tmp_path / "mine"
    assert found.logger.target is None
    assert len(notes) == 2
    moved, _ = places.resumed(theirs, tmp_path / "copied", "distill")
    assert moved.runtime.output_root == "outputs"
    with pytest.raises(DataError, match="settings come from elsewhere"):
        download_once("MNIST", tmp_path / "chosen", "files", {})
    assert not (tmp_path / "chosen").exists()
    own = replace(config, runtime=replace(config.runtime, output_root="mine"))
    assert places.resumed(own, folder, "distill") == (own, [])


def _theirs(config: DistillConfig, tmp_path: Path) -> DistillConfig:
    kwargs = {"root": str(tmp_path / "chosen")}
    return replace(
        config,
        runtime=replace(config.runtime, output_root=str(tmp_path / "home")),
        logger=LoggerConfig("mlflow", "kdrun.report.mlflow.MlflowLogger", {"tracking_uri": "x"}),
        dataset=replace(config.dataset, target="kdrun.data.idx.mnist", kwargs=kwargs),
    )
