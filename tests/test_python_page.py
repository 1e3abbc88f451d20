"""The Python blocks of docs/python.md run as written, top to bottom.

A block that imports a package that is not installed is skipped, by a separate test.
"""

import importlib.util
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from support import SMALL

import kdrun
from kdrun.vision import repair_torchvision

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = {
    title: "\n".join(blocks)
    for title, text in SECTION.findall(PAGE.read_text())
    if (blocks := BLOCK.findall(text))
}
DISTILLER = "A distiller around two modules"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def run_block(title: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    names = {} if names is None else names
    exec(compile(BLOCKS[title], f"{PAGE.name}: {title}", "exec"), names)
    return names


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {"A loss by itself", DISTILLER, "Lightning", "accelerate", "A run"}


def test_losses() -> None:
    names = run_block("A loss by itself")
    assert names["loss"].isfinite()
    names["loss"].backward()
    assert all(p.grad is not None for p in names["hints"].parameters())


@pytest.mark.parametrize("package", ["", "lightning", "accelerate"])
def test_loops(package: str) -> None:
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    names = run_block(DISTILLER)
    student, teacher = names["student"], names["teacher"]
    saved = Path("student.pt")
    if package:
        saved.unlink()
        repair_torchvision()  # lightning imports it
        run_block({"lightning": "Lightning"}.get(package, package), names)
    weights = torch.load(saved)
    assert list(weights) == list(student.state_dict())
    assert all(torch.equal(weights[name], value) for name, value in student.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[str] = Counter()

    def small(name: str) -> Any:
        function = getattr(kdrun, name)

        def run(*overrides: str, **settings: Any) -> Any:
            asked[name] += 1
            assert overrides == ("dataset=digits", "epochs=2")
            return function(*SMALL, "epochs=1", "teacher.schedule.epochs=1", "alone=false",
                            **settings)  # fmt: skip

        return run

    for name in ("distill", "sweep"):
        monkeypatch.setattr(kdrun, name, small(name), raising=False)
    names = run_block("A run")
    assert asked == {"distill": 1, "sweep": 1}
    assert len(names["results"]) == 4
    assert Path("reports/report.html").is_file()
    assert names["student"].classes
