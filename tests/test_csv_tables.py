"""CSV cells are no formulas, and every text is recovered."""

import csv
import io
import random
from pathlib import Path

import pytest

from kdrun.csv_tables import csv_bytes, csv_of_records, neutral, original, read_csv
from kdrun.runs.metrics import write_metrics

FORMULAS = ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u00a0=1", "\ufeff=1",
            "＝1", "－A1", "＋A1", "＠A1",
            "-1+cmd|' /C calc'!A0", "'=1", "''-x", "-", "- x"]  # fmt: skip
SAFE = ["", "kd", "'", "'quoted'", "a=b", "1-2", "[1,2]", "it's", "0.5", "a\nb", "a,b", '"x"']
NUMBERS = [-1, -0.5, 3, 1e-9, "-0.5", "-3", "-1e5", "+4", "-.5"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_neutral_and_come_back(text: str) -> None:
    assert neutral(text) == f"'{text}"
    assert original(neutral(text)) == text


@pytest.mark.parametrize("value", [*SAFE, *NUMBERS])
def test_texts_and_numbers_stay(value: object) -> None:
    assert neutral(value) == value


def test_random_texts_come_back() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        text = "".join(rng.choice("='+-@\t\r\n '\"\\,;＝a1.e") for _ in range(rng.randrange(6)))
        assert original(neutral(text)) == text
        bare = neutral(text).lstrip()
        assert not bare or bare[0] not in "=+-@＝" or float(bare) is not None


def test_the_usual_reader_and_ours_recover_the_table(tmp_path: Path) -> None:
    names = ["=cmd()", "@x", "plain", "-y"]
    rows = [[text, -1.5, None, Path("-p")] for text in [*FORMULAS, *SAFE]]
    path = tmp_path / "table.csv"
    path.write_bytes(csv_bytes(names, rows))
    with open(path, encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["'=cmd()", "'@x", "plain", "'-y"]
    assert all(float(row["'@x"]) == -1.5 for row in found)
    assert not any(cell[:1] in tuple("=+@\t\r\n") for row in found for cell in row.values())
    read = read_csv(path)
    assert [row["=cmd()"] for row in read] == [*FORMULAS, *SAFE]
    assert read[0]["-y"] == "-p"


def test_pandas_recovers_with_the_documented_line() -> None:
    pandas = pytest.importorskip("pandas")
    texts = [text for text in FORMULAS if "\r" not in text]
    table = pandas.read_csv(io.BytesIO(csv_bytes(["x"], [[text] for text in texts])), dtype=str)
    assert [original(cell) for cell in table["x"]] == texts


def test_metrics_and_records_go_through_the_writer(tmp_path: Path) -> None:
    write_metrics(tmp_path, [{"epoch": 1, "=bad": -2.0}, {"epoch": 2, "more": "@x"}])
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines == ["epoch,'=bad,more", "1,-2.0,", "2,,'@x"]
    assert csv_of_records([]) == b"\n"


def test_nothing_else_writes_csv() -> None:
    package = Path(__file__).parents[1] / "kdrun"
    writers = [path.name for path in package.rglob("*.py") if "csv.writer" in path.read_text()
               or "DictWriter" in path.read_text()]  # fmt: skip
    assert writers == ["csv_tables.py"]
