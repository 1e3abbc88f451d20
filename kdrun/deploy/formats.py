"""Write a network as ONNX, PT2 or safetensors, and run such a file."""

import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from kdrun import __version__
from kdrun.deploy.folded import DTYPES, FLOAT32, UINT8, Folded
from kdrun.deploy.integer_form import IntegerForm, OnnxForm, integer_form
from kdrun.errors import ConfigError, MissingExtraError
from kdrun.files import sha256_of
from kdrun.models.build import build_network, sample_images
from kdrun.models.card import INTERRUPTED_AT, NetworkCard, read_card, write_card

ONNX, PT2, SAFETENSORS = "onnx", "pt2", "safetensors"
FORMATS = (ONNX, PT2, SAFETENSORS)
INPUT, OUTPUT = "images", "logits"
METADATA_FILE = "kdrun.json"  # inside a .pt2
INPUT_WORDS = {
    UINT8: "uint8 pixels 0..255",
    FLOAT32: "float32 values as the data set stores them",
}

# Images `[B, C, H, W]` → logits `[B, classes]`, both on the CPU.
Runner = Callable[[Tensor], Tensor]


def metadata(card: NetworkCard, dtype: str, folded: bool = True) -> dict[str, Any]:
    """What a program needs to use the file. folded: the network includes the normalisation."""
    channels, (height, width) = card.info.in_channels, card.info.image_size
    return {
        "name": card.name,
        "classes": list(card.classes),
        "input": {
            "name": INPUT,
            "dtype": dtype,
            "shape": ["batch", channels, height, width],
            "values": INPUT_WORDS[dtype],
            "channels": {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels"),
        },
        "output": {"name": OUTPUT, "shape": ["batch", len(card.classes)], "softmax": False},
        "normalisation": {
            "inside": folded,
            "mean": list(card.normalisation.mean),
            "std": list(card.normalisation.std),
            "of": "pixels scaled to 0..1" if dtype == UINT8 else "the values",
        },
        "weights_sha256": card.sha256,
        **({INTERRUPTED_AT: at} if (at := card.extra.get(INTERRUPTED_AT)) else {}),
        "made_by": f"kdrun {__version__}",
    }


def example(card: NetworkCard, dtype: str) -> Tensor:
    """Two black images of the network's size and the file's input type."""
    return torch.zeros(2, card.info.in_channels, *card.info.image_size, dtype=DTYPES[dtype])


def write_onnx(
    network: Folded, card: NetworkCard, dtype: str, path: Path, opset: int | None = None
) -> None:
    """Write `network` as one ONNX file with a free batch size and the metadata inside.

    opset: version of the operator set; None: the exporter's.
    Raises MissingExtraError without the packages, ConfigError for a network that ONNX's exporter
    cannot follow or that is too large for one file.
    """
    onnx = require("onnx")
    require("onnxscript")
    exported = _exported(network, card, dtype, OnnxForm)
    try:
        with quiet():
            program = torch.onnx.export(
                exported,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
            )
        assert program is not None
        model = program.model_proto
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        for part in (*model.graph.node, *model.graph.value_info, model.graph):
            del part.metadata_props[:]  # names and source lines of the machine that exported
            part.doc_string = ""
        model.graph.name = card.name
        model.producer_name, model.producer_version = "kdrun", __version__
        onnx.helper.set_model_props(
            model, {key: _text(value) for key, value in metadata(card, dtype).items()}
        )
        onnx.checker.check_model(model, full_check=True)
        content = model.SerializeToString()
    except Exception as error:  # exporter, checker and protobuf each have their own errors
        raise _cannot(card, ONNX, error) from error
    path.write_bytes(content)


def write_pt2(network: Folded, card: NetworkCard, dtype: str, path: Path) -> None:
    """Write `network` as a torch.export archive: PyTorch alone can run it.

    Raises ConfigError for a network whose graph cannot be exported.
    """
    exported = _exported(network, card, dtype, IntegerForm)
    buffer = io.BytesIO()
    text = json.dumps(metadata(card, dtype), ensure_ascii=False)
    with quiet():
        torch.export.save(exported, buffer, extra_files={METADATA_FILE: text})
    path.write_bytes(buffer.getvalue())


def write_safetensors(
    network: Folded, card: NetworkCard, dtype: str, path: Path, card_path: Path
) -> None:
    """Write the bare weights, and to `card_path` the card that rebuilds the network.

    The normalisation is not part of the weights: both files say it.
    """
    # copies: tied weights share memory, which the format refuses
    weights = {k: v.detach().clone().contiguous() for k, v in network.network.state_dict().items()}
    inside = {key: _text(value) for key, value in metadata(card, dtype, folded=False).items()}
    path.write_bytes(save(weights, {"format": "pt", **inside}))
    write_card(card_path, replace(card, sha256=sha256_of(path)))


def onnx_runner(path: Path, threads: int) -> Runner:
    """The ONNX file in ONNX Runtime, on the CPU."""
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library has its own errors for what it does not support
        opset = require("onnx").load(path).opset_import[0].version
        reason = str(error).strip().partition("\n")[0].removesuffix(".")[:200]
        raise ConfigError(
            f"ONNX Runtime {runtime.__version__} cannot run {path.name} (opset {opset}): {reason}. "
            "Install a newer one (pip install -U onnxruntime), or set a lower opset=..."
        ) from error

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])

    return run


def pt2_runner(path: Path) -> Runner:
    """The archive, run by PyTorch."""
    with quiet():
        module = torch.export.load(path).module()
    return module_runner(module)


def safetensors_runner(path: Path, card_path: Path) -> Runner:
    """A network rebuilt from the two files alone."""
    card = read_card(card_path)
    network = build_network(card.network, card.built_for, "export")
    network.load_state_dict(load_file(path))
    return module_runner(Folded(network, card.normalisation, card.outputs).eval())


def module_runner(module: nn.Module) -> Runner:
    """A module without gradients."""

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = module(images)
        return logits

    return run


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata inside an exported file."""
    if path.suffix == ".onnx":
        props = require("onnx").load(path).metadata_props
        return {entry.key: _value(entry.value) for entry in props}
    if path.suffix == ".pt2":
        extra = {METADATA_FILE: ""}
        with quiet():
            torch.export.load(path, extra_files=extra)
        values: dict[str, Any] = json.loads(extra[METADATA_FILE])
        return values
    with safe_open(path, framework="pt") as file:
        return {key: _value(text) for key, text in file.metadata().items()}


def require(package: str) -> ModuleType:
    """An optional package; MissingExtraError naming what installs it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != package:
            raise
        raise MissingExtraError(package, "onnx", "format=onnx") from None


def _exported(
    network: Folded, card: NetworkCard, dtype: str, form: type[IntegerForm]
) -> torch.export.ExportedProgram:
    """The graph of a network; of a quantised one, that of its integer form."""
    batch = torch.export.Dim("batch", min=1)
    if card.quantize is not None:
        sample = sample_images(network.network, card.built_for)
        network = Folded(
            integer_form(network.network, sample, form), card.normalisation, card.outputs
        )
    try:
        with quiet():
            exported = torch.export.export(
                network.eval(), (example(card, dtype),), dynamic_shapes={INPUT: {0: batch}}
            )
    except Exception as error:  # whatever the network's own code or the tracer raises
        raise _cannot(card, "a graph", error) from error
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of the machine that exported
    return exported


def _cannot(card: NetworkCard, what: str, error: Exception) -> ConfigError:
    reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    return ConfigError(
        f"{card.name} cannot be written as {what}: {reason.rstrip('.')}. format=safetensors keeps "
        "its weights for any network."
    )


def _text(value: Any) -> str:
    """Metadata as text: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextmanager
def quiet() -> Iterator[None]:
    """The exporters talk of their own affairs; what matters here is an exception."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
