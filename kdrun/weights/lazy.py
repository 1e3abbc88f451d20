"""Lazy tensors of a file: their shape is known, their bytes are not loaded.

A file may claim any size. Memory is allocated only when a tensor is loaded, and only after its
claims agree with the actual bytes of the file.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

# Elements that a tensor may have beyond its storage (`expand` repeats without a copy).
MOST_REPEATED = 2**20


class UnreadableError(Exception):
    """The content of a file is damaged or inconsistent; the text says how."""


class Source(Protocol):
    """Reads the bytes of storages."""

    def expect(self, key: str, itemsize: int) -> None:
        """Announce a storage `key` with elements of `itemsize` bytes."""

    def read(self, key: str, size: int) -> bytearray:
        """The `size` bytes of the storage `key`."""


@dataclass(frozen=True, eq=False)
class Storage:
    """A flat block of numbers in a file: `numel` elements of `dtype` from element `start` on."""

    source: Source
    key: str
    dtype: torch.dtype
    numel: int
    start: int = 0
    whole: int | None = None

    def values(self, dtype: torch.dtype) -> Tensor:
        """All elements, `[numel]`."""
        count = self.numel if self.whole is None else self.whole
        data = self.source.read(self.key, count * self.dtype.itemsize)
        stored = torch.uint8 if dtype == torch.bool else dtype
        if len(data) % dtype.itemsize:
            raise UnreadableError(f"storage {self.key} is not a sequence of {dtype}")
        if not data:
            return torch.empty(0, dtype=dtype)
        flat = torch.frombuffer(data, dtype=stored)
        flat = flat != 0 if dtype == torch.bool else flat
        return flat[self.start : self.start + self.numel] if self.whole is not None else flat


@dataclass(frozen=True)
class Quantisation:
    """Quantisation parameters: value = `(integer - zero_point) * scale`, per `axis` if given."""

    scale: Any
    zero_point: Any
    axis: int | None = None


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor of a file. size, stride and offset in elements of `dtype`.

    bits: `neg` and `conj`, for views that PyTorch negates or conjugates on access.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    quantisation: Quantisation | None = None
    bits: frozenset[str] = frozenset()

    @property
    def shape(self) -> torch.Size:
        """As of a tensor."""
        return torch.Size(self.size)

    def load(self) -> Tensor:
        """Read the tensor. Raises UnreadableError for inconsistent claims."""
        flat = self.storage.values(self.dtype)
        self._check(flat.numel())
        tensor = flat.as_strided(self.size, self.stride, self.offset)
        if "neg" in self.bits:
            tensor = -tensor
        if "conj" in self.bits:
            tensor = tensor.conj_physical()
        if self.quantisation is None:
            return tensor.clone()  # detach from a larger storage
        return _dequantised(tensor, self.quantisation)

    def _check(self, available: int) -> None:
        numbers = (self.offset, *self.size, *self.stride)
        if len(self.size) != len(self.stride) or any(n < 0 for n in numbers):
            raise UnreadableError(f"a tensor claims shape {list(self.size)}, {list(self.stride)}")
        count = math.prod(self.size)
        pairs = zip(self.size, self.stride, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in pairs)
        if count and (last >= available or count > max(available, MOST_REPEATED)):
            raise UnreadableError(
                f"a tensor of shape {list(self.size)} claims more than its {available} elements"
            )


@dataclass(eq=False)
class LazyArray:
    """A NumPy array or scalar of a file."""

    dtype: torch.dtype | None = None
    size: tuple[int, ...] = ()
    data: bytes = b""
    column_major: bool = False

    @property
    def shape(self) -> torch.Size:
        """As of a tensor."""
        return torch.Size(self.size)

    def load(self) -> Tensor:
        """The array as a tensor."""
        if self.dtype is None or math.prod(self.size) * self.dtype.itemsize != len(self.data):
            raise UnreadableError(f"an array of shape {list(self.size)} has {len(self.data)} bytes")
        if not self.data:
            return torch.empty(self.size, dtype=self.dtype)
        stored = torch.uint8 if self.dtype == torch.bool else self.dtype
        flat = torch.frombuffer(bytearray(self.data), dtype=stored)
        flat = flat != 0 if self.dtype == torch.bool else flat
        if not self.column_major:
            return flat.reshape(self.size)
        axes = tuple(reversed(range(len(self.size))))
        return flat.reshape(tuple(reversed(self.size))).permute(axes).contiguous()


# A tensor of a file, loaded or lazy.
AnyTensor = Tensor | LazyTensor | LazyArray


def loaded(tensor: AnyTensor) -> Tensor:
    """The tensor, loaded if it is lazy."""
    return tensor if isinstance(tensor, Tensor) else tensor.load()


def is_tensor(value: Any) -> bool:
    """Whether a value of a file is a tensor."""
    if isinstance(value, LazyArray):
        return value.dtype is not None
    return isinstance(value, Tensor | LazyTensor)


def _dequantised(tensor: Tensor, how: Quantisation) -> Tensor:
    values = tensor.to(torch.float32)
    if how.axis is None:
        return (values - float(how.zero_point)) * float(how.scale)
    scale, zero = (loaded(x).to(torch.float32) for x in (how.scale, how.zero_point))
    shape = [-1 if i == how.axis else 1 for i in range(values.dim())]
    return (values - zero.reshape(shape)) * scale.reshape(shape)
