"""The report on a set: what is broken is counted and named, duplicates are found, the exit code says go or stop."""

import json
from pathlib import Path

import broken_sets
import numpy as np
import pytest
from PIL import Image

from training.pictures.data_arguments import DataArguments
from training.pictures.report import difference_hash, look_through
from training.pictures.splits import load_split
from training.validate_data import caption_lengths, main


@pytest.mark.parametrize("kind", ["folder", "parquet", "tar"])
def test_the_report_counts_and_names_what_is_broken(kind, tmp_path, capsys):
    path = broken_sets.write(kind, tmp_path / "set")
    assert main([path, "--out", str(tmp_path / "out")]) == 0
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    splits = [numbers["train"], numbers["validation"]]
    assert [split["rows"] for split in splits] == [95, 5] and sum(split["usable"] for split in splits) == 95
    reasons = {reason: count for split in splits for reason, count in split["broken_by_reason"].items()}
    assert reasons == broken_sets.expected(kind)
    printed = capsys.readouterr().out
    assert "train: 95 rows, 90 usable, 5 broken (5.26%, of 0.1 allowed)" in printed
    assert printed.startswith((tmp_path / "out" / "report.txt").read_text())
    for row in splits[0]["broken_rows"]:
        assert row["row"] in printed and row["reason"] in reasons
    assert splits[0]["shorter_side_pixels"]["median"] == 20
    assert splits[0]["caption_words"] == {"min": 4, "5 %": 4, "median": 4, "95 %": 4, "max": 4}
    with Image.open(tmp_path / "out" / "contact-sheet-train.png") as sheet:
        assert sheet.size[0] == 768 and np.asarray(sheet).std() > 10


def test_past_the_share_the_exit_code_is_1_and_2_where_there_is_nothing(tmp_path, capsys):
    path = broken_sets.write("parquet", tmp_path / "set")
    out = ["--out", str(tmp_path / "out")]
    assert main([path, *out, "--data.max_broken_share", "0.04"]) == 1
    assert "more than max_broken_share=0.04" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "nothing"), *out])
    assert stopped.value.code == 2 and "no data at" in capsys.readouterr().err


def test_a_tar_that_is_cut_off_is_named_in_one_line(tmp_path, capsys):
    tar = next(Path(broken_sets.write("tar", tmp_path / "set", count=4)).iterdir())
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(SystemExit):
        main([str(tmp_path / "set"), "--out", str(tmp_path / "out")])
    assert f"{tar} is no whole tar" in capsys.readouterr().err.splitlines()[-1]


def test_workers_and_tokens_change_no_count(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    lengths_of, unit = caption_lengths(str(tmp_path / "tokenizer"))
    assert unit == "tokens"
    assert lengths_of(["a red apple", "a red apple" * 9])[0] == len(tiny_tokenizer("a red apple")["input_ids"])
    assert min(lengths_of(["a red apple " * 9])) > 6, "not cut"
    data = DataArguments(path=broken_sets.write("arrow", tmp_path / "set"))
    source = load_split(data, "train")
    alone, shared = (look_through(source, data, lengths_of, unit, "train", n).numbers() for n in (0, 2))
    assert alone == shared


def test_duplicates_are_exact_or_near(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 64)) for _ in range(30)]
    folder = tmp_path / "set"
    folder.mkdir()
    images = [*pictures, pictures[3], pictures[4].resize((128, 128), 0), pictures[5].resize((192, 64), 0)]
    lines = []
    for i, image in enumerate(images):
        image.save(folder / f"{i}.png")
        lines.append(json.dumps({"image": f"{i}.png", "text": f"number {i}"}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    data = DataArguments(path=str(folder / "rows.jsonl"), validation_split="train")
    report = look_through(load_split(data, "train"), data, lambda texts: [1] * len(texts), "words", "train")
    found = {
        kind: [[where.rpartition(" ")[2] for where in g] for g in groups]
        for kind, groups in report.duplicates().items()
    }
    assert found == {"exact": [["3", "30"]], "near": [["4", "31"], ["5", "32"]]}
    numbers = report.numbers()
    assert (numbers["exact_duplicates"], numbers["near_duplicates"]) == (1, 2)


def test_a_difference_hash_has_a_bit_for_each_rise_to_the_right():
    rising = Image.fromarray(np.tile(np.arange(0, 180, 20, dtype=np.uint8), (8, 1)))
    assert difference_hash(rising) == 2**64 - 1
    assert difference_hash(rising.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0
