"""The scorer: it learns what is to be told apart, and its figures count what they say."""

import numpy as np
import pytest
import torch

from pipelines.judges.small_clip import SmallCLIP, SmallCLIPConfig
from training.evaluation.scorer import augment, contrastive_loss, own_name_first, r_precision, ranks


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


def test_pictures_that_have_a_name_or_a_caption_in_common_are_each_others_answers():
    names = torch.tensor([[0, 0], [1, 0], [2, 1], [2, 2]])  # what is shown, what is said
    logits = 50.0 * torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    assert contrastive_loss(logits, names).item() == pytest.approx(np.log(2), abs=1e-6)
    own = 50.0 * torch.eye(4)
    assert contrastive_loss(own, names).item() == pytest.approx(25, abs=1e-4), "two of each are right, one is named"
    assert contrastive_loss(own, names[:, 0]).item() == pytest.approx(12.5, abs=1e-4), "of the last two"


def test_what_is_turned_keeps_its_sides_and_its_ground():
    """A caption may say left, and "on a blue ground"."""
    torch.manual_seed(0)
    pictures = torch.tensor([0.2, 0.4, 0.9])[None, :, None, None].repeat(64, 1, 32, 32)
    pictures[:, :, 10:22, 4:12] = 1.0
    turned = augment(pictures)
    assert turned.shape == pictures.shape and not torch.equal(turned, pictures)
    for picture in turned:
        columns = (picture[0] > 0.6).nonzero()[:, 1].float()
        assert 0 < columns.mean() < 15, "it stays on the left"
        for corner in (picture[:, 0, 0], picture[:, 0, -1], picture[:, -1, -1]):
            torch.testing.assert_close(corner, pictures[0, :, 0, 0])
