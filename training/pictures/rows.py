"""A row's picture; or the reason why the row cannot be used, which is counted."""

import warnings
from collections import Counter
from collections.abc import Iterable
from typing import Any

from PIL import Image
from tqdm import tqdm

from dvae import UnusablePicture, read_picture

from .data_arguments import DataArguments
from .readers import Row, found_at, open_binary, printable

NAMED = 5  # broken rows that the log names, of each reason


class BrokenRow(Exception):
    """
    A row that cannot be used; its text is the reason, one of a few.

    looked_for: what was not there, or not to be used, where the row's own name does not say it.
    """

    def __init__(self, reason: str, looked_for: str = ""):
        super().__init__(reason)
        self.looked_for = looked_for

    def at(self, row: Row) -> Row:
        """The row, its name with what was looked for."""
        return row._replace(where=f"{row.where}: {self.looked_for}") if self.looked_for else row


def open_picture(image: dict[str, Any] | None, data: DataArguments) -> Image.Image:
    """
    Decodes a picture within `data.min_side` and `data.max_pixels`: upright, RGB or RGBA, as `dvae.read_picture` does.

    Raises BrokenRow: "no picture", "missing file", "outside the set", or one of the reasons of `dvae.read_picture`.
    """
    if image is None:
        raise BrokenRow("no picture")
    if image.get("outside"):
        raise BrokenRow("outside the set", printable(image["path"]))
    file = image["bytes"] if image["bytes"] is not None else read_file(image["path"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's of large pictures and odd metadata: the bounds are stricter
        try:
            return read_picture(file, max_pixels=data.max_pixels, min_side=data.min_side)
        except UnusablePicture as error:
            raise BrokenRow(str(error)) from error


def read_file(path: str) -> bytes:
    found = path if "://" in path else found_at(path)
    if found is None:  # nor is a pipe or a device a picture
        raise BrokenRow("missing file", printable(path))
    try:
        with open_binary(found) as file:
            return file.read()
    except (OSError, ValueError) as error:  # no such file; a name with a NUL
        raise BrokenRow("missing file", printable(path)) from error


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
