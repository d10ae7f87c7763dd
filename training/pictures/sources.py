"""Where captioned pictures come from: a path or a Hub id -> the rows of a split, undecoded, in units.

| what | rows |
| --- | --- |
| folder of pictures | its metadata.jsonl, .csv or .parquet: `file_name` and the captions |
| without metadata | a .txt (.caption, .json) beside each picture, as kohya and img2dataset have it; or no captions |
| .jsonl, .csv | `image` or `file_name`, a path relative to the file; the captions |
| .parquet, .arrow | `image`: bytes, a path, or datasets' struct of both; the captions |
| .tar (WebDataset) | 0001.jpg with 0001.txt or 0001.json, in any order |
| Hub id | any of these; downloaded and kept, or with data.streaming read where it lies |

A picture's column may also be called as its format (`jpg`, as of img2dataset), `img`, `filename` or `image_path`; a
caption's `text`, `caption`, `captions` or `prompt`, in any case. A cell, or a .txt, may hold several captions: one is
drawn at each draw.

Splits are found as `datasets.load_dataset` finds them: by names of files and folders, or as a README says; globs work
too. But a folder of pictures whose one metadata file lies at its top is one split, whatever the names of its pictures
say. Of a folder that holds several formats the one counts that holds pictures: the tars that img2dataset wrote, not
the Parquet and JSON beside them; what `save_to_disk` wrote is its Arrow files.

A set gets no further than its folder: a path out of it, an absolute one or an address is a row that cannot be used,
and nothing is fetched because a cell says so. A CSV, JSON or Parquet file that is itself the path may name pictures by
absolute paths. Links are followed: they lie in the folder because somebody put them there.
"""

import glob
import hashlib
import posixpath
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import load_dataset_builder
from datasets.data_files import DataFilesDict, get_data_patterns
from huggingface_hub import snapshot_download

from pipelines.checkpoints.known import load_yaml

from .loose import loose_splits
from .readers import ArrowReader, LinesReader, ParquetReader, Reader, Row
from .tars import TarReader

SUFFIXES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
SUFFIXES |= {".tar": "webdataset"}
READERS = {"json": LinesReader, "csv": LinesReader, "parquet": ParquetReader, "arrow": ArrowReader}
READERS |= {"webdataset": TarReader, "imagefolder": LinesReader}
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
REMEDY = (
    "give a folder of pictures with metadata.jsonl, or a .txt beside each; JSON lines, CSV, Parquet, Arrow, tars; or "
    "a Hub id"
)
HOLD_PICTURES = {"parquet", "arrow", "webdataset"}  # a broken one is told, whatever lies beside it
Files = dict[str, list[str]]  # by split


class Source:
    """
    Rows of files, in units that are read at once. `places` are the rows of all files that belong to it, in order: a
    split that was held out of another is a choice of its places.
    """

    def __init__(self, readers: Sequence[Reader], places: np.ndarray | None = None):
        self.readers = readers
        self.units = [(reader, unit) for reader in readers for unit in range(len(reader.lengths))]
        self.starts = np.cumsum([0, *(reader.lengths[unit] for reader, unit in self.units)])  # (U + 1,)
        self.places = np.arange(self.starts[-1]) if places is None else places
        columns = [name for reader in readers for name in reader.columns]
        self.columns = list(dict.fromkeys(columns))

    def __len__(self) -> int:
        return len(self.places)

    def select(self, which: Sequence[int] | np.ndarray) -> "Source":
        """The rows at `which` of this source's own rows."""
        return Source(self.readers, self.places[np.asarray(which, dtype=np.int64)])

    def digest(self) -> str:
        """Of the files' digests, and of the choice of places."""
        digest = hashlib.sha256(self.places.tobytes())
        for reader in self.readers:
            digest.update(reader.digest().encode())
        return digest.hexdigest()[:16]

    def sketch(self) -> str:
        """Of the files' sketches alone: equal for all splits of one set."""
        digest = hashlib.sha256()
        for reader in self.readers:
            digest.update(reader.sketch().encode())
        return digest.hexdigest()[:16]

    def own_rows(self, unit: int) -> np.ndarray:
        """Which rows of a unit belong to this source, counted from the unit's first."""
        lo, hi = np.searchsorted(self.places, self.starts[unit : unit + 2])
        return self.places[lo:hi] - self.starts[unit]

    def read(self, unit: int, columns: list[str] | None = None) -> Sequence[Row]:
        """All rows of a unit."""
        reader, index = self.units[unit]
        return reader.read(index, [name for name in columns if name in reader.columns] if columns else None)

    def rows(self, start: int = 0, stop: int | None = None, columns: list[str] | None = None) -> Iterator[Row]:
        """Rows start to stop in order; one unit is held at a time."""
        places = self.places[start:stop]
        units = np.searchsorted(self.starts, places, side="right") - 1
        held, rows = None, []
        for place, unit in zip(places.tolist(), units.tolist(), strict=True):
            if unit != held:
                held, rows = unit, self.read(unit, columns)
            yield rows[place - self.starts[unit]]

    def column(self, name: str) -> list[Any]:
        """A column's values, without reading pictures where the format allows it."""
        return [row.columns.get(name) for row in self.rows(columns=[name])]


class Unreadable(ValueError):
    """A file that is there and cannot be read as what its name says."""


def open_splits(path: str, streaming: bool = False) -> dict[str, Source]:
    """The splits at `path`. Raises a ValueError with the remedy when there is nothing to read."""
    suffix, folder = Path(path).suffix.lower(), Path(path)
    try:
        if folder.is_dir():
            return in_folder(path)
        if suffix in SUFFIXES:
            return opened(
                *found_by_datasets(SUFFIXES[suffix], data_files=glob.escape(path) if folder.exists() else path)
            )
        if streaming:
            kind, files = found_by_datasets(path)
            if elsewhere := [file for own in files.values() for file in own if not file.startswith("hf://")]:
                raise Unreadable(f"{path} says that its files lie elsewhere, {elsewhere[0]} first: download the set")
            return opened(kind, files)
        return in_folder(snapshot_download(path, repo_type="dataset"))
    except Unreadable:
        raise
    except (OSError, ValueError) as error:  # no such folder, nothing to read in it, an unknown id, offline
        raise ValueError(f"no data at {path}: {REMEDY} ({str(error).splitlines()[0]})") from error


def opened(kind: str, files: Files, root: str | None = None) -> dict[str, Source]:
    """root: the set's folder, which its paths stay in; None where the user named the files themselves."""
    if kind not in READERS:
        raise Unreadable(f"the files are of {kind}: a set must hold one of {', '.join(READERS)}")
    if kind == "imagefolder":
        files = {split: [file for file in own if Path(file).name in METADATA] for split, own in files.items()}
        if not any(files.values()):
            raise Unreadable(f"there are pictures and no captions: give it one of {', '.join(METADATA)}")
    try:
        return {split: Source([READERS[kind](file, root) for file in own]) for split, own in files.items() if own}
    except ValueError as error:
        raise Unreadable(str(error)) from error


def in_folder(folder: str) -> dict[str, Source]:
    """The splits of a local folder, in the format that holds pictures; else of the pictures that lie there."""
    if (metadata := metadata_at_top(folder)) is not None:
        return {"train": Source([metadata])}
    others, problems = [], {}
    for kind, files in formats(folder):
        try:
            splits = opened(kind, files, root=folder)
        except Unreadable as error:
            problems.setdefault(kind, error)
            continue
        if any("image" in source.columns for source in splits.values()):
            say_which(splits, folder)
            return splits
        others.append(splits)
    for kind in HOLD_PICTURES & problems.keys():
        raise problems[kind]
    if pictures := loose_splits(folder):
        return {split: Source([reader]) for split, reader in pictures.items()}
    if others:
        return others[0]  # whoever looks for its pictures says which columns it has
    raise next(iter(problems.values()), FileNotFoundError(f"{folder} has no pictures"))


def say_which(splits: dict[str, Source], folder: str) -> None:
    """Warns where one of several metadata files is read: of both, each picture would be there twice."""
    read = {Path(reader.path).name for source in splits.values() for reader in source.readers}
    others = [name for name in METADATA if name not in read and (Path(folder) / name).is_file()]
    if others and read & set(METADATA):
        warnings.warn(
            f"{folder}: of {', '.join(sorted(read))} and {', '.join(others)} the first is read", stacklevel=2
        )


def metadata_at_top(path: str) -> LinesReader | None:
    """The one metadata file of a local folder, where it lies at the top and names pictures."""
    files = [file for file in Path(path).rglob("metadata.*") if file.name in METADATA]
    if [file.parent for file in files] != [Path(path)]:
        return None
    try:
        reader = LinesReader(str(files[0]), root=path)
    except ValueError as error:
        raise Unreadable(str(error)) from error
    return reader if "image" in reader.columns else None


def formats(folder: str) -> Iterator[tuple[str, Files]]:
    """
    The kinds of files of a local folder, those of one suffix together: what datasets takes it for, or what its README
    says, then what else there is, the commonest first.
    """
    if not glob.has_magic(folder) and not leads_out(folder):
        try:
            kind, files = found_by_datasets(folder)
        except (OSError, ValueError, RuntimeError):  # nothing that it knows; a script, which it runs no more
            kind, files = "", {}
        if kind in READERS:
            yield from ((kind, own) for own in by_suffix(files))
    base = glob.escape(str(Path(folder).resolve()))  # of `photos [2024]` no glob
    try:
        found = DataFilesDict.from_patterns(get_data_patterns(base), base_path=base)
    except OSError:  # no file at all
        return
    counts = Counter(kind for own in found.values() for kind in map(kind_of, own) if kind)
    for kind, _ in counts.most_common():
        of_kind = {str(split): [str(file) for file in own if kind_of(file) == kind] for split, own in found.items()}
        yield from ((kind, own) for own in by_suffix(of_kind))


def leads_out(folder: str) -> bool:
    """
    Whether what a set says of its files, to datasets, cannot be read, or names some elsewhere: at an address, or
    outside its folder.
    """
    left: list[Any] = []
    for path in (Path(folder) / "README.md", Path(folder) / ".huggingface.yaml"):
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        if path.suffix == ".md":
            text = text.split("---", 2)[1] if text.startswith("---") else ""
        try:
            said = load_yaml(text)
        except (yaml.YAMLError, RecursionError):
            return True
        left.append(said.get("configs") if isinstance(said, dict) else None)
    while left:
        part = left.pop()
        if isinstance(part, str):
            way = part.replace("\\", "/")
            if "://" in way or "::" in way or posixpath.isabs(way) or ".." in way.split("/"):
                return True
        left += part.values() if isinstance(part, dict) else part if isinstance(part, list) else []
    return False


def by_suffix(files: Files) -> Iterator[Files]:
    counts = Counter(Path(file).suffix.lower() for own in files.values() for file in own)
    for suffix, _ in counts.most_common():
        own = {split: [file for file in own if Path(file).suffix.lower() == suffix] for split, own in files.items()}
        yield {split: some for split, some in own.items() if some}


def found_by_datasets(path: str, **options: Any) -> tuple[str, Files]:
    """The kind and the files by split of a file, a glob, a folder or a Hub id."""
    builder = load_dataset_builder(path, **options)
    files = builder.config.data_files or {}
    return builder.name, {str(split): [str(file) for file in own] for split, own in files.items()}


def kind_of(file: str) -> str | None:
    """By its name; None for a picture and the like."""
    return "imagefolder" if Path(file).name in METADATA else SUFFIXES.get(Path(file).suffix.lower())
