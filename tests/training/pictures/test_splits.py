"""What a set's rows are: pictures to train on, pictures held out, captions or names."""

import json

import numpy as np
import pytest
from datasets import Dataset, Image
from messages import refused
from PIL import Image as PillowImage

from training import train_dvae, train_tokenizer
from training.codes.views import Contents
from training.emoji.named_cutouts import NamedCutouts
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures
from training.pictures.splits import _held_out, load_split
from training.sets import KINDS


def test_parquet_is_read_as_well(pictures, tmp_path):
    rows = [{"image": str(pictures / f"{i}.png"), "caption": f"number {i}"} for i in range(6)]
    Dataset.from_list(rows).cast_column("image", Image()).to_parquet(tmp_path / "train.parquet")
    data = DataArguments(path=str(tmp_path), validation_split="none")
    loaded = Pictures(load_split(data, "train"), data, image_size=8)
    image, parts = loaded.single(0)
    assert image.shape == (8, 8, 3) and parts["text"].startswith("number")


def test_training_and_held_out_pictures_are_disjoint_and_all(pictures):
    data = DataArguments(path=str(pictures))
    train, held_out = (load_split(data, split) for split in ("train", "validation"))
    assert len(train) + len(held_out) == 40 and len(held_out) == 2
    assert not set(train.places) & set(held_out.places)


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
