"""Pictures that lie in a folder, each with its captions in a file of its name beside it, or with none.

cats/0001.jpg    a picture
cats/0001.txt    its caption, or several, a line each; .text and .caption too; or a .json of named columns
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from .lines import NOT_UTF8
from .readers import PICTURE_SUFFIXES, ROWS_A_UNIT, TEXT_SUFFIXES, Reader, Row, printable, told

# folders at the top that are splits, where all pictures lie in such
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test"}
SPLITS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")


class LooseReader(Reader):
    """files: pictures by their paths, each with the paths of what tells of it."""

    def __init__(self, path: str, files: dict[str, list[str]]):
        super().__init__(path, root=path)
        self.files = list(files.items())
        self.lengths = [min(ROWS_A_UNIT, len(files) - start) for start in range(0, len(files), ROWS_A_UNIT)]
        columns: dict[str, None] = {"image": None}
        for suffix in dict.fromkeys(suffix_of(file) for beside in files.values() for file in beside):
            first = next(file for beside in files.values() for file in beside if suffix_of(file) == suffix)
            columns |= dict.fromkeys(told(suffix, Path(first).read_bytes(), errors="replace"))
        self.columns = list(columns)

    def read(self, unit: int, columns: list[str] | None = None) -> list[Row]:
        first = self.first(unit)
        return [self._row(*file) for file in self.files[first : first + self.lengths[unit]]]

    def _row(self, picture: str, beside: list[str]) -> Row:
        columns = {"image": {"bytes": None, "path": picture}}
        try:
            for file in beside:
                columns |= told(suffix_of(file), Path(file).read_bytes())
        except UnicodeDecodeError:
            return Row(printable(picture), {"image": None}, NOT_UTF8)
        return Row(printable(picture), columns)

    def digest(self) -> str:
        """Of the names, sizes and times of last change of all files."""
        digest = hashlib.sha256()
        for picture, beside in self.files:
            for file in (picture, *beside):
                found = os.stat(file)
                name = printable(os.path.relpath(file, self.path))
                digest.update(f"{name} {found.st_size} {found.st_mtime_ns}".encode())
        return digest.hexdigest()

    def sketch(self) -> str:
        """Of the names and sizes of all files."""
        digest = hashlib.sha256()
        for picture, beside in self.files:
            for file in (picture, *beside):
                digest.update(f"{printable(os.path.relpath(file, self.path))} {os.stat(file).st_size}".encode())
        return digest.hexdigest()


def loose_splits(folder: str) -> dict[str, LooseReader]:
    """The pictures below a folder, by split; {} where there are none."""
    files = dict(loose_pictures(folder))
    tops = {picture: os.path.relpath(picture, folder).split(os.sep)[0].lower() for picture in files}
    split = {picture: SPLITS.get(top, "") for picture, top in tops.items()}
    if not all(split.values()):
        split = dict.fromkeys(files, "train")
    own = {name: {picture: files[picture] for picture in files if split[picture] == name} for name in split.values()}
    return {name: LooseReader(folder, pictures) for name, pictures in own.items()}


def loose_pictures(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Each picture below a folder, in the order of the names, and the files of its name that tell of it."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = sorted(name for name in names if not name.startswith("."))
        beside: dict[str, list[str]] = {}
        for name in names:
            if suffix_of(name) in (*TEXT_SUFFIXES, "json"):
                beside.setdefault(os.path.splitext(name)[0], []).append(os.path.join(place, name))
        for name in names:
            if suffix_of(name) in PICTURE_SUFFIXES:
                stem = os.path.splitext(name)[0]
                yield os.path.join(place, name), beside.get(stem, [])


def suffix_of(path: str) -> str:
    return os.path.splitext(path)[1][1:].lower()
