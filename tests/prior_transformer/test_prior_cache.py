"""Under a cache, whole or step by step, the prior says what it says of the whole stream."""

import pytest
import torch
from small_priors import KINDS, N, T, make_batch, make_prior
from transformers import StaticCache


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.2)])
@pytest.mark.parametrize("chunks", [[1] * N, [4, 1, 1, 3], [N]])
@torch.no_grad()
def test_cached_equals_uncached(kind, attention, dtype, tolerance, chunks):
    prior = make_prior(kind, attn_implementation=attention).to(dtype)
    input_ids = make_batch(prior, batch_size=3)
    cache = prior.make_cache(3)
    prefilled = prior(input_ids[:, :T], cache=cache)
    image_logits = [prefilled.image_logits]
    for codes in input_ids[:, T:].split(chunks, dim=1):
        image_logits.append(prior(codes, cache=cache).image_logits)
    expected = prior(input_ids)
    assert torch.allclose(prefilled.text_logits, expected.text_logits, rtol=0, atol=tolerance)
    assert torch.allclose(torch.cat(image_logits, dim=1)[:, :N], expected.image_logits, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_cache_of_transformers_serves_as_well(kind):
    prior = make_prior(kind)
    input_ids = make_batch(prior)
    cache = StaticCache(config=prior.config, max_cache_len=prior.config.stream_length)
    logits = [prior(part, cache=cache).image_logits for part in input_ids.split([T, 4, 1, N - 5], dim=1)]
    assert torch.allclose(torch.cat(logits, dim=1)[:, :N], prior(input_ids).image_logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("whole", [False, True], ids=["filled", "whole"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_step_equals_forward(kind, whole):
    """Also over a cache widened from prompts to pictures, and whether it reads what is filled or all under a mask."""
    prior = make_prior(kind)
    input_ids = make_batch(prior, batch_size=3)
    input_ids[2, :T] = input_ids[0, :T]  # one caption, two pictures
    cache = prior.make_cache(2)
    prior(input_ids[:2, :T], cache=cache)
    cache = cache.expand(torch.tensor([0, 1, 0]))
    cache.keys[:, :, :, T + 1 :] = 99.0  # what is not filled yet must not be seen
    logits = []
    for i in range(N - 1):
        stop = None if whole else T + 2 + i
        logits.append(prior.step(input_ids[:, T + i], torch.tensor([i]), cache, stop))
    expected = prior(input_ids).image_logits[:, 1:]  # entry i predicts the code after code i
    assert torch.allclose(torch.stack(logits, dim=1), expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_step_under_autocast_is_close():
    prior = make_prior(initializer_range=0.1)
    input_ids = make_batch(prior)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache = prior.make_cache(2)
        prior(input_ids[:, :T], cache=cache)
        logits = prior.step(input_ids[:, T], torch.tensor([0]), cache, T + 2)
    error = (logits - prior(input_ids).image_logits[:, 1]).abs().max()
    assert 0 < error < 0.05


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_decoding_protocol_equals_forward(kind):
    prior = make_prior(kind)
    input_ids = make_batch(prior)
    text_ids, codes = prior.split(input_ids)
    cache = prior.make_cache(batch_size=2)
    hidden_states = prior.transform(prior.embed_text(text_ids), cache=cache)
    logits = [prior.image_logits(hidden_states[:, -1:])]
    for i in range(N - 1):
        embeds = prior.embed_codes(codes[:, i : i + 1], start=i)
        logits.append(prior.image_logits(prior.transform(embeds, cache=cache, start=1 + T + i)))
    assert torch.allclose(torch.cat(logits, dim=1), prior(input_ids).image_logits, rtol=0, atol=1e-4)
