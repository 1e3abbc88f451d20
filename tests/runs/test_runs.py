"""Run folders and their files."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from kdrun.checksums import SUMS
from kdrun.cli import planning
from kdrun.cli.parser import parse_composed
from kdrun.config.composition import stamp
from kdrun.config.schema import DistillConfig, StartConfig
from kdrun.distillation.baseline import baseline_argv
from kdrun.errors import ConfigError
from kdrun.files import UNFINISHED, canonical_hash, write_atomically, write_json
from kdrun.runs.folder import RunFolder, safe_name
from kdrun.runs.metrics import write_metrics
from kdrun.runs.reading import matching, read_result
from kdrun.runs.result import ResultFile
from kdrun.runs.search import find_run, group_folder


def test_folders_are_never_shared(tmp_path: Path) -> None:
    folders = [RunFolder.new_in(tmp_path / "group") for _ in range(50)]
    assert not (tmp_path / "group").exists()
    for folder in folders:
        folder.make()
    folders = [folder.path for folder in folders]
    assert len(set(folders)) == 50
    assert folders == sorted(folders, key=lambda path: path.name[:19])


def test_a_folder_that_cannot_be_made_is_the_users_matter(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be created"):
        RunFolder.new_in(tmp_path / "file" / "group").make()


def test_only_one_process_works_in_a_folder(tmp_path: Path) -> None:
    one, two = RunFolder(tmp_path), RunFolder(tmp_path)
    one.acquire()
    assert not two.is_free()
    with pytest.raises(ConfigError, match="in use"):
        two.acquire()
    one.release()
    assert two.is_free()


def test_folders_of_runs_that_never_began_go_after_a_while(tmp_path: Path) -> None:
    began, killed, just_made, at_work, *others = (stamp() for _ in range(9))
    for name in (began, killed, just_made, at_work, *others, "mine"):
        (tmp_path / name).mkdir()
    for name in (".lock", "run.log"):
        (tmp_path / killed / name).touch()
    files = ("result.json", "student.safetensors", "config.yaml", "notes/a.txt", "run.log")
    for name, file in zip(others, files, strict=True):
        (tmp_path / name / file).parent.mkdir(exist_ok=True)
        (tmp_path / name / file).write_text("x")
    (tmp_path / "elsewhere").mkdir()
    linked = tmp_path / stamp()
    linked.symlink_to(tmp_path / "elsewhere")
    working = RunFolder(tmp_path / at_work)
    working.acquire()
    for path in tmp_path.iterdir():
        if path.name != just_made:
            os.utime(path, (0, 0))
    new = RunFolder.new_in(tmp_path)
    new.make()
    made = new.path
    left = {path.name for path in tmp_path.iterdir()} - {made.name}
    assert left == {just_made, at_work, *others, "mine", "elsewhere", linked.name}
    working.release()


def test_a_finished_run_whose_list_was_not_written_gets_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_json(tmp_path / "result.json", {"schema": 1, "status": "completed"})
    (tmp_path / f"{UNFINISHED}0123abcd-{SUMS}").write_text("half")
    other = RunFolder(tmp_path)
    other.acquire()
    folder.tidy()  # somebody works there
    assert not (tmp_path / SUMS).exists()
    other.release()
    folder.tidy()
    assert (tmp_path / SUMS).read_text().endswith("  result.json\n")
    assert not list(tmp_path.glob(f"{UNFINISHED}*"))
    assert folder.is_free()
    before = (tmp_path / SUMS).stat().st_mtime_ns
    folder.tidy()
    assert (tmp_path / SUMS).stat().st_mtime_ns == before


def test_names_become_safe_folders() -> None:
    assert safe_name("a/b: c*") == "a_b__c_"
    assert safe_name("../x") == "_x"
    assert safe_name("") == "_"
    assert len(safe_name("x" * 500)) == 120


def test_a_result_is_readable_at_any_time(tmp_path: Path) -> None:
    folder = tmp_path / "group" / "run"
    result = ResultFile(folder / "result.json")
    result.start("distill", identity="abc")
    assert read_result(folder) == {
        "schema": 1, "command": "distill", "status": "running", "error": None, "identity": "abc",
    }  # fmt: skip
    result.update(status="completed")
    assert find_run(folder.parent, "identity", "abc", finished=True) == folder
    assert find_run(folder.parent, "identity", "abc", finished=False) is None


def test_runs_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    group = group_folder(tmp_path, "distill", "digits", "a-b-kd")
    for name, text in (("1", "{"), ("2", "[]"), ("3", '{"schema": 99}')):
        (group / name).mkdir(parents=True)
        (group / name / "result.json").write_text(text)
    for folder in (group, tmp_path / "nowhere"):
        assert list(matching(folder, lambda result: True)) == []


def test_metrics_are_one_line_per_epoch_in_both_files(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "train/loss": 2.5}, {"epoch": 2, "train/loss": 1.5, "val/loss": 2.0}]
    write_metrics(tmp_path, rows)
    write_metrics(tmp_path, rows)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    table = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["val/loss"] for row in table] == ["", "2.0"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_hashes_do_not_depend_on_the_order_of_keys() -> None:
    assert canonical_hash({"a": 1, "b": [1.5]}) == canonical_hash({"b": [1.5], "a": 1})
    assert canonical_hash({"a": 1}) != canonical_hash({"a": 1.5})


def test_the_baselines_command_drops_the_objective() -> None:
    argv = ["distill", "loss=[kd,sp]", "loss.sp.weight=3", "T=2", "seed=1", "alone=true", "ce=1"]
    plain = ["loss=ce", "T=null", "alpha=null", "ce=null", "alone=false"]
    (config,) = planning.check("distill", parse_composed("distill", argv[1:])).configs
    assert isinstance(config, DistillConfig)
    assert baseline_argv(argv, config) == ["distill", "seed=1", *plain]
    # of an experiment or a dictionary: what no word that is dropped has set
    more = replace(
        config,
        scheme=replace(config.scheme, name="byot"),
        augment=replace(config.augment, teacher_view="independent", strong="randaugment"),
        transfer=replace(config.transfer, bias="match"),
        start=StartConfig("my outputs/pruned/a.safetensors"),
    )
    assert baseline_argv(argv, more) == [
        "distill", "seed=1", "scheme=offline", "augment.teacher_view=same", "augment.strong=null",
        "transfer.bias=none", "student.checkpoint='my outputs/pruned/a.safetensors'", *plain,
    ]  # fmt: skip
