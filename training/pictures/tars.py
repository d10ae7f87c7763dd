"""WebDataset tars, read as the other files of captioned pictures are (readers.py)."""

import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from .lines import NOT_UTF8
from .readers import PICTURE_SUFFIXES, ROWS_A_UNIT, TEXT_SUFFIXES, Reader, Row, is_lfs_pointer, printable, told


class TarReader(Reader):
    """
    A WebDataset tar: members that share a name up to its first dot are one row, wherever they stand; 1.png is `image`,
    1.mask.png is not; .txt is `text`, the keys of .json are columns. A second member of one name begins another row. A
    unit is a run of rows; all places are found by one pass over all but the pictures. Raises a ValueError where the
    tar is cut off.
    """

    def __init__(self, path: str, root: str | None = None):
        super().__init__(path, root)
        if "://" in path:
            raise ValueError(f"{path}: a tar is sought in, so it must be local: download the set first")
        members, names, kinds = [], {"image": None}, []  # of each row: where its members begin, and their suffixes
        rows: dict[str, int] = {}
        try:
            with Path(path).open("rb") as file:
                for key, member in own_members(tarfile.TarFile(fileobj=file), self.size):
                    row, suffixes = rows.get(key), suffixes_of(member)
                    if row is None or suffixes in kinds[row]:
                        row = rows[key] = len(members)
                        members.append([])
                        kinds.append(set())
                    members[row].append(member.offset)
                    kinds[row].add(suffixes)
                    names |= dict.fromkeys(tar_columns(file, [member], pictures=False))
        except (tarfile.TarError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            reason, remedy = f"no whole tar, or a compressed one ({error})", "copy or unpack it again"
            if is_lfs_pointer(path):
                reason, remedy = "a git-LFS pointer, no tar", "fetch the file itself: git lfs pull"
            raise ValueError(f"{path} is {reason}: {remedy}") from error
        self.columns = list(names)
        self.starts = np.cumsum([0, *map(len, members)])  # (R + 1,)
        self.offsets = np.array([offset for own in members for offset in own], dtype=np.int64)
        self.lengths = [min(ROWS_A_UNIT, len(members) - start) for start in range(0, len(members), ROWS_A_UNIT)]

    def read(self, unit: int, columns: list[str] | None = None) -> list[Row]:
        first = self.first(unit)
        with Path(self.path).open("rb") as file:
            return [self._row(file, first + i) for i in range(self.lengths[unit])]

    def _row(self, file: IO[bytes], row: int) -> Row:
        members = []
        for offset in self.offsets[self.starts[row] : self.starts[row + 1]].tolist():
            file.seek(offset)
            tar = tarfile.TarFile(fileobj=file)
            members.append(tar.firstmember)  # pyright: ignore[reportAttributeAccessIssue]  # typeshed leaves it out
        where = printable(f"{self.path}/{key_of(members[0])}")
        try:
            return Row(where, tar_columns(file, members))
        except UnicodeDecodeError:
            return Row(where, {"image": None}, NOT_UTF8)


def own_members(tar: tarfile.TarFile, size: int) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Files and their rows' keys. Hidden files, as macOS adds, go. Raises a TarError past `size`, the tar's bytes."""
    for member in tar:
        if member.size < 0 or (not is_sparse(member) and member.offset_data + member.size > size):
            raise tarfile.ReadError(f"{printable(member.name)} says that it has {member.size} bytes")
        if member.isfile() and not posixpath.basename(member.name).startswith("."):
            yield key_of(member), member


def key_of(member: tarfile.TarInfo) -> str:
    """Its path up to the first dot of its last part."""
    folder, name = posixpath.split(member.name)
    return posixpath.join(folder, name.partition(".")[0])


def suffixes_of(member: tarfile.TarInfo) -> str:
    return posixpath.basename(member.name).partition(".")[2].lower()


def is_sparse(member: tarfile.TarInfo) -> bool:
    """Whether the size that it says is not that of its bytes in the tar: a file with holes, or one that claims so."""
    return member.issparse() or any(name.startswith("GNU.sparse") for name in member.pax_headers)


def tar_columns(file: IO[bytes], members: list[tarfile.TarInfo], pictures: bool = True) -> dict[str, Any]:
    """
    The columns of one row's members, `image` read if `pictures`; what is no JSON, and sparse members, leave their own
    out. Raises a UnicodeDecodeError for a text that is no UTF-8.
    """
    columns: dict[str, Any] = {"image": None}
    for member in members:
        suffixes = suffixes_of(member)
        suffix = suffixes.rpartition(".")[2]
        if is_sparse(member) or (suffix in PICTURE_SUFFIXES and (suffix != suffixes or not pictures)):
            continue
        if suffix not in (*PICTURE_SUFFIXES, *TEXT_SUFFIXES, "json"):
            continue
        file.seek(member.offset_data)
        data = file.read(member.size)
        if suffix in PICTURE_SUFFIXES:
            columns["image"] = {"bytes": data, "path": printable(member.name)}
        else:
            columns |= told(suffix, data) if pictures else told(suffix, data, errors="replace")
    return columns
