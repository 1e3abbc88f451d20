"""uint8 weights in the ONNX file of an int8-aware student, exact on every CPU.

ONNX Runtime's x86 kernel for uint8 activations and int8 weights adds pairs of products in 16 bits
on CPUs without VNNI. Such sums saturate, and the logits change. Its kernel for uint8 weights is
exact everywhere.
"""

from pathlib import Path
from typing import Any

import numpy as np

from kdrun.deploy.formats import require

OFFSET = 128


def use_unsigned_weights(path: Path) -> None:
    """Rewrite an ONNX file: int8 weights w with zero point 0 become uint8 w + 128, zero point 128.

    The dequantised weights stay the same. Raises MissingExtraError without the package.
    """
    onnx = require("onnx")
    model = onnx.load(path)
    int8 = onnx.TensorProto.INT8
    constants = {each.name: each for each in model.graph.initializer if each.data_type == int8}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            for name in (node.input[0], node.input[2]):
                if name in constants:
                    _shift(onnx, constants.pop(name))
    types = [each for each in model.graph.value_info if each.type.tensor_type.elem_type != int8]
    del model.graph.value_info[:]  # the types of what is now unsigned; the checker infers them
    model.graph.value_info.extend(types)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _shift(onnx: Any, constant: Any) -> None:
    values = onnx.numpy_helper.to_array(constant).astype(np.int16) + OFFSET
    constant.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.uint8), constant.name))
