"""The rows of a set that a run trains on, and those that it holds out."""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .data_arguments import DataArguments
from .generated import Generated, GeneratedReader, composer_in
from .kinds import Captioned, kind_of
from .readers import ArrowReader, LinesReader, ParquetReader, Reader, pictures_named
from .rows import BrokenRow, open_picture
from .sources import Source, open_splits
from .tars import TarReader

SCENES = (
    "scenes",
    "cached_scenes",
    "scene_share",
    "blocks",
    "assembled_share",
)  # what a preset asks of them, in `data` and in `training`
HOLD_BYTES = (ParquetReader, ArrowReader, TarReader)
READ_AT_ONCE = 2**34  # bytes of a set's files that are read to tell its pictures apart
STREAMED_VALIDATION = 1000  # pictures of a validation split that are kept in memory where the training split is not


class Split(Source):
    """
    Rows, and the kind of set that they are of.

    whole: rows that `max_broken_share` is a share of; of a split and what is held out of it the rows of both.
    """

    def __init__(self, readers: Sequence[Reader], kind: Captioned, places: np.ndarray | None = None, whole: int = 0):
        super().__init__(readers, places)
        self.kind, self.whole = kind, whole or len(self)

    def select(self, which: Sequence[int] | np.ndarray, whole: int = 0) -> "Split":
        return Split(self.readers, self.kind, self.places[np.asarray(which, dtype=np.int64)], whole)


def load_split(data: DataArguments, split: str, kinds: Sequence[type[Captioned]] = (), captions: bool = True) -> Split:
    """
    The rows of `data.path`; split is "train" or "validation". kinds: of sets beside those of captioned pictures.
    captions: whether the set must have any; where it has, a row without one is broken.

    Where the set has no validation split, some of its pictures are held out; where it has but one picture, in however
    many rows, none is.

    Raises a ValueError that names the columns when the set has no `image`, or neither captions nor names; or where
    there is no picture.
    """
    splits = drawn_splits(data.path) if data.path.endswith(".py") else open_splits(data.path, data.streaming)
    hold_out = data.validation_split not in splits
    wanted = data.train_split if split == "train" or hold_out else data.validation_split
    if wanted not in splits:
        raise ValueError(f"{data.path} has no split {wanted!r}: it has {', '.join(splits)}; say --data.train_split")
    pictures = of_kind(splits[wanted], data, kinds, captions)
    numbers = picture_numbers(pictures) if hold_out else np.arange(len(pictures))
    count = len(np.unique(numbers))
    if count == 0:
        raise ValueError(
            f"{data.path} has 0 pictures in its split {wanted!r}; python -m training.validate_data says what is there"
        )
    if hold_out:
        held = _held_out(count, held_out=True) if count > 1 else np.arange(0)
        held = numbers[_one_that_can_be_used(pictures, data)] if len(held) == 1 else held
        chosen = np.isin(numbers, held) == (split == "validation")
        pictures = pictures.select(np.flatnonzero(chosen), whole=len(pictures))
    limit = len(pictures) if data.max_pictures is None else data.max_pictures
    if data.streaming and split == "validation":
        limit = min(limit, STREAMED_VALIDATION)
    return pictures.select(range(limit)) if limit < len(pictures) else pictures


def both_splits(
    data: DataArguments, kinds: Sequence[type[Captioned]] = (), captions: bool = True
) -> tuple[Split, Split]:
    """What a run trains on, and what it holds out. Raises a ValueError where there is nothing to hold out, too."""
    train, validation = (load_split(data, split, kinds, captions) for split in ("train", "validation"))
    if len(validation) == 0:
        raise ValueError(
            f"{data.path} has 1 picture in its split {data.train_split!r}, in {len(train)} rows: a run needs 2, one "
            "of them to hold out; python -m training.validate_data says what is there"
        )
    return train, validation


def data_fact(pictures: Split, data: DataArguments) -> dict[str, Any]:
    """What a part that learns from a split keeps of it: which files, which of their rows, and how they are drawn."""
    drawn = {name: getattr(data, name) for name in ("text_column", "crop", "scenes", "min_side", "max_pixels")}
    places = hashlib.sha256(pictures.places.tobytes()).hexdigest()[:16]
    return {"files": pictures.sketch(), "rows": len(pictures), "places": places, **drawn}


def of_kind(pictures: Source, data: DataArguments, kinds: Sequence[type[Captioned]], captions: bool) -> Split:
    """Raises a ValueError that names the columns where all files, or one of them, lack what is needed."""
    drawn = [reader.composer for reader in pictures.readers if isinstance(reader, GeneratedReader)]
    kind = Generated(drawn[0]) if drawn else kind_of(data, pictures.columns, kinds, captions)
    for reader in pictures.readers:
        if reader.lengths and "image" not in reader.columns:
            raise ValueError(f"{reader.path} has columns {reader.columns}: it needs `image`, as other files have it")
    return Split(pictures.readers, kind, pictures.places)


def drawn_splits(path: str) -> dict[str, Source]:
    """Of a Python file: what its composer holds out is the validation split, where it holds out anything."""
    splits = {"train": Source([GeneratedReader(path)])}
    if composer_in(path).holds_out:
        splits["validation"] = Source([GeneratedReader(path, held_out=True)])
    return splits


def picture_numbers(pictures: Source) -> np.ndarray:
    """
    Which picture each row is of, (n,): 0, 1, … in the order in which they first come, so that rows of one picture, as
    in a set of a row a caption, are held out together. Pictures are told apart by path, or by the bytes in the row;
    these are not read where the files are not here, or larger than `READ_AT_ONCE` together: there a row is a picture.
    """
    small = sum(reader.size for reader in pictures.readers) <= READ_AT_ONCE
    names = [name for reader in pictures.readers for name in _names_in(reader, small)]
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(names[place], len(numbers)) for place in pictures.places.tolist()], np.int64)


def _names_in(reader: Reader, small: bool) -> Sequence[str]:
    """A name of each row's picture: the same where it is the same picture."""
    here = "://" not in reader.path
    if isinstance(reader, LinesReader) or (here and small and isinstance(reader, HOLD_BYTES)):
        return pictures_named(type(reader), reader.path, os.stat(reader.path).st_mtime_ns if here else 0)
    return [f"{reader.path}, row {i}" for i in range(sum(reader.lengths))]


def _held_out(count: int, held_out: bool) -> np.ndarray:
    """5 % of the pictures, from 1 to 1,000, those whose numbers have the smallest hashes; or the others."""
    order, chosen = _by_hash(count), min(max(count // 20, 1), 1000)
    return np.sort(order[:chosen] if held_out else order[chosen:])


def _by_hash(count: int) -> np.ndarray:
    hashes = (int.from_bytes(hashlib.sha1(str(i).encode()).digest()[:8]) for i in range(count))
    return np.argsort(np.fromiter(hashes, np.uint64, count), kind="stable")


def _one_that_can_be_used(pictures: Split, data: DataArguments) -> np.ndarray:
    """The place to hold out of a small set: the first, by the hashes, of a row that is not broken."""
    order = _by_hash(len(pictures))
    for place in order.tolist():
        try:
            [row] = pictures.rows(place, place + 1)
            pictures.kind.parts(row)
            open_picture(row.columns["image"], data)
        except BrokenRow:
            continue
        return np.array([place])
    return order[:1]


def fit_scenes(args: Any, kinds: Sequence[type[Captioned]], say: Callable[[str], None] = print) -> None:
    """
    Takes the scenes that a preset asks for, in `args.data` or `args.training`, as 0 where the set composes none, and
    says so in a line. Every command does it that draws from a set.
    """
    asked = [(part, name) for part in (args.data, args.training) for name in SCENES if vars(part).get(name)]
    if not asked or load_split(args.data, "train", kinds, captions=False).kind.composes:
        return
    for part, name in asked:
        setattr(part, name, type(getattr(part, name))())
    names = ", ".join(name for _, name in asked)
    say(f"{args.data.path} has captions and no cut-outs to compose scenes of: {names} taken as 0")
