"""What a configuration may call."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdrun.config import build, trust
from kdrun.errors import ConfigError

NEVER = (
    "os.system",
    "os.popen",
    "builtins.exec",
    "builtins.eval",
    "subprocess.run",
    "subprocess.Popen",
    "importlib.import_module",
    "pickle.load",
    "shutil.rmtree",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "torch.utils.cpp_extension.load",
    "torch.compile",
    "torch.nn.Linear",
    "torchvision.models.get_weight",
    "torchvision.models.resnet.resnet18",
    "torchvision.datasets.utils.download_and_extract_archive",
    "torchvision.io.read_image",
    "timm.create_model",
    "numpy.load",
    "kdrun.cli.main.run",
    "kdrun.cli.main.main",
    "kdrun.config.build.call",
    "kdrun.config.build.locate",
    "kdrun.files.write_atomically",
    "kdrun.models.external._download",
    "kdrun.models.external.os.system",
    "kdrun.data.torchvision_sets.download_once",
    "kdrun.deploy.student.load",
)


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    monkeypatch.setattr(trust, "_named", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[str]:
    """A module of the user's own."""
    (tmp_path / "nets_of_mine.py").write_text("def make(x=1):\n    return ['made', x]\n")
    yield "nets_of_mine.make"
    sys.modules.pop("nets_of_mine", None)


@pytest.mark.parametrize("target", NEVER)
@pytest.mark.parametrize("where", ["student", "dataset", "loss.kd", "scheme", "logger"])
def test_what_is_never_called(target: str, where: str) -> None:
    assert not trust.is_shipped(target)
    with pytest.raises(ConfigError, match="could be any code"):
        trust.require({"a": [{"_target_": target}]}, "x/config.yaml")
    with pytest.raises(ConfigError, match=r"could be any code.*--trust"):
        build.call(target, {}, where)


def test_what_kdrun_ships_is_called_for_its_own_purpose() -> None:
    trust.require({"student": {"_target_": "kdrun.models.cnn.ConvNet"}}, "x")
    assert trust.is_shipped("torchvision.models.resnet18")
    trust.check("torchvision.models.resnet18", "teacher2")
    trust.check("kdrun.losses.kd.SoftTargets", "loss.kd")
    with pytest.raises(ConfigError, match="cannot be used for student"):
        trust.check("kdrun.data.torchvision_sets.dtd", "student")


def test_targets_are_found_wherever_they_are() -> None:
    card = {"target": "a.B", "kwargs": {"student_target": "c.D", "x": [{"_target_": "e.F"}]}}
    assert list(trust.targets_in(card)) == ["a.B", "c.D", "e.F"]


def test_what_the_user_named_is_called_and_remembered(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="--trust nets_of_mine"):
        build.call(own, {"x": 2}, "student")
    trust.name([own])
    assert build.call(own, {"x": 2}, "student") == ["made", 2]
    monkeypatch.setattr(trust, "_named", set())  # a later command
    trust.require({"_target_": own}, "x")


def test_a_module_of_the_same_name_elsewhere_is_another_one(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust.name([own])
    monkeypatch.setattr(trust, "_named", set())
    elsewhere = tmp_path / "unpacked"
    elsewhere.mkdir()
    (elsewhere / "nets_of_mine.py").write_text("raise SystemExit\n")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    with pytest.raises(ConfigError, match="could be any code"):
        trust.require({"_target_": own}, "x")


@pytest.mark.parametrize("target", ["os.system", "torch.hub.load", "kdrun.cli.main.run"])
def test_functions_of_libraries_are_not_remembered(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust.name([target])
    assert trust.is_allowed(target)
    monkeypatch.setattr(trust, "_named", set())
    assert not trust.is_allowed(target)


def test_trusted_modules(own: str) -> None:
    with trust.trusting(["nets_of_mine"]):
        assert build.call(own, {}, "student") == ["made", 1]
        assert not trust.is_allowed("nets_of_mine_too.make")
        with trust.trusting(["os"]):
            assert trust.is_allowed("os.path.join")
            assert trust.is_allowed(own)
    assert not trust.is_allowed(own)


def test_the_words_of_others_name_nothing(own: str) -> None:
    with (
        trust.untrusted_source("sweep.json"),
        pytest.raises(ConfigError, match=r"sweep\.json calls"),
    ):
        trust.name([own])
    assert not trust.is_allowed(own)


def test_a_state_that_cannot_be_kept_is_no_error(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    trust.name([own])
    assert trust.is_allowed(own)


def test_an_installed_module_is_not_shadowed_by_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise SystemExit\n")
    build.locate("kdrun.models.cnn.ConvNet", "student")
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize("where", ["scheme.peers", "scheme.assistants", "student", "teacher2"])
def test_networks_are_made_wherever_a_setting_takes_one(where: str) -> None:
    trust.check("kdrun.models.cnn.ConvNet", where)
    with pytest.raises(ConfigError, match="cannot be used for"):
        trust.check("kdrun.schemes.online.online", where)
