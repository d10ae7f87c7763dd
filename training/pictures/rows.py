"""A row's picture; or the reason why the row cannot be used, which is counted."""

import io
import warnings
from collections import Counter
from collections.abc import Iterable
from typing import Any

from PIL import Image, ImageOps
from tqdm import tqdm

from .data_arguments import DataArguments
from .readers import Row, open_binary

NAMED = 5  # broken rows that the log names, of each reason


class BrokenRow(Exception):
    """A row that cannot be used; its text is the reason, one of a few."""


def open_picture(image: dict[str, Any] | None, data: DataArguments) -> Image.Image:
    """
    Decodes a picture whose size was read and found within `data.min_side` and `data.max_pixels` first; turned upright.

    Raises BrokenRow: "no picture", "missing file", "too large", "too small" or "undecodable".
    """
    if image is None:
        raise BrokenRow("no picture")
    data_bytes = image["bytes"] if image["bytes"] is not None else read_file(image["path"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's of large pictures and odd metadata: the bounds below are stricter
        bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, data.max_pixels  # which may be above PIL's own
        try:
            opened = Image.open(io.BytesIO(data_bytes))  # reads the header alone
            check_size(opened.size, data)
            opened.load()
            return ImageOps.exif_transpose(opened)
        except BrokenRow:
            raise
        except Image.DecompressionBombError as error:
            raise BrokenRow("too large") from error
        except Exception as error:  # what a codec raises on foreign bytes is anything: SyntaxError, struct.error, …
            raise BrokenRow("undecodable") from error
        finally:
            Image.MAX_IMAGE_PIXELS = bound


def read_file(path: str) -> bytes:
    try:
        with open_binary(path) as file:
            return file.read()
    except (OSError, ValueError) as error:  # no such file; a URL beside local files, a name with a NUL
        raise BrokenRow("missing file") from error


def check_size(size: tuple[int, int], data: DataArguments) -> None:
    if size[0] * size[1] > data.max_pixels:
        raise BrokenRow("too large")
    if min(size) < data.min_side:
        raise BrokenRow("too small")


class Tally:
    """
    Rows seen, and the broken ones by reason: a row as often as epochs meet it.

    total: rows there are; max_broken_share: a larger share of them that is broken is an error, each counted once.
    quiet: name none in the log.
    """

    def __init__(self, total: int, max_broken_share: float, quiet: bool = False):
        self.total, self.max_broken_share, self.quiet = total, max_broken_share, quiet
        self.seen = 0
        self.reasons: Counter[str] = Counter()
        self.rows: set[int] = set()  # hashes of the broken ones' names

    @property
    def broken(self) -> int:
        return self.reasons.total()

    def add(self, row: Row, reason: str) -> None:
        """A broken row, named in the log while it is one of the first. Raises a ValueError past the share."""
        self.count(seen=0, skipped=[(row.where, reason)])
        self.check()

    def check(self) -> None:
        """Raises a ValueError as soon as the broken rows are past the share of all."""
        seen = min(max(self.seen, 1), self.total)
        check_share(len(self.rows), seen, self.total, self.max_broken_share, self.reasons)

    def count(self, seen: int, skipped: Iterable[tuple[str, str]]) -> None:
        """Rows that another process has seen, and those that it skipped: (name, reason)."""
        self.seen += seen
        for where, reason in skipped:
            self.rows.add(hash(where))
            self.reasons[reason] += 1
            if self.reasons[reason] <= NAMED and not self.quiet:
                tqdm.write(f"skipped, {reason}: {where}")

    def __str__(self) -> str:
        return by_reason(self.reasons)


def by_reason(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "none broken"


def check_share(broken: int, seen: int, total: int, max_broken_share: float, reasons: Counter[str]) -> None:
    """Raises a ValueError where the broken rows, of those seen, are more than the share of all."""
    if broken > max_broken_share * total:
        raise ValueError(
            f"{broken} of the first {seen} rows cannot be used ({by_reason(reasons)}), more than "
            f"max_broken_share={max_broken_share} of {total}: mend the set (python -m training.validate_data names "
            "all such rows), or raise --data.max_broken_share"
        )
