"""Whatever somebody puts beside kdrun's files survives every command."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path

import pytest

from kdrun.cli.main import run
from kdrun.config.composition import stamp
from kdrun.errors import ConfigError
from kdrun.ownership import alone, require_own, write_own
from kdrun.removal import holds_nothing, remove
from tests.support import SMALL


def test_two_writers_of_one_folder_keep_each_others_files(tmp_path: Path) -> None:
    def write(name: str) -> None:
        for number in range(20):
            write_own(tmp_path / name, f"{number}".encode(), "name another folder")

    names = ["a.json", "b.json", "c.json"]
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, names))
    require_own(tmp_path, names, "name another folder")
    with alone(tmp_path), alone(tmp_path):  # nested
        (tmp_path / "a.json").write_text("edited")
    with pytest.raises(ConfigError, match=r"a\.json was not written by kdrun or was edited"):
        require_own(tmp_path, names, "name another folder")


TINY = [word for word in SMALL if "epochs" not in word]
TINY += ["epochs=1", "teacher.schedule.epochs=1", "ui=quiet"]
OLD = 1_000_000_000.0
NAMES = ("notes.txt", "weights.npy", "9a.json", "stop", ".unfinished-notes", "last.pt.bak")


def put_beside(root: Path) -> dict[Path, bytes]:
    """Put foreign files and a foreign folder into every folder of kdrun's; all folders are old."""
    found = {}
    kdruns = (path for path in root.rglob("*") if path.is_dir() and "my folder" not in path.parts)
    folders = [root, *kdruns]
    for folder in folders:
        for name in (*NAMES, "my folder/deep.txt"):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(f"mine: {path}".encode())
            found[path] = path.read_bytes()
    for folder in folders:
        os.utime(folder, (OLD, OLD))
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a run, its baseline and teacher, an image folder's cache, a sweep."""
    from tests.reliability.pictures import write_pictures

    base = tmp_path_factory.mktemp("foreign")
    with chdir(base):
        write_pictures(base / "photos")
        assert run(["distill", *TINY, "alone=true"]) == 0
        assert run(["distill", *TINY, "-m", "T=1,2"]) == 0
        assert run(["distill", *PHOTOS]) == 0
        group = next(Path("outputs/distill/synthetic").glob("cnn_large*"))
        for name, file in (("lost", "student.safetensors"), ("mine", "config.yaml")):
            folder = group / (stamp() if name == "lost" else name)
            folder.mkdir()
            (folder / file).write_text("somebody's")
        yield base


PHOTOS = [
    *("dataset=imagefolder", "dataset.root=photos", "threads=1", "ui=quiet"),
    *("epochs=1", "teacher.schedule.epochs=1", "alone=false", "val_fraction=0"),
]
COMMANDS = {
    "train-teacher": ["train-teacher", *[w for w in TINY if w[:6] != "epochs"]],
    "distill": ["distill", *TINY, "alone=true"],
    "distill on images": ["distill", *PHOTOS],
    "images decoded again": ["distill", *PHOTOS, "dataset.image_size=6"],
    "sweep": ["distill", *TINY, "-m", "T=1,2"],
    "resume a run": ["resume", "RUN"],
    "resume a sweep": ["resume", "SWEEP"],
    "evaluate": ["evaluate", "run=RUN", "ui=quiet"],
    "export": ["export", "run=RUN", "format=safetensors", "latency=false", "ui=quiet"],
    "predict": ["predict", "run=RUN", "photos"],
    "benchmark": ["benchmark", *TINY, "benchmark.seconds=0.1"],
    "report": ["report", "outputs"],
    "compare": ["compare", "RUN", "ALONE"],
    "ls": ["ls", "runs"],
    "ls teachers": ["ls", "teachers"],
    "show": ["show", "RUN"],
    "new": ["new", "loss", "mine"],
    "validate": ["validate", "loss/kd"],
    "doctor": ["doctor"],
    "completion": ["completion", "bash"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_it_survives_every_command(world: Path, name: str) -> None:
    with chdir(world):
        group = next(Path("outputs/distill/synthetic").glob("cnn_large*"))
        places = {
            "RUN": str(next(path.parent for path in sorted(group.glob("*/result.json")))),
            "SWEEP": str(next(Path("outputs/sweeps").glob("*/sweep.json")).parent),
            "ALONE": str(
                next(Path("outputs/distill/synthetic").glob("none*/*/config.yaml")).parent
            ),
        }
        before = put_beside(world / "outputs")
        kept = {path for path in world.rglob("*") if path.is_dir()}
        words = COMMANDS[name]
        for place, path in places.items():
            words = [word.replace(place, path) for word in words]
        assert run(words) in (0, 2)
        assert {path: path.read_bytes() for path in before if path.is_file()} == before
        assert {path for path in kept if not path.is_dir()} == set()


def test_search_leaves_it_alone(world: Path) -> None:
    pytest.importorskip("optuna")
    words = ["search", *TINY, "T=interval(1,20)", "search.trials=1", "alone=false"]
    with chdir(world):
        for _ in range(2):
            assert run([*words, "val_fraction=0.1"]) == 0
            before = put_beside(world / "outputs")
        assert run([*words, "val_fraction=0.1"]) == 0
        assert all(path.read_bytes() == content for path, content in before.items())


def test_only_named_regular_files_go(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner.npy").mkdir(parents=True)
    (tmp_path / "target.npy").write_text("elsewhere")
    (folder / "link.npy").symlink_to(tmp_path / "target.npy")
    for name in ("a.npy", "a.npy.txt", "b.json"):
        (folder / name).write_text("x")
    assert not remove(folder, ["b.json"], like=r".+\.npy", folder_too=True)
    assert {path.name for path in folder.iterdir()} == {"inner.npy", "link.npy", "a.npy.txt"}
    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    assert not remove(linked, ["a.npy.txt"], folder_too=True)
    assert (folder / "a.npy.txt").is_file()


def test_a_folder_with_one_byte_in_it_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    assert holds_nothing(tmp_path, [".lock", "run.log"])
    (tmp_path / "run.log").write_text("1")
    assert not holds_nothing(tmp_path, [".lock", "run.log"])
    assert not holds_nothing(tmp_path, [".lock"])


@pytest.mark.parametrize("name", ["report.html", "report.md", "report.csv", "report-runs.csv"])
def test_a_report_overwrites_its_own_files_only(
    world: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", str(world / "outputs"), f"to={tmp_path}"]
    assert run(words) == run(words) == 0
    (tmp_path / name).write_text("edited by hand")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert run(words) == 2
    assert str(tmp_path / name) in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / name).unlink()
    assert run(words) == 0


def test_an_export_overwrites_its_own_files_only(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with chdir(world):
        path = next(world.glob("outputs/distill/synthetic/none*/*/student.json")).parent
        words = ["export", f"run={path}", "format=safetensors", "latency=false", f"out={tmp_path}"]
        for name in ("student.safetensors", "student.json", "MODEL_CARD.md"):
            (tmp_path / name).write_text("mine")
            assert run(words) == 2
            assert str(tmp_path / name) in capsys.readouterr().err
            assert (tmp_path / name).read_text() == "mine"
            (tmp_path / name).unlink()
        assert run(words) == run(words) == 0


def test_a_sweep_takes_no_folder_with_somebodys_files(world: Path, tmp_path: Path) -> None:
    words = ["distill", *TINY, "-m", "T=1,2", f"hydra.sweep.dir={tmp_path}"]
    with chdir(world):
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "1.json").write_text("{}")
        assert run(words) == 2
        assert (tmp_path / "jobs" / "1.json").read_text() == "{}"
        (tmp_path / "jobs" / "1.json").unlink()
        (tmp_path / "sweep.json").write_text("mine")
        assert run(words) == 2
        assert (tmp_path / "sweep.json").read_text() == "mine"
        (tmp_path / "sweep.json").unlink()
        (tmp_path / "summary.csv").write_text("mine")
        assert run(words) == 0
        assert (tmp_path / "summary.csv").read_text() == "mine"
