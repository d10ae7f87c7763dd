"""JSON lines and CSV: what cannot be read is a row of nothing, and the others are read."""

import io
import json

import broken_sets
import pytest
from messages import refused

from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures
from training.pictures.lines import json_table
from training.pictures.readers import LinesReader
from training.pictures.sources import open_splits
from training.pictures.splits import load_split


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
    with refused(ValueError, tmp_path / "rows.jsonl", "JSON"):
        open_splits(str(tmp_path / "rows.jsonl"))
    broken_sets.write("folder", tmp_path / "bare", count=2)
    (tmp_path / "bare" / "metadata.jsonl").unlink()
    with refused(ValueError, tmp_path / "bare", "metadata.jsonl"):
        load_split(DataArguments(path=str(tmp_path / "bare")), "train")


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
    assert pictures.tally.reasons == {"unreadable row": 2, "not UTF-8": 1} and pictures.tally.seen == 5


@pytest.mark.parametrize("caption", ["12", "[12]", "null", '{"x": 1}'])
def test_a_caption_that_is_no_text_is_a_broken_row(caption, tmp_path):
    (tmp_path / "0.png").write_bytes(broken_sets.row(0)[0])
    lines = ['{"image": "0.png", "text": "x"}', f'{{"image": "0.png", "text": {caption}}}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    data = DataArguments(path=str(tmp_path / "rows.jsonl"), validation_split="train", max_broken_share=1.0)
    assert Pictures(load_split(data, "train"), data, 16).tally.reasons == {"empty caption": 1}


def test_a_nul_in_a_path_is_a_missing_file_and_a_url_is_not_asked_for(tmp_path):
    (tmp_path / "0.png").write_bytes(broken_sets.row(0)[0])
    rows = [{"image": name, "text": "x"} for name in ("0.png", "https://nowhere.invalid/0.png", "0\0.png")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = DataArguments(path=str(tmp_path / "rows.jsonl"), validation_split="train", max_broken_share=1.0)
    source = load_split(data, "train")
    assert Pictures(source, data, 16).tally.reasons == {"missing file": 1, "outside the set": 1} and source.digest()


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_file_may_be_one_list(indent):
    rows = [{"file": "0.png", "text": "red"}, 7, {"file": "1.png", "text": None}]
    table = json_table(io.BytesIO(json.dumps(rows, indent=indent).encode()), "captions.json")
    assert table.to_pylist() == [rows[0], {"file": None, "text": None}, rows[2]]
    with refused(ValueError, "captions.json", "JSON"):
        json_table(io.BytesIO(b"[1, 2"), "captions.json")
