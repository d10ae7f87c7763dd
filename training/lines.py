"""JSON lines and CSV -> a table. One line that cannot be read is a row of nothing, which is counted as broken."""

import codecs
import csv
import io
import json
from typing import IO, Any

import pyarrow as pa


def json_table(file: IO[bytes], path: str) -> pa.Table:
    """
    JSON lines, or one list of objects. A line that is no JSON object is a row of nothing; so is, in a column of
    several types, all but the strings.
    """
    text = file.read().removeprefix(codecs.BOM_UTF8)
    rows = json_list(text) or [json_object(line) for line in text.splitlines() if line.strip()]
    names = dict.fromkeys(name for row in rows for name in row)
    if not names:
        raise ValueError(f"{path} must be JSON lines, an object a line, or a list of objects")
    return pa.table({name: json_column([row.get(name) for row in rows]) for name in names})


def json_list(text: bytes) -> list[dict[str, Any]]:
    """The objects of a file that is one JSON list, {} for what is none; [] where it is no list."""
    if not text.lstrip().startswith(b"["):
        return []
    try:
        return [value if isinstance(value, dict) else {} for value in json.loads(text)]
    except (ValueError, RecursionError):
        return []


def json_object(data: bytes) -> dict[str, Any]:
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
        texts = [value.encode(errors="replace") if isinstance(value, str) else None for value in values]
        return pa.array(texts, pa.binary()).cast(pa.string())


def csv_table(file: IO[bytes], path: str) -> pa.Table:
    """
    All columns as text: a caption may be a number. A row of another length than the header, or with bytes that are no
    UTF-8, is one of nothing.
    """
    text = io.TextIOWrapper(io.BytesIO(file.read()), "utf-8-sig", errors="surrogateescape", newline="")
    try:
        names, *rows = [row for row in csv.reader(text) if row]
        "".join(names).encode()
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} must be CSV with a header ({error})") from error
    whole = [row if len(row) == len(names) and is_utf8("".join(row)) else [None] * len(names) for row in rows]
    return pa.table({name: pa.array([row[i] for row in whole], pa.string()) for i, name in enumerate(names)})


def is_utf8(text: str) -> bool:
    """Whether text that was decoded with "surrogateescape" was."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
