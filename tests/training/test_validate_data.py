"""The report on a set: what is broken is counted and named, and the exit code says go or stop."""

import json
from pathlib import Path

import broken_sets
import numpy as np
import pytest
from messages import holds
from PIL import Image

from training.pictures.data_arguments import DataArguments
from training.pictures.report import look_through
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
    assert any(holds(line, "train", 95, 90, 5, 0.1) for line in printed.splitlines()), "rows, usable, broken, allowed"
    assert (tmp_path / "out" / "report.txt").read_text() in printed
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
    assert holds(capsys.readouterr().out, "max_broken_share=0.04")
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "nothing"), *out])
    assert stopped.value.code == 2 and holds(capsys.readouterr().err, tmp_path / "nothing")


def test_a_tar_that_is_cut_off_is_named_in_one_line(tmp_path, capsys):
    tar = next(Path(broken_sets.write("tar", tmp_path / "set", count=4)).iterdir())
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(SystemExit):
        main([str(tmp_path / "set"), "--out", str(tmp_path / "out")])
    assert holds(capsys.readouterr().err.splitlines()[-1], tar)


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
