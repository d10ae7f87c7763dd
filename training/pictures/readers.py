"""Files of captioned pictures, read in units: a row group, a record batch, a run of lines or of a tar's members.

A reader knows its file's columns and how many rows each unit has without reading a picture; it reads one unit at a
time and decodes nothing. What it holds is small and survives pickling: each worker opens the file for itself.
"""

import functools
import hashlib
import os
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from .lines import csv_table, json_object, json_table

ROWS_A_UNIT = 256  # where the format has no units of its own
PICTURE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
TEXT_SUFFIXES = ("txt", "text", "caption")


class Row(NamedTuple):
    """A row, undecoded: `columns["image"]` is {"bytes": … or None, "path": … or None}, or None. where: its name."""

    where: str
    columns: dict[str, Any]


def open_binary(path: str) -> IO[bytes]:
    """A local file or one of a URL (hf://…), to be read and sought in."""
    return fsspec.open(path, "rb").open() if "://" in path else Path(path).open("rb")


@contextmanager
def named(path: str, kind: str) -> Iterator[None]:
    """What Arrow raises inside -> a ValueError that names the file; a file that is not there is an error as it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read as {kind} ({reason}): if it is cut off, copy it again") from error


class TableRows(Sequence):
    """Rows of an Arrow table, each made when it is asked for."""

    def __init__(self, table: pa.Table, path: str, first: int):
        self.table, self.path, self.first = table, path, first

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, i: int) -> Row:
        columns = self.table.slice(i, 1).to_pylist()[0]
        where = f"{self.path}, row {self.first + i}"
        for name in ("image", "file_name"):
            if name in columns:
                columns["image"] = picture(columns[name], posixpath.dirname(self.path))
                break
        return Row(where, columns)


def picture(value: Any, folder: str) -> dict[str, Any] | None:
    """A picture's cell: bytes, a path relative to `folder`, or both in a struct."""
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, str):
        return {"bytes": None, "path": posixpath.join(folder, value)} if value else None
    if isinstance(value, dict) and value.get("bytes") is None and value.get("path"):
        return {"bytes": None, "path": posixpath.join(folder, value["path"])}
    return value if isinstance(value, dict) and value.get("bytes") is not None else None


class Reader:
    """
    One file. columns: names, `image` among them; lengths: rows of each unit. One that is cut off, or another format's,
    is a ValueError that names it, when it is opened or read.
    """

    columns: list[str]
    lengths: list[int]

    def __init__(self, path: str):
        self.path = path
        files, name = fsspec.core.url_to_fs(path)
        self.size = files.size(name)  # bytes

    def read(self, unit: int, columns: list[str] | None = None) -> Sequence[Row]:
        """A unit's rows, of these columns alone where the format can tell them apart."""
        raise NotImplementedError

    def first(self, unit: int) -> int:
        return sum(self.lengths[:unit])

    def digest(self) -> str:
        """Of the name and the content; of a URL itself, whose content it does not read: a Hub's holds the commit."""
        if "://" in self.path:
            return f"{self.path} {self.size} {self.lengths}"
        return f"{posixpath.basename(self.path)} {content_digest(self.path, os.stat(self.path).st_mtime_ns)}"


@functools.cache
def content_digest(path: str, changed: int) -> str:
    """Read once a process, as long as the time of its last change is the same."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ParquetReader(Reader):
    """A unit is a row group."""

    def __init__(self, path: str):
        super().__init__(path)
        with named(path, "Parquet"), open_binary(path) as file:
            parquet = pq.ParquetFile(file)
            self.columns = with_image(parquet.schema_arrow.names)
            self.lengths = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]

    def read(self, unit: int, columns: list[str] | None = None) -> TableRows:
        with named(self.path, "Parquet"), open_binary(self.path) as file:
            table = pq.ParquetFile(file).read_row_group(unit, columns=columns)
        return TableRows(table, self.path, self.first(unit))


class ArrowReader(Reader):
    """A unit is a record batch of the memory-mapped file, of either IPC format."""

    def __init__(self, path: str):
        super().__init__(path)
        if "://" in path:
            raise ValueError(f"{path}: Arrow files are memory-mapped, so they must be local: download the set first")
        batches = mapped_batches(path)
        self.columns = with_image(batches[0].schema.names if batches else [])
        self.lengths = [len(batch) for batch in batches]

    def read(self, unit: int, columns: list[str] | None = None) -> TableRows:
        table = pa.Table.from_batches([mapped_batches(self.path)[unit]])
        return TableRows(table.select(columns) if columns else table, self.path, self.first(unit))


@functools.lru_cache(maxsize=64)
def mapped_batches(path: str) -> list[pa.RecordBatch]:
    with named(path, "Arrow"):
        source = pa.memory_map(path)
        try:
            return list(pa.ipc.open_stream(source))
        except pa.ArrowInvalid:  # not a stream, so a file
            source.seek(0)
            reader = pa.ipc.open_file(source)
            return [reader.get_batch(i) for i in range(reader.num_record_batches)]


class LinesReader(Reader):
    """JSON lines, CSV, or a metadata file: small rows with paths relative to the file, kept in memory."""

    def __init__(self, path: str):
        super().__init__(path)
        with open_binary(path) as file:
            self.table = TABLES[posixpath.splitext(path)[1].lower()](file, path)
        self.columns = with_image(self.table.column_names)
        starts = range(0, self.table.num_rows, ROWS_A_UNIT)
        self.lengths = [min(ROWS_A_UNIT, self.table.num_rows - start) for start in starts]

    def read(self, unit: int, columns: list[str] | None = None) -> TableRows:
        table = self.table.slice(unit * ROWS_A_UNIT, self.lengths[unit])
        return TableRows(table.select(columns) if columns else table, self.path, unit * ROWS_A_UNIT)

    def digest(self) -> str:
        """Of the content too; and of each local picture that it names the size, and the time of its last change."""
        with open_binary(self.path) as file:
            digest = hashlib.sha256(file.read())
        column = "image" if "image" in self.table.column_names else "file_name"
        cells = self.table[column].to_pylist() if column in self.table.column_names else []
        for cell in cells:
            path = (picture(cell, posixpath.dirname(self.path)) or {}).get("path")
            if path and "://" not in path and os.path.exists(path):
                found = os.stat(path)
                digest.update(f"{cell} {found.st_size} {found.st_mtime_ns}".encode())
        return f"{super().digest()} {digest.hexdigest()}"


def parquet_table(file: IO[bytes], path: str) -> pa.Table:
    with named(path, "Parquet"):
        return pq.ParquetFile(file).read()


TABLES = {".jsonl": json_table, ".json": json_table, ".csv": csv_table, ".parquet": parquet_table}


def with_image(names: list[str]) -> list[str]:
    """`file_name`, the image folder's name of the column, is `image`."""
    return ["image" if name == "file_name" and "image" not in names else name for name in names]


class TarReader(Reader):
    """
    A WebDataset tar: members that share a name up to its first dot are one row; 1.png is `image`, 1.mask.png is not;
    .txt is `text`, the keys of .json are columns. A unit is a run of rows; its offset is found by one pass over all
    but the pictures. Raises a ValueError where the tar is cut off.
    """

    def __init__(self, path: str):
        super().__init__(path)
        if "://" in path:
            raise ValueError(f"{path}: a tar is sought in, so it must be local: download the set first")
        self.offsets: list[int] = []
        self.lengths, names = [], {"image": None}
        try:
            with Path(path).open("rb") as file:
                for i, (_, members) in enumerate(grouped(tarfile.TarFile(fileobj=file))):
                    if i % ROWS_A_UNIT == 0:
                        self.offsets.append(members[0].offset)
                        self.lengths.append(0)
                    self.lengths[-1] += 1
                    names |= dict.fromkeys(tar_columns(file, members, pictures=False))
        except tarfile.TarError as error:
            raise ValueError(
                f"{path} is no whole tar, or a compressed one ({error}): copy or unpack it again"
            ) from error
        self.columns = list(names)

    def read(self, unit: int, columns: list[str] | None = None) -> list[Row]:
        rows = []
        with Path(self.path).open("rb") as file:
            file.seek(self.offsets[unit])
            groups = grouped(tarfile.TarFile(fileobj=file))
            for _, (key, members) in zip(range(self.lengths[unit]), groups, strict=False):
                rows.append(Row(f"{self.path}/{key}", tar_columns(file, members)))
        return rows


def grouped(tar: tarfile.TarFile) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """Members in runs of one key: their path up to the first dot of its last part. Hidden files, as macOS adds, go."""
    key, members = None, []
    for member in tar:
        folder, name = posixpath.split(member.name)
        if not member.isfile() or name.startswith("."):
            continue
        own = posixpath.join(folder, name.partition(".")[0])
        if own != key and members:
            yield key, members
            members = []
        key = own
        members.append(member)
    if members:
        yield key, members


def tar_columns(file: IO[bytes], members: list[tarfile.TarInfo], pictures: bool = True) -> dict[str, Any]:
    """The columns of one row's members, `image` read if `pictures`; what is no JSON leaves its own out."""
    columns: dict[str, Any] = {"image": None}
    for member in members:
        suffixes = posixpath.basename(member.name).partition(".")[2].lower()
        suffix = suffixes.rpartition(".")[2]
        if suffix not in (*(PICTURE_SUFFIXES if pictures else ()), *TEXT_SUFFIXES, "json"):
            continue
        if suffix in PICTURE_SUFFIXES and suffix != suffixes:
            continue
        file.seek(member.offset_data)
        data = file.read(member.size)
        if suffix in PICTURE_SUFFIXES:
            columns["image"] = {"bytes": data, "path": member.name}
        elif suffix in TEXT_SUFFIXES:
            columns["text"] = data.decode("utf-8", errors="replace")
        else:
            columns |= {name: value for name, value in json_object(data).items() if name != "image"}
    return columns
