"""What commands leave on every machine alike: configurations, fingerprints, keys, exit codes."""

import json
from pathlib import Path

import pytest

from tests.golden.record import differences, record_short

EXPECTED = Path(__file__).with_name("expected.json")


def test_commands_leave_what_they_left_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change on purpose: python tests/golden/record.py --ci tests/golden/expected.json"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    lines = differences(json.loads(EXPECTED.read_text()), record_short(tmp_path))
    assert not lines, "\n".join(lines)
