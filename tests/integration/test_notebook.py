"""The notebook runs from top to bottom in a kernel of its own, with shorter trainings."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "first_distillation.ipynb"
SHORT = ("epochs=20", "epochs=2")


def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("onnxruntime")
    # the commands of its cells are those of this environment
    monkeypatch.setenv(
        "PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    notebook = nbformat.reads(NOTEBOOK.read_text().replace(*SHORT), as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    said = "\n".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    for words in ("student distilled", "0.1*CE + 0.9*16*KL(T=4)", "distilled: ", "digit.png: 8×8",
                  "same answer on 100.00 %"):  # fmt: skip
        assert words in said, words
    assert (tmp_path / "digit.png").is_file()


def test_its_kept_outputs_are_whole_and_small() -> None:
    for cell in code_cells():
        assert cell["outputs"], "".join(cell["source"])
        assert all(output["output_type"] != "error" for output in cell["outputs"])
    assert NOTEBOOK.stat().st_size < 40_000
    assert "/home/" not in NOTEBOOK.read_text()
