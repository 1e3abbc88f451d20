"""The notebook runs from top to bottom in a kernel, with shorter trainings."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "first_distillation.ipynb"
SHORTER = {"epochs=20": "epochs=1", "T=[1, 4, 20]": "T=[1, 4]"}
# An escape sequence, or a line that is overwritten.
CURSOR_CODE = re.compile(r"\x1b|\r")


def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.heavy
def test_it_runs_from_top_to_bottom(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    text = NOTEBOOK.read_text()
    for shown, shorter in SHORTER.items():
        assert shown in text
        text = text.replace(shown, shorter)
    notebook = nbformat.reads(text, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    for words in ("student distilled", "0.1*CE + 0.9*16*KL(T=4)", "gain ", "T=4 ", "label: 6"):
        assert words in printed, words
    assert not CURSOR_CODE.search(printed)
    shown = [list(output["data"]) for output in outputs if output["output_type"] == "display_data"]
    assert [sorted(kinds) for kinds in shown] == [["image/png", "text/plain"]]  # the figure alone
    by_hand, of_the_library = zip(*re.findall(r"by hand (\S+), KD (\S+)", printed), strict=True)
    assert by_hand == of_the_library
    assert (tmp_path / "reports" / "report.html").is_file()
    assert len(list(tmp_path.glob("outputs/distill/digits/cnn_large-*/*"))) == 2  # T=4 is reused


def test_its_kept_outputs_are_whole_and_small() -> None:
    for cell in code_cells():
        assert cell["outputs"], "".join(cell["source"])
        assert all(output["output_type"] != "error" for output in cell["outputs"])
    assert NOTEBOOK.stat().st_size < 40_000
    assert "/home/" not in NOTEBOOK.read_text()
