"""Files that try to run code, to exhaust the memory or to crash: none succeeds, all are refused."""

import contextlib
import io
import os
import pickle
import pickletools
import resource
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdrun.errors import CheckpointError
from kdrun.teachers.formats import read_any
from kdrun.weights.inert import Inert
from kdrun.weights.lazy import UnreadableError
from kdrun.weights.legacy import NoSource
from kdrun.weights.pickles import read_pickle

MARK = "it_ran"


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


class Sets:
    """Pickles as an object whose state goes through `__setstate__`."""

    def __reduce__(self) -> Any:
        return (os.path.join, ("a",), {"x": 1})


def read(data: bytes) -> Any:
    return read_pickle(io.BytesIO(data), NoSource())[0]


CALLS = [
    Calls(os.system, f"touch {MARK}"),
    Calls(subprocess.check_call, ["touch", MARK]),
    Calls(eval, f"open({MARK!r}, 'w')"),
    Calls(exec, f"open({MARK!r}, 'w')"),
    Calls(open, MARK, "w"),
    Calls(torch.load, MARK),
    Calls(getattr, "os", "system"),
    Calls(__import__, "antigravity"),
    Calls(torch.hub.load, "x", "y"),
    Calls(torch._utils._rebuild_tensor_v2, Calls(open, MARK, "w"), 0, (1,), (1,), False, {}),
    Calls(torch._tensor._rebuild_from_type_v2, open, str, (MARK, "w"), None),
    Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(open, MARK, "w"))),
    Sets(),
]


@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
@pytest.mark.parametrize("wrap", ["pickle", "legacy", "zip"])
def test_nothing_is_called(
    call: Any, wrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = OrderedDict(w=torch.ones(2), evil=call)
    path = tmp_path / "a.pth"
    if wrap == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=wrap == "zip")
    before = set(sys.modules)
    found = read_any(path)
    assert torch.equal(found.weights["w"], torch.ones(2))
    assert not Path(MARK).exists()
    assert "antigravity" not in set(sys.modules) - before


def test_every_opcode_with_arguments_of_every_kind_is_survived() -> None:
    """Random pickles of all opcodes, on stacks of all kinds of values."""
    generator = torch.Generator().manual_seed(0)
    starts = [b"}", b"]", b")", b"(", b"N", b"K\x01", b"X\x01\x00\x00\x00a", b"cos\nsystem\n"]
    starts += [b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"\x8f"]
    opcodes = [code.code.encode("latin1") for code in pickletools.opcodes]

    def some(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    for _ in range(3000):
        parts = [starts[some(len(starts))] for _ in range(some(5))]
        parts += [opcodes[some(len(opcodes))] + bytes(some(3)) for _ in range(some(4))]
        parts += [starts[some(len(starts))], b"R", b"b", b"."]
        try:
            read(b"\x80\x02" + b"".join(parts))
        except UnreadableError:
            continue


def test_objects_become_placeholders_with_what_they_hold() -> None:
    found = read(pickle.dumps({"error": ValueError("x"), "path": Path("a/b")}))
    assert isinstance(found["error"], Inert)
    assert found["error"].kind == "builtins.ValueError"
    assert found["path"].args == ("a", "b")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02" + b"\x8e" + struct.pack("<Q", 2**40) + b".",  # BINBYTES8
        b"\x80\x05" + b"\x96" + struct.pack("<Q", 2**40) + b".",  # BYTEARRAY8
        b"\x80\x04" + b"\x95" + struct.pack("<Q", 2**62) + b"N.",  # FRAME
        b"\x80\x02N" + b"r" + struct.pack("<I", 2**32 - 1) + b".",  # LONG_BINPUT
        b"\x80\x02cbuiltins\nbytearray\n" + b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85R.",
        b"\x80\x02cbuiltins\nbytes\n" + b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85R.",
    ],
    ids=["bytes", "bytearray", "frame", "memo", "call of bytearray", "call of bytes"],
)
def test_a_claimed_length_allocates_nothing(data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(UnreadableError):
        read(data)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # KiB


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.",  # a deep tuple as a key
        b"\x80\x04\x8f(" + b")" + b"\x85" * 200_000 + b"\x90.",  # and in a set
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    ],
    ids=["key", "set", "lists"],
)
def test_deep_nesting_does_not_crash(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(CheckpointError):
        read_any(tmp_path / "a.pkl")


def test_lists_of_lists_that_grow_without_end_end(tmp_path: Path) -> None:
    layer: Any = [torch.ones(1)]
    for _ in range(60):
        layer = [layer, layer]
    circle: dict[str, Any] = {"w": torch.ones(2)}
    circle["self"] = circle
    torch.save({"a": layer, "b": circle}, tmp_path / "a.pth")
    assert len(read_any(tmp_path / "a.pth").tensors) <= 2


def archive(path: Path, content: bytes, **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", content)
        for name, data in records.items():
            file.writestr(f"archive/data/{name.removeprefix('r')}", data)
    return path


def claiming(numel: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A pickle of `{"w": tensor}` with the storage 0 of `numel` numbers."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self) -> Any:
            args = (Storage(), offset, size, stride, False, OrderedDict())
            return (torch._utils._rebuild_tensor_v2, args)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, Storage):
                return ("storage", torch.FloatStorage, "0", "cpu", numel)
            return None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"w": Tensor()})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "record", "reason"),
    [
        (claiming(4, (4,), (1,)), b"\0" * 16, ""),
        (claiming(4, (5,), (1,)), b"\0" * 16, "claims more"),
        (claiming(4, (2,), (1,), 3), b"\0" * 16, "claims more"),
        (claiming(4, (10**9, 10**9), (0, 0)), b"\0" * 16, "claims more"),
        (claiming(2**40, (2**40,), (1,)), b"\0" * 16, "has 16 of"),
        (claiming(2**22, (2**22,), (1,)), b"\0" * 2**24, "unpacks to"),
    ],
    ids=["honest", "size", "offset", "expanded", "storage", "zip bomb"],
)
def test_a_tensor_that_claims_more_than_there_is(
    tmp_path: Path, content: bytes, record: bytes, reason: str
) -> None:
    path = archive(tmp_path / "a.pth", content, r0=record)
    if not reason:
        assert torch.equal(read_any(path).weights["w"], torch.zeros(4))
        return
    with pytest.raises(CheckpointError, match=f"damaged at w.*{reason}"):
        _ = read_any(path).weights


def test_a_negative_stride_is_no_tensor(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pth", claiming(4, (2,), (-1,)), r0=b"\0" * 16)
    with pytest.raises(CheckpointError, match="no tensors by name"):
        _ = read_any(path).weights


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off_says_so(tmp_path: Path, old: bool, share: float) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.rand(500)}, path, _use_new_zipfile_serialization=not old)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"a.pth cannot be read as weights"):
        _ = read_any(path).weights


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        ("seed: 1\nname: caf\u00e9\n".encode(), "is a text file, not weights"),
        (b"epoch,accuracy\n1,0.5\n" * 40, "is a text file, not weights"),
        (b"\x1f\x8b\x08\0\0", "compressed with gzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b'{"a": 1}', "is a JSON file"),
        (b"", "is empty"),
    ],
)
def test_other_files_are_called_by_their_name(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match=text):
        read_any(tmp_path / "a.pth")


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as file:
        file.writestr("photos/a.jpg", b"")
    with pytest.raises(CheckpointError, match=r"archive of photos/a.jpg, not of weights"):
        read_any(tmp_path / "a.pth")
