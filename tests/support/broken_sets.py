"""Writes one set of 100 captioned pictures, five of them broken each in its own way, in every format that is read."""

import io
import json
import struct
import tarfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image

FORMATS = ["folder", "jsonl", "csv", "parquet", "arrow", "tar"]
BROKEN = {11: "undecodable", 33: "too small", 55: "too large", 66: "empty caption", 88: "no picture"}
COLOURS = ["red", "green", "blue"]


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 60,000 × 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def row(i: int) -> tuple[bytes | None, str]:
    """Picture i, whose first pixel is (i, 2i, 0), and its caption, which ends in i."""
    pixels = np.full((20, 24, 3), 255, np.uint8)
    pixels[4:16, 6:18] = np.eye(3, dtype=np.uint8)[i % 3] * 255
    pixels[..., 2, :] = (i, 2 * i, 0)
    picture, caption = encoded(Image.fromarray(pixels)), f"a {COLOURS[i % 3]} square {i}"
    reason = BROKEN.get(i)
    if reason == "undecodable":
        picture = picture[: len(picture) // 2]
    if reason == "too small":
        picture = encoded(Image.new("RGB", (40, 3)))
    if reason == "too large":
        picture = bomb()
    return None if reason == "no picture" else picture, "" if reason == "empty caption" else caption


def expected(kind: str) -> Counter:
    """What the tally says: a path leads to a file that is not there, bytes are no picture."""
    missing = "missing file" if kind in ("folder", "jsonl", "csv") else "no picture"
    return Counter(missing if reason == "no picture" else reason for reason in BROKEN.values())


def write(kind: str, folder: Path, count: int = 100, rows_a_file: int = 40) -> str:
    """The first `count` rows as a set of this format in `folder`; what --data.path takes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row(i) for i in range(count)]
    if kind in ("folder", "jsonl", "csv"):
        return write_paths(kind, folder, rows)
    for start in range(0, count, rows_a_file):
        own, name = rows[start : start + rows_a_file], f"train-{start:05d}"
        if kind == "tar":
            write_tar(folder / f"{name}.tar", own, start)
            continue
        cells = [None if picture is None else {"bytes": picture, "path": None} for picture, _ in own]
        table = pa.table({"image": pa.array(cells, IMAGE), "caption": [caption for _, caption in own]})
        if kind == "parquet":
            pq.write_table(table, folder / f"{name}.parquet", row_group_size=16)
        else:
            with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as to:
                to.write_table(table, max_chunksize=16)
    return str(folder)


IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write_paths(kind: str, folder: Path, rows: list[tuple[bytes | None, str]]) -> str:
    (folder / "pictures").mkdir()
    for i, (picture, _) in enumerate(rows):
        if picture is not None:
            (folder / "pictures" / f"{i}.png").write_bytes(picture)
    lines = [{"file_name": f"pictures/{i}.png", "text": caption} for i, (_, caption) in enumerate(rows)]
    if kind == "csv":
        table = pa.table({"image": [line["file_name"] for line in lines], "text": [line["text"] for line in lines]})
        pa.csv.write_csv(table, folder / "rows.csv")
        return str(folder / "rows.csv")
    name = "metadata.jsonl" if kind == "folder" else "rows.jsonl"
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder if kind == "folder" else folder / name)


def write_tar(path: Path, rows: list[tuple[bytes | None, str]], start: int, prefix: str = "") -> None:
    members = []
    for i, (picture, caption) in enumerate(rows, start):
        beside = {"json": json.dumps({"caption": caption}).encode()}
        beside = beside if picture is None else {"png": picture, **beside}
        members += [(f"{prefix}{i:05d}.{suffix}", data) for suffix, data in beside.items()]
    write_members(path, members)


def write_members(
    path: Path, members: list[tuple[str, bytes]], mode: str = "w", headers: dict[str, dict[str, str]] | None = None
) -> str:
    """A tar of these; headers: those of PAX, by the member's name."""
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT if headers else tarfile.GNU_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.pax_headers = (headers or {}).get(name, {})
            tar.addfile(info, io.BytesIO(content))
    return str(path)
