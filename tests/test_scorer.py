"""The scorer: it learns what is to be told apart, and its figures count what they say."""

import json
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.small_clip import SmallCLIP, SmallCLIPConfig
from training.pair_scores import cut_things, heldout_pairs
from training.pretrained import picture_size
from training.scenes import draw_scene, is_heldout_pair
from training.scorer import contrastive_loss, r_precision, ranks
from training.train_scorer import main


def colours_and_names() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """8 plain pictures in 4 colours, the place of each one's name, and the 4 names' text ids."""
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    places = torch.arange(8) % 4
    pixel_values = colours[places][:, :, None, None].expand(8, 3, 16, 16)
    return pixel_values, places, torch.tensor([[1, 0], [2, 0], [3, 0], [4, 0]])


def small_clip(text_vocab_size: int, seed: int = 0) -> SmallCLIP:
    torch.manual_seed(seed)
    return SmallCLIP(SmallCLIPConfig(text_vocab_size=text_vocab_size, projection_dim=16, width=16))


@pytest.mark.seeds(1)
def test_it_learns_to_tell_colours_apart(seed, record_property):
    pixel_values, places, name_ids = colours_and_names()
    scorer = small_clip(5, seed).train()
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=5e-3)
    for _ in range(150):
        loss = contrastive_loss(scorer(pixel_values, name_ids[places]).logits_per_image, places)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scorer.eval()
    record_property("loss", loss.item())
    assert ranks(scorer, pixel_values, places, name_ids).tolist() == [0] * 8
    assert r_precision(scorer, pixel_values, places, name_ids, captions=4).mean() == 1


def test_without_training_it_guesses():
    scorer = small_clip(400).eval()
    pixel_values = torch.rand(400, 3, 16, 16)
    places, name_ids = torch.randperm(399)[torch.arange(400) % 399], torch.arange(1, 400)[:, None]
    hits = r_precision(scorer, pixel_values, places, name_ids, captions=10).mean()
    assert 0.02 < hits < 0.25, "chance is 0.1"


def test_captions_are_refused_and_pictures_are_as_large_as_the_dvaes(tmp_path, tiny_dvae, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "0.png")
    (pictures / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "black"}) + "\n")
    with pytest.raises(ValueError, match="has captions: the scorer learns names"):
        main(["--output_dir", str(tmp_path), "--data.path", str(pictures), "--data.validation_split", "train"])
    assert picture_size(tmp_path / "dvae") == 64
    tiny_dvae.save_pretrained(tmp_path / "dvae")
    assert picture_size(tmp_path / "dvae") == picture_size(str(tmp_path / "dvae")) == 16


def test_ranks_count_the_names_that_are_nearer():
    scorer = small_clip(5).eval()
    pixel_values, _, name_ids = colours_and_names()
    found = [ranks(scorer, pixel_values[:1], torch.tensor([i]), name_ids).item() for i in range(4)]
    assert sorted(found) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["beside", "above"])
def test_the_things_of_a_pair_are_cut_out_whole_wherever_they_stand(kind):
    cutouts = [np.zeros((64, 64, 4), np.uint8) for _ in range(2)]
    for cutout, colour in zip(cutouts, ((220, 20, 20), (20, 20, 220)), strict=True):
        cutout[4:-4, 4:-4, :3], cutout[4:-4, 4:-4, 3] = colour, 255
        cutout[4:30, 4:30, :3] = 90  # a corner, so that a turned thing would be seen
    alone = [draw_scene({"kind": "single"}, [cutout], Random(0), 64) for cutout in cutouts]
    expected = torch.from_numpy(np.stack(alone)).permute(0, 3, 1, 2) / 255
    for seed in range(6):
        scene = torch.tensor(draw_scene({"kind": kind}, cutouts, Random(seed), 64)).permute(2, 0, 1) / 255
        found = cut_things(scene[None], torch.tensor([kind == "above"]))
        assert found.shape == (2, 3, 64, 64)
        assert (found - expected).abs().mean() < 0.03 < (found.flip(2) - expected).abs().mean()


def test_pairs_to_judge_are_held_out_and_always_the_same():
    cutout = np.full((16, 16, 4), 90, np.uint8)
    rows = [{"name": f"thing {i}", "keywords": [], "style": "noto"} for i in range(40)]
    pictures = SimpleNamespace(rows=rows, images=[cutout] * 40, image_size=16)
    pairs, again = heldout_pairs(pictures, 12), heldout_pairs(pictures, 12)
    assert torch.equal(pairs.images, again.images) and pairs.prompts == again.prompts
    assert pairs.images.shape == (12, 3, 16, 16) and 0 < pairs.vertical.sum() < 12
    for prompt, names, above in zip(pairs.prompts, pairs.names, pairs.vertical, strict=True):
        assert is_heldout_pair(*names) and prompt == f"a {names[0]} {'above' if above else 'beside'} a {names[1]}"
