"""Prefill and step give the logits of the uncached model, and read each caption once."""

import pytest
import torch

from pipelines.decoding import Decoder

PROMPTS = ["an armchair", "a red apple", "an armchair", "an armchair"]


def follow(decoder: Decoder, codes: torch.Tensor, known: int) -> torch.Tensor:
    """Logits of the codes known.. of given pictures (B, N), (B or 2B, N − known, K)."""
    logits = [decoder.prefill(codes[:, :known])]
    logits += [decoder.step(codes[:, i : i + 1], i) for i in range(known, codes.shape[1] - 1)]
    return torch.stack(logits, dim=1)


@pytest.fixture
def text_ids(tiny_tokenizer) -> torch.Tensor:
    return tiny_tokenizer.encode_captions(PROMPTS)


@pytest.fixture
def codes() -> torch.Tensor:
    return torch.randint(32, (4, 16), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("known", [0, 1, 9])
@pytest.mark.parametrize("guided", [False, True])
@torch.inference_mode()
def test_logits_are_those_of_the_uncached_model(tiny_prior, text_ids, codes, guided, known):
    empty = tiny_prior.null_text_ids(4) if guided else None
    logits = follow(Decoder(tiny_prior, text_ids, empty), codes, known)
    expected = tiny_prior(tiny_prior.join(text_ids, codes)).image_logits[:, known:]
    if guided:
        unconditional = tiny_prior(tiny_prior.join(empty, codes)).image_logits[:, known:]
        expected = torch.cat([expected, unconditional])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_each_caption_is_read_once(tiny_prior, text_ids, codes):
    """Four pictures of two captions and four of none are three prefixes, and no picture's logits change."""
    decoder = Decoder(tiny_prior, text_ids, tiny_prior.null_text_ids(4))
    assert len(decoder.text_ids) == 3
    assert torch.equal(decoder.text_ids[decoder.rows[:4]], text_ids)
    together = follow(decoder, codes, 0)
    for i in range(4):
        alone = follow(Decoder(tiny_prior, text_ids[[i]]), codes[[i]], 0)
        torch.testing.assert_close(together[[i]], alone, rtol=0, atol=1e-4)
