"""Layouts that other tools write are read as they are; names that other systems write are found."""

import io
import json
import random
import unicodedata
from collections import Counter
from pathlib import Path

import broken_sets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value
from PIL import Image as PillowImage

from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures
from training.pictures.sources import open_splits
from training.pictures.splits import load_split
from training.sets import KINDS

CAPTIONS = [f"a square number {i}" for i in range(20)]


def picture(i: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    PillowImage.new("RGB", (24, 20), (12 * i, 0, 255 - 12 * i)).save(file, kind)
    return file.getvalue()


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def write_pictures(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        (folder / name).write_bytes(picture(i))


def captions_of(path: Path, **options) -> Counter:
    """Of all pictures that trainers would hold."""
    data = DataArguments(path=str(path), **options)
    held = [Pictures(load_split(data, split, KINDS), data, 16) for split in ("train", "validation")]
    return Counter(str(parts["text"]) for pictures in held for parts in pictures.parts)


def img2dataset_webdataset(place: Path) -> None:
    """Tars of pictures, beside each a Parquet of what it came from and a JSON of counts."""
    for shard in range(2):
        rows = range(10 * shard, 10 * shard + 10)
        members = [(f"{i:09d}.{suffix}", data) for i in rows for suffix, data in beside(i).items()]
        broken_sets.write_members(place / f"{shard:05d}.tar", members)
        table = {"url": ["u"] * 10, "key": [f"{i:09d}" for i in rows], "caption": [CAPTIONS[i] for i in rows]}
        pq.write_table(pa.table(table), place / f"{shard:05d}.parquet")
        (place / f"{shard:05d}_stats.json").write_text(json.dumps({"count": 10, "successes": 10}, indent=4))


def beside(i: int) -> dict[str, bytes]:
    told = json.dumps({"caption": CAPTIONS[i], "url": "u", "width": 24}).encode()
    return {"jpg": picture(i, "JPEG"), "json": told, "txt": CAPTIONS[i].encode()}


def img2dataset_files(place: Path) -> None:
    (place / "00000").mkdir()
    for i in range(20):
        for suffix, data in beside(i).items():
            (place / "00000" / f"{i:09d}.{suffix}").write_bytes(data)
    pq.write_table(pa.table({"url": ["u"] * 20, "caption": CAPTIONS}), place / "00000.parquet")
    (place / "00000_stats.json").write_text(json.dumps({"count": 20}))


def img2dataset_parquet(place: Path) -> None:
    pictures = [picture(i, "JPEG") for i in range(20)]
    pq.write_table(pa.table({"url": ["u"] * 20, "caption": CAPTIONS, "jpg": pictures}), place / "00000.parquet")
    (place / "00000_stats.json").write_text(json.dumps({"count": 20}))


def kohya(place: Path) -> None:
    write_pictures(place / "10_square thing", [f"{i}.a.png" for i in range(10)])
    write_pictures(place / "1_other", [f"{i}.jpg" for i in range(10)])
    for i in range(10):
        (place / "10_square thing" / f"{i}.a.txt").write_text(CAPTIONS[i] + "\n")
        (place / "1_other" / f"{i}.caption").write_text("﻿" + CAPTIONS[10 + i], "utf-8")
    (place / "meta_cap.json").write_text(json.dumps({"x.png": {"caption": "x"}}))
    (place / "1_other" / "._0.jpg").write_bytes(b"macOS")


def table_beside_pictures(place: Path) -> None:
    write_pictures(place / "images", [f"{i}.png" for i in range(20)])
    (place / "labels").mkdir()
    rows = "".join(f"../images/{i}.png,{caption}\n" for i, caption in enumerate(CAPTIONS))
    (place / "labels" / "captions.csv").write_text(f"filename,TEXT\n{rows}")


def columns_of_their_own(place: Path) -> None:
    write_pictures(place, [f"{i}.png" for i in range(20)])
    for start, column in ((0, "text"), (5, "Caption"), (10, "prompt"), (15, "TEXT")):
        rows = [{"image": f"{i}.png", column: CAPTIONS[i]} for i in range(start, start + 5)]
        write_lines(place / f"{column}.jsonl", rows)


def all_pictures_before_all_texts(place: Path) -> None:
    members = [(f"{i}.avif", picture(i, "AVIF")) for i in range(20)]
    broken_sets.write_members(
        place / "a.tar", members + [(f"{i}.txt", CAPTIONS[i].encode()) for i in range(19, -1, -1)]
    )


def names_of_windows(place: Path) -> None:
    write_pictures(place / "images", [f"{i}.png" for i in range(20)])
    write_lines(place / "metadata.jsonl", [{"file_name": f"images\\{i}.png", "text": CAPTIONS[i]} for i in range(20)])


def names_of_macos(place: Path) -> None:
    names = [f"café {i}.png" for i in range(20)]
    write_pictures(place, [unicodedata.normalize("NFD", name) for name in names])
    write_lines(place / "metadata.jsonl", [{"file_name": name, "text": CAPTIONS[i]} for i, name in enumerate(names)])


def saved_to_disk(place: Path) -> None:
    columns = {"image": [{"bytes": picture(i), "path": None} for i in range(20)], "text": CAPTIONS}
    features = Features({"image": Image(), "text": Value("string")})
    Dataset.from_dict(columns, features=features).save_to_disk(str(place), num_shards=3)


LAYOUTS = [
    img2dataset_webdataset,
    img2dataset_files,
    img2dataset_parquet,
    kohya,
    table_beside_pictures,
    columns_of_their_own,
    all_pictures_before_all_texts,
    names_of_windows,
    names_of_macos,
    saved_to_disk,
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_layout_is_read_as_it_is(layout, tmp_path):
    layout(tmp_path)
    found = captions_of(tmp_path)
    assert {text.strip() for text in found} == set(CAPTIONS) and found.total() == 20
    source = load_split(DataArguments(path=str(tmp_path)), "train")
    assert source.digest() == load_split(DataArguments(path=str(tmp_path)), "train").digest()


def test_a_saved_dict_of_splits_and_folders_that_are_splits(tmp_path):
    columns = {"image": [{"bytes": picture(0), "path": None}] * 3, "text": CAPTIONS[:3]}
    own = Dataset.from_dict(columns, features=Features({"image": Image(), "text": Value("string")}))
    DatasetDict(train=own, validation=own.select([0])).save_to_disk(str(tmp_path / "saved"))
    for folder in ("train", "val"):
        write_pictures(
            tmp_path / "loose" / folder / "cats", [f"{i}.png" for i in range(3 if folder == "train" else 1)]
        )
    for name in ("saved", "loose"):
        splits = open_splits(str(tmp_path / name))
        assert {split: len(source) for split, source in splits.items()} == {"train": 3, "validation": 1}, name
    write_pictures(tmp_path / "loose" / "more", ["0.png"])
    assert {split: len(source) for split, source in open_splits(str(tmp_path / "loose")).items()} == {"train": 5}


def test_of_several_captions_one_is_drawn(tmp_path):
    """In a cell, of which some are a string alone, or lines of a .txt: each comes up, by the generator alone."""
    cells = [["one", "two", " "], "three", ["four"], []]
    write_pictures(tmp_path / "lists", [f"{i}.png" for i in range(4)])
    rows = [{"file_name": f"{i}.png", "captions": cell} for i, cell in enumerate(cells)]
    write_lines(tmp_path / "lists" / "metadata.jsonl", rows)
    write_pictures(tmp_path / "lines", [f"{i}.png" for i in range(3)])
    for i, text in enumerate(("one\n\ntwo\n", "three\n", "four")):
        (tmp_path / "lines" / f"{i}.txt").write_text(text)
    for name in ("lists", "lines"):
        data = DataArguments(path=str(tmp_path / name), validation_split="train", max_broken_share=1)
        pictures = Pictures(load_split(data, "train"), data, 16)
        draws = [[pictures.kind.caption(parts, random.Random(i)) for i in range(30)] for parts in pictures.parts]
        assert [{text.strip() for text in own} for own in draws] == [{"one", "two"}, {"three"}, {"four"}]
        assert draws[0] == [pictures.kind.caption(pictures.parts[0], random.Random(i)) for i in range(30)]


def test_pictures_alone_have_no_captions_and_are_told_so_where_these_are_needed(tmp_path):
    write_pictures(tmp_path, [f"{i}.png" for i in range(20)])
    data = DataArguments(path=str(tmp_path))
    train = load_split(data, "train", KINDS, captions=False)
    assert len(Pictures(train, data, 16)) == 19 and train.kind.parts(next(train.rows())) == {}
    with pytest.raises(ValueError, match=r"pictures and no captions: give it a metadata.jsonl, or a .txt"):
        load_split(data, "train", KINDS)


def test_addresses_are_not_taken_for_pictures(tmp_path):
    pq.write_table(pa.table({"url": ["https://nowhere.invalid/0.jpg"], "caption": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="addresses are not fetched: download them first"):
        load_split(DataArguments(path=str(tmp_path)), "train")


def test_a_broken_file_of_pictures_is_named_whatever_lies_beside_it(tmp_path):
    pq.write_table(pa.table({"image": [picture(0)], "text": ["x"]}), tmp_path / "train.parquet")
    (tmp_path / "train.parquet").write_bytes((tmp_path / "train.parquet").read_bytes()[:-9])
    write_pictures(tmp_path, ["preview.png"])
    with pytest.raises(ValueError, match=r"train.parquet cannot be read as Parquet"):
        load_split(DataArguments(path=str(tmp_path)), "train")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 9\n"
    for name in ("train.parquet", "train.tar"):
        (tmp_path / "train.parquet").unlink(missing_ok=True)
        (tmp_path / name).write_bytes(pointer)
        with pytest.raises(ValueError, match=f"{name} .*git-LFS pointer.*git lfs pull"):
            load_split(DataArguments(path=str(tmp_path)), "train")


def test_names_and_texts_that_are_no_utf_8_are_reported(tmp_path):
    members = [(f"caf\udce9{i}.png", picture(i)) for i in range(20)] + [
        (f"caf\udce9{i}.txt", "carré".encode("latin-1") if i == 7 else b"a thing") for i in range(20)
    ]
    broken_sets.write_members(tmp_path / "a.tar", members)
    data = DataArguments(path=str(tmp_path), validation_split="train")
    rows = list(load_split(data, "train").rows())
    assert rows[7].where == f"{tmp_path}/a.tar/caf\\xe97" and rows[7].broken == "not UTF-8"
    for row in rows:
        assert (row.where + ((row.columns["image"] or {}).get("path") or "")).encode()
    assert Pictures(load_split(data, "train"), data, 16).tally.reasons == {"not UTF-8": 1}


def test_a_path_that_leads_nowhere_is_told(tmp_path, capsys):
    path = broken_sets.write("folder", tmp_path / "set", count=20)
    (tmp_path / "set" / "pictures" / "3.png").unlink()
    data = DataArguments(path=path, validation_split="train")
    Pictures(load_split(data, "train"), data, 16)
    assert f"metadata.jsonl, row 3: {tmp_path}/set/pictures/3.png" in capsys.readouterr().out


def test_cut_outs_of_every_mode_become_scenes(tmp_path):
    """Their ground is white where they are transparent, whatever PIL calls them."""
    ramp = PillowImage.linear_gradient("L").resize((24, 20))
    modes = {
        "P": (ramp.convert("P"), {"transparency": 0}),
        "L": (ramp, {}),
        "LA": (PillowImage.merge("LA", [ramp, ramp]), {}),
        "1": (ramp.convert("1"), {"transparency": 255}),
        "16": (PillowImage.fromarray(np.asarray(ramp, np.uint16) * 257), {}),
        "RGBA": (PillowImage.merge("RGBA", [ramp] * 4), {}),
    }
    for name, (image, options) in modes.items():
        image.save(tmp_path / f"{name}.png", **options)
    told = {"keywords": "pet, house", "style": "noto"}
    write_lines(tmp_path / "metadata.jsonl", [{"file_name": f"{name}.png", "name": name, **told} for name in modes])
    data = DataArguments(path=str(tmp_path), validation_split="train")
    pictures = Pictures(load_split(data, "train", KINDS), data, 16)
    assert len(pictures) == len(modes) and pictures.kind.composes
    for i in range(len(modes)):
        image, _ = pictures.single(i)
        assert image.shape == (16, 16, 3) and image.std() > 10
    assert pictures.scene(random.Random(0))[0].shape == (16, 16, 3)
