"""Links to nowhere, names that are too long, full disks, sizes past a bound: a sentence each."""

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from kdrun.cli.main import run
from kdrun.config.parse import scheme_config
from kdrun.config.readers import image_size
from kdrun.config.teachers import teacher_nodes
from kdrun.data.memory import available_memory, require_memory
from kdrun.data.sources import synthetic
from kdrun.engine.checkpoint import CheckpointFolder
from kdrun.errors import ConfigError, MachineError, known_error
from kdrun.files import make_folder, require_root, write_json, write_new
from kdrun.runs.folder import RunFolder
from kdrun.runs.sweeps import SweepFolder
from kdrun.teachers.cache_file import CacheFile
from tests.support import SMALL


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_place_that_takes_no_folders_is_named() -> None:
    with pytest.raises(ConfigError, match=r"The folder /proc/x/y cannot be made: No such file"):
        make_folder(Path("/proc/x/y"))


@pytest.mark.parametrize("name", ["", "distill", "teachers", "teachers/.locks", "cache"])
def test_a_link_to_nowhere_is_named_with_its_target(tmp_path: Path, name: str) -> None:
    root = tmp_path / "outputs"
    link = root / name if name else root
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/not/mounted")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        ConfigError, match=rf"{link} is a link to /not/mounted, which does not exist"
    ):
        require_root(root)
    if name in ("", "distill"):
        with pytest.raises(ConfigError, match="/not/mounted"):  # once it never returned
            RunFolder.new_in(root / "distill" / "digits" / "a-b-kd").make()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("link", ["nowhere", "nowhere/distill/synthetic/cnn_large-cnn_tiny-kd"])
def test_the_command_line_refuses_it(
    link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(link).parent.mkdir(parents=True, exist_ok=True)
    Path(link).symlink_to("/not/mounted")
    before = sorted(tmp_path.rglob("*"))
    assert run(["distill", *SMALL, "output_root=nowhere"]) == 2
    said = capsys.readouterr().err
    assert f"{link} is a link to /not/mounted" in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_in_a_circle_is_one_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ConfigError, match="is a link to b"):
        make_folder(tmp_path / "a" / "deep")


def test_the_search_for_a_free_name_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdrun.runs.folder.stamp", lambda: "taken")
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="100 names"):
        RunFolder.new_in(tmp_path).make()


LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        ["report", LONG],
        ["resume", LONG],
        ["show", LONG],
        ["compare", LONG, LONG],
        ["new", "loss", LONG],
        ["predict", f"run={LONG}", "a.png"],
        ["ls", "runs", f"output_root={LONG}"],
        ["report", ".", f"to={LONG}"],
    ],
)
def test_a_name_that_is_too_long_is_no_traceback(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run(words)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert code in ((0, 2) if words[0] == "ls" else (2,))
    assert said.err.count("\n") == (0 if code == 0 else 1)
    assert list(tmp_path.iterdir()) == []


def test_wrong_paths_are_the_users_and_full_disks_the_machines() -> None:
    for number in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR):
        found = known_error(OSError(number, os.strerror(number), "some/where"))
        assert isinstance(found, ConfigError)
        assert "some/where" in str(found)
    full = known_error(OSError(errno.ENOSPC, "No space left on device", "a/b"), "to=DIR")
    assert isinstance(full, MachineError)
    assert "(a/b): free some space on the disk at " in str(full)
    assert str(full).endswith(" or to=DIR.")
    screen = known_error(OSError(errno.ENOSPC, "No space left on device"))
    assert str(screen) == "No space left on device: free some space."
    assert known_error(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every write fails as on a full disk until it is undone."""

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kdrun.files.os.fsync", full)
    return monkeypatch


@pytest.mark.parametrize(
    ("words", "named", "remedy"),
    [
        (["new", "loss", "mine"], "loss_mine.py", "--dir DIR"),
        (["report", "runs", "to=made"], "made/report.md", "to=DIR"),
    ],
)
def test_a_full_disk_is_named_and_the_second_try_works(
    words: list[str],
    named: str,
    remedy: str,
    tmp_path: Path,
    full_disk: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    full_disk.chdir(tmp_path)
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "result.json").write_text('{"schema": 1, "status": "failed"}')
    assert run(words) == 1
    said = capsys.readouterr().err
    assert f"No space left on device ({named}): free some space on the disk at " in said
    assert remedy in said
    assert "output_root" not in said
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["result.json"]
    full_disk.undo()
    full_disk.chdir(tmp_path)
    assert run(words) == 0


def test_files_of_a_command_come_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, made = os.link, []

    def second_fails(source: Path, target: Path) -> None:
        made.append(target)
        if len(made) == 2:
            target.write_text("somebody was quicker")
        link(source, target)

    monkeypatch.setattr("kdrun.files.os.link", second_fails)
    with pytest.raises(FileExistsError, match="b"):
        write_new({tmp_path / name: b"x" for name in "abc"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "b": "somebody was quicker"
    }


def test_a_sweeps_note_is_whole_or_old(tmp_path: Path, full_disk: pytest.MonkeyPatch) -> None:
    folder = SweepFolder(tmp_path)
    with pytest.raises(OSError, match=r"No space.*0\.json"):
        folder.update(0, code=None)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    full_disk.undo()
    folder.update(0, code=1)
    assert folder.note(0) == {"job": 0, "code": 1}


def test_a_search_leaves_no_empty_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    from kdrun.sweeps.study import Choice, Study

    dimensions: list[Any] = [Choice("T", ("1", "2"))]
    original = Study._open

    def full(self: Study, path: Path) -> Any:
        path.touch()
        raise sqlite3.OperationalError("database or disk is full")

    import kdrun.sweeps.study as study

    with monkeypatch.context() as patched:
        patched.setattr(Study, "_open", lambda self, path: _inside(study, self, path, full))
        with pytest.raises(OSError, match=r"No space left.*study\.db"):
            Study(tmp_path, dimensions, 0)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "study.db").touch()  # left by an older kdrun
    assert Study._open is original
    first = Study(tmp_path, dimensions, 0).next()
    assert Study(tmp_path, dimensions, 0).next().number == first.number
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def _inside(study: Any, self: Any, path: Path, fails: Any) -> Any:
    with study._naming(self.path):
        return fails(self, path)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "records.bin").symlink_to("mine")
    with pytest.raises(OSError, match="records"):
        CacheFile(tmp_path / "records.bin", 4, 2, "float32")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt.tmp").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"last\.pt"):
        CheckpointFolder(tmp_path / "checkpoints").save({"a": 1})
    write_json(tmp_path / "x.json", {})
    assert (tmp_path / "mine").read_text() == "mine"


def test_sizes_are_compared_before_the_work() -> None:
    with pytest.raises(ConfigError, match=r"260 images of 3×9000×9000, 63\.2 GB, exceed"):
        require_memory(260, (3, 9000, 9000), "Set less.", free=10**9)
    require_memory(260, (3, 8, 8), "Set less.", free=10**9)
    assert (available_memory() or 1) > 0
    with pytest.raises(ConfigError, match="10,000,000,000 pixels; at most 100,000,000"):
        synthetic(image_size=100_000)
    with pytest.raises(ConfigError, match="exceed the available memory"):
        synthetic(image_size=9000, train_size=10**6)
    with pytest.raises(ConfigError, match=r"teacher\.image_size=100000×100000"):
        image_size(100_000, "teacher.image_size")
    with pytest.raises(ConfigError, match="1,000,000 networks; at most 1,000"):
        teacher_nodes({"teacher": {"count": 1_000_000}})
    with pytest.raises(ConfigError, match="100,000 networks"):
        scheme_config({"name": "x", "_target_": "a.b", "generations": 100_000}, {})


@pytest.mark.parametrize("left", [b"x" * 5000, 100, 5000, 0.5])
def test_a_damaged_database_of_a_search_is_refused_and_kept(
    tmp_path: Path, left: bytes | float
) -> None:
    pytest.importorskip("optuna")
    from kdrun.sweeps.study import Choice, Study

    dimensions: list[Any] = [Choice("T", ("1", "2"))]
    Study(tmp_path, dimensions, 0).next()
    database = tmp_path / "study.db"
    whole = database.read_bytes()
    size = int(left * len(whole)) if isinstance(left, float) else left
    damaged = size if isinstance(size, bytes) else whole[:size]
    database.write_bytes(damaged)
    with pytest.raises(ConfigError, match=r"study\.db is damaged .*move it away"):
        Study(tmp_path, dimensions, 0).next()
    assert database.read_bytes() == damaged
