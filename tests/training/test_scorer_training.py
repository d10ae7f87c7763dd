"""The scorer's trainer: what it learns from, and how large it sees pictures."""

import json

from messages import refused
from PIL import Image

from training.loop.pretrained import picture_size
from training.train_scorer import main


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
