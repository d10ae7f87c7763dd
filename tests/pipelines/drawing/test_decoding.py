"""Prefill and step give the logits of the uncached model, and read each caption once."""

import copy

import numpy as np
import pytest
import torch
from drawing import generate_codes
from messages import refused
from small_priors import KINDS, make_tiny_prior

from pipelines.drawing.decoder import Decoder
from pipelines.drawing.keys import draw_keys
from pipelines.drawing.settings import SamplingSettings

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
def test_logits_are_those_of_the_uncached_model(any_prior, text_ids, codes, guided, known):
    empty = any_prior.null_text_ids(4) if guided else None
    logits = follow(Decoder(any_prior, text_ids, empty), codes, known)
    expected = any_prior(any_prior.join(text_ids, codes)).image_logits[:, known:]
    if guided:
        unconditional = any_prior(any_prior.join(empty, codes)).image_logits[:, known:]
        expected = torch.cat([expected, unconditional])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_each_caption_is_read_once(any_prior, text_ids, codes):
    """Four pictures of two captions and four of none are three prefixes, and no picture's logits change."""
    decoder = Decoder(any_prior, text_ids, any_prior.null_text_ids(4))
    assert len(decoder.captions) == 3
    assert torch.equal(decoder.captions[decoder.rows[:4]], text_ids)
    together = follow(decoder, codes, 0)
    for i in range(4):
        alone = follow(Decoder(any_prior, text_ids[[i]]), codes[[i]], 0)
        torch.testing.assert_close(together[[i]], alone, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_weights_by_columns_are_the_same_weights(any_prior, text_ids, codes):
    prior = copy.deepcopy(any_prior)
    prior.store_by_columns()
    weight = prior.layers[0].mlp.hidden.weight
    assert weight.stride() == (1, weight.shape[0])
    for name, parameter in prior.named_parameters():
        assert torch.equal(parameter, any_prior.get_parameter(name))
    expected = follow(Decoder(any_prior, text_ids), codes, 0)
    torch.testing.assert_close(follow(Decoder(prior, text_ids), codes, 0), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_paints_the_pictures_of_the_eager_step(tiny_tokenizer, text_ids, kind):
    """At batch sizes 3 and 1, guided and not; each size again, from the graphs that it has."""
    torch._dynamo.reset()  # graphs of the other kinds count towards the limit of one function's
    eager = make_tiny_prior(len(tiny_tokenizer), **KINDS[kind])
    compiled = copy.deepcopy(eager)
    compiled.compile_step()
    keys = draw_keys([0, 1, 2], 16)
    for settings in (SamplingSettings(), SamplingSettings(guidance_scale=3.0, top_k=7)):
        expected = generate_codes(eager, text_ids[:3], keys, settings)
        for _ in range(2):
            assert torch.equal(generate_codes(compiled, text_ids[:3], keys, settings), expected)
            assert torch.equal(generate_codes(compiled, text_ids[:1], keys[:1], settings), expected[:1])


def test_pictures_are_decoded_in_bounded_batches(tiny_pipeline):
    codes = torch.randint(32, (5, 4, 4), generator=torch.Generator().manual_seed(0))
    sizes = []
    watched = tiny_pipeline.dvae.decoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    whole = tiny_pipeline.decode_codes(codes)
    parts = tiny_pipeline.decode_codes(codes, batch_size=2)
    watched.remove()
    assert sizes == [1] * 5 + [2, 2, 1]
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)
    assert tiny_pipeline.decode_codes(codes[:0]).shape == (0, 3, 16, 16)
    with refused(ValueError, "batch_size=0", 1):
        tiny_pipeline.decode_codes(codes, batch_size=0)


def test_pictures_are_encoded_in_bounded_batches(tiny_pipeline):
    """By all that start from pictures; one picture for many prompts is encoded once."""
    pictures = list(np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    pixel_values = tiny_pipeline.preprocess(pictures)
    expected, whole = tiny_pipeline.dvae.encode(pixel_values), tiny_pipeline.dvae.reconstruct(pixel_values)
    sizes = []
    watched = tiny_pipeline.dvae.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    assert torch.equal(tiny_pipeline.encode_images(pictures), expected)
    scores = tiny_pipeline.score("an armchair", pictures).log_likelihood
    torch.testing.assert_close(tiny_pipeline.reconstruct(pictures, output_type="pt"), whole, rtol=0, atol=1e-6)
    completed = tiny_pipeline.complete("an armchair", pictures, rows=4, progress_bar=False)
    tiny_pipeline.complete(["an armchair"] * 3, pictures[0], rows=4, progress_bar=False)
    watched.remove()
    assert sizes == [1] * (4 * 40 + 1)
    assert torch.equal(completed.codes, expected)
    torch.testing.assert_close(scores, tiny_pipeline.score("an armchair", expected).log_likelihood)


@pytest.mark.parametrize(
    ("codes", "parts"),
    [
        (torch.full((2, 4, 4), 32), [32, 31]),
        (torch.full((2, 4, 4), -1), [-1, 31]),
        (torch.zeros(2, 8, 8, dtype=torch.long), ["(2, 8, 8)", "(B, 4, 4)"]),
        (torch.zeros(2, 4, 4), ["float32", "int64"]),
    ],
)
def test_codes_of_another_model_are_not_decoded(tiny_pipeline, codes, parts):
    with refused(ValueError, *parts):
        tiny_pipeline.decode_codes(codes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_caption_may_come_as_its_embeddings(tiny_prior, text_ids, codes, dtype):
    """Its logits are those of its ids, guided by ids or embeddings; equal ones are read once, too."""
    prior = copy.deepcopy(tiny_prior).to(dtype)
    empty = prior.null_text_ids(4)
    expected = follow(Decoder(prior, text_ids, empty), codes, 3)
    for other in (empty, prior.embed_text(empty)):
        decoder = Decoder(prior, prior.embed_text(text_ids), other)
        assert len(decoder.captions) == 3
        torch.testing.assert_close(
            follow(decoder, codes, 3), expected, rtol=0, atol=0.1 if dtype.itemsize == 2 else 1e-4
        )
