"""Every format gives the same rows; a broken row is skipped, counted and named, and too many stop the run."""

import io
import json
import random
import tarfile
from collections import Counter
from pathlib import Path

import broken_sets
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from training.crops import dvae_crop, prior_crop
from training.data import DrawnPictures, Pictures, bytes_decoded, load_split
from training.data_arguments import DataArguments
from training.decoding import BrokenRow, Tally, open_picture, row_parts
from training.lines import json_table
from training.readers import LinesReader, Row, TarReader
from training.sources import open_splits


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
    assert f"of {sets[kind]} skipped" in (printed := capsys.readouterr().out)
    assert printed.count("skipped, ") == len(broken_sets.BROKEN)


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
    ("text", "reason"), [(["a", "b"], "caption is no text"), (7, "caption is no text"), (" ", "empty caption")]
)
def test_a_caption_that_is_no_text_is_not_called_empty(text, reason):
    for column in ("text", None):
        with pytest.raises(BrokenRow, match=f"^{reason}$"):
            row_parts(Row("row 0", {column or "name": text, "image": "0.png"}), column)


def test_past_the_share_a_run_stops_with_both_numbers(sets):
    data = DataArguments(path=sets["parquet"], max_broken_share=0.02)
    with pytest.raises(ValueError, match=r"2 of the first \d+ rows cannot be used .* max_broken_share=0.02 of 9"):
        Pictures(load_split(data, "train"), data, 16)
    nothing = DataArguments(path=sets["parquet"], min_side=50, max_broken_share=1.0)
    with pytest.raises(ValueError, match=r"no picture that can be used: .*too small"):
        Pictures(load_split(nothing, "train"), nothing, 16)


def test_the_share_is_of_all_rows_wherever_the_broken_ones_lie_and_however_often_they_are_met():
    """101 in front of 3,000 rows are 3.4 %, in each of two epochs; of 1,009 they are past a tenth."""
    rows, few, many = [Row(f"row {i}", {}) for i in range(101)], Tally(3000, 0.1), Tally(1009, 0.1)
    for row in rows * 3:
        few.add(row, "missing file")
    with pytest.raises(ValueError, match=r"^101 of the first 1 rows .* max_broken_share=0.1 of 1009"):
        for row in rows:
            many.add(row, "missing file")


def test_a_large_picture_is_left_out_before_it_is_decoded(sets):
    data = DataArguments(path=sets["tar"], max_pixels=479, max_broken_share=1.0)
    with pytest.raises(ValueError, match="too large"):
        Pictures(load_split(data, "train"), data, 16)


@pytest.mark.parametrize(("most", "opens"), [(480, True), (479, False), (200, False)])
def test_the_bound_of_pixels_is_the_sets_and_not_pils(most, opens, sets, monkeypatch):
    """PIL's, of which twice as many are an error, would be 200 for a picture of 480."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = DataArguments(path=sets["tar"], max_pixels=most, max_broken_share=1.0)
    [row] = load_split(data, "train").rows(0, 1)
    if opens:
        assert open_picture(row.columns["image"], data).size == (24, 20)
    else:
        with pytest.raises(BrokenRow, match="too large"):
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
    with pytest.raises(ValueError, match=r"100 pictures .* of 3 processes take 0.000215 GiB of the 0.000143"):
        Pictures(source, data, 16)


def test_a_csv_caption_may_be_a_number_a_quote_or_two_lines(tmp_path):
    (tmp_path / "rows.csv").write_text('image,text\n1.png,12\n2.png,"two\nlines, ""quoted"""\n3.png,\n')
    reader = LinesReader(str(tmp_path / "rows.csv"))
    assert [row.columns["text"] for row in reader.read(0)] == ["12", 'two\nlines, "quoted"', ""]
    assert reader.read(0)[0].columns["image"]["path"] == str(tmp_path / "1.png")


@pytest.mark.parametrize("header", ["image,text", "text,file_name", "id,text"])
def test_an_open_quote_of_a_csv_costs_its_own_row_alone(header, tmp_path):
    """However many there are, and past csv's limit of a field's letters; beside a caption of several lines."""
    texts = {3: '"hello there', 59: '"one,\nor two, lines"', 60: '"hello, there', 70: '6" wide', 8999: '"'}
    rows = [[f"{i}.png", texts.get(i, f"red {i}")] for i in range(9000)]
    columns = [row[:: -1 if header.startswith("text") else 1] for row in rows]
    (tmp_path / "rows.csv").write_text("\n".join([header, *map(",".join, columns)]) + "\n" + "x" * 200_000)
    table = LinesReader(str(tmp_path / "rows.csv")).table
    captions = table["text"].to_pylist()
    assert len(captions) == 9001 and {i for i, text in enumerate(captions) if text is None} == {3, 60, 8999, 9000}
    assert captions[59] == "one,\nor two, lines" and captions[70] == '6" wide' and captions[4] == "red 4"


def test_what_is_no_json_lines_and_what_has_no_captions_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('[\n{"image": 2')
    with pytest.raises(ValueError, match=r"rows.jsonl must be JSON lines"):
        open_splits(str(tmp_path / "rows.jsonl"))
    broken_sets.write("folder", tmp_path / "bare", count=2)
    (tmp_path / "bare" / "metadata.jsonl").unlink()
    with pytest.raises(ValueError, match=r"pictures and no captions: give it one of metadata.jsonl"):
        open_splits(str(tmp_path / "bare"))


LINES = {
    "csv": [b"image,text", b"0.png,2020-01-01", b"0.png", b"0.png,a,b", b"0.png,caf\xe9", b"0.png,2020-01-02"],
    "jsonl": [
        b'{"image": "0.png", "text": "2020-01-01"}',
        b'{"image": "0.png", "te',
        b"[1]",
        b'{"image": "0.png", "text": "caf\xe9"}',
        b'{"image": "0.png", "text": "2020-01-02"}',
    ],
}


@pytest.mark.parametrize("kind", LINES)
def test_a_line_that_cannot_be_read_is_a_broken_row_and_dates_are_captions(kind, tmp_path):
    (tmp_path / "0.png").write_bytes(broken_sets.row(0)[0])
    (tmp_path / f"rows.{kind}").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(LINES[kind]))
    data = DataArguments(path=str(tmp_path / f"rows.{kind}"), validation_split="train", max_broken_share=1.0)
    pictures = Pictures(load_split(data, "train"), data, 16)
    assert [parts["text"] for parts in pictures.parts] == ["2020-01-01", "2020-01-02"]
    assert pictures.tally.reasons == {"unreadable row": 3} and pictures.tally.seen == 5


@pytest.mark.parametrize("caption", ["12", '["x"]', "null", '{"x": 1}'])
def test_a_caption_that_is_no_text_is_a_broken_row(caption, tmp_path):
    (tmp_path / "0.png").write_bytes(broken_sets.row(0)[0])
    lines = ['{"image": "0.png", "text": "x"}', f'{{"image": "0.png", "text": {caption}}}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    data = DataArguments(path=str(tmp_path / "rows.jsonl"), validation_split="train", max_broken_share=1.0)
    assert Pictures(load_split(data, "train"), data, 16).tally.reasons == {"empty caption": 1}


def test_a_url_or_a_nul_for_a_path_is_a_missing_file(tmp_path):
    (tmp_path / "0.png").write_bytes(broken_sets.row(0)[0])
    rows = [{"image": name, "text": "x"} for name in ("0.png", "https://nowhere.invalid/0.png", "0\0.png")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = DataArguments(path=str(tmp_path / "rows.jsonl"), validation_split="train", max_broken_share=1.0)
    source = load_split(data, "train")
    assert Pictures(source, data, 16).tally.reasons == {"missing file": 2} and source.digest()


@pytest.mark.parametrize("kept", [0, 7, 100, -200])
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_file_that_is_cut_off_is_named(kind, kept, tmp_path):
    file = next(Path(broken_sets.write(kind, tmp_path / "set", count=40)).iterdir())
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{file} cannot be read as {kind.title()} \(.+\): if it is cut off, copy"):
        load_split(DataArguments(path=str(tmp_path / "set")), "train")


def test_a_parquet_file_whose_pages_are_spoilt_is_named_when_it_is_read(tmp_path):
    file = next(Path(broken_sets.write("parquet", tmp_path / "set", count=40)).iterdir())
    content = file.read_bytes()
    source = load_split(DataArguments(path=str(tmp_path / "set"), validation_split="train"), "train")
    file.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    with pytest.raises(ValueError, match=rf"{file} cannot be read as Parquet"):
        list(source.rows())


def test_a_file_without_the_pictures_that_others_have_is_named(tmp_path):
    pq.write_table(pa.table({"image": [b""], "text": ["x"]}), tmp_path / "train-0.parquet")
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "train-1.parquet")
    with pytest.raises(ValueError, match=r"train-1.parquet has columns \['text'\]: it needs `image`"):
        load_split(DataArguments(path=str(tmp_path)), "train")


def write_members(path, members: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def test_a_tars_masks_and_hidden_files_are_no_pictures_and_late_captions_count(tmp_path):
    picture, members = broken_sets.row(0)[0], {}
    for i in range(8):
        members |= {f"a/._{i}.png": b"mac", f"a/{i}.png": picture, f"a/{i}.mask.png": b"mask", f"a/._{i}.txt": b"mac"}
        members |= {f"a/{i}.txt": b"late"} if i > 5 else {}
    reader = TarReader(write_members(tmp_path / "a.tar", members))
    assert reader.lengths == [8] and reader.columns == ["image", "text"]
    assert all(row.columns["image"]["bytes"] == picture for row in reader.read(0))
    assert [row.columns.get("text") for row in reader.read(0)] == [None] * 6 + ["late"] * 2


def test_a_tar_with_long_names_is_read_from_any_unit(tmp_path, monkeypatch):
    monkeypatch.setattr("training.readers.ROWS_A_UNIT", 3)
    broken_sets.write_tar(tmp_path / "a.tar", [broken_sets.row(i) for i in range(8)], start=0, prefix="long/" * 50)
    reader = TarReader(str(tmp_path / "a.tar"))
    assert reader.lengths == [3, 3, 2] and reader.columns == ["image", "caption"]
    assert [row.columns["caption"].split()[-1] for row in reader.read(1)] == ["3", "4", "5"]
    assert reader.read(2)[1].where == f"{tmp_path / 'a.tar'}/{'long/' * 50}00007"


@pytest.mark.parametrize("crop", [dvae_crop, prior_crop])
@pytest.mark.parametrize(("height", "width"), [(20, 20), (40, 90), (200, 64), (10, 12)])
def test_a_crop_is_square_shows_part_of_the_picture_and_depends_on_its_generator_alone(crop, height, width):
    """Red says the row, green the column: a crop's are those of one square inside the picture."""
    rows = torch.linspace(0, 255, height)[:, None].expand(height, width)
    columns = torch.linspace(0, 255, width)[None].expand(height, width)
    image = torch.stack([rows, columns, rows * 0]).to(torch.uint8)
    crops = [crop(image, 16, random.Random(seed)) for seed in range(40)]
    assert all(c.shape == (3, 16, 16) and c.dtype == torch.uint8 for c in crops)
    assert torch.equal(crops[7], crop(image, 16, random.Random(7)))
    assert len({c.numpy().tobytes() for c in crops}) >= (10 if min(height, width) > 16 else 1)
    seen = np.array([[c[0].float().mean() / 255 * height, c[1].float().mean() / 255 * width] for c in crops])
    assert abs(seen.mean(0) / (height, width) - 0.5).max() < 0.1, "on average about the centre"


def test_the_priors_crop_stays_near_the_centre_and_the_dvaes_reaches_the_ends():
    image = (torch.arange(800) // 4)[None, None].expand(3, 100, 800).to(torch.uint8)  # 100 × 800, says its column
    middles = {c: [4 * c(image, 16, random.Random(i))[0].float().mean() for i in range(200)] for c in CROPS}
    assert 100 / 3 - 2 < min(middles[dvae_crop]) < 110 and 690 < max(middles[dvae_crop]) < 800 - 100 / 3 + 2
    first, last = 700 * 3 // 8 + 800 / 18, 700 * 5 // 8 + 1000 / 18  # middles of the outermost crops
    assert first - 3 < min(middles[prior_crop]) < 330 and 470 < max(middles[prior_crop]) < last + 3


CROPS = [dvae_crop, prior_crop]


def test_drawn_pictures_are_cropped_in_training_and_centred_in_evaluation(sets):
    centre, crops = DataArguments(path=sets["parquet"]), DataArguments(path=sets["parquet"], crop="dalle")
    plain, cropped = (Pictures(load_split(data, "train"), data, 16) for data in (centre, crops))
    same = sum(np.array_equal(plain.single(i)[0], cropped.single(i)[0]) for i in range(len(plain)))
    assert same == len(plain)
    first, again = (DrawnPictures(cropped, 400, seed=0) for _ in range(2))
    assert torch.equal(first[123], again[123])
    of_one = Counter(first[i].numpy().tobytes() for i in range(400))
    assert len(of_one) > 2 * len(cropped), "a picture is cropped otherwise in another epoch"


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_file_may_be_one_list(indent):
    rows = [{"file": "0.png", "text": "red"}, 7, {"file": "1.png", "text": None}]
    table = json_table(io.BytesIO(json.dumps(rows, indent=indent).encode()), "captions.json")
    assert table.to_pylist() == [rows[0], {"file": None, "text": None}, rows[2]]
    with pytest.raises(ValueError, match=r"captions.json must be JSON lines, an object a line, or a list of objects"):
        json_table(io.BytesIO(b"[1, 2"), "captions.json")
