"""A pickle reader that calls nothing: it builds plain data, lazy tensors and placeholders.

PyTorch files are pickles, and a pickle may call any function while it is read. This reader looks up
every name in a fixed table of builders (tensors, dictionaries, NumPy numbers). Anything else, from
an argparse.Namespace to the network's class, becomes an `Inert` placeholder with the stored data.
It imports nothing and calls no method of an object from the file.

Dangerous opcodes are replaced: REDUCE, NEWOBJ and BUILD only record; dictionary keys must be
scalars (hashing a deeply nested tuple overflows the stack); a claimed length never allocates. Uses
the pure Python unpickler because the C version reserves memory for any memo index in the file.
"""

import pickle
from typing import IO, TYPE_CHECKING, Any

from kdrun.weights.builders import BUILDERS, Builder, set_array, storage_of
from kdrun.weights.inert import Inert, InertClass
from kdrun.weights.lazy import LazyArray, Source, UnreadableError

PIECE_BYTES = 2**24
SCALARS = (str, int, float, bool, bytes, complex, type(None))


if TYPE_CHECKING:
    PurePythonUnpickler = Any
else:
    # opcodes of the C unpickler cannot be replaced
    PurePythonUnpickler = pickle._Unpickler


class InertUnpickler(PurePythonUnpickler):
    """Reads one pickle from `file`; storages read their bytes from `source`.

    placeholders: dotted names of all uncalled classes and functions.
    """

    def __init__(self, file: Any, source: Source) -> None:
        # latin-1, because Python 2 pickles store raw bytes as text
        super().__init__(file, encoding="latin1")
        self.source = source
        self.placeholders: set[str] = set()

    def find_class(self, module: str, name: str) -> Builder | InertClass:
        """A builder from the table, or a placeholder; imports nothing."""
        builder = BUILDERS.get((module, name))
        return InertClass(f"{module}.{name}") if builder is None else builder

    def persistent_load(self, pid: Any) -> Any:
        """A storage. Ignores the source code of modules in old files."""
        if not isinstance(pid, tuple) or not pid:
            raise pickle.UnpicklingError("an unknown persistent id")
        if pid[0] == "module" and len(pid) > 1:
            return pid[1]
        if pid[0] != "storage":
            raise pickle.UnpicklingError("an unknown persistent id")
        return storage_of(pid, self.source)

    def make(self, what: Any, args: Any) -> Any:
        """The result of a builder, or a placeholder if it rejects the arguments."""
        args = args if isinstance(args, tuple) else (args,)
        if isinstance(what, Builder):
            try:
                return what.make(*args)
            except (TypeError, ValueError, AttributeError, OverflowError):
                return self.placeholder(what.name, args)
        return self.placeholder(what.name if isinstance(what, InertClass) else "?", args)

    def placeholder(self, name: str, args: tuple[Any, ...]) -> Inert:
        """A placeholder with the arguments; records the name."""
        self.placeholders.add(name)
        return Inert(name, args)

    def _instantiate(self, klass: Any, args: Any) -> None:  # INST and OBJ end here
        self.append(self.make(klass, tuple(args)))


def _reduce(self: InertUnpickler) -> None:
    args = self.stack.pop()
    self.stack[-1] = self.make(self.stack[-1], args)


def _newobj_ex(self: InertUnpickler) -> None:
    kwargs, args = self.stack.pop(), self.stack.pop()
    result = self.make(self.stack.pop(), args)
    if isinstance(result, Inert) and isinstance(kwargs, dict) and kwargs:
        result.items += list(kwargs.items())
    self.append(result)


def _build(self: InertUnpickler) -> None:
    state = self.stack.pop()
    target = self.stack[-1]
    if isinstance(target, Inert):
        target.state = state
    elif isinstance(target, LazyArray):
        set_array(target, state)
    # dictionaries and tensors need no further state


def _key(value: Any) -> Any:
    """The value if it can be a dictionary key. Raises UnpicklingError otherwise."""
    flat = isinstance(value, tuple) and all(isinstance(item, SCALARS) for item in value)
    if isinstance(value, SCALARS) or flat or type(value).__hash__ is object.__hash__:  # type: ignore[comparison-overlap]
        return value
    raise pickle.UnpicklingError(f"a dictionary has a {type(value).__name__} as a key")


def _put(target: Any, pairs: list[tuple[Any, Any]]) -> None:
    if isinstance(target, dict):
        for key, value in pairs:
            target[_key(key)] = value
    elif isinstance(target, Inert):
        target.items += pairs


def _setitem(self: InertUnpickler) -> None:
    value, key = self.stack.pop(), self.stack.pop()
    _put(self.stack[-1], [(key, value)])


def _setitems(self: InertUnpickler) -> None:
    items = self.pop_mark()
    _put(self.stack[-1], list(zip(items[::2], items[1::2], strict=False)))


def _dict(self: InertUnpickler) -> None:
    items = self.pop_mark()
    result: dict[Any, Any] = {}
    _put(result, list(zip(items[::2], items[1::2], strict=False)))
    self.append(result)


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, Inert):
        target.items += values


def _append(self: InertUnpickler) -> None:
    value = self.stack.pop()
    _extend(self.stack[-1], [value])


def _appends(self: InertUnpickler) -> None:
    values = self.pop_mark()
    _extend(self.stack[-1], values)


def _empty_set(self: InertUnpickler) -> None:
    self.append([])  # members are never hashed


def _frozenset(self: InertUnpickler) -> None:
    self.append(self.pop_mark())


def _bytearray8(self: InertUnpickler) -> None:
    self.append(bytes(self.read(int.from_bytes(self.read(8), "little"))))


def _refuse(self: InertUnpickler) -> None:
    raise pickle.UnpicklingError("an opcode that weights do not use")


REPLACED = {
    pickle.REDUCE: _reduce,
    pickle.NEWOBJ: _reduce,  # same stack layout as REDUCE
    pickle.NEWOBJ_EX: _newobj_ex,
    pickle.BUILD: _build,
    pickle.SETITEM: _setitem,
    pickle.SETITEMS: _setitems,
    pickle.DICT: _dict,
    pickle.APPEND: _append,
    pickle.APPENDS: _appends,
    pickle.ADDITEMS: _appends,
    pickle.EMPTY_SET: _empty_set,
    pickle.FROZENSET: _frozenset,
    pickle.BYTEARRAY8: _bytearray8,
    pickle.NEXT_BUFFER: _refuse,
    pickle.READONLY_BUFFER: _refuse,
    pickle.EXT1: _refuse,
    pickle.EXT2: _refuse,
    pickle.EXT4: _refuse,
}
InertUnpickler.dispatch = {
    **PurePythonUnpickler.dispatch,
    **{opcode[0]: function for opcode, function in REPLACED.items()},
}


class _InPieces:
    """A file read in pieces, so that memory depends on the actual, not the claimed length."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.readline = file.readline

    def read(self, size: int) -> bytes:
        pieces, left = [], size
        while left > 0:
            piece = self.file.read(min(left, PIECE_BYTES))
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


def read_pickle(file: IO[bytes], source: Source) -> tuple[Any, set[str]]:
    """(next pickle of `file`, names of uncalled classes and functions).

    Raises UnreadableError for any invalid pickle.
    """
    reader = InertUnpickler(_InPieces(file), source)
    try:
        return reader.load(), reader.placeholders
    except UnreadableError:
        raise
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # damaged bytes raise anything: IndexError, KeyError, ValueError, ...
        text = str(error).strip().partition("\n")[0][:80] or "it ends early"
        raise UnreadableError(f"{type(error).__name__}: {text}") from None
