"""The wheel carries everything: built from the checkout, used from another folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds kdrun alone, from its wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    copy = folder / "source"
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tracked.returncode:
        pytest.skip("needs the files of a git checkout")
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*pip, "--wheel-dir", str(folder), str(copy)], check=True)
    (wheel,) = folder.glob("kdrun-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_configuration_is_in_it(installed: Path) -> None:
    there = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    inside = installed / "kdrun" / "configs"
    assert there == {path.relative_to(inside) for path in inside.rglob("*.yaml")}


def test_the_report_s_page_is_in_it(installed: Path) -> None:
    there = {path.name for path in (ROOT / "kdrun" / "report").glob("page.*")}
    assert there == {path.name for path in (installed / "kdrun" / "report").glob("page.*")}


def test_it_distils_from_another_folder(installed: Path, tmp_path: Path) -> None:
    code = "import kdrun, sys; from kdrun.cli.main import main; print(kdrun.__file__); main()"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    argv = ["distill", "epochs=1", "teacher.schedule.epochs=1", "alone=false"]
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(installed) in done.stdout
    assert "student distilled" in done.stdout
    assert list(tmp_path.glob("outputs/distill/digits/*/*/student.safetensors"))
