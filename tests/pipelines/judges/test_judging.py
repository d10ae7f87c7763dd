"""The model's own score of a picture: its likelihood code by code, what the prompt adds, and the order it gives."""

import math

import numpy as np
import pytest
import torch
from messages import refused
from PIL import Image

PROMPTS = ["an armchair", "a red apple", "two cats"]


@pytest.fixture(scope="module")
def codes() -> torch.Tensor:
    return torch.randint(32, (3, 4, 4), generator=torch.Generator().manual_seed(0))


def test_the_sum_is_the_priors_own_loss(tiny_pipeline, codes):
    """image_loss is the mean over the codes, of the prompt and of the empty caption."""
    prior, score = tiny_pipeline.prior, tiny_pipeline.score(PROMPTS, codes)
    for i, prompt in enumerate(PROMPTS):
        for ids, log_likelihood in (
            (tiny_pipeline.encode_prompt(prompt), score.log_likelihood[i]),
            (prior.null_text_ids(1), score.log_prior[i]),
        ):
            joint = prior.join(ids, codes[[i]].flatten(1))
            expected = -16 * prior(joint, labels=joint).image_loss.detach()
            torch.testing.assert_close(log_likelihood, expected, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(score.code_log_likelihood.sum((1, 2)), score.log_likelihood)
    torch.testing.assert_close(score.pmi, score.log_likelihood - score.log_prior)
    torch.testing.assert_close(score.code_pmi.sum((1, 2)), score.pmi, atol=1e-3, rtol=1e-4)
    assert score.code_log_likelihood.shape == (3, 4, 4)
    assert (score.code_log_likelihood < 0).all()


def test_by_likelihood_the_empty_caption_is_not_asked(tiny_pipeline, codes, monkeypatch):
    expected = tiny_pipeline.score(PROMPTS, codes).log_likelihood
    monkeypatch.setattr(tiny_pipeline.prior, "null_text_ids", lambda count: pytest.fail("it has no part in it"))
    torch.testing.assert_close(tiny_pipeline.judge_codes(PROMPTS, codes, "likelihood"), expected)
    torch.testing.assert_close(tiny_pipeline.judge_codes(PROMPTS, codes, "likelihood+likelihood"), 2 * expected)


def test_probabilities_of_all_last_codes_sum_to_one(tiny_pipeline, codes):
    every = codes[:1].repeat(32, 1, 1)
    every[:, -1, -1] = torch.arange(32)
    last = tiny_pipeline.score("an armchair", every).code_log_likelihood[:, -1, -1]
    torch.testing.assert_close(last.exp().sum(), torch.tensor(1.0), atol=1e-5, rtol=0)


def test_a_later_code_changes_no_earlier_score(tiny_pipeline, codes):
    other = codes.clone()
    other[:, 2:] = (other[:, 2:] + 1) % 32
    a, b = (tiny_pipeline.score(PROMPTS, c).code_log_likelihood for c in (codes, other))
    torch.testing.assert_close(a[:, :2], b[:, :2])
    assert (a[:, 2:] - b[:, 2:]).abs().max() > 0.1


def test_the_empty_prompt_has_no_information(tiny_pipeline, codes):
    assert tiny_pipeline.score("", codes).pmi.abs().max() == 0


def test_pictures_are_encoded_and_many_are_scored_in_parts(tiny_pipeline):
    image = Image.new("RGB", (40, 30), "red")
    codes = tiny_pipeline.encode_images(image)
    one = tiny_pipeline.score("a red apple", image).log_likelihood
    torch.testing.assert_close(one, tiny_pipeline.score("a red apple", codes).log_likelihood)
    many = tiny_pipeline.score("a red apple", codes.repeat(70, 1, 1)).log_likelihood
    torch.testing.assert_close(many, one.repeat(70), atol=1e-3, rtol=1e-5)


def test_heat_maps(tiny_pipeline, codes):
    """A square a code, red above 0 and blue below, the largest at full strength."""
    score = tiny_pipeline.score(PROMPTS, codes)
    for by, grids in (("pmi", score.code_pmi), ("likelihood", score.code_log_likelihood)):
        maps = score.heat_maps(by, size=64)
        assert [image.size for image in maps] == [(64, 64)] * 3
        for image, grid in zip(maps, grids.numpy(), strict=True):
            cells = np.asarray(image).astype(int)[8::16, 8::16]
            warmer = cells[:, :, 0] - cells[:, :, 2]
            clear = np.abs(grid) > 0.05 * np.abs(grid).max()
            assert (np.sign(warmer) == np.sign(grid))[clear].all()
            strongest = np.unravel_index(np.abs(grid).argmax(), grid.shape)
            assert tuple(cells[strongest]) in ((178, 24, 43), (33, 102, 172))
    with refused(ValueError, "by='likelyhood'", "'pmi'", "'likelihood'"):
        score.heat_maps("likelyhood")


def test_rank(tiny_pipeline, codes):
    score = tiny_pipeline.score("an armchair", codes)
    for by, scores in (("pmi", score.pmi), ("likelihood", score.log_likelihood)):
        ranking = tiny_pipeline.rank("an armchair", codes, by=by)
        torch.testing.assert_close(ranking.scores, scores)
        assert ranking.order == sorted(range(3), key=lambda i: -scores[i])
    images = [Image.new("RGB", (16, 16), colour) for colour in ("white", "red", "black")]
    seen = []

    def darkness(prompts, pictures):
        seen.extend(zip(prompts, pictures, strict=True))
        return -torch.tensor([np.asarray(picture).mean() for picture in pictures])

    assert tiny_pipeline.rank("an armchair", images, by=darkness).order == [2, 1, 0]
    assert [(prompt, picture.tobytes()) for prompt, picture in seen] == [("an armchair", i.tobytes()) for i in images]
    assert math.isfinite(tiny_pipeline.rank("an armchair", codes, by=darkness).scores.sum())


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_a_picture_without_a_score_is_the_last(tiny_pipeline, codes, kind):
    ranking = tiny_pipeline.rank("an armchair", codes, by=lambda prompts, pictures: kind([math.nan, 1.0, 2.0]))
    assert ranking.order == [2, 1, 0]


@pytest.mark.parametrize(
    ("method", "arguments", "error", "parts"),
    [
        ("score", {"prompt": ["a cat", "a dog"]}, ValueError, [2, 3]),
        ("score", {"prompt": 7}, TypeError, ["prompt=7", "int"]),
        ("score", {"images": "cat.png"}, TypeError, ["PIL", "str"]),
        ("score", {"images": torch.zeros(3, 16, dtype=torch.long)}, ValueError, ["(3, 16)", "(B, 4, 4)"]),
        ("score", {"images": torch.zeros(2, 4, 4)}, ValueError, ["float32", "int64"]),
        ("score", {"images": torch.zeros(0, 4, 4, dtype=torch.long)}, ValueError, ["(0, 4, 4)"]),
        ("score", {"images": torch.full((1, 4, 4), 32)}, ValueError, [32, 31]),
        ("rank", {"prompt": ["a cat", "a dog"]}, TypeError, ["prompt=['a cat', 'a dog']", "list"]),
        ("rank", {"by": 7}, TypeError, ["by=7", "'pmi'"]),
        ("rank", {"prompt": ""}, ValueError, ["'pmi'", "'likelihood'"]),
    ],
)
def test_what_cannot_be_used_is_refused(tiny_pipeline, codes, method, arguments, error, parts):
    with refused(error, *parts):
        getattr(tiny_pipeline, method)(**{"prompt": "a cat", "images": codes, **arguments})
