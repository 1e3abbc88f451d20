"""Static quantisation by ONNX Runtime."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from kdrun.deploy.quantise import quantise
from kdrun.errors import MachineError


def test_a_full_temporary_folder_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's tool works there; the disk of the exported file may be another one."""
    pytest.importorskip("onnxruntime")
    from onnxruntime.quantization import shape_inference

    def full(*words: Any, **settings: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # without a name, as of a write

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(shape_inference, "quant_pre_process", full)
    said = rf"No space left on device \({tmp_path}/temporary/.*or set TMPDIR=\.\.\. to another disk"
    with pytest.raises(MachineError, match=said):
        quantise(tmp_path / "student.onnx", tmp_path / "student.int8.onnx", [])
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]
