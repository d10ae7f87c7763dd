"""Tensors that lie in a file, known by name and shape, read one at a time into memory of their own."""

import itertools
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .reading import check_fetched

HEADER_LIMIT = 2**27  # bytes of a safetensors header, as its own library has it
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of `shape` and `stride`, in elements, whose first element is at byte `start` of the file."""

    path: Path
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> Tensor:
        """It, contiguous, in memory of its own. Raises an OSError where the file ends before it does."""
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.dtype, device="cpu")
        data = torch.empty(extent(self.shape, self.stride) * self.dtype.itemsize, dtype=torch.uint8, device="cpu")
        with self.path.open("rb") as file:
            file.seek(self.start)
            count = file.readinto(data.numpy().data)
        if count != len(data):
            raise OSError(f"{self.path} ends after {count} of the {len(data)} bytes of a tensor: fetch it again")
        return data.view(self.dtype).as_strided(self.shape, self.stride).contiguous()


@dataclass(frozen=True)
class Stored(Mapping[str, StoredTensor]):
    """
    The tensors of a checkpoint by name. source: its file or folder, for errors. foreign: what else lies where a tensor
    could, by name: the class that it says it is, which nothing here builds.
    """

    tensors: dict[str, StoredTensor]
    source: str
    foreign: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> StoredTensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def under(self, prefix: str) -> "Stored":
        """Those whose names start with the prefix, without it."""

        def cut(named: dict) -> dict:
            return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}

        return Stored(cut(self.tensors), self.source, cut(self.foreign))


def extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Elements from the first to the last, both counted; the shape has no 0."""
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def read_safetensors(path: str | Path) -> Stored:
    """The tensors of a safetensors file. Raises an OSError where it is none."""
    path = Path(path)
    check_fetched(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(HEADER_LIMIT, size):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            tensors = {name: _placed(path, 8 + length, size, **entry) for name, entry in header.items()}
            spans = sorted(tuple(entry["data_offsets"]) for entry in header.values())
            if any(begin < before for (_, before), (begin, _) in itertools.pairwise(spans)):
                raise ValueError("two tensors that overlap")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
            raise OSError(f"{path} is no safetensors file ({type(error).__name__}: {error})") from error
    return Stored(tensors, str(path))


def _placed(
    path: Path, data: int, size: int, *, dtype: str, shape: list[int], data_offsets: list[int]
) -> StoredTensor:
    begin, end = data_offsets
    count = math.prod(shape) * DTYPES[dtype].itemsize
    if min([begin, *shape]) < 0 or end - begin != count or data + end > size:
        raise ValueError(f"{dtype} {shape} at {data_offsets} does not fit into a file of {size} bytes")
    return StoredTensor(path, data + begin, DTYPES[dtype], tuple(shape), contiguous_stride(tuple(shape)))
