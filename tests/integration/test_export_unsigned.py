"""The integer file of an int8-aware student on a CPU whose kernels saturate."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import SMALL, results

from kdrun.deploy import agreement


@pytest.mark.heavy
def test_weights_become_unsigned_where_the_answers_differ(
    kdrun: Callable[..., int],
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    assert kdrun("distill", *SMALL, "loss=ce", "student.quantize=int8", "alone=false") == 0
    (run,) = results(workdir)
    first, same = iter([False]), agreement.gives_same_answers
    monkeypatch.setattr(agreement, "gives_same_answers", lambda found: next(first, same(found)))
    assert kdrun("export", f"run={run['folder']}", "quantize=int8", "threads=1") == 0
    assert "weights as uint8" in capsys.readouterr().out
    (file,) = Path(run["folder"]).glob("export/*.onnx")
    types = {each.data_type for each in onnx.load(file).graph.initializer}
    assert onnx.TensorProto.INT8 not in types
