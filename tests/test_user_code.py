"""Errors of a user's own file are reported as theirs; kdrun's own stay kdrun's."""

import sys
from pathlib import Path

import pytest

from kdrun.cli.main import run
from kdrun.config import build, trust
from kdrun.errors import ConfigError, KdrunError, known_error
from kdrun.models.build import check_network
from kdrun.types import InputInfo
from kdrun.user_code import KDRUN, LIBRARY, USER, UserCodeError, owner

TEXT = """
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, fault="none"):
        super().__init__()
        self.fault = fault
        if fault == "key":
            self.width = {}["width"]
        if fault == "value":
            int("x")

    def forward(self, images):
        return helper(images, self.fault)

def helper(images, fault):
    if fault == "attribute":
        return images.nothing
    return F.linear(images, images[0, 0, :, 1:])
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of the user's own, importable from the current folder."""
    monkeypatch.chdir(tmp_path)
    name = "nets_with_faults"
    (tmp_path / f"{name}.py").write_text(TEXT)
    trust.name([f"{name}.Net", "broken_syntax.x", "needs_more.x"])
    yield name
    for loaded in (name, "broken_syntax", "needs_more"):
        sys.modules.pop(loaded, None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


def caught(path: str, **kwargs: str) -> KdrunError:
    """What the command line makes of an error in calling the target."""
    try:
        build.call(path, kwargs, "student")
    except Exception as error:
        found = error if isinstance(error, KdrunError) else known_error(error)
        assert found is not None
        return found
    raise AssertionError("nothing was raised")


def test_a_constructor_is_named_with_line_and_message(module: str) -> None:
    error = caught(f"{module}.Net", fault="key")
    assert isinstance(error, UserCodeError)
    assert error.exit_code == 2
    first, place, line = str(error).splitlines()
    assert first == f"Your code raised KeyError: 'width' ({module}.py, line 10, in __init__)"
    assert place.endswith(f'{module}.py", line 10, in __init__')
    assert line.strip() == 'self.width = {}["width"]'


def test_a_value_that_a_constructor_refuses_keeps_its_place(module: str) -> None:
    error = caught(f"{module}.Net", fault="value")
    assert isinstance(error, ConfigError)
    assert f"({module}.py, line 12, in __init__)" in str(error)


def test_a_forward_shows_the_user_s_frames_alone(module: str) -> None:
    network = build.call(f"{module}.Net", {"fault": "attribute"}, "student")
    with pytest.raises(ConfigError) as caught:
        check_network(network, "net", InputInfo(4, 3, (8, 8)), "student")
    text = str(caught.value)
    assert "'Tensor' object has no attribute 'nothing'" in text
    assert text.count('File "') == 2  # forward and helper, no frame of torch or kdrun
    assert f"({module}.py, line 19, in helper)" in text


def test_an_error_inside_a_library_is_placed_where_the_user_called_it(module: str) -> None:
    network = build.call(f"{module}.Net", {}, "student")
    with pytest.raises(ConfigError, match=rf"{module}.py, line 20, in helper"):
        check_network(network, "net", InputInfo(4, 3, (8, 8)), "student")


def test_syntax_errors_and_missing_modules_of_a_user_s_file(module: str) -> None:
    Path("broken_syntax.py").write_text("x = 1\ndef y(:\n")
    Path("needs_more.py").write_text("import not_installed_anywhere\n")
    error = caught("broken_syntax.x")
    assert isinstance(error, UserCodeError)
    assert "SyntaxError: invalid syntax (broken_syntax.py, line 2)" in str(error)
    error = caught("needs_more.x")
    assert "needs_more.py, line 1" in str(error)
    assert str(error).endswith("pip install not_installed_anywhere")


def test_errors_of_kdrun_stay_kdruns(module: str) -> None:
    with pytest.raises(AttributeError) as inside:
        owner(None)  # type: ignore[arg-type]
    assert known_error(inside.value) is None
    with pytest.raises(KeyError) as before:
        raise KeyError("raised here, by what called kdrun")
    assert known_error(before.value) is None


def test_whose_file_it_is() -> None:
    import torch

    assert owner(__file__) == USER
    assert owner(torch.__file__) == LIBRARY
    assert owner(sys.modules["pathlib"].__file__ or "") == LIBRARY
    assert owner("<string>") == LIBRARY
    assert owner(sys.modules["kdrun.errors"].__file__ or "") == KDRUN


def test_a_data_set_function_of_the_user_s_own(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my_arrays.py").write_text("def load():\n    return [][1]\n")
    code = run(["distill", "dataset=custom", "dataset._target_=my_arrays.load", "ui=quiet"])
    text = capsys.readouterr().err
    assert code == 2, text
    assert text.startswith("error: Your code raised IndexError: list index out of range")
    assert "Traceback" not in text
    assert "bug in kdrun" not in text
