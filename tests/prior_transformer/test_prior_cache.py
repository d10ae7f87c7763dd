"""Through a cache, at whatever places in whatever windows, the prior says what it says of the whole stream."""

import pytest
import torch
from small_priors import KINDS, WITH_TEXT, N, T, make_batch, make_prior
from torch import Tensor

from prior_transformer import StreamPrior


def look(prior: StreamPrior, text_ids: Tensor, codes: Tensor, widths: list[int]) -> Tensor:
    """Logits of all codes (B, N), the first as read, the others by looks at so many at a time: (B, N, K)."""
    hidden_states, cache = prior.read(text_ids)
    logits, place = [prior.image_logits(hidden_states)[:, None]], 0
    for width in widths:
        logits.append(prior.look(codes[:, place : place + width], torch.full((len(codes),), place), cache))
        place += width
    return torch.cat(logits, dim=1)[:, :N]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.2)])
@pytest.mark.parametrize("widths", [[1] * N, [4, 1, 1, 3], [N], [N - 1]])
@torch.no_grad()
def test_looks_equal_forward(kind, attention, dtype, tolerance, widths):
    prior = make_prior(kind, attn_implementation=attention).to(dtype)
    input_ids = make_batch(prior, batch_size=3)
    logits = look(prior, *prior.split(input_ids), widths)
    assert torch.allclose(logits, prior(input_ids).image_logits, rtol=0, atol=tolerance)


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_each_row_may_stand_at_its_own_place(kind, width):
    """
    Rows advance by one, two and three codes a look, with wrong guesses after those that stand, past the grid's end
    too; over a cache widened from two prompts to three pictures. What a wrong guess left is written over unseen.
    """
    prior = make_prior(kind)
    input_ids = make_batch(prior, batch_size=3)
    input_ids[2, :T] = input_ids[0, :T]  # one caption, two pictures
    text_ids, codes = prior.split(input_ids)
    expected = prior(input_ids).image_logits[:, 1:]  # entry i predicts the code after code i
    _, cache = prior.read(text_ids[:2])
    cache = cache.expand(torch.tensor([0, 1, 0]))
    for memory in (cache.keys, cache.values):
        memory[:, :, :, T + 1 :] = 99.0  # what is not written yet must not be seen
    places, steps = torch.zeros(3, dtype=torch.long), torch.tensor([1, 2, 3]).clamp(max=width)
    while (places < N - 1).any():
        cells = places[:, None] + torch.arange(width)
        stands = torch.arange(width) < steps[:, None]
        given = codes.gather(1, cells.clamp(max=N - 1))
        logits = prior.look(given.where(stands, (given + 1) % prior.config.codebook_size), places, cache)
        for row in range(3):
            for i in range(int(steps[row])):
                if places[row] + i < N - 1:
                    right = expected[row, places[row] + i]
                    assert torch.allclose(logits[row, i], right, rtol=0, atol=1e-4), (row, places[row] + i)
        places = (places + steps).clamp(max=N - 1)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_rows_come_and_go(kind):
    """A look at the first rows alone; a row moved into another's place, and one put in from another cache, go on."""
    prior = make_prior(kind)
    input_ids = make_batch(prior, batch_size=4)
    text_ids, codes = prior.split(input_ids)
    expected = prior(input_ids).image_logits[:, 1:]
    _, cache = prior.read(text_ids[:3])
    prior.look(codes[:3, :4], torch.zeros(3, dtype=torch.long), cache)
    cache.put(torch.tensor([0]), cache, torch.tensor([2]))  # picture 0 is done
    _, fresh = prior.read(text_ids[3:])
    cache.put(torch.tensor([2]), fresh, torch.tensor([0]))
    order, places = torch.tensor([2, 1, 3]), torch.tensor([4, 4, 0])
    for rows in (3, 2):
        cells = places[:rows, None] + torch.arange(2)
        logits = prior.look(codes[order[:rows, None], cells], places[:rows], cache)
        assert torch.allclose(logits, expected[order[:rows, None], cells], rtol=0, atol=1e-4)
        places = places + 2


@torch.no_grad()
def test_a_look_under_autocast_is_close():
    prior = make_prior(initializer_range=0.1)
    input_ids = make_batch(prior)
    text_ids, codes = prior.split(input_ids)
    expected = prior(input_ids).image_logits[:, 1:3]
    for places in (torch.tensor([0, 0]), torch.tensor([0, 1])):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, cache = prior.read(text_ids)
            prior.look(codes[:, :1], torch.tensor([0, 0]), cache)
            logits = prior.look(codes.gather(1, places[:, None]), places, cache)
        error = (logits[:, 0] - expected[torch.arange(2), places]).abs().max()
        assert 0 < error < 0.05


@pytest.mark.parametrize("kind", WITH_TEXT)
@torch.no_grad()
def test_the_empty_caption_comes_in_the_form_of_the_captions(kind):
    prior = make_prior(kind)
    text_ids = prior.split(make_batch(prior))[0]
    assert torch.equal(prior.null(text_ids), prior.null_text_ids(2))
    prefixes = prior.embed_text(text_ids)
    assert torch.equal(prior.null(prefixes), prior.embed_text(prior.null_text_ids(2)))
    by_ids, by_prefixes = (prior.read(captions)[0] for captions in (text_ids, prefixes))
    assert torch.equal(by_ids, by_prefixes) and by_ids.shape == (2, 16)
