"""The commands of `docs/sweeps.md`: all are accepted, and run where one machine can."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import SMALL

from kdrun.cli import planning
from kdrun.cli.parser import parse_composed

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sweeps.md"
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
COMMANDS = [shlex.split(line) for block in BLOCKS for line in block.splitlines()]
SWEEPS = [words[1:] for words in COMMANDS if words[1] in ("distill", "train-teacher")]
SEARCHES = [words[1:] for words in COMMANDS if words[1] == "search"]
TORCHRUN = [words for words in COMMANDS if words[0] == "torchrun"]


def shortened(words: list[str]) -> list[str]:
    """Two values of the first list, one of every other, on the smallest data."""
    found, lists = [], 0
    for word in words:
        name, _, values = word.partition("=")
        if "," in values and "(" not in values and "[" not in values:
            keep = 2 if lists == 0 else 1
            lists += 1
            values = ",".join(values.split(",")[:keep])
        found.append(f"{name}={values}" if values else name)
    small = [w for w in SMALL if w.split("=")[0] not in {f.split("=")[0] for f in words}]
    if words[0] == "train-teacher":
        small = [word for word in small if not word.startswith("teacher.")]
    return [*found, *small, *(["alone=false"] if words[0] != "train-teacher" else [])]


def test_the_page_has_a_command_for_each_situation() -> None:
    assert len(SWEEPS) >= 9
    assert len(SEARCHES) == 3
    assert len(TORCHRUN) == 2


@pytest.mark.parametrize("words", SWEEPS, ids=" ".join)
def test_each_sweep_is_accepted(words: list[str]) -> None:
    for launcher in ("joblib", "submitit"):
        if f"launcher={launcher}" in " ".join(words):
            pytest.importorskip(launcher)
    plan = planning.check(words[0], parse_composed(words[0], words[1:]))
    assert plan.sweep_dir is not None
    assert len(plan.argvs) > 1


@pytest.mark.heavy
def test_each_command_runs(kdrun: Callable[..., int], workdir: Path) -> None:
    for words in SWEEPS:
        if "hydra/launcher=submitit_slurm" not in words:
            assert kdrun(*shortened(words)) == 0, words
    (sweep, *_) = workdir.glob("outputs/sweeps/*")
    assert kdrun("resume", str(sweep)) == 0
    for words in SEARCHES:
        assert kdrun(*shortened(words), "search.trials=2") == 0, words
    for words in TORCHRUN:
        options = words[1 : words.index("kdrun") + 1]
        arguments = shortened(words[words.index("kdrun") + 1 :])
        launcher = [sys.executable, "-m", "torch.distributed.run", *options, *arguments]
        done = subprocess.run(launcher, cwd=workdir, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
