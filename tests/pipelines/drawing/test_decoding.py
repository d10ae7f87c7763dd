"""Each caption is read once, layouts and compiled looks change nothing, pictures are decoded in bounded batches."""

import copy

import numpy as np
import pytest
import torch
from drawing import generate_codes
from messages import refused
from small_priors import KINDS, make_tiny_prior
from torch import Tensor

from pipelines.drawing.keys import draw_keys
from pipelines.drawing.prior import Prior
from pipelines.drawing.settings import SamplingSettings

PROMPTS = ["an armchair", "a red apple", "an armchair", "an armchair"]
GUIDED = SamplingSettings(guidance_scale=3.0)


@pytest.fixture
def text_ids(tiny_tokenizer) -> Tensor:
    return tiny_tokenizer.encode_captions(PROMPTS)


@pytest.fixture
def keys() -> Tensor:
    return draw_keys([0, 1, 2, 3], 16)


def read_by(prior: Prior, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the prior is asked to read from now on."""
    asked, read = [], prior.read

    def spy(captions: Tensor):
        asked.append(captions)
        return read(captions)

    monkeypatch.setattr(prior, "read", spy)
    return asked


def test_each_caption_is_read_once(any_prior, text_ids, keys, monkeypatch):
    """Four pictures of two captions and four of none are three to read; each picture is as if painted alone."""
    asked = read_by(any_prior, monkeypatch)
    together = generate_codes(any_prior, text_ids, keys, GUIDED)
    assert [captions.shape for captions in asked] == [(3, 6)]
    alone = [generate_codes(any_prior, text_ids[[i]], keys[[i]], GUIDED) for i in range(4)]
    assert torch.equal(torch.cat(alone), together)


@torch.inference_mode()
def test_weights_by_columns_are_the_same_weights(any_prior, text_ids):
    """The longer side of a matrix is contiguous."""
    prior = copy.deepcopy(any_prior)
    prior.store_by_columns()
    wide, narrow = prior.layers[0].mlp.hidden.weight, prior.layers[0].mlp.output.weight
    assert wide.stride() == (1, wide.shape[0]) and wide.shape[0] > wide.shape[1]
    assert narrow.stride() == (narrow.shape[1], 1) and narrow.shape[0] < narrow.shape[1]
    for name, parameter in prior.named_parameters():
        assert torch.equal(parameter, any_prior.get_parameter(name))
    codes = torch.randint(32, (4, 16), generator=torch.Generator().manual_seed(0))
    places = torch.tensor([0, 0, 1, 2])
    logits = []
    for model in (any_prior, prior):
        _, cache = model.read(text_ids)
        model.look(codes[:, :3], places - places, cache)
        logits.append(model.look(codes[:, 3:7], places, cache))
    torch.testing.assert_close(*logits, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_paints_the_pictures_of_the_eager_look(tiny_tokenizer, text_ids, kind):
    """At batch sizes 3 and 1, windows 1 and 4, guided and not; each again, from the graphs that it has."""
    torch._dynamo.reset()  # graphs of the other kinds count towards the limit of one function's
    eager = make_tiny_prior(len(tiny_tokenizer), **KINDS[kind])
    compiled = copy.deepcopy(eager)
    compiled.compile_step()
    keys = draw_keys([0, 1, 2], 16)
    for settings in (SamplingSettings(), SamplingSettings(guidance_scale=3.0, top_k=7)):
        expected = generate_codes(eager, text_ids[:3], keys, settings)
        for window in (1, 4, 1, 4):
            options = {"settings": settings, "window": window}
            assert torch.equal(generate_codes(compiled, text_ids[:3], keys, **options), expected)
            assert torch.equal(generate_codes(compiled, text_ids[:1], keys[:1], **options), expected[:1])


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


def test_a_caption_may_come_as_its_embeddings(tiny_prior, text_ids, keys, monkeypatch):
    """Its picture is that of its ids, guided by ids or embeddings; equal ones are read once, too."""
    expected = generate_codes(tiny_prior, text_ids, keys, GUIDED)
    prefixes, empty = (tiny_prior.embed_text(ids).detach() for ids in (text_ids, tiny_prior.null_text_ids(4)))
    asked = read_by(tiny_prior, monkeypatch)
    for others in (None, empty):
        codes = generate_codes(tiny_prior, prefixes, keys, GUIDED, other_captions=others)
        assert torch.equal(codes, expected)
    assert [captions.shape for captions in asked] == [(3, 7, 16)] * 2
