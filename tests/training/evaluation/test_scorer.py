"""The scorer: it learns what is to be told apart, and its figures count what they say."""

import numpy as np
import pytest
import torch

from pipelines.judges.small_clip import SmallCLIP, SmallCLIPConfig
from training.evaluation.scorer import contrastive_loss, own_name_first, r_precision, ranks


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


def test_ranks_count_the_names_that_are_nearer():
    scorer = small_clip(5).eval()
    pixel_values, _, name_ids = colours_and_names()
    found = [ranks(scorer, pixel_values[:1], torch.tensor([i]), name_ids).item() for i in range(4)]
    assert sorted(found) == [0, 1, 2, 3]


def test_r_precision_counts_the_nearest_of_a_hundred():
    similarity = torch.eye(300) + 0.5 * torch.eye(300).roll(1, dims=1)
    places = torch.arange(300)
    assert own_name_first(similarity, places, captions=100).mean() == 1
    assert own_name_first(-similarity, places, captions=100).mean() == 0
    assert own_name_first(-similarity, places, captions=1).mean() == 1, "of one name it is the first"
    assert own_name_first(-similarity, places, captions=2).mean() == 0
    chance = own_name_first(torch.rand(300, 300, generator=torch.Generator().manual_seed(0)), places, captions=10)
    assert 0.04 < chance.mean() < 0.17, "chance is 0.1"


def test_the_loss_is_log_b_without_a_clue_and_its_targets_are_shared_by_equal_names():
    names = torch.tensor([0, 1, 2, 1])
    assert contrastive_loss(torch.zeros(4, 4), names).item() == pytest.approx(np.log(4), abs=1e-6)
    logits = 50.0 * (names[:, None] == names[None, :])
    assert contrastive_loss(logits, names).item() == pytest.approx(np.log(2) / 2, abs=1e-6)  # of two pictures in four
