"""The committed pictures: what `datasets` loads, how large, under which licences, and how they are split."""

import numpy as np
import pytest
from datasets import DatasetDict, Image, load_dataset
from messages import refused
from processes import ROOT

FOLDER = ROOT / "training/data/emoji"
EMOJI_STYLES = {"twemoji", "noto", "fluent flat", "fluent 3d"}
LICENSES = {"CC-BY-4.0", "CC-BY-3.0", "Apache-2.0", "MIT", "CC-PDDC"}
COLUMNS = ["image", "name", "keywords", "style", "emoji", "source", "license", "attribution"]


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> DatasetDict:
    return load_dataset(str(FOLDER), cache_dir=str(tmp_path_factory.mktemp("cache")))


def column(splits: DatasetDict, name: str, *only: str) -> list:
    """A column of all splits, or of those named, read without decoding a picture."""
    return [value for split in only or splits for value in splits[split].data.column(name).to_pylist()]


def test_both_splits_load_with_the_columns_of_the_card(splits):
    assert set(splits) == {"train", "validation"}
    for split in splits.values():
        assert split.column_names == COLUMNS and isinstance(split.features["image"], Image)
    assert len(splits["train"]) > 6000 and len(splits["validation"]) > 200


def test_the_files_stay_small():
    sizes = [path.stat().st_size for path in FOLDER.glob("*.parquet")]
    assert 0 < sum(sizes) < 34e6


def test_every_row_says_where_it_is_from_and_none_is_share_alike(splits):
    assert set(column(splits, "license")) == LICENSES
    assert all(column(splits, "attribution")) and all(column(splits, "source"))
    assert all("@" in source for source in column(splits, "source"))


def test_names_are_short_lower_case_and_no_flags_or_skin_tones(splits):
    names = column(splits, "name")
    assert all(name and name == name.lower().strip() for name in names)
    assert not [name for name in names if name.startswith("flag") or "skin tone" in name or "family" in name]
    assert {"avocado", "red apple", "cat face", "fire engine", "sailboat", "red armchair"} <= set(names)


def test_each_validation_picture_is_an_emoji_whose_concept_keeps_two_styles_in_training(splits):
    of_name = {}
    for name, style in zip(column(splits, "name", "train"), column(splits, "style", "train"), strict=True):
        of_name.setdefault(name, set()).add(style)
    held_out = list(zip(column(splits, "name", "validation"), column(splits, "style", "validation"), strict=True))
    assert len(set(held_out)) == len({name for name, _ in held_out})  # one style of a concept
    for name, style in held_out:
        assert style in EMOJI_STYLES and style not in of_name[name]
        assert len(of_name[name] & EMOJI_STYLES) >= 2
    assert 0.03 < len(held_out) / len(column(splits, "name")) < 0.05


def test_pictures_are_square_cutouts_that_fill_their_frame(splits):
    for row in splits["train"].select(range(0, len(splits["train"]), 60)):
        assert row["image"].size == (128, 128) and row["image"].mode == "RGBA"
        alpha = np.asarray(row["image"])[..., 3]
        assert alpha[:4].max() < 64 and alpha[:, :4].max() < 64  # a margin
        rows, columns = np.nonzero(alpha > 8)
        assert 114 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 122


def test_the_builder_refuses_share_alike_sources():
    from training.emoji.packages import Package

    with refused(ValueError, "openmoji", "CC-BY-SA-4.0"):
        Package("openmoji", "15.0.0", "CC-BY-SA-4.0", "OpenMoji")


def test_the_same_drawing_gives_the_same_bytes_and_the_split_depends_on_the_rows_alone():
    pytest.importorskip("resvg_py", reason="the extra `data`")
    from training.emoji.build import armchair_rows, split

    rows, again = list(armchair_rows(32, each=1)), list(armchair_rows(32, each=1))
    assert rows == again and len(rows) == 9
    assert split(rows) == split(again) == (rows, [])
