"""Where captioned pictures come from: a path or a Hub id -> the rows of a split, undecoded, in units.

| what | rows |
| --- | --- |
| folder of pictures | its metadata.jsonl, .csv or .parquet: `file_name` and the captions |
| .jsonl, .csv | `image` or `file_name`, a path relative to the file; the captions |
| .parquet, .arrow | `image`: bytes, a path, or datasets' struct of both; the captions |
| .tar (WebDataset) | 0001.jpg with 0001.txt or 0001.json beside it |
| Hub id | any of these; downloaded and kept, or with data.streaming read where it lies |

Files, splits and formats are found as `datasets.load_dataset` finds them: folders of these files and globs work too.
But a folder of pictures whose one metadata file lies at its top is one split, whatever the names of its pictures say.
"""

import glob
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_dataset_builder
from datasets.data_files import DataFilesDict, get_data_patterns
from huggingface_hub import snapshot_download

from .readers import ArrowReader, LinesReader, ParquetReader, Reader, Row, TarReader

SUFFIXES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
SUFFIXES |= {".tar": "webdataset"}
READERS = {"json": LinesReader, "csv": LinesReader, "parquet": ParquetReader, "arrow": ArrowReader}
READERS |= {"webdataset": TarReader, "imagefolder": LinesReader}
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


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


def open_splits(path: str, streaming: bool = False) -> dict[str, Source]:
    """The splits at `path`. Raises a ValueError with the remedy when there is nothing to read."""
    metadata = metadata_at_top(path)
    if metadata is not None:
        return {"train": Source([metadata])}
    try:
        kind, files = find(path, streaming)
    except (OSError, ValueError) as error:  # no such folder, nothing to read in it, an unknown id, offline
        reason = str(error).splitlines()[0]
        remedy = "give a folder of pictures with metadata.jsonl; JSON lines, CSV, Parquet, Arrow, tars; or a Hub id"
        raise ValueError(f"no data at {path}: {remedy} ({reason})") from error
    if kind not in READERS:
        raise ValueError(f"{path} holds {kind} files: it must hold one of {', '.join(READERS)}")
    if kind == "imagefolder":
        files = {split: [file for file in own if Path(file).name in METADATA] for split, own in files.items()}
        if not any(files.values()):
            raise ValueError(f"{path} has pictures and no captions: give it one of {', '.join(METADATA)}")
    return {split: Source([READERS[kind](file) for file in own]) for split, own in files.items() if own}


def metadata_at_top(path: str) -> LinesReader | None:
    """The one metadata file of a local folder, where it lies at the top and names pictures."""
    files = [file for file in Path(path).rglob("metadata.*") if file.name in METADATA]  # none where it is no folder
    if [file.parent for file in files] != [Path(path)]:
        return None
    reader = LinesReader(str(files[0]))
    return reader if "image" in reader.columns else None


def find(path: str, streaming: bool) -> tuple[str, dict[str, list[str]]]:
    """
    The kind and the files by split of a file, a glob, a folder or a Hub id; a Hub id is downloaded first unless
    streaming.
    """
    suffix = Path(path).suffix.lower()
    if suffix in SUFFIXES and not Path(path).is_dir():
        named = glob.escape(path) if Path(path).exists() else path
        return found_by_datasets(SUFFIXES[suffix], data_files=named)
    if not Path(path).is_dir():
        if streaming:
            return found_by_datasets(path)
        path = snapshot_download(path, repo_type="dataset")
    return in_odd_folder(path) if glob.has_magic(path) else found_by_datasets(path)


def found_by_datasets(path: str, **options: Any) -> tuple[str, dict[str, list[str]]]:
    builder = load_dataset_builder(path, **options)
    return builder.name, {str(split): [str(file) for file in own] for split, own in builder.config.data_files.items()}


def in_odd_folder(path: str) -> tuple[str, dict[str, list[str]]]:
    """Of a folder such as `photos [2024]`, whose name datasets would take for a glob; its commonest kind of files."""
    base = glob.escape(str(Path(path).resolve()))
    found = DataFilesDict.from_patterns(get_data_patterns(base), base_path=base)
    counts = Counter(kind for own in found.values() for kind in map(kind_of, own) if kind)
    kind = counts.most_common(1)[0][0] if counts else "imagefolder"
    return kind, {str(split): [file for file in own if kind_of(file) == kind] for split, own in found.items()}


def kind_of(file: str) -> str | None:
    """By its name; None for a picture and the like."""
    return "imagefolder" if Path(file).name in METADATA else SUFFIXES.get(Path(file).suffix.lower())
