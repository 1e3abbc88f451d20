"""`result.json` as a type: read tolerantly, written back key for key."""

import json
from typing import Any

import pytest

from kdrun.runs.result import BestEpoch, Metrics, RunResult, StudentResult, is_result
from tests.report.conftest import config, result


def finished() -> dict[str, Any]:
    return {**result(config(), 95.0, 92.0, "completed"), "identity": "i", "note": {"b": 1, "a": []}}


@pytest.mark.parametrize(
    "values",
    [
        finished(),
        {"schema": 1, "command": "distill", "status": "running", "error": None},
        {"status": "failed", "student": None, "schema": 1, "teachers": [], "alone": {}, "gain": 2},
        {"schema": 1, "teachers": None, "generations": [{"name": "a", "x": None}], "loss": ["kd"]},
    ],
)
def test_a_result_is_written_back_key_for_key(values: dict[str, Any]) -> None:
    assert json.dumps(RunResult.from_dict(values).to_dict()) == json.dumps(values)


def test_attributes_need_no_checks_for_what_is_absent() -> None:
    empty = RunResult.from_dict({"schema": 1, "student": None})
    assert empty.student.best_val.test.top1 is None
    assert not empty.student
    assert not empty.alone
    whole = RunResult.from_dict(finished())
    assert whole.student.test.top1 == 95.0
    assert whole.alone.run == "gone"
    assert whole.extra == {"note": {"b": 1, "a": []}}


def test_a_result_made_in_code_has_the_keys_it_sets() -> None:
    best = BestEpoch(epoch=3, val_top1=97.0)
    made = RunResult(
        command="distill", student=StudentResult(test=Metrics(top1=95.0), best_val=best)
    )
    assert made.to_dict() == {
        "command": "distill",
        "student": {"test": {"top1": 95.0}, "best_val": {"epoch": 3, "val_top1": 97.0}},
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("student", []),
        ("student", {"test": {"top1": 101}}),
        ("student", {"best_val": {"val_top1": "97"}}),
        ("teachers", [None]),
        ("teachers", {}),
        ("seed", 1.5),
        ("seed", True),
        ("gain", float("nan")),
        ("time", {"seconds": -1}),
        ("loss", [1]),
        ("objective", 3),
    ],
)
def test_a_value_that_cannot_be_is_refused(key: str, value: Any) -> None:
    values = {**finished(), key: value}
    assert not is_result(values)
    with pytest.raises(ValueError, match=key):
        RunResult.from_dict(values)
    kept = RunResult.from_dict(values, check=False)
    assert kept.to_dict().keys() == values.keys()


def test_an_optional_part_that_does_not_fit_is_kept_aside() -> None:
    values = {**finished(), "teacher_ensemble": "two", "transfer": {"labels": 3}}
    read = RunResult.from_dict(values)
    assert not read.teacher_ensemble
    assert read.extra["teacher_ensemble"] == "two"
    assert read.to_dict() == values
