"""A reader of torch's pickles that builds tensors and imports nothing.

A pickle is a program for a small stack machine, some of whose opcodes call what they name. Here the opcodes are read
one by one, and whatever they name stands as a `Foreign`, a name with what was handed to it. Nothing is looked up,
called or made, but for the few names of torch that say where a tensor lies. What torch.save writes is read in both of
its forms, a zip since torch 1.6 and one file before: state dicts, checkpoints of trainers, and whole modules, whose
parameters then have the names of their state dict.
"""

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .reading import check_fetched
from .stored import Stored, StoredTensor, extent

LIMIT = 2**23  # bytes of pickle, beside the tensors: a model of 7 B has a tenth of one MiB
COPIED = 2**20  # values that calls were given, together, which may name the same ones again and again; names
NAME_LIMIT, LARGEST, DIMENSIONS = 512, 2**63, 64  # letters of a name; no number or rank of a tensor is above these
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of torch's older form
TRANSPARENT = ("_parameters", "_buffers", "_modules")  # where a module keeps what its state dict names without them
STORAGES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}

DataOf = Callable[[str, int], int]  # a storage's key and size in bytes -> the byte of the file where it starts


class Unreadable(ValueError):
    """What a file has that this reader does not take; `read_pickle` says it with the file's name."""


@dataclass(eq=False)
class Foreign:
    """What a pickle names, and nobody here makes. state: what it was given, by attribute, key or index."""

    name: str
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Storage:
    """Where the numbers of one tensor or several lie: `count` elements from byte `start` of the file."""

    start: int
    count: int
    dtype: torch.dtype


def read_pickle(path: str | Path) -> Stored:
    """
    The tensors of a file that torch.save wrote, by name: keys, indices and attributes joined by dots.

    Raises an OSError that names what is in the way: no such form, a pickle that is too large or cut short, a tensor
    that does not lie inside the file.
    """
    path = Path(path)
    check_fetched(path)
    try:
        whole = _read_zip(path) if zipfile.is_zipfile(path) else _read_older(path)
        tensors, foreign = named(whole)
    except (
        ValueError,
        zipfile.BadZipFile,
        NotImplementedError,
        struct.error,
    ) as error:  # ours, and what zipfile raises
        raise OSError(f"{path} cannot be read as torch.save writes it: {error}") from error
    if not tensors:
        what = whole.name if isinstance(whole, Foreign) else type(whole).__name__
        raise OSError(f"{path} holds no tensors, but a {what}")
    return Stored(tensors, str(path), foreign)


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        entries = {info.filename: info for info in archive.infolist()}
        roots = [name.removesuffix("data.pkl") for name in entries if name.split("/")[1:] == ["data.pkl"]]
        if len(roots) != 1:
            raise Unreadable(f"a zip of {len(entries)} files holds {len(roots)} data.pkl, not 1")
        (root,) = roots

        def entry(name: str) -> zipfile.ZipInfo | None:
            return entries.get(root + name)

        def content(info: zipfile.ZipInfo) -> bytes:
            if info.file_size > LIMIT:
                raise Unreadable(f"its {info.filename} has {info.file_size} bytes, over {LIMIT}")
            file.seek(_start_in_zip(file, info))
            return file.read(info.file_size)

        def data_of(key: str, size: int) -> int:
            info = entry(f"data/{key}")
            if info is None or size > info.file_size:
                there = 0 if info is None else info.file_size
                raise Unreadable(f"its storage {key!r} has {there} bytes of {size}")
            return _start_in_zip(file, info)

        if (order := entry("byteorder")) is not None and content(order) != b"little":
            raise Unreadable("its numbers are not little-endian")
        return Machine(path, data_of).run(io.BytesIO(content(entries[f"{root}data.pkl"])))


def _start_in_zip(file: io.BufferedReader, info: zipfile.ZipInfo) -> int:
    """Where an entry's bytes start: after its own header, which may be longer than the directory's."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise Unreadable(f"its {info.filename} is compressed or encrypted")
    file.seek(max(info.header_offset, 0))
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise Unreadable(f"its {info.filename} is not where its directory says")
    start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
    if start + info.file_size > file.seek(0, io.SEEK_END):
        raise Unreadable(f"its {info.filename} of {info.file_size} bytes goes past the end of the file")
    return start


def _read_older(path: Path) -> Any:
    """Five pickles, a magic number, a protocol, the machine's sizes, the object, its storages' keys; then these."""
    sizes: dict[str, int] = {}

    def told(key: str, size: int) -> int:
        if sizes.setdefault(key, size) != size:
            raise Unreadable(f"its storage {key!r} has {sizes[key]} bytes, and {size}")
        return 0

    with path.open("rb") as file:
        head = io.BytesIO(file.read(LIMIT))
    if head.getvalue().startswith(b"PK\x03\x04"):
        raise Unreadable(f"its {path.stat().st_size} bytes are a zip that is cut short: fetch it again")
    read = Machine(path, told).run
    if read(head) != MAGIC or read(head) != PROTOCOL:
        raise Unreadable("it starts neither as a zip nor with torch's magic number")
    if not (isinstance(machine := read(head), dict) and machine.get("little_endian") is True):
        raise Unreadable("its numbers are not little-endian")
    begin = head.tell()
    read(head)  # for the sizes of its storages, which come last
    keys = read(head)
    if (
        not isinstance(keys, list)
        or len(keys) != len(sizes)
        or not all(isinstance(key, str) and key in sizes for key in keys)
    ):
        raise Unreadable("its storages are not those that its pickle names")
    starts, place, end = {}, head.tell(), path.stat().st_size
    for key in keys:
        starts[key] = place + 8  # after their number
        place += 8 + sizes[key]
    if place > end:
        raise Unreadable(f"it has {end} bytes of {place}")
    head.seek(begin)
    return Machine(path, lambda key, size: starts[key]).run(head)


def named(whole: Any) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """
    The tensors of what a pickle holds, by name, and the classes of all `Foreign` in it. What holds others is looked
    into where it is met first, and a name is bounded, so that no pickle makes names without end.
    """
    tensors, foreign, seen = {}, {}, set()
    left = [("", whole)]
    while left:
        prefix, value = left.pop()
        if isinstance(value, StoredTensor):
            tensors[prefix] = value
            continue
        if isinstance(value, Foreign):
            foreign[prefix] = value.name
        parts = value.state if isinstance(value, Foreign) else value
        if not isinstance(parts, dict | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        if len(left) + len(tensors) + len(parts) > COPIED:
            raise Unreadable(f"its pickle names more than {COPIED} things")
        if not isinstance(parts, dict):
            parts = dict(enumerate(parts))
        for key, part in reversed(parts.items()):
            hidden = isinstance(value, Foreign) and key in TRANSPARENT
            name = prefix if hidden else f"{prefix}.{key}".removeprefix(".")
            if len(name) <= NAME_LIMIT:
                left.append((name, part))
    return tensors, foreign


class Machine:
    """
    The stack machine. Dicts, lists, tuples and plain values are made; of everything else a `Foreign`, a `Storage` or a
    `StoredTensor`.
    """

    def __init__(self, path: Path, data_of: DataOf):
        self.path, self.data_of = path, data_of

    def run(self, file: io.BytesIO) -> Any:
        """The object of the pickle that starts where the file stands. Raises an `Unreadable`."""
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0
        try:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name != "STOP":  # the last one, or genops raises
                    self.step(opcode.name, argument)
            return self.stack.pop()
        except Unreadable:
            raise
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise Unreadable(f"its pickle is broken ({type(error).__name__}: {error})") from error

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            return
        if name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("POP", "POP_MARK"):
            self.popped() if name == "POP_MARK" else stack.pop()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            parts = argument.split(" ", 1) if name == "GLOBAL" else self.last(2)
            if not all(isinstance(part, str) for part in parts):
                raise Unreadable("its pickle names a class by what is no text")
            if sum(map(len, parts)) > NAME_LIMIT:
                raise Unreadable("its pickle names a class by more than a name")
            stack.append(Foreign(" ".join(parts)))
        elif name in MADE:
            count = MADE[name]
            stack.append(made(name, self.popped() if count is None else self.last(count)))
        elif name in ("APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS"):
            items = self.popped() if name.endswith("S") else self.last(1 if name == "APPEND" else 2)
            put(stack[-1], items, pairs=name.startswith("SET"))
        elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            called, *given = self.last(3 if name == "NEWOBJ_EX" else 2)
            stack.append(self.called(called, given[0]))
        elif name in ("OBJ", "INST"):
            called, *given = self.popped() if name == "OBJ" else [Foreign(argument), *self.popped()]
            stack.append(self.called(called, given))
        elif name == "BUILD":
            (state,) = self.last(1)
            if isinstance(state, tuple):
                self.count(state)
            for part in state if isinstance(state, tuple) else (state,):  # attributes, and those of slots
                if isinstance(part, dict) and isinstance(stack[-1], Foreign):
                    self.count(part)
                    stack[-1].state.update(part)
        elif name == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif argument is not None and name not in ("PERSID", "EXT1", "EXT2", "EXT4"):
            stack.append(argument)  # a number, a text or bytes, as pickletools has read it
        else:
            raise Unreadable(f"its pickle has the opcode {name}, which torch does not write")

    def last(self, count: int) -> list[Any]:
        """Takes the last values off the stack, of which there have to be as many above the last mark."""
        bottom = len(self.stack) - count
        if bottom < (self.marks[-1] if self.marks else 0):
            raise IndexError("the stack is empty")
        taken = self.stack[bottom:]
        del self.stack[bottom:]
        return taken

    def popped(self) -> list[Any]:
        """Takes what lies above the last mark off the stack, and the mark."""
        return self.last(len(self.stack) - self.marks.pop())

    def storage(self, told: Any) -> Any:
        """('storage', its class, key, device, count, …) -> where it lies; of another persistent id a `Foreign`."""
        if not isinstance(told, tuple) or len(told) < 5 or told[0] != "storage":
            return Foreign("a persistent id")
        if len(told) > 6:
            return Foreign("a view of a storage")
        _, kind, key, _, count, *view = told
        if view not in ([], [None]):
            return Foreign("a view of a storage")
        if not isinstance(key, str | int):
            return Foreign("a storage without a key")
        if not isinstance(kind, Foreign) or kind.name not in STORAGES or not isinstance(count, int) or count < 0:
            return Foreign(kind.name if isinstance(kind, Foreign) else "a storage")
        dtype = STORAGES[kind.name]
        return Storage(self.data_of(str(key), count * dtype.itemsize), count, dtype)

    def called(self, function: Any, given: Any) -> Any:
        """What a call stands for: a tensor, a dict, or a `Foreign` of its name that holds what it was given."""
        name = function.name if isinstance(function, Foreign) else type(function).__name__
        given = list(given) if isinstance(given, list | tuple) else [given]
        self.count(given)
        if name == "torch._utils _rebuild_tensor_v2" and len(given) >= 4 and isinstance(given[0], Storage):
            return self.tensor(*given[:4])
        if name.startswith("torch._utils _rebuild_parameter") and given and isinstance(given[0], StoredTensor):
            return given[0]
        if name == "collections OrderedDict":
            items = given[0] if given and isinstance(given[0], dict) else {}
            self.count(items)
            return dict(items)
        return Foreign(name, dict(enumerate(given)))

    def count(self, given: Collection[Any]) -> None:
        """Raises an `Unreadable` where a pickle hands out more than one of a model would."""
        self.copied += len(given)
        if self.copied > COPIED:
            raise Unreadable(f"its pickle hands {self.copied} values to calls, over {COPIED}")

    def tensor(self, storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> StoredTensor:
        if not isinstance(shape, tuple) or not isinstance(stride, tuple):
            raise Unreadable("a tensor whose shape or stride is no tuple")
        numbers = [offset, *shape, *stride]
        if not len(shape) == len(stride) <= DIMENSIONS or not all(
            isinstance(number, int) and 0 <= number < LARGEST for number in numbers
        ):
            raise Unreadable(f"a tensor of {len(shape)} sizes and {len(stride)} strides that are none of a tensor")
        elements, last = math.prod(shape), offset + (0 if 0 in shape else extent(shape, stride))
        if max(elements, last) > storage.count:
            raise Unreadable(f"a tensor of {elements} elements that ends at {last} in a storage of {storage.count}")
        start = storage.start + offset * storage.dtype.itemsize
        return StoredTensor(self.path, start, storage.dtype, tuple(shape), tuple(stride))


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
MADE: dict[str, int | None] = {  # how many values of the stack each takes; None: those above the mark
    "EMPTY_DICT": 0,
    "EMPTY_LIST": 0,
    "EMPTY_SET": 0,
    "EMPTY_TUPLE": 0,
    "TUPLE1": 1,
    "TUPLE2": 2,
    "TUPLE3": 3,
    "TUPLE": None,
    "LIST": None,
    "DICT": None,
    "FROZENSET": None,
}


def made(opcode: str, items: list[Any]) -> Any:
    """A tuple, a dict, or a list, which stands for a set, too: nothing from a pickle is hashed but plain keys."""
    if "TUPLE" in opcode:
        return tuple(items)
    value: Any = {} if "DICT" in opcode else []
    put(value, items, pairs="DICT" in opcode)
    return value


def put(target: Any, items: list[Any], *, pairs: bool) -> None:
    """Adds items, or keys and values, to a list or dict, or to a `Foreign` that is a subclass of one."""
    if pairs:
        into = target.state if isinstance(target, Foreign) else target
        if not isinstance(into, dict) or len(items) % 2:
            raise TypeError(f"{len(items)} keys and values for a {type(target).__name__}")
        into.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if plain(key))
    elif isinstance(target, list):
        target.extend(items)
    elif isinstance(target, Foreign):
        target.state.update((len(target.state) + i, item) for i, item in enumerate(items))
    else:
        raise TypeError(f"items for a {type(target).__name__}")


def plain(key: Any) -> bool:
    return isinstance(key, str | float | bytes) or (isinstance(key, int) and abs(key) < LARGEST)
