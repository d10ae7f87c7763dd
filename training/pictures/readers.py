"""Files of captioned pictures, read in units: a row group, a record batch, a run of lines or of a tar's members.

A reader knows its file's columns and how many rows each unit has without reading a picture; it reads one unit at a
time and decodes nothing. What it holds is small and survives pickling: each worker opens the file for itself.
"""

import functools
import hashlib
import json
import os
import posixpath
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from dvae.image_processing_dvae import LFS_POINTER
from pipelines.commands import printable as signs

from .lines import BROKEN, csv_table, json_object, json_table

ROWS_A_UNIT = 256  # where the format has no units of its own
EDGE = 2**16  # bytes of a file's start and end that `sketch` reads
PICTURE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff", "jp2", "ppm", "ico")
TEXT_SUFFIXES = ("txt", "text", "caption")
# columns that hold a picture or name its file, the first of them that a file has
PICTURE_COLUMNS = ("image", "file_name", "filename", "image_path", "img", *PICTURE_SUFFIXES)


class Row(NamedTuple):
    """
    A row, undecoded: `columns["image"]` is {"bytes": … or None, "path": … or None}, or None. where: its name. broken:
    why it cannot be read, where that is known.
    """

    where: str
    columns: dict[str, Any]
    broken: str | None = None


def printable(name: str) -> str:
    """A name whose bytes are no UTF-8, which Python keeps as surrogates, as text; no sign of it is a command."""
    return signs(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def open_binary(path: str) -> IO[bytes]:
    """A local file or one of a URL (hf://…), to be read and sought in."""
    if "://" not in path:
        return Path(path).open("rb")
    return fsspec.open(path, "rb").open()  # pyright: ignore[reportAttributeAccessIssue]  # of one path it is one file


@contextmanager
def named(path: str, kind: str) -> Iterator[None]:
    """What Arrow raises inside -> a ValueError that names the file; a file that is not there is an error as it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        reason, remedy = str(error).partition("\n")[0], "if it is cut off, copy it again"
        if is_lfs_pointer(path):
            reason, remedy = "it is a git-LFS pointer", "fetch the file itself: git lfs pull"
        raise ValueError(f"{path} cannot be read as {kind} ({reason}): {remedy}") from error


def is_lfs_pointer(path: str) -> bool:
    with open_binary(path) as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


class TableRows(Sequence):
    """Rows of an Arrow table, each made when it is asked for. root: as a reader has it."""

    def __init__(self, table: pa.Table, path: str, first: int, root: str | None = None):
        self.table, self.path, self.first, self.root = table, path, first, root

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, i: int) -> Row:
        columns = self.table.slice(i, 1).to_pylist()[0]
        where = printable(f"{self.path}, row {self.first + i}")
        for name in PICTURE_COLUMNS:
            if name in columns:
                columns["image"] = picture(columns[name], posixpath.dirname(self.path), self.root)
                break
        return Row(where, columns, broken_rows(self.table).get(self.first + i))


def broken_rows(table: pa.Table) -> dict[int, str]:
    """Why rows of a table of lines are of nothing, by their number."""
    return json_rows((table.schema.metadata or {}).get(BROKEN.encode(), b"{}"))


@functools.lru_cache(maxsize=8)
def json_rows(text: bytes) -> dict[int, str]:
    return {int(row): reason for row, reason in json.loads(text).items()}


def picture(value: Any, folder: str, root: str | None = None) -> dict[str, Any] | None:
    """
    A picture's cell: bytes, a path relative to `folder`, or both in a struct; None where it is none of these.

    A path that leaves the set is marked {"outside": True}: one out of `root`, or any address. Without a root the file
    was named by the user alone: its relative paths stay in its folder, its absolute ones are followed.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    path = value.get("path") if isinstance(value, dict) else value
    if isinstance(data, bytes):
        return {"bytes": data, "path": path if isinstance(path, str) else None}
    if not isinstance(path, str) or not path:
        return None
    found = {"bytes": None, "path": posixpath.join(folder, path)}
    if root is None and posixpath.isabs(path) and "://" not in folder:
        return found
    inside = "://" not in path and all(is_below(posixpath.join(folder, own), root or folder) for own in spelled(path))
    return found if inside else {**found, "outside": True}


def is_below(path: str, folder: str) -> bool:
    """By the names alone: links are followed, as whoever could put one there could have put the picture."""
    path, folder = (posixpath.normpath(name if "://" in name else os.path.abspath(name)) for name in (path, folder))
    return path.startswith(folder.rstrip("/") + "/")


def spelled(path: str) -> list[str]:
    """A path as it is written, and as other systems write it: with slashes; with accents as signs of their own."""
    ways = [path, path.replace("\\", "/")]
    ways += [unicodedata.normalize(form, way) for way in ways for form in ("NFC", "NFD")]
    return list(dict.fromkeys(ways))


def found_at(path: str) -> str | None:
    """Where a local picture lies, however its path is spelled; None where there is none."""
    if "://" in path or "\0" in path:
        return None
    return next((way for way in spelled(path) if os.path.isfile(way)), None)


class Reader:
    """
    One file. columns: names, `image` among them; lengths: rows of each unit. One that is cut off, or another format's,
    is a ValueError that names it, when it is opened or read.

    root: the folder of the set, which pictures that are named by paths lie in; None of a file that the user named.
    """

    columns: list[str]
    lengths: list[int]
    own: str | None = None  # what the file calls its pictures' column

    def __init__(self, path: str, root: str | None = None):
        self.path, self.root = path, root
        files, name = fsspec.core.url_to_fs(path)
        self.size = files.size(name)  # bytes

    def read(self, unit: int, columns: list[str] | None = None) -> Sequence[Row]:
        """A unit's rows, of these columns alone where the format can tell them apart."""
        raise NotImplementedError

    def check_rows(self) -> None:
        """Raises a ValueError for a file that says of itself that it has more rows than bytes."""
        if sum(self.lengths) > self.size:
            raise ValueError(f"{self.path} says that it has {sum(self.lengths)} rows, in {self.size} bytes")

    def first(self, unit: int) -> int:
        return sum(self.lengths[:unit])

    def in_file(self, columns: list[str] | None) -> list[str] | None:
        """The names of columns as the file has them."""
        return columns and [(self.own or name) if name == "image" else name for name in columns]

    def digest(self) -> str:
        """Of the name and the content; of a URL itself, whose content it does not read: a Hub's holds the commit."""
        if "://" in self.path:
            return f"{self.path} {self.size} {self.lengths}"
        return (
            f"{printable(posixpath.basename(self.path))} {content_digest(self.path, os.stat(self.path).st_mtime_ns)}"
        )

    def sketch(self) -> str:
        """
        Of what tells two files' contents apart in no time, whatever they are called and whenever they were copied:
        the size and both ends. Of a URL as `digest`.
        """
        if "://" in self.path:
            return self.digest()
        with Path(self.path).open("rb") as file:
            digest = hashlib.sha256(file.read(EDGE))
            file.seek(max(self.size - EDGE, 0))
            digest.update(file.read())
        return f"{self.size} {digest.hexdigest()}"


@functools.cache
def content_digest(path: str, changed: int) -> str:
    """Read once a process, as long as the time of its last change is the same."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ParquetReader(Reader):
    """
    A unit is a row group, read by one thread: a lane has no more to itself, and workers are forked from a process that
    has read, where threads of a pool could hold what the worker waits for.
    """

    def __init__(self, path: str, root: str | None = None):
        super().__init__(path, root)
        with named(path, "Parquet"), open_binary(path) as file:
            parquet = pq.ParquetFile(file)
            self.columns, self.own = with_image(parquet.schema_arrow.names)
            self.lengths = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        self.check_rows()

    def read(self, unit: int, columns: list[str] | None = None) -> TableRows:
        with named(self.path, "Parquet"), open_binary(self.path) as file:
            table = pq.ParquetFile(file).read_row_group(unit, columns=self.in_file(columns), use_threads=False)
        return TableRows(table, self.path, self.first(unit), self.root)


class ArrowReader(Reader):
    """A unit is a record batch of the memory-mapped file, of either IPC format."""

    def __init__(self, path: str, root: str | None = None):
        super().__init__(path, root)
        if "://" in path:
            raise ValueError(f"{path}: Arrow files are memory-mapped, so they must be local: download the set first")
        batches = mapped_batches(path)
        self.columns, self.own = with_image(batches[0].schema.names if batches else [])
        self.lengths = [len(batch) for batch in batches]
        self.check_rows()

    def read(self, unit: int, columns: list[str] | None = None) -> TableRows:
        table = pa.Table.from_batches([mapped_batches(self.path)[unit]])
        table = table.select(self.in_file(columns)) if columns else table
        return TableRows(table, self.path, self.first(unit), self.root)


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

    def __init__(self, path: str, root: str | None = None):
        super().__init__(path, root)
        with open_binary(path) as file:
            self.table = TABLES[posixpath.splitext(path)[1].lower()](file, path)
        self.columns, self.own = with_image(self.table.column_names)
        starts = range(0, self.table.num_rows, ROWS_A_UNIT)
        self.lengths = [min(ROWS_A_UNIT, self.table.num_rows - start) for start in starts]

    def read(self, unit: int, columns: list[str] | None = None) -> TableRows:
        table = self.table.slice(unit * ROWS_A_UNIT, self.lengths[unit])
        table = table.select(self.in_file(columns)) if columns else table
        return TableRows(table, self.path, unit * ROWS_A_UNIT, self.root)

    def digest(self) -> str:
        """Of the content too; and of each local picture that it names the size, and the time of its last change."""
        with open_binary(self.path) as file:
            digest = hashlib.sha256(file.read())
        for cell, found in self._named():
            digest.update(f"{cell} {found.st_size} {found.st_mtime_ns}".encode())
        return f"{super().digest()} {digest.hexdigest()}"

    def sketch(self) -> str:
        """And the sizes of the local pictures that it names."""
        digest = hashlib.sha256(super().sketch().encode())
        for cell, found in self._named():
            digest.update(f"{cell} {found.st_size}".encode())
        return digest.hexdigest()

    def _named(self) -> Iterator[tuple[Any, os.stat_result]]:
        """The cells of local pictures that are there, and what the file system says of each."""
        for cell in self.table[self.own].to_pylist() if self.own else []:
            found = picture(cell, posixpath.dirname(self.path), self.root) or {"path": None}
            path = None if found["path"] is None or found.get("outside") else found_at(found["path"])
            if path:
                yield cell, os.stat(path)


def parquet_table(file: IO[bytes], path: str) -> pa.Table:
    with named(path, "Parquet"):
        return pq.ParquetFile(file).read(use_threads=False)


TABLES = {".jsonl": json_table, ".json": json_table, ".csv": csv_table, ".parquet": parquet_table}


@functools.cache
def pictures_named(kind: type[Reader], path: str, changed: int) -> tuple[str, ...]:
    """
    A name of each row's picture, by its path or its bytes; each row that has none has its own. Read once a process, as
    long as the time of the file's last change is the same.
    """
    reader, names = kind(path), []
    columns = [name for name in reader.columns if name == "image"]
    for unit in range(len(reader.lengths)):
        for row in reader.read(unit, columns):
            image: dict[str, Any] = row.columns.get("image") or {"bytes": None, "path": None}
            if image["bytes"] is not None:
                names.append(hashlib.sha1(image["bytes"]).hexdigest())
            else:
                names.append(posixpath.normpath(image["path"]) if image["path"] else row.where)
    return tuple(names)


def with_image(names: list[str]) -> tuple[list[str], str | None]:
    """Names of columns, that of the pictures as `image`; and what the file itself calls it, if it has one."""
    own = next((name for name in PICTURE_COLUMNS if name in names), None)
    return ["image" if name == own else name for name in names], own


def told(suffix: str, data: bytes, errors: str = "strict") -> dict[str, Any]:
    """What a file beside a picture holds: its text, each of several lines a caption; or its JSON's keys."""
    if suffix == "json":
        return {name: value for name, value in json_object(data).items() if name != "image"}
    text = data.decode("utf-8-sig", errors)
    lines = [line for line in text.splitlines() if line.strip()]
    return {"text": lines if len(lines) > 1 else text}
