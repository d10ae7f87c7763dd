"""A set from elsewhere gets no further than its own folder and its own bytes."""

import json
import os
from pathlib import Path

import broken_sets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures
from training.pictures.readers import picture
from training.pictures.splits import load_split
from training.pictures.tars import TarReader

INSIDE, OUTSIDE = "0.png", ["../private/0.png", "sub/../../private/0.png", "..\\private\\0.png", "{}/private/0.png"]
OUTSIDE += ["http://nowhere.invalid/0.png", "file://{}/private/0.png", "simplecache::file://{}/private/0.png"]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A set's folder beside one that is not the set's; nothing may be opened by an address."""
    for name in ("set", "private"):
        (tmp_path / name).mkdir()
        (tmp_path / name / INSIDE).write_bytes(broken_sets.row(0)[0])
    monkeypatch.setattr("fsspec.open", lambda path, *_, **__: pytest.fail(f"{path} was asked for"))
    return tmp_path


def write(folder: Path, kind: str, cells: list[str]) -> None:
    rows = [{"file_name": cell, "text": "x"} for cell in cells]
    if kind == "metadata.csv":
        (folder / kind).write_text("file_name,text\n" + "".join(f"{cell},x\n" for cell in cells))
    elif kind == "metadata.jsonl":
        (folder / kind).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        structs = pa.array([{"bytes": None, "path": cell} for cell in cells], broken_sets.IMAGE)
        pq.write_table(pa.table({"image": structs, "text": ["x"] * len(cells)}), folder / kind)


@pytest.mark.parametrize("kind", ["metadata.jsonl", "metadata.csv", "train.parquet"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_path_leads_into_the_set_alone(kind, relative, place, monkeypatch):
    write(place / "set", kind, [INSIDE, *(cell.format(place) for cell in OUTSIDE)])
    monkeypatch.chdir(place / "set")
    path = "." if relative else str(place / "set")
    data = DataArguments(path=path, validation_split="train", max_broken_share=1.0)
    source = load_split(data, "train")
    assert source.digest()
    pictures = Pictures(source, data, 16)
    assert len(pictures) == 1 and pictures.tally.reasons == {"outside the set": len(OUTSIDE)}


def test_a_file_that_is_named_by_itself_may_name_absolute_paths_and_a_link_is_followed(place):
    write(place / "set", "train.parquet", [INSIDE, *(cell.format(place) for cell in OUTSIDE)])
    data = DataArguments(path=str(place / "set" / "train.parquet"), validation_split="train", max_broken_share=1.0)
    assert len(Pictures(load_split(data, "train"), data, 16)) == 2  # its own, and that of the absolute path
    write(place / "set", "metadata.jsonl", ["link.png"])
    os.symlink(place / "private" / INSIDE, place / "set" / "link.png")
    data = DataArguments(path=str(place / "set"), validation_split="train")
    assert len(Pictures(load_split(data, "train"), data, 16)) == 1


@pytest.mark.parametrize("value", [5, {"path": 5}, {"bytes": "x"}, {"bytes": None}, {}, [1], "", None, {"path": ""}])
def test_a_cell_that_is_no_picture_is_none(value):
    assert picture(value, "set") is None


def told_tar(path: Path, headers: dict[str, str]) -> str:
    """Five rows, of which the text of the middle one has these PAX headers."""
    beside = {"png": broken_sets.row(0)[0], "txt": b"a caption"}
    members = [(f"{i}.{suffix}", content) for i in range(5) for suffix, content in beside.items()]
    return broken_sets.write_members(path, members, headers={"2.txt": headers})


SPARSE = [
    {"GNU.sparse.realsize": "3000"},
    {"GNU.sparse.size": str(10**15)},
    {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(10**15)},
    {"GNU.sparse.map": "0,9", "GNU.sparse.size": str(10**12)},
]


@pytest.mark.parametrize("headers", SPARSE, ids=lambda headers: next(iter(headers)))
def test_a_member_that_says_another_size_than_its_bytes_have_gives_nothing(headers, tmp_path):
    path = told_tar(tmp_path / "a.tar", headers)
    try:
        reader = TarReader(path)
    except ValueError as error:  # of a map that is none
        assert "is no whole tar" in str(error)
        return
    rows = reader.read(0)
    assert {row.columns.get("text") for row in rows} == {"a caption", None}
    assert len(rows) == 5 and sum(row.columns.get("text") is None for row in rows) == 1


@pytest.mark.parametrize("size", ["-1024", str(10**15)])
def test_a_size_past_the_file_is_no_whole_tar(size, tmp_path):
    with pytest.raises(ValueError, match="is no whole tar"):
        TarReader(told_tar(tmp_path / "a.tar", {"size": size}))


def test_a_name_that_comes_twice_is_a_row_of_its_own(tmp_path):
    """As where two shards that count from 0 were put together."""
    members = [
        (f"{i}.{suffix}", data) for i in (0, 1) for suffix, data in (("png", broken_sets.row(i)[0]), ("txt", b"x"))
    ]
    first = broken_sets.write_members(tmp_path / "a.tar", members)
    broken_sets.write_members(tmp_path / "a.tar", members, mode="a")
    assert [row.columns["text"] for row in TarReader(first).read(0)] == ["x"] * 4


@pytest.mark.parametrize(
    "files", ["{}/private/metadata.jsonl", "../private/metadata.jsonl", "http://nowhere.invalid/metadata.jsonl"]
)
def test_a_readme_leads_into_the_set_alone(files, place, monkeypatch):
    """It tells datasets where a set's files are."""
    monkeypatch.setattr("fsspec.open", None)
    for name in ("set", "private"):
        (place / name / "metadata.jsonl").write_text(json.dumps({"file_name": INSIDE, "text": name}) + "\n")
    card = {"configs": [{"config_name": "default", "data_files": files.format(place)}]}
    (place / "set" / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    source = load_split(DataArguments(path=str(place / "set"), validation_split="train"), "train")
    assert [row.columns["text"] for row in source.rows()] == ["set"]


def test_a_pipe_or_a_device_is_no_picture(place):
    """It would be read without end."""
    os.mkfifo(place / "set" / "pipe.png")
    (place / "set.csv").write_text("image,text\n/dev/zero,x\nset/pipe.png,x\nset/0.png,x\n")
    data = DataArguments(path=str(place / "set.csv"), validation_split="train", max_broken_share=1.0)
    pictures = Pictures(load_split(data, "train"), data, 8)
    assert len(pictures) == 1 and pictures.tally.reasons == {"missing file": 2}


def test_a_table_is_no_larger_than_its_file(place):
    batch = pa.record_batch([pa.nulls(2**30)], names=["image"])
    with pa.OSFile(str(place / "nulls.arrow"), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    (place / "wide.csv").write_text("," * 2000 + "\nx\n")
    (place / "keys.jsonl").write_text("".join(json.dumps({f"k{i}": 1}) + "\n" for i in range(2000)))
    for name, number in (("nulls.arrow", 2**30), ("wide.csv", 2001), ("keys.jsonl", 2000)):
        with pytest.raises(ValueError, match=str(number)):
            load_split(DataArguments(path=str(place / name), validation_split="train"), "train")


def test_a_csv_of_open_quotes_is_read_in_one_pass(place):
    (place / "open.csv").write_text("image,text\n" + 'a","b\n' * 5000)
    source = load_split(DataArguments(path=str(place / "open.csv"), validation_split="train"), "train")
    assert len(source) == 5000
