"""Every format gives the same rows; a broken row is skipped, counted and named, and too many stop the run."""

import json
from pathlib import Path

import broken_sets
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from messages import holds, refused
from PIL import Image

from training.emoji.named_cutouts import NamedCutouts
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures, bytes_decoded
from training.pictures.kinds import Captioned
from training.pictures.readers import Row
from training.pictures.rows import BrokenRow, Tally, open_picture
from training.pictures.sources import open_splits
from training.pictures.splits import load_split
from training.pictures.tars import TarReader


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, str]:
    return {kind: broken_sets.write(kind, tmp_path_factory.mktemp(kind)) for kind in broken_sets.FORMATS}


@pytest.mark.parametrize("kind", broken_sets.FORMATS)
def test_a_set_with_broken_rows_is_read_but_for_these_which_are_counted_and_named(kind, sets, capsys):
    data = DataArguments(path=sets[kind])
    pictures, held_out = (Pictures(load_split(data, split), data, 16) for split in ("train", "validation"))
    assert pictures.tally.reasons + held_out.tally.reasons == broken_sets.expected(kind)
    texts = sorted(int(parts["text"].split()[-1]) for parts in pictures.parts + held_out.parts)
    assert texts == [i for i in range(100) if i not in broken_sets.BROKEN]
    assert pictures.tally.seen + held_out.tally.seen == 100
    printed, sums = capsys.readouterr().out.splitlines(), []
    for tally in (each.tally for each in (pictures, held_out) if each.tally.broken):
        [line] = [line for line in printed if holds(line, tally.broken, tally.seen, sets[kind], tally)]
        sums.append(line)
    for reason, count in broken_sets.expected(kind).items():
        assert sum(reason in line for line in printed if line not in sums) == count, "each row is named"


@pytest.mark.parametrize("name", ["train.png", "test.png", "my_test_1.png", "dev.png", "val 1.png"])
def test_a_pictures_name_makes_no_split(name, tmp_path):
    path = broken_sets.write("folder", tmp_path, count=4)
    (tmp_path / name).write_bytes(broken_sets.row(0)[0])
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write(json.dumps({"file_name": name, "text": "one more"}) + "\n")
    splits = open_splits(path)
    assert list(splits) == ["train"] and splits["train"].column("text")[-1] == "one more"


@pytest.mark.parametrize("kind", [*broken_sets.FORMATS, "folders"])
def test_a_folders_name_is_no_glob(kind, tmp_path):
    if kind == "folders":
        for split in ("train", "test"):
            path = str(Path(broken_sets.write("folder", tmp_path / "photos [2024]" / split, count=3)).parent)
        assert {split: len(source) for split, source in open_splits(path).items()} == {"train": 3, "test": 3}
        return
    path = broken_sets.write(kind, tmp_path / "photos [2024]", count=3)
    assert {split: len(source) for split, source in open_splits(path).items()} == {"train": 3}


def test_every_format_gives_the_same_pictures_in_the_same_order(sets):
    drawn = {}
    for kind in broken_sets.FORMATS:
        pictures = Pictures(load_split(DataArguments(path=sets[kind]), "train"), DataArguments(path=sets[kind]), 16)
        drawn[kind] = [(parts["text"], image.tobytes()) for image, parts in map(pictures.single, range(len(pictures)))]
    for kind in broken_sets.FORMATS:
        assert drawn[kind] == drawn["folder"], kind


def test_units_and_choices_of_places_give_the_rows_that_one_pass_gives(sets):
    for kind in ("parquet", "arrow", "tar"):
        source = open_splits(sets[kind])["train"]
        captions = [row.columns["caption"] for row in source.rows()]
        assert captions == source.column("caption") == [broken_sets.row(i)[1] for i in range(100)]
        assert [row.columns["caption"] for row in source.rows(37, 59)] == captions[37:59]
        chosen = source.select([3, 17, 50, 99])
        assert chosen.column("caption") == [captions[i] for i in (3, 17, 50, 99)]
        own = [chosen.own_rows(unit).tolist() for unit in range(len(chosen.units))]
        assert sum(map(len, own)) == 4
        assert next(source.rows(70, 71)).where.startswith(str(source.units[-1][0].path)[:-10])


@pytest.mark.parametrize(
    ("text", "reason"),
    [({"a": "b"}, "caption is no text"), (7, "caption is no text"), (" ", "empty caption"), ([" "], "empty caption")],
)
def test_a_caption_that_is_no_text_is_not_called_empty(text, reason):
    for kind, column in ((Captioned("text"), "text"), (NamedCutouts(), "name")):
        with pytest.raises(BrokenRow, match=f"^{reason}$"):
            kind.parts(Row("row 0", {column: text, "image": "0.png"}))


def test_past_the_share_a_run_stops_with_both_numbers(sets):
    data = DataArguments(path=sets["parquet"], max_broken_share=0.02)
    train = load_split(data, "train")
    with refused(ValueError, 3, "max_broken_share=0.02", 100):
        Pictures(train, data, 16)
    nothing = DataArguments(path=sets["parquet"], min_side=50, max_broken_share=1.0)
    with refused(ValueError, sets["parquet"], "too small"):
        Pictures(load_split(nothing, "train"), nothing, 16)


def test_the_share_is_of_all_rows_wherever_the_broken_ones_lie_and_however_often_they_are_met():
    """101 in front of 3,000 rows are 3.4 %, in each of two epochs; of 1,009 they are past a tenth."""
    rows, few, many = [Row(f"row {i}", {}) for i in range(101)], Tally(3000, 0.1), Tally(1009, 0.1)
    for row in rows * 3:
        few.add(row, "missing file")
    with refused(ValueError, 101, "max_broken_share=0.1", 1009):
        for row in rows:
            many.add(row, "missing file")


@pytest.mark.parametrize(("most", "opens"), [(480, True), (479, False), (200, False)])
def test_the_bound_of_pixels_is_the_sets_and_not_pils(most, opens, sets, monkeypatch):
    """PIL's, of which twice as many are an error, would be 200 for a picture of 480."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = DataArguments(path=sets["tar"], max_pixels=most, max_broken_share=1.0)
    [row] = load_split(data, "train").rows(0, 1)
    if opens:
        assert open_picture(row.columns["image"], data).size == (24, 20)
    else:
        with refused(BrokenRow, "too large"):
            open_picture(row.columns["image"], data)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_set_that_fits_no_memory_is_refused_before_it_is_decoded(sets, monkeypatch):
    data = DataArguments(path=sets["parquet"], validation_split="train")
    source = load_split(data, "train")
    assert bytes_decoded(source, data, 16) == 100 * 16 * 16 * 3
    assert bytes_decoded(source, DataArguments(path=sets["parquet"], crop="dalle"), 16) == 100 * 24 * 24 * 3
    free = psutil.virtual_memory()._replace(available=2 * 76_800)
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert len(Pictures(source, data, 16)) == 95
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with refused(ValueError, 100, 3, 0.000215, 0.000143, "data.streaming"):
        Pictures(source, data, 16)


@pytest.mark.parametrize("kept", [0, 7, 100, -200])
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_file_that_is_cut_off_is_named(kind, kept, tmp_path):
    file = next(Path(broken_sets.write(kind, tmp_path / "set", count=40)).iterdir())
    file.write_bytes(file.read_bytes()[:kept])
    with refused(ValueError, file, kind.title()):
        load_split(DataArguments(path=str(tmp_path / "set")), "train")


def test_a_parquet_file_whose_pages_are_spoilt_is_named_when_it_is_read(tmp_path):
    file = next(Path(broken_sets.write("parquet", tmp_path / "set", count=40)).iterdir())
    content = file.read_bytes()
    source = load_split(DataArguments(path=str(tmp_path / "set"), validation_split="train"), "train")
    file.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    with refused(ValueError, file, "Parquet"):
        list(source.rows())


def test_a_file_without_the_pictures_that_others_have_is_named(tmp_path):
    pq.write_table(pa.table({"image": [b""], "text": ["x"]}), tmp_path / "train-0.parquet")
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "train-1.parquet")
    with refused(ValueError, tmp_path / "train-1.parquet", "['text']", "image"):
        load_split(DataArguments(path=str(tmp_path)), "train")


def test_a_tars_masks_and_hidden_files_are_no_pictures_and_late_captions_count(tmp_path):
    picture, members = broken_sets.row(0)[0], {}
    for i in range(8):
        members |= {f"a/._{i}.png": b"mac", f"a/{i}.png": picture, f"a/{i}.mask.png": b"mask", f"a/._{i}.txt": b"mac"}
        members |= {f"a/{i}.txt": b"late"} if i > 5 else {}
    reader = TarReader(broken_sets.write_members(tmp_path / "a.tar", list(members.items())))
    assert reader.lengths == [8] and reader.columns == ["image", "text"]
    assert all(row.columns["image"]["bytes"] == picture for row in reader.read(0))
    assert [row.columns.get("text") for row in reader.read(0)] == [None] * 6 + ["late"] * 2


def test_a_tar_with_long_names_is_read_from_any_unit(tmp_path, monkeypatch):
    monkeypatch.setattr("training.pictures.tars.ROWS_A_UNIT", 3)
    broken_sets.write_tar(tmp_path / "a.tar", [broken_sets.row(i) for i in range(8)], start=0, prefix="long/" * 50)
    reader = TarReader(str(tmp_path / "a.tar"))
    assert reader.lengths == [3, 3, 2] and reader.columns == ["image", "caption"]
    assert [row.columns["caption"].split()[-1] for row in reader.read(1)] == ["3", "4", "5"]
    assert reader.read(2)[1].where == f"{tmp_path / 'a.tar'}/{'long/' * 50}00007"
