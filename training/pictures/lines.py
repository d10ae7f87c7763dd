"""JSON lines and CSV -> a table. One line that cannot be read is a row of nothing, which is counted as broken."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa

BROKEN = "broken"  # in a table's metadata: why some rows are of nothing, where that is known, as JSON by their number
NOT_UTF8 = "not UTF-8"
COLUMNS, LINES = 1000, 1000  # of a table; of a row, whose quote may stay open


def json_table(file: IO[bytes], path: str) -> pa.Table:
    """
    JSON lines, or one list of objects. A line that is no JSON object is a row of nothing; so is, in a column of
    several types, all but the strings.
    """
    text = file.read().removeprefix(codecs.BOM_UTF8)
    lines = [line for line in text.splitlines() if line.strip()]
    listed = json_list(text)
    rows = listed or [json_object(line) for line in lines]
    names = dict.fromkeys(name for row in rows for name in row)
    if len(names) > COLUMNS:
        raise ValueError(f"{path} has rows of {len(names)} keys, over {COLUMNS}")
    if not names:
        raise ValueError(f"{path} must be JSON lines, an object a line, or a list of objects")
    table = pa.table({name: json_column([row.get(name) for row in rows]) for name in names})
    return table if listed else with_reasons(table, [is_utf8(line) for line in lines])


def json_list(text: bytes) -> list[dict[str, Any]]:
    """The objects of a file that is one JSON list, {} for what is none; [] where it is no list."""
    if not text.lstrip().startswith(b"["):
        return []
    try:
        return [value if isinstance(value, dict) else {} for value in json.loads(text)]
    except (ValueError, RecursionError):
        return []


def json_object(data: bytes | str) -> dict[str, Any]:
    """{} of what is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def json_column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, ValueError, OverflowError):  # several types, a lone surrogate, a number too long
        texts = [texts_of(value) for value in values]
        if any(isinstance(value, list) for value in values):
            return pa.array(texts, pa.list_(pa.binary())).cast(pa.list_(pa.string()))
        return pa.array([text[0] if text else None for text in texts], pa.binary()).cast(pa.string())


def texts_of(value: Any) -> list[bytes] | None:
    """A string, or a list of them, in UTF-8; None of anything else."""
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in values):
        return None
    return [text.encode(errors="replace") for text in values]


def with_reasons(table: pa.Table, utf8: list[bool]) -> pa.Table:
    """The table, of whose rows those are named that were no UTF-8."""
    reasons = {row: NOT_UTF8 for row, good in enumerate(utf8) if not good}
    return table.replace_schema_metadata({BROKEN: json.dumps(reasons)}) if reasons else table


def csv_table(file: IO[bytes], path: str) -> pa.Table:
    """
    All columns as text: a caption may be a number. A row of another length than the header, with bytes that are no
    UTF-8, or with a quote that stays open, is one of nothing: to pandas, which datasets reads with, such a quote ends
    the file, or swallows the rows up to the next one.
    """
    lines = list(io.TextIOWrapper(io.BytesIO(file.read()), "utf-8-sig", errors="surrogateescape", newline=""))
    try:
        header = csv.reader(lines)
        names = next((row for row in header if row), [])
        "".join(names).encode()
        if not names:
            raise ValueError("it is empty")
        if len(names) > COLUMNS:
            raise ValueError(f"{len(names)} columns, over {COLUMNS}")
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} must be CSV with a header ({error})") from error
    rows = list(csv_rows(lines[header.line_num :], names))
    utf8 = [is_utf8("".join(row)) for row in rows]
    nothing = [None] * len(names)
    whole = [row if len(row) == len(names) and good else nothing for row, good in zip(rows, utf8, strict=True)]
    table = pa.table({name: pa.array([row[i] for row in whole], pa.string()) for i, name in enumerate(names)})
    return with_reasons(table, utf8)


def csv_rows(lines: list[str], names: list[str]) -> Iterator[list[str]]:
    """
    The rows under a header. One whose quote is still open at a line that is a row itself, or at the end, is cut after
    its first line: [""], and the next line is the next row. So is one of a field past csv's limit of 131,072 letters.
    """
    at = 0
    while at < len(lines):
        reader = csv.reader(until_a_row(lines, at, names), strict=True)
        try:
            row, taken = next(reader), reader.line_num
        except csv.Error:  # a quote that stays open, or one within a field, which is let pass on a line of its own
            row, taken = csv_line(lines[at]), 1
        at += taken
        if row:
            yield row


def csv_line(line: str) -> list[str]:
    """A line's fields; [""] where a quote stays open, or one is past the limit."""
    reader = csv.reader([line, ""])
    try:
        row = next(reader)
    except csv.Error:
        return [""]
    return row if reader.line_num == 1 else [""]


def until_a_row(lines: list[str], start: int, names: list[str]) -> Iterator[str]:
    """The lines from `start` up to one that, read alone, is a row: as many fields as names, one a picture's."""
    yield lines[start]
    column = next((names.index(name) for name in ("image", "file_name") if name in names), None)
    for i in range(start + 1, min(start + LINES, len(lines))):
        row = csv_line(lines[i])
        if column is not None and len(row) == len(names) and re.search(r"\.[a-z]\w{2,3}$", row[column], re.I):
            return
        yield lines[i]


def is_utf8(text: str | bytes) -> bool:
    """Whether bytes are, or were before they were decoded with "surrogateescape"."""
    try:
        text.encode() if isinstance(text, str) else text.decode()
    except UnicodeError:
        return False
    return True
