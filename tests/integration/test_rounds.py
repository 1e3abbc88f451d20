"""Several teachers, assistants and generations as whole runs: what they leave, and going on."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import SMALL, results, without_times

from kdrun.engine.loop import _Fit
from kdrun.models.card import load_network

Run = Callable[..., int]

DIGITS = [
    "teacher.schedule.epochs=4",
    "epochs=6",
    "batch_size=32",
    "student.widths=[8,16]",
    "ui=quiet",
    "threads=1",
    "alone=false",
]
BORN = ["scheme=born_again", "scheme.generations=3", "alone=false"]
CHAIN = ["scheme=chain", "scheme.assistants=[{name: cnn_tiny, widths: [8,16]},cnn_tiny]"]
CHAIN += ["student.widths=[4,6]", "alone=false"]
STAYS = ["scheme=born_again", "scheme.keep_first=true"]


def whole_runs(folder: Path) -> list[dict[str, Any]]:
    """Runs that were asked for, not those that are parts of them."""
    return [r for r in results(folder) if r.get("generations") is not None]


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    """Without what differs between two runs that compute the same."""
    kept = without_times(result)
    kept["generations"] = [
        {k: v for k, v in one.items() if k not in ("seconds", "run")} for one in kept["generations"]
    ]
    return kept


def test_several_teachers_are_trained_once_and_weighed(kdrun: Run, workdir: Path) -> None:
    assert kdrun("train-teacher", *SMALL[:5], *SMALL[6:], "teacher.count=2") == 0
    (trained,) = results(workdir, "train-teacher")
    assert len({teacher["sha256"] for teacher in trained["teachers"]}) == 2
    assert (
        kdrun("distill", *SMALL, "teacher.count=3", "teacher.weights=[2,1,1]", "alone=false") == 0
    )
    (result,) = results(workdir)
    assert [teacher["reused"] for teacher in result["teachers"]] == [True, True, False]
    assert result["objective"].endswith("over 3 teachers weighing 0.5, 0.25, 0.25")
    joint = result["teacher_ensemble"]
    assert joint["members"] == 3
    assert joint["test"]["top1"] >= min(t["test"]["top1"] for t in result["teachers"])
    assert joint["agreement"] == result["agreement"]


@pytest.mark.heavy
def test_the_mean_of_the_soft_targets_learns_too(kdrun: Run, workdir: Path) -> None:
    words = ["teacher=[cnn_large,cnn_tiny]", "teacher2.widths=[16,32]", "teacher2.seed=3"]
    assert kdrun("distill", *DIGITS, *words, "teacher.average=soft_targets") == 0
    (result,) = results(workdir)
    assert result["student"]["test"]["top1"] > 80
    assert [t["name"] for t in result["teachers"]] == ["cnn_large", "cnn_tiny"]
    assert "soft targets averaged over 2 teachers" in result["objective"]
    network, _ = load_network(result["folder"], "student")
    assert set(load_file(result["folder"] / "student.safetensors")) == set(network.state_dict())


@pytest.mark.parametrize("words", [BORN, CHAIN], ids=["born_again", "chain"])
def test_each_generation_learns_from_the_one_before(
    kdrun: Run, workdir: Path, words: list[str]
) -> None:
    assert kdrun("distill", *SMALL, *words) == 0
    (result,) = whole_runs(workdir)
    generations = result["generations"]
    assert [one["generation"] for one in generations] == [1, 2, 3]
    assert generations[-1]["test"] == result["student"]["test"]
    assert generations[-1]["run"] == str(result["folder"].relative_to(workdir))
    assert all(one["seconds"] > 0 for one in generations)
    for before, one in pairwise(generations):
        config = (workdir / one["run"] / "config.yaml").read_text()
        assert one["run"] == generations[-1]["run"] or f"checkpoint: {before['run']}" in config
    if words is BORN:
        assert result["ensemble_of_generations"]["members"] == 3
        assert len({one["seed"] for one in generations}) == 3
    else:
        assert "ensemble_of_generations" not in result
        assert [one["params"] for one in generations] == sorted(
            (one["params"] for one in generations), reverse=True
        )
    network, _ = load_network(result["folder"], "student")
    assert set(load_file(result["folder"] / "student.safetensors")) == set(network.state_dict())


def test_generations_are_found_again(kdrun: Run, workdir: Path) -> None:
    argv = ["distill", *SMALL, "alone=false", "scheme=born_again"]
    assert kdrun(*argv, "scheme.generations=2") == 0
    before = {r["folder"] for r in results(workdir)}
    assert kdrun(*argv, "scheme.generations=3") == 0
    # the first is found; the second was part of the run that was asked for before
    new = [r for r in results(workdir) if r["folder"] not in before]
    assert len(new) == 2
    (whole,) = [r for r in new if r.get("generations")]
    assert Path(whole["generations"][0]["run"]).resolve() in {path.resolve() for path in before}


def test_the_first_generation_may_have_no_teacher(kdrun: Run, workdir: Path) -> None:
    words = ["scheme=born_again", "scheme.generations=2", "scheme.first=labels"]
    small = [word for word in SMALL if not word.startswith("teacher")]
    assert kdrun("distill", *small, *words) == 0
    (result,) = whole_runs(workdir)
    assert not (workdir / "outputs/teachers").exists()
    first, second = result["generations"]
    assert first["test"] == result["alone"]["test"]
    assert first["run"] == result["alone"]["run"]
    assert second["test"] == result["student"]["test"]
    assert result["ensemble_of_generations"]["members"] == 2


def test_the_first_teacher_may_stay(kdrun: Run, workdir: Path) -> None:
    words = [*BORN, "scheme.generations=2", "scheme.keep_first=true", "teacher.count=2"]
    assert kdrun("distill", *SMALL, *[w for w in words if w != "scheme.generations=3"]) == 0
    (result,) = whole_runs(workdir)
    assert result["objective"].endswith("each term averaged over 3 teachers")
    assert result["teacher_ensemble"]["members"] == 2


def stop_in(monkeypatch: pytest.MonkeyPatch, generation: int, step: int) -> None:
    """Ask the training of that distilled generation to stop at a step; 0: right before it."""
    plain, begun = _Fit._step, {"count": 0}

    def counted(self: Any, batch: Any) -> Any:
        if self.state.step == 0 and self.scheme.describe() != "1*CE":
            begun["count"] += 1
        here = begun["count"] == generation and self.scheme.describe() != "1*CE"
        if here and self.state.step == step:
            self.training.stop.requested = True
        return plain(self, batch)

    monkeypatch.setattr(_Fit, "_step", counted)


@pytest.mark.parametrize(("generation", "step"), [(1, 1), (1, 8), (2, 0), (2, 4), (3, 5)])
def test_stopped_in_any_generation_and_resumed(
    kdrun: Run,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole_born_again: tuple[dict[str, Any], dict[str, torch.Tensor]],
    generation: int,
    step: int,
) -> None:
    argv = ["distill", *SMALL, *BORN, "dataset.augment.crop_padding=1"]
    with monkeypatch.context() as patch:
        stop_in(patch, generation, step)
        assert kdrun(*argv) == 130
    (stopped,) = results(workdir, name="born_again*")
    assert stopped["status"] == "interrupted"
    finished = [r["folder"] for r in results(workdir) if r["status"] == "completed"]
    times = {path: (path / "result.json").stat().st_mtime_ns for path in finished}
    assert len(finished) == generation - 1
    assert kdrun("resume", str(stopped["folder"])) == 0
    (resumed,) = whole_runs(workdir)
    assert len(results(workdir)) == 3
    assert all((path / "result.json").stat().st_mtime_ns == times[path] for path in finished)
    reference, weights = whole_born_again
    assert comparable(resumed) == reference
    saved = load_file(resumed["folder"] / "student.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in weights.items())


@pytest.fixture(scope="module")
def whole_born_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The same run, never stopped."""
    from kdrun.cli.main import run

    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["distill", *SMALL, *BORN, "dataset.augment.crop_padding=1"]) == 0
    (result,) = whole_runs(folder)
    return comparable(result), load_file(result["folder"] / "student.safetensors")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["scheme=chain"], "scheme=chain needs networks"),
        (["scheme=chain", "scheme.assistants=[resnte20]"], "no network 'resnte20'"),
        (["scheme=chain", "scheme.assistants=[student]"], "'student' is not the name"),
        (["scheme=born_again", "scheme.generations=0"], "must be at least 1"),
        (["scheme=born_again", "scheme.generations=1", "scheme.first=labels"], "at least 2"),
        (["scheme=born_again", "scheme.generations=1", "scheme.keep_first=true"], "nothing"),
        (["scheme=born_again", "scheme.first=lables"], "Did you mean 'labels'"),
        (["scheme=born_again", "scheme.first=labels", "teacher=vgg8"], "would change nothing"),
        (["scheme=born_again", "loss=ce"], "with loss=ce has no distillation loss"),
        ([*STAYS, "teacher.count=2", "teacher.weights=[1,2]"], "leave out one of the two"),
        ([*STAYS, "loss=simkd"], "takes one teacher"),
        (["scheme.generations=2"], "no scheme.generations"),
        (["scheme=chain", "scheme.assistants=[cnn_tiny]", "alpha=0.5", "loss=sp"], "alpha"),
    ],
)
def test_what_makes_no_sense_is_refused(
    refused: Callable[..., str], words: list[str], text: str
) -> None:
    assert text in " ".join(refused("distill", *SMALL, *words).split())


def test_a_configuration_of_rounds_reads_back_the_same(kdrun: Run, workdir: Path) -> None:
    assert kdrun("distill", *SMALL, *CHAIN, "epochs=1") == 0
    (result,) = whole_runs(workdir)
    assert kdrun("resume", str(result["folder"])) == 0
    values = json.loads((result["folder"] / "result.json").read_text())
    (result["folder"] / "result.json").write_text(json.dumps({**values, "status": "interrupted"}))
    assert kdrun("resume", str(result["folder"])) == 0
    (again,) = whole_runs(workdir)
    assert comparable(again) == comparable(result)
