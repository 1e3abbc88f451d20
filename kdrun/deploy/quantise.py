"""An ONNX file in 8-bit integers, by ONNX Runtime's static quantisation."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from kdrun.deploy.formats import INPUT, quiet, require
from kdrun.files import writing_temporary

# Operators that only move or scale pixels on the way to the first layer: they stay as they are,
# for the pixels are 8-bit integers already.
INPUT_OPERATORS = {"Cast", "Mul", "Add", "Sub", "Div", "Reshape", "Flatten"}


def quantise(source: Path, path: Path, calibration: Iterable[Tensor]) -> None:
    """Write `source` with weights and activations as int8 to `path`.

    Weights: per output channel, symmetric. Activations: the range seen on `calibration`, batches
    `[B, C, H, W]` of raw images. Pairs of (de)quantising nodes, so that any runtime can follow.
    Raises MissingExtraError without ONNX Runtime.
    """
    require("onnxruntime")
    onnx = require("onnx")
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, quiet(), writing_temporary(folder):
        prepared, result = Path(folder) / "prepared.onnx", Path(folder) / "result.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(result),
            _reader(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=before_first_layer(onnx.load(prepared).graph),
        )
        model = onnx.load(result)
    if not model.metadata_props:  # the pre-processing may drop it
        model.metadata_props.extend(onnx.load(source).metadata_props)
    path.write_bytes(model.SerializeToString())


def before_first_layer(graph: Any) -> list[str]:
    """The names of the nodes between the input and the first layer with weights."""
    reached, names = {INPUT}, []
    for node in graph.node:  # in the order of computation
        if node.op_type in INPUT_OPERATORS and reached & set(node.input):
            reached |= set(node.output)
            names.append(node.name)
    return names


def _reader(batches: Iterable[Tensor]) -> Any:
    """ONNX Runtime's own interface for calibration data."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            images = next(self.batches, None)
            return None if images is None else {INPUT: images.numpy()}

    return Reader()
