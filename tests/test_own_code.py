"""An edited network or loss of the user is another one: `kdrun.own_code` and what relies on it."""

import textwrap
from pathlib import Path

import pytest

from kdrun.own_code import code_digests, code_entry, edited

NETS = '''
"""My networks."""
import torch
from torch import nn

WIDTH = 16
UNUSED = 3


def pool(x):
    """The largest value."""
    return x.amax((2, 3))  # over the image


class Other(nn.Module):
    pass


class Mine(nn.Module):
    def __init__(self, num_classes, in_channels=1):
        super().__init__()
        self.body = nn.Conv2d(in_channels, WIDTH, 3)
        self.head = nn.Linear(WIDTH, num_classes)
        self.eval()

    def forward(self, x):
        return self.head(pool(torch.relu(self.body(x))))

    @classmethod
    def small(cls, num_classes):
        return cls(num_classes)


if __name__ == "__main__":
    print(Mine(10))
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def digest(target: str = "nets_of_mine.Mine") -> str:
    return code_digests({"_target_": target})[target]


def write(folder: Path, text: str, name: str = "nets_of_mine.py") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(textwrap.dedent(text))
    assert path.stat().st_mtime_ns != before


EDITS = [
    ("amax", "mean"),  # in a function that it calls
    ("WIDTH = 16", "WIDTH = 8"),  # a constant that it reads
    ("torch.relu(", "torch.tanh("),
    ("nn.Linear(WIDTH, num_classes)", "nn.Linear(WIDTH, num_classes, False)"),
    ("return cls(num_classes)", "return cls(num_classes, 3)"),
    ("UNUSED = 3", "UNUSED = 3\nMine.forward = lambda self, x: x"),  # changed from outside
    ("UNUSED = 3", "UNUSED = 3\ntorch.manual_seed(0)"),  # an effect of the import
]
NO_EDITS = [
    ("# over the image", "# of all pixels"),
    ('"""The largest value."""', '"""The maximum."""'),
    ("x.amax((2, 3))", "x.amax( (2,3) )"),
    ("UNUSED = 3", "UNUSED = 4"),
    ("class Other(nn.Module):\n    pass", "class Other(nn.Linear):\n    pass"),
    ("print(Mine(10))", "print(Mine(100))"),
    ("import torch\n", "import os\nimport torch\n"),
]


@pytest.mark.parametrize(("old", "new"), EDITS)
def test_what_a_network_computes_counts(folder: Path, old: str, new: str) -> None:
    write(folder, NETS)
    before = digest()
    write(folder, NETS.replace(old, new))
    assert digest() != before
    assert edited({"nets_of_mine.Mine": before}) == ["nets_of_mine.Mine"]


@pytest.mark.parametrize(("old", "new"), NO_EDITS)
def test_comments_and_unrelated_code_do_not_count(folder: Path, old: str, new: str) -> None:
    assert old in NETS
    write(folder, NETS)
    before = digest()
    write(folder, NETS.replace(old, new))
    assert digest() == before
    assert edited({"nets_of_mine.Mine": before}) == []


def test_names_of_star_imports_that_are_not_used_do_not_count(folder: Path) -> None:
    write(folder, "SIZE = 3\n\ndef far():\n    return 1\n", "mine_sizes.py")
    write(folder, "from mine_sizes import *\n", "mine_more.py")
    write(folder, "from mine_more import *\n\ndef net(n):\n    return range(SIZE)\n")
    before = digest("nets_of_mine.net")
    write(folder, "SIZE = 3\n\ndef far():\n    return 22\n", "mine_sizes.py")
    assert digest("nets_of_mine.net") == before
    write(folder, "SIZE = 44\n\ndef far():\n    return 22\n", "mine_sizes.py")
    assert digest("nets_of_mine.net") != before


IMPORTS = [
    ("from mine_blocks.conv import Block", "Block()"),
    ("from mine_blocks import conv", "conv.Block()"),
    ("import mine_blocks.conv", "mine_blocks.conv.Block()"),
    ("import mine_blocks.conv as c", "c.Block()"),
    ("from mine_blocks.conv import *", "Block()"),
    ("from mine_blocks import Block", "Block()"),
    ("try:\n    from mine_blocks import Block\nexcept ImportError:\n    Block = None", "Block()"),
]


@pytest.mark.parametrize(("line", "use"), IMPORTS)
def test_own_modules_that_it_imports_count(folder: Path, line: str, use: str) -> None:
    block = "class Block:\n    size = 3\n\nclass Far:\n    size = 5\n"
    write(folder, block, "mine_blocks/conv.py")
    write(folder, "from .conv import Block, Far\n", "mine_blocks/__init__.py")
    write(folder, f"{line}\n\ndef net(num_classes):\n    return {use}\n")
    before = digest("nets_of_mine.net")
    write(folder, block.replace("3", "4"), "mine_blocks/conv.py")
    after = digest("nets_of_mine.net")
    assert after != before
    if "from mine_blocks.conv" in line or line == "from mine_blocks import Block":
        write(folder, block.replace("3", "4").replace("5", "6"), "mine_blocks/conv.py")
        assert digest("nets_of_mine.net") == after


def test_an_import_within_a_function_counts(folder: Path) -> None:
    write(folder, "SIZE = 3\n", "mine_sizes.py")
    write(folder, "def net(n):\n    from mine_sizes import SIZE\n    return SIZE\n")
    before = digest("nets_of_mine.net")
    write(folder, "SIZE = 4\n", "mine_sizes.py")
    assert digest("nets_of_mine.net") != before


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("def a():\n    return 3\n\ndef net(name):\n    return globals()[name]()\n", "net"),
        ("for size in (1, 2):\n    globals()[f'net{size}'] = lambda n: 3\n", "net1"),
    ],
    ids=["looked up", "made"],
)
def test_the_whole_module_counts_where_names_are_only_known_at_run_time(
    folder: Path, text: str, name: str
) -> None:
    write(folder, text)
    before = digest(f"nets_of_mine.{name}")
    write(folder, text.replace("3", "4"))
    assert digest(f"nets_of_mine.{name}") != before


def test_a_class_method_is_its_class(folder: Path) -> None:
    write(folder, NETS)
    before = digest("nets_of_mine.Mine.small")
    write(folder, NETS.replace("amax", "mean"))
    assert digest("nets_of_mine.Mine.small") != before


def test_modules_that_import_each_other_end(folder: Path) -> None:
    write(folder, "from mine_b import b\n\ndef a():\n    return b\n", "mine_a.py")
    write(folder, "from mine_a import a\n\ndef b():\n    return a\n", "mine_b.py")
    assert set(code_digests({"_target_": "mine_a.a"})) == {"mine_a.a"}


def test_a_file_that_is_not_python_counts_by_its_bytes(folder: Path) -> None:
    write(folder, "def net(:\n")
    before = digest("nets_of_mine.net")
    write(folder, "def net(::\n")
    assert digest("nets_of_mine.net") != before


@pytest.mark.parametrize(
    "target", ["kdrun.models.cnn.CNN", "torch.nn.Linear", "json.loads", "no_module.Net", "sys.x"]
)
def test_libraries_and_kdrun_are_not_the_users_code(folder: Path, target: str) -> None:
    assert code_entry({"_target_": target}) == {}


def test_code_that_is_not_there_is_not_edited(folder: Path) -> None:
    assert edited({"nets_of_mine.Mine": "0" * 64}) == []
