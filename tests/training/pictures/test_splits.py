"""What a set's rows are: pictures to train on, pictures held out, captions or names."""

import io
import json
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Image
from messages import refused
from PIL import Image as PillowImage

from training import train_dvae, train_tokenizer, validate_data
from training.codes.views import Contents
from training.emoji.named_cutouts import NamedCutouts
from training.pictures import splits
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures
from training.pictures.splits import _held_out, load_split
from training.sets import KINDS


def test_parquet_is_read_as_well(pictures, tmp_path):
    """A file that is named by itself may name pictures by absolute paths."""
    rows = [{"image": str(pictures / f"{i}.png"), "caption": f"number {i}"} for i in range(6)]
    Dataset.from_list(rows).cast_column("image", Image()).to_parquet(tmp_path / "train.parquet")
    data = DataArguments(path=str(tmp_path / "train.parquet"), validation_split="none")
    loaded = Pictures(load_split(data, "train"), data, image_size=8)
    image, parts = loaded.single(0)
    assert image.shape == (8, 8, 3) and parts["text"].startswith("number")


def test_training_and_held_out_pictures_are_disjoint_and_all(pictures):
    data = DataArguments(path=str(pictures))
    train, held_out = (load_split(data, split) for split in ("train", "validation"))
    assert len(train) + len(held_out) == 40 and len(held_out) == 2
    assert not set(train.places) & set(held_out.places)


def shown(path, split: str) -> list:
    """What each row of a split shows: the picture's path, or its bytes."""
    rows = load_split(DataArguments(path=str(path)), split).rows()
    return [row.columns["image"]["bytes"] or row.columns["image"]["path"] for row in rows]


def write_captions(folder, pictures, kind: str):
    """Three captions a picture, a row each, apart from each other, as a folder, Parquet or a tar."""
    rows = [(i, f"caption {j} of {i}") for j in range(3) for i in range(40)]
    if kind == "folder":
        lines = [{"file_name": str(pictures / f"{i}.png"), "text": text} for i, text in rows]
        (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return
    contents = [(pictures / f"{i}.png").read_bytes() + bytes([i]) for i in range(40)]  # some squares are alike
    if kind == "parquet":
        table = {"image": [contents[i] for i, _ in rows], "text": [text for _, text in rows]}
        pq.write_table(pa.table(table), folder / "train.parquet", row_group_size=16)
        return
    with tarfile.open(folder / "a.tar", "w") as tar:
        for at, (i, text) in enumerate(rows):
            for suffix, content in ((".png", contents[i]), (".txt", text.encode())):
                member = tarfile.TarInfo(f"{at:03d}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("kind", ["folder", "parquet", "tar"])
def test_a_picture_of_several_rows_is_held_out_with_all_of_them(pictures, tmp_path, kind):
    write_captions(tmp_path, pictures, kind)
    train, held_out = (shown(tmp_path, split) for split in ("train", "validation"))
    assert not set(train) & set(held_out)
    assert (len(train), len(held_out), len(set(held_out))) == (3 * 38, 3 * 2, 2)


def test_where_each_row_is_a_picture_the_choice_is_as_it_ever_was(pictures):
    held_out = load_split(DataArguments(path=str(pictures)), "validation")
    assert held_out.places.tolist() == [17, 28], "caches and runs of users count on it"


def test_the_bytes_of_large_files_are_not_read_to_tell_pictures_apart(pictures, tmp_path, monkeypatch):
    write_captions(tmp_path, pictures, "parquet")
    monkeypatch.setattr(splits, "READ_AT_ONCE", 10)
    monkeypatch.setattr(splits, "pictures_named", None)
    assert len(shown(tmp_path, "validation")) == 120 // 20


def test_of_two_metadata_files_one_is_read_and_that_is_said(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)
    rows = "".join(f"{i}.png,square {i}\n" for i in range(40))
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{rows}")
    with pytest.warns(UserWarning, match=r"metadata\.\w+ and metadata\.\w+"):
        assert len(shown(tmp_path, "train")) + len(shown(tmp_path, "validation")) == 40


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (9, 1), (1000, 50), (50_000, 1000)])
def test_held_out_rows_lie_all_over_a_set_of_any_size(count, expected):
    chosen = _held_out(count, held_out=True)
    assert len(chosen) == expected and len(_held_out(count, held_out=False)) == count - expected
    if expected > 1:
        assert np.mean(chosen) == pytest.approx(count / 2, rel=0.2)


@pytest.mark.parametrize(
    ("columns", "text_column", "texts"),
    [
        (["name"], None, ["a", "b"]),
        (["name", "keywords", "style", "said"], "said", ["a", "b"]),
        (["name", "keywords", "style"], "name", ["a", "b"]),
        (["name", "keywords", "style"], None, None),
    ],
)
def test_a_set_is_one_of_cutouts_where_names_are_all_that_captions_are_of(columns, text_column, texts, tmp_path):
    rows = [{"file_name": f"{name}.png", **dict.fromkeys(columns, name), "keywords": []} for name in "ab"]
    rows = [{key: row[key] for key in ("file_name", *columns)} for row in rows]
    for name in "ab":
        PillowImage.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataArguments(path=str(tmp_path), text_column=text_column, validation_split="train")
    source = load_split(data, "train", KINDS)
    loaded = Pictures(source, data, image_size=8)
    assert isinstance(source.kind, NamedCutouts) == source.kind.composes == (texts is None)
    assert [parts.get("text") for parts in loaded.parts] == (texts or [None, None])
    if texts:
        with refused(ValueError, 4, tmp_path, "training.cached_scenes"):
            Contents(source, data, 8, scenes=4)


def test_one_picture_in_many_rows_is_all_on_one_side(preset, tmp_path):
    """It is trained on or held out, never both: so nothing is held out, and whoever needs that says so."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        file = io.BytesIO()
        PillowImage.new("RGB", (8, 8), "red").save(file, "AVIF")
        for row in range(20):
            for suffix, content in ((".avif", file.getvalue()), (".txt", f"caption {row}".encode())):
                member = tarfile.TarInfo(f"{row:02d}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    data = DataArguments(path=str(tmp_path))
    assert [len(Pictures(load_split(data, split), data, 8)) for split in ("train", "validation")] == [20, 0]
    with refused(ValueError, tmp_path, 1, 20, 2):
        train_dvae.main([preset, "--data.path", str(tmp_path)])
    assert validate_data.main([str(tmp_path), "--out", str(tmp_path / "report")]) == 1


def test_a_set_of_one_picture_or_of_no_caption_is_refused(preset, tmp_path):
    """Two are needed, one of them to hold out."""
    PillowImage.new("RGB", (8, 8)).save(tmp_path / "a.png")
    lines = [json.dumps({"file_name": "a.png", "text": text}) + "\n" for text in ("a", "", "")]
    (tmp_path / "metadata.jsonl").write_text(lines[0])
    for trainer in (train_tokenizer, train_dvae):
        with refused(ValueError, tmp_path, 1, "'train'"):
            trainer.main([preset, "--data.path", str(tmp_path)])
    (tmp_path / "metadata.jsonl").write_text("".join(lines[1:]))
    with refused(ValueError, tmp_path, 1, "training.validate_data"):
        train_tokenizer.main([preset, "--data.path", str(tmp_path)])


def test_data_without_captions_is_refused_by_its_columns(tmp_path):
    Dataset.from_list([{"image": "x", "label": 1}]).to_parquet(tmp_path / "train.parquet")
    with refused(ValueError, tmp_path, "label", "image", "text"):
        load_split(DataArguments(path=str(tmp_path)), "train")


@pytest.mark.parametrize("path", ["/nowhere", "no/where/here", "nobody/nothing"])
def test_missing_data_is_named_with_what_to_give_instead(path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with refused(ValueError, path):
        load_split(DataArguments(path=path), "train")
