"""The scorer's trainer: what it learns from, and how large it sees pictures."""

import json

import pytest
from cutout_sets import SHAPES, write_cutouts
from messages import holds, refused
from PIL import Image

from training.loop.pretrained import picture_size
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures
from training.pictures.splits import load_split
from training.sets import KINDS
from training.train_scorer import RECOLOURED, NamedPictures, main


def test_captions_are_refused_and_pictures_are_as_large_as_the_dvaes(tmp_path, tiny_dvae, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "0.png")
    (pictures / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "black"}) + "\n")
    with refused(ValueError, pictures, "name", "--clip"):
        main(["--output_dir", str(tmp_path), "--data.path", str(pictures), "--data.validation_split", "train"])
    assert picture_size(tmp_path / "dvae") == 64
    tiny_dvae.save_pretrained(tmp_path / "dvae")
    assert picture_size(tmp_path / "dvae") == picture_size(str(tmp_path / "dvae")) == 16


def test_what_it_does_not_do_is_refused(tmp_path, capsys):
    for flags in (["--training.init_from", "embedded"], ["--training.compile", "true"]):
        with refused(ValueError, flags[0].removeprefix("--training.")):
            main(["--output_dir", str(tmp_path), "--data.path", str(tmp_path), *flags])
    with pytest.raises(SystemExit):
        main(["--output_dir", str(tmp_path), "--data.path", str(tmp_path), "--model.width", "80"])
    assert holds(capsys.readouterr().err, "--model.width")


def test_a_quarter_of_what_it_learns_has_another_colour_and_the_same_name(tmp_path):
    data = DataArguments(path=str(write_cutouts(tmp_path)))
    pictures = Pictures(load_split(data, "train", KINDS), data, 16)
    drawn, own = NamedPictures(pictures, length=400, seed=0), {}
    for i in range(len(pictures)):
        image, parts = pictures.single(i)
        own.setdefault(parts["things"][0]["name"], set()).add(image.tobytes())
    draws = [drawn[i] for i in range(400)]
    as_it_is = [image.permute(1, 2, 0).numpy().tobytes() in own.get(name, ()) for image, name, _ in draws]
    assert 1 - sum(as_it_is) / 400 == pytest.approx(RECOLOURED, abs=0.07)
    for (image, name, shown), same in zip(draws, as_it_is, strict=True):
        assert shown == name and image.shape == (3, 16, 16) and (same or name.split()[-1] in SHAPES)
    assert all(one[1] == other[1] for one, other in zip(draws, (drawn[i] for i in range(400)), strict=True))
