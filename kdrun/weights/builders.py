"""The only objects that a pickle in a weights file may build, with checked arguments.

Covers the names that PyTorch (since 0.3), NumPy 1 and 2, and Python 2 and 3 write.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import torch

from kdrun.weights.inert import Inert
from kdrun.weights.lazy import (
    LazyArray,
    LazyTensor,
    Quantisation,
    Source,
    Storage,
    UnreadableError,
)


@dataclass(frozen=True)
class Builder:
    """A safe replacement for a function that a pickle names."""

    name: str
    make: Callable[..., Any]


STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
DTYPES = {
    **{
        str(dtype).removeprefix("torch."): dtype
        for dtype in vars(torch).values()
        if isinstance(dtype, torch.dtype)
    },
    "double": torch.float64,
    "float": torch.float32,
    "half": torch.float16,
    "long": torch.int64,
}
NUMPY_DTYPES = {
    "f8": torch.float64,
    "f4": torch.float32,
    "f2": torch.float16,
    "i8": torch.int64,
    "i4": torch.int32,
    "i2": torch.int16,
    "i1": torch.int8,
    "u1": torch.uint8,
    "b1": torch.bool,
}


def storage_of(pid: tuple[Any, ...], source: Source) -> Storage:
    """The storage of a persistent id `("storage", type, key, device, elements[, view])`."""
    if len(pid) not in (5, 6):
        raise UnreadableError("a storage of an unknown kind")
    kind, key, numel = pid[1], pid[2], pid[4]
    name = getattr(kind, "name", "")
    dtype = STORAGES.get(name.rpartition(".")[2])
    if dtype is None or not name.startswith("torch.") or not isinstance(key, str | int):
        raise UnreadableError(f"a storage of an unknown kind, {name[:40] or pid[1]!r:.40}")
    if not _whole(numel):
        raise UnreadableError("a storage of no size")
    source.expect(str(key), dtype.itemsize)
    view = pid[5] if len(pid) == 6 else None
    if view is not None:  # old files: (key of the view, first element, elements)
        if not (isinstance(view, tuple) and len(view) == 3 and _whole(view[1]) and _whole(view[2])):
            raise UnreadableError("a storage of an unknown kind")
        return Storage(source, str(key), dtype, view[2], view[1], numel)
    return Storage(source, str(key), dtype, numel)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    grad: Any = None,
    hooks: Any = None,
    metadata: Any = None,
    *_: Any,
) -> LazyTensor:
    return _with_bits(_lazy(storage, offset, size, stride, None), metadata)


def _with_bits(tensor: LazyTensor, metadata: Any) -> LazyTensor:
    """The tensor, negated or conjugated when it is loaded if its file marks it as such a view."""
    if not isinstance(metadata, dict):
        return tensor
    bits = frozenset(bit for bit in ("neg", "conj") if metadata.get(bit) is True)
    return replace(tensor, bits=bits)


def _tensor_v3(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
    *_: Any,
) -> LazyTensor:
    kind = DTYPES.get(getattr(dtype, "name", "").rpartition(".")[2])
    if kind is None:
        raise TypeError("no dtype")
    return _with_bits(_lazy(storage, offset, size, stride, kind), metadata)


def _lazy(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    dtype: torch.dtype | None,
    how: Quantisation | None = None,
) -> LazyTensor:
    if not isinstance(storage, Storage) or not _whole(offset):
        raise TypeError("no storage")
    sizes, strides = tuple(size), tuple(stride)
    if not all(map(_whole, (*sizes, *strides))):
        raise TypeError("no shape")
    return LazyTensor(storage, offset, sizes, strides, dtype or storage.dtype, how)


def _quantised(storage: Any, offset: Any, size: Any, stride: Any, how: Any, *_: Any) -> LazyTensor:
    scheme = getattr(how[0], "name", "")
    if "per_tensor" in scheme:
        quantisation = Quantisation(float(how[1]), int(how[2]))
    else:
        if not _whole(how[3]) or not all(isinstance(x, LazyTensor) for x in how[1:3]):
            raise TypeError("no scales")
        quantisation = Quantisation(how[1], how[2], how[3])
    return _lazy(storage, offset, size, stride, None, quantisation)


def _first(tensor: Any, *_: Any) -> Any:
    """A parameter is its tensor."""
    if not isinstance(tensor, LazyTensor | LazyArray):
        raise TypeError("no tensor")
    return tensor


def _typed(function: Any, kind: Any, args: Any, *_: Any) -> Any:
    """A tensor of a subclass, built by another function of the table."""
    if not isinstance(function, Builder) or function.make is _typed:
        raise TypeError("no builder")
    return _first(function.make(*args))


def _nested(data: Any) -> Any:
    """The storage in an embedded legacy file, as written by `pickle.dump` of a tensor."""
    from kdrun.weights.legacy import read_legacy

    if not isinstance(data, bytes):
        raise TypeError("no bytes")
    content, _ = read_legacy(BytesIO(data), len(data))
    if not isinstance(content, Storage):
        raise TypeError("no storage")
    return content


def _size(values: Any = ()) -> tuple[int, ...]:
    return tuple(values)


def _ordered(*args: Any) -> Any:
    """An ordered dictionary; Python 2 pickles its pairs as a list of lists."""
    result: OrderedDict[Any, Any] = OrderedDict()
    for pair in args[0] if args else ():
        key, value = pair
        if not isinstance(key, str | int | float):
            raise TypeError("no key")
        result[key] = value
    return result


def _empty_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _listed(values: Any = ()) -> list[Any]:
    if not isinstance(values, list | tuple):
        raise TypeError("no list")
    return list(values)


def _encoded(text: Any, encoding: Any = "latin1", *_: Any) -> bytes:
    """Bytes, which protocol 2 stores as text to encode."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("no text")
    return text.encode("latin1")


def set_array(target: LazyArray, state: Any) -> None:
    """Fill an array from NumPy's pickled state: (version, shape, dtype, column-major, bytes)."""
    if not isinstance(state, tuple) or len(state) != 5:
        return
    _, shape, dtype, column_major, data = state
    plain = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    data = data.encode("latin1") if isinstance(data, str) else data
    if plain and isinstance(dtype, Inert) and isinstance(data, bytes):
        kind = dtype_of(dtype)
        if kind is not None:
            target.dtype, target.size = kind, shape
            target.data, target.column_major = data, bool(column_major)


def dtype_of(value: Any) -> Any:
    """The torch dtype of a pickled `numpy.dtype`; None for big-endian and structured types."""
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "<"
    code = value.args[0] if value.args else None
    return NUMPY_DTYPES.get(code) if isinstance(code, str) and order in ("<", "|", "=") else None


def _array(*_: Any) -> LazyArray:
    return LazyArray()


def _scalar(dtype: Any, data: Any) -> LazyArray:
    result = LazyArray()
    set_array(result, (1, (), dtype, False, data))
    if result.dtype is None:
        raise TypeError("no number")
    return result


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> LazyArray:
    if not isinstance(data, bytes):  # bytes(n) would allocate n
        raise TypeError("no bytes")
    result = LazyArray()
    set_array(result, (1, tuple(shape), dtype, order == "F", data))
    return result


def _builders() -> dict[tuple[str, str], Builder]:
    table: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
        ("torch._utils", "_rebuild_qtensor"): _quantised,
        ("torch._utils", "_rebuild_parameter"): _first,
        ("torch._utils", "_rebuild_parameter_with_state"): _first,
        ("torch._utils", "_rebuild_device_tensor_from_numpy"): _first,
        ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _first,
        ("torch._utils", "_rebuild_xla_tensor"): _first,
        ("torch._tensor", "_rebuild_from_type_v2"): _typed,
        ("torch._tensor", "_rebuild_from_type"): _typed,
        ("torch.nn.parameter", "Parameter"): _first,
        ("torch.nn.parameter", "Buffer"): _first,
        ("torch.autograd.variable", "Variable"): _first,
        ("torch.storage", "_load_from_bytes"): _nested,
        ("torch", "Size"): _size,
        ("collections", "OrderedDict"): _ordered,
        ("collections", "defaultdict"): _empty_dict,
        ("collections", "Counter"): _empty_dict,
        ("_codecs", "encode"): _encoded,
    }
    for module in ("builtins", "__builtin__"):
        table |= {(module, name): _listed for name in ("set", "frozenset", "list", "tuple")}
    for core in ("numpy.core", "numpy._core"):
        table[(f"{core}.multiarray", "_reconstruct")] = _array
        table[(f"{core}.multiarray", "scalar")] = _scalar
        table[(f"{core}.numeric", "_frombuffer")] = _frombuffer
    return {key: Builder(".".join(key), make) for key, make in table.items()}


BUILDERS = _builders()
