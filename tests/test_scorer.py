"""The scorer: it learns what is to be told apart, and its figures count what they say."""

import json

import pytest
import torch
from PIL import Image

from training.scorer import Scorer, r_precision, ranks
from training.train_scorer import main, picture_size


def colours_and_names() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """8 plain pictures in 4 colours, the place of each one's name, and the 4 names' text ids."""
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    places = torch.arange(8) % 4
    pixel_values = colours[places][:, :, None, None].expand(8, 3, 16, 16)
    return pixel_values, places, torch.tensor([[1, 0], [2, 0], [3, 0], [4, 0]])


def test_it_learns_to_tell_colours_apart():
    torch.manual_seed(0)
    pixel_values, places, name_ids = colours_and_names()
    scorer = Scorer(text_vocab_size=5, pad_token_id=0, dim=16, width=16)
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=5e-3)
    for _ in range(40):
        loss = scorer(pixel_values, name_ids[places], places)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scorer.eval()
    assert ranks(scorer, pixel_values, places, name_ids).tolist() == [0] * 8
    assert r_precision(scorer, pixel_values, places, name_ids, captions=4).mean() == 1


def test_without_training_it_guesses():
    torch.manual_seed(0)
    scorer = Scorer(text_vocab_size=400, pad_token_id=0, dim=16, width=16).eval()
    pixel_values = torch.rand(400, 3, 16, 16)
    places, name_ids = torch.randperm(399)[torch.arange(400) % 399], torch.arange(1, 400)[:, None]
    hits = r_precision(scorer, pixel_values, places, name_ids, captions=10).mean()
    assert 0.02 < hits < 0.25, "chance is 0.1"


def test_captions_are_refused_and_pictures_are_as_large_as_the_dvaes(tmp_path, tiny_dvae, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "black"}) + "\n")
    with pytest.raises(ValueError, match="has captions: the scorer learns names"):
        main(["--output_dir", str(tmp_path), "--data.path", str(tmp_path), "--data.validation_split", "train"])
    assert picture_size(tmp_path) == 64
    tiny_dvae.save_pretrained(tmp_path / "dvae")
    assert picture_size(tmp_path) == 16


def test_ranks_count_the_names_that_are_nearer():
    scorer = Scorer(text_vocab_size=5, pad_token_id=0, dim=16, width=16).eval()
    pixel_values, _, name_ids = colours_and_names()
    found = [ranks(scorer, pixel_values[:1], torch.tensor([i]), name_ids).item() for i in range(4)]
    assert sorted(found) == [0, 1, 2, 3]
