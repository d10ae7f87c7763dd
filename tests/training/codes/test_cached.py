"""Codes drawn from the cache: the dVAE's own, and draws that depend on their place alone."""

import pytest
import torch
from messages import refused
from small_priors import KINDS, T, V, make_prior
from squares import tiny_dvae

from training.codes.cache import encode_now
from training.codes.cached import CachedCodes, DrawnCodes
from training.codes.views import Contents
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures
from training.pictures.splits import load_split
from training.train_prior import with_dropped


def test_cached_codes_are_the_dvaes_and_draws_depend_on_their_place_alone(pictures):
    data, dvae = DataArguments(path=str(pictures)), tiny_dvae().eval()
    source = load_split(data, "train")
    loaded, encoded = Pictures(source, data, 16), encode_now(dvae, Contents(source, data, 16), torch.device("cpu"))
    pixel_values = torch.from_numpy(loaded.single(3)[0].copy()).permute(2, 0, 1)[None] / 255
    assert encoded[3]["codes"] == dvae.encode(pixel_values).flatten().tolist()
    settings = {"scene_share": 0.0, "caption_dropout": 0.2, "write": source.kind.caption}
    drawn, again = (DrawnCodes(CachedCodes(encoded), length=500, seed=0, **settings) for _ in range(2))
    told = [(text, dropped) for text, _, dropped in map(drawn.__getitem__, range(500))]
    assert told == [(text, dropped) for text, _, dropped in map(again.__getitem__, range(500))]
    assert sum(dropped for _, dropped in told) / 500 == pytest.approx(0.2, abs=0.07)
    assert all(text for text, _ in told), "also of what is dropped: the empty caption may be made of it"
    with refused(ValueError, "scene_share=0.5", "training.cached_scenes"):
        DrawnCodes(CachedCodes(encoded), length=1, seed=0, **settings | {"scene_share": 0.5})


@pytest.mark.parametrize("kind", KINDS)
def test_a_dropped_caption_is_the_empty_one_that_guidance_steers_from(kind):
    prior, dropped = make_prior(kind), torch.tensor([True, False, True, False])
    text_ids = torch.randint(1, V, (4, T), generator=torch.Generator().manual_seed(0))
    mixed, null = with_dropped(prior, text_ids, dropped), prior.null(text_ids)
    assert torch.equal(mixed[dropped], null[dropped]) and torch.equal(mixed[~dropped], text_ids[~dropped])
    assert not torch.equal(null, text_ids)
