"""Budgets: students over them are never trained, appear in the ranking, and are decided once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import SMALL, results

from kdrun.cli.main import run
from kdrun.commands import distill
from kdrun.config.schema import DistillConfig, SweepConfig
from kdrun.deploy import untrained
from kdrun.models.cnn import ConvNet
from kdrun.models.measure import count_bytes
from kdrun.models.quantisation.quantise import quantise
from kdrun.runs.footprint import Footprint, RunFootprint, read_footprint
from kdrun.runs.sweeps import SweepFolder
from kdrun.sweeps.budget import excess
from kdrun.sweeps.ranking import rank, read_jobs
from kdrun.sweeps.study import Choice, Study

WORDS = [*(w for w in SMALL if "epochs" not in w), "epochs=1", "teacher.schedule.epochs=1"]
WORDS += ["alone=false"]
STUDENTS = "student=cnn_tiny,cnn_large"


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.chdir(tmp_path)

    def type_it(*words: str) -> tuple[int, str]:
        code = run(list(words))
        printed = capsys.readouterr()
        return code, printed.err if code else printed.out

    return type_it


@pytest.fixture
def slow_by_size(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Latency as large as the parameters; holds the sizes of the measurements."""
    measured: list[int] = []

    def fake(calls: dict[str, Any], size: int, seconds: float) -> object:
        measured.append(len(calls))
        found = {}
        for key, call in calls.items():
            call()
            network = call.args[0].shape, call.func.__closure__[0].cell_contents
            ms = float(sum(p.numel() for p in network[1].parameters()))
            found[key] = type("Latency", (), {"p50_ms": ms})
        return found

    monkeypatch.setattr(untrained, "time_interleaved", fake)
    return measured


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Students that would have been trained; each leaves an empty run folder."""
    names: list[str] = []

    def execute(config: DistillConfig, argv: list[str], sweep_dir: Path, job: int) -> None:
        names.append(config.student.name)
        folder = Path(f"runs/{job}")
        folder.mkdir(parents=True, exist_ok=True)
        SweepFolder(sweep_dir).update(job, run=str(folder))

    monkeypatch.setattr(distill, "execute", execute)
    return names


def test_a_student_over_the_budget_is_not_trained(
    typed: Callable[..., tuple[int, str]], slow_by_size: list[int], trained: list[str]
) -> None:
    words = ["distill", "-m", *WORDS, STUDENTS, "sweep.max_latency_ms=1000"]
    assert typed(*words)[0] == 0
    assert slow_by_size == [2]  # the teacher is equal to the large student
    assert trained == ["cnn_tiny"]
    footprint = read_footprint(Path("runs/0"))
    assert footprint is not None
    assert footprint.conditions is not None
    assert footprint.student.latency_ms == footprint.student.params == 456
    assert footprint.teachers[0].flops == 1_291_264
    (folder,) = Path("outputs/sweeps").iterdir()
    (skipped,) = read_jobs(SweepFolder(folder)).over_budget
    assert skipped.excess == "93,988 ms (limit 1,000)"
    table = rank([], [skipped])
    assert table.columns == ["student", "n", "over budget"]
    assert table.rows() == [["cnn_large", "0", skipped.excess]]
    # decided once: the latency is read again
    assert typed("resume", str(folder))[0] == 0
    code, said = typed(*words, "--dry-run")
    assert code == 0
    assert "dry run: 2 jobs (1 new, 1 over budget)" in said
    assert slow_by_size == [2]
    assert trained == ["cnn_tiny", "cnn_tiny"]


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_all_over_the_budget_is_refused_with_the_smallest(
    typed: Callable[..., tuple[int, str]], dry: tuple[str, ...]
) -> None:
    code, said = typed("distill", "-m", *WORDS, STUDENTS, "sweep.max_flops=100", *dry)
    assert code == 2
    assert "the smallest, cnn_tiny, has 23,104 FLOPs; raise sweep.max_flops" in said
    assert not Path("outputs/sweeps").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["distill", "sweep.max_flops=1e6"], "is for sweeps, and this command runs once"),
        (["train-teacher", "-m", "seed=0,1", "sweep.max_bytes=9"], "train-teacher trains none"),
        (["distill", "-m", "T=1,2", "sweep.max_bytes=0"], "must be above 0"),
        (
            ["distill", "-m", "T=1,2", "student.quantize=int8", "sweep.max_latency_ms=1"],
            "set sweep.latency_program=onnxruntime",
        ),
    ],
)
def test_budgets_that_mean_nothing_are_refused(
    typed: Callable[..., tuple[int, str]], words: list[str], reason: str
) -> None:
    code, said = typed(*words)
    assert code == 2
    assert reason in said
    assert said.count("\n") == 1
    assert not Path("outputs").exists()


@pytest.mark.heavy
def test_a_search_trains_only_what_fits(typed: Callable[..., tuple[int, str]]) -> None:
    pytest.importorskip("optuna")
    words = ["search", *WORDS, STUDENTS, "T=interval(1,9)", "search.trials=2"]
    words += ["search.seed=1", "sweep.max_bytes=1e5"]
    assert typed(*words)[0] == 0
    assert [made["student"]["name"] for made in results(Path())] == ["cnn_tiny"] * 2
    (folder,) = Path("outputs/searches").iterdir()
    notes = [json.loads(path.read_text()) for path in folder.glob("jobs/*.json")]
    skipped = [note for note in notes if note.get("over_budget")]
    assert len(notes) - len(skipped) == 2
    assert all(note["over_budget"] == "377,768 bytes (limit 100,000)" for note in skipped)
    code, said = typed(*words[:-1], "sweep.max_bytes=10")
    assert code == 2
    assert "the smallest, cnn_tiny, has 1,936 bytes" in said
    assert len(list(Path("outputs/searches").iterdir())) == 1


def test_rejected_trials_do_not_count(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    study = Study(tmp_path, [Choice("a", ("1", "2"))], 0)
    study.reject(study.next())
    study.tell(study.next(), None)
    study.tell(study.next(), 50.0)
    study.next()
    assert (study.ended(), study.rejected()) == (2, 1)


def test_the_excess_lists_every_limit() -> None:
    student = Footprint(10, 2_000_000, 40, 1.2345)
    limits = SweepConfig(max_flops=1e6, max_bytes=40.0, max_latency_ms=1.0)
    assert excess(student, limits) == "2,000,000 FLOPs (limit 1,000,000), 1.234 ms (limit 1)"
    assert excess(student, SweepConfig(max_bytes=40.0)) == ""


def test_bytes_of_full_precision_and_integers() -> None:
    network = ConvNet(4, 1, [3])  # convolution 27, normalisation, linear 12 + 4
    plain = count_bytes(network)
    assert plain == sum(tensor.nbytes for tensor in network.state_dict().values())
    quantise(network, "int8", torch.zeros(2, 1, 8, 8))
    convolution = 27 + 4 * 3 + 4 * 3  # integers, steps, the bias of the normalisation
    assert count_bytes(network) == convolution + 12 + 4 * 4 + 4 * 4
    assert count_bytes(network) < plain


def test_a_damaged_footprint_is_none(tmp_path: Path) -> None:
    assert read_footprint(tmp_path) is None
    values = RunFootprint(Footprint(1, 2, 3)).to_dict()
    damaged: list[Any] = [{}, [], {**values, "student": {}}, {**values, "teachers": None}]
    for broken in damaged:
        (tmp_path / "footprint.json").write_text(json.dumps(broken))
        assert read_footprint(tmp_path) is None
    (tmp_path / "footprint.json").write_text(json.dumps(values))
    assert read_footprint(tmp_path) == RunFootprint(Footprint(1, 2, 3))
