"""The loop draws from the model's own distribution, and a picture depends on its caption and its keys alone."""

import copy
import math

import numpy as np
import pytest
import torch
from drawing import generate_codes
from messages import refused
from torch import Tensor

from pipelines.drawing.keys import draw_by_keys, draw_keys
from pipelines.drawing.loop import draw_codes
from pipelines.drawing.sampling import filter_logits, guide
from pipelines.drawing.settings import SamplingSettings
from prior_transformer import PriorTransformer

PROMPTS = ["an armchair", "a red apple", "two cats"]
SETTINGS = [
    SamplingSettings(),
    SamplingSettings(guidance_scale=3.0),
    SamplingSettings(temperature=0.7, top_k=7, guidance_scale=0.5),
    SamplingSettings(temperature=1.3, top_p=0.8),
    SamplingSettings(temperature=0, guidance_scale=2),
    SamplingSettings(temperature=(1.5, 0, 0.5), min_p=0.1, guidance_scale=4, guidance_region=(1, 0, 3, 2)),
]


@pytest.fixture(params=["full", "dalle"])
def prior(request, tiny_prior) -> PriorTransformer:
    config = copy.deepcopy(tiny_prior.config)
    config.attention_pattern = request.param
    torch.manual_seed(0)
    return PriorTransformer(config).eval()


@pytest.fixture
def text_ids(tiny_tokenizer) -> Tensor:
    return tiny_tokenizer.encode_captions(PROMPTS)


def inside(region: tuple[int, ...] | None, i: int) -> bool:
    return region is None or (region[0] <= i % 4 < region[2] and region[1] <= i // 4 < region[3])


def on_the_line(temperature: float | tuple[float, ...], i: int) -> float:
    if not isinstance(temperature, tuple):
        return temperature
    return float(np.interp(i, np.linspace(0, 15, len(temperature)), temperature))


def naive_codes(prior: PriorTransformer, text_ids: Tensor, keys: Tensor, settings: SamplingSettings) -> Tensor:
    """No cache, no doubled batch: the whole stream again for every code, through the model's own forward."""
    codes = text_ids[:, :0]
    with torch.no_grad():
        for i in range(prior.config.grid_size**2):
            logits = prior(prior.join(text_ids, codes)).image_logits[:, -1]
            if settings.guidance_scale != 1 and inside(settings.guidance_region, i):
                empty = prior.null_text_ids(len(text_ids))
                unconditional = prior(prior.join(empty, codes)).image_logits[:, -1]
                logits = unconditional + settings.guidance_scale * (logits - unconditional)
            temperature = on_the_line(settings.temperature, i)
            logits = filter_logits(logits, temperature, settings.top_k, settings.top_p, settings.min_p)
            codes = torch.cat([codes, draw_by_keys(logits, keys[:, i])[:, None]], dim=1)
    return codes


@pytest.mark.parametrize("settings", SETTINGS)
def test_static_cache_equals_naive_loop(prior, text_ids, settings):
    keys = draw_keys([0, 1, 2], 16)
    assert torch.equal(generate_codes(prior, text_ids, keys, settings), naive_codes(prior, text_ids, keys, settings))


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_picture_does_not_depend_on_its_neighbours(prior, text_ids, settings):
    keys = draw_keys([5, 6, 7], 16)
    together = generate_codes(prior, text_ids, keys, settings)
    for i in range(3):
        assert torch.equal(generate_codes(prior, text_ids[[i]], keys[[i]], settings)[0], together[i])


def fix(codes: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {"fixed_codes": codes, "fixed_mask": mask.expand(codes.shape)}


def first(known: int) -> Tensor:
    return torch.arange(16) < known


def anywhere() -> Tensor:
    """Other places in each of 3 pictures; the last code free in one of them alone."""
    mask = torch.rand(3, 16, generator=torch.Generator().manual_seed(4)) < 0.5
    mask[:, 15] = torch.tensor([True, True, False])
    return mask


MASKS = {"1": first(1), "5": first(5), "16": first(16), "last": ~first(12), "anywhere": anywhere()}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_known_codes_stay_and_the_rest_goes_on(prior, text_ids, settings, mask):
    """A picture with any part of it given is that picture again; other codes stay, and a code before them too."""
    keys = draw_keys([1, 2, 3], 16)
    whole = generate_codes(prior, text_ids, keys, settings)
    assert torch.equal(generate_codes(prior, text_ids, keys, settings, **fix(whole, mask)), whole)
    other = (whole + 1) % 32
    edited = generate_codes(prior, text_ids, keys, settings, **fix(other, mask))
    assert torch.equal(edited[mask.expand(3, 16)], other[mask.expand(3, 16)])
    before = mask.expand(3, 16).cumsum(dim=1) == 0  # nothing given yet
    assert torch.equal(edited[before], whole[before])


def test_a_given_code_anywhere_is_seen_by_all_that_follow(prior, text_ids):
    """Against the whole stream again for every code."""
    keys, mask = draw_keys([1, 2, 3], 16), anywhere()
    given = torch.randint(32, (3, 16), generator=torch.Generator().manual_seed(5))
    codes = text_ids[:, :0]
    with torch.no_grad():
        for i in range(16):
            drawn = draw_by_keys(prior(prior.join(text_ids, codes)).image_logits[:, -1], keys[:, i])
            codes = torch.cat([codes, given[:, i].where(mask[:, i], drawn)[:, None]], dim=1)
    assert torch.equal(generate_codes(prior, text_ids, keys, **fix(given, mask)), codes)
    for b in range(3):
        alone = generate_codes(prior, text_ids[[b]], keys[[b]], **fix(given[[b]], mask[[b]]))
        assert torch.equal(alone[0], codes[b])


def test_what_a_picture_says_is_mixed_in(prior, text_ids):
    """strength 1 is the plain loop, 0 the picture's own posterior, whatever the prior; in between both have a say."""
    keys = draw_keys([1, 2, 3], 16)
    posterior = 3 * torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(6))
    plain = generate_codes(prior, text_ids, keys)
    assert torch.equal(generate_codes(prior, text_ids, keys, posterior_logits=posterior, strength=1.0), plain)
    alone = generate_codes(prior, text_ids, keys, posterior_logits=posterior, strength=0.0)
    expected = torch.stack([draw_by_keys(posterior[:, i], keys[:, i]) for i in range(16)], dim=1)
    assert torch.equal(alone, expected)
    settings = SamplingSettings(temperature=0)
    both = generate_codes(prior, text_ids, keys, settings, posterior_logits=posterior, strength=0.5)
    with torch.no_grad():
        logits = prior(prior.join(text_ids, both)).image_logits
    assert torch.equal((logits.log_softmax(-1) + posterior.log_softmax(-1)).argmax(-1), both)


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.5, 0.9])
def test_a_picture_that_is_sure_of_its_codes_keeps_them(prior, text_ids, strength):
    """−inf times any share is −inf, and no NaN."""
    codes = torch.arange(48).reshape(3, 16) % 32
    sure = torch.full((3, 16, 32), -torch.inf).scatter(2, codes[:, :, None], 0.0)
    keys = draw_keys([1, 2, 3], 16)
    assert torch.equal(generate_codes(prior, text_ids, keys, posterior_logits=sure, strength=strength), codes)


def test_what_was_drawn_so_far_stays_as_it_was(prior, text_ids):
    first, *_, last = draw_codes(prior, text_ids, draw_keys([0, 1, 2], 16))
    assert first.done == 0 and (first.codes == -1).all() and (last.codes >= 0).all()


def test_the_callers_tensors_are_left_alone(prior, text_ids):
    """Guidance in the caller's text would make the conditional pass see an empty caption after the first code."""
    keys, fixed_codes, fixed_mask = draw_keys([0, 1, 2], 16), torch.ones(3, 16, dtype=torch.long), anywhere()
    before = [text_ids.clone(), keys.clone(), fixed_codes.clone(), fixed_mask.clone()]
    generate_codes(
        prior, text_ids, keys, SamplingSettings(guidance_scale=3.0), fixed_codes=fixed_codes, fixed_mask=fixed_mask
    )
    assert all(torch.equal(a, b) for a, b in zip(before, [text_ids, keys, fixed_codes, fixed_mask], strict=True))


def test_callback_sees_every_step(prior, text_ids):
    seen = []
    codes = generate_codes(
        prior,
        text_ids,
        draw_keys([0, 1, 2], 16),
        **fix(torch.ones(3, 16, dtype=torch.long), first(2)),
        callback=lambda *a: seen.append(a),
    )
    assert [i for i, _ in seen] == list(range(2, 16))
    assert all(torch.equal(partial, codes[:, : i + 1]) for i, partial in seen)


def test_the_result_can_be_trained_on(prior, text_ids):
    """Codes drawn in inference mode come out as normal tensors."""
    codes = generate_codes(prior, text_ids, draw_keys([0, 1, 2], 16))
    assert not codes.is_inference()
    prior(prior.join(text_ids, codes), labels=prior.join(text_ids, codes)).loss.backward()


def test_guidance_scale_one_is_unguided_and_zero_unconditional(prior, text_ids):
    keys = draw_keys([0, 1, 2], 16)
    plain = generate_codes(prior, text_ids, keys)
    assert torch.equal(plain, naive_codes(prior, text_ids, keys, SamplingSettings(guidance_scale=1)))
    empty = prior.null_text_ids(3)
    ignored = generate_codes(prior, text_ids, keys, SamplingSettings(guidance_scale=0))
    assert torch.equal(ignored, generate_codes(prior, empty, keys))
    others = text_ids.roll(1, dims=0)
    ignored = generate_codes(prior, text_ids, keys, SamplingSettings(guidance_scale=0), other_captions=others)
    assert torch.equal(ignored, generate_codes(prior, others, keys))
    conditional, unconditional = torch.randn(2, 3, 5).unbind()
    torch.testing.assert_close(guide(conditional, unconditional, 1), conditional)
    torch.testing.assert_close(guide(conditional, unconditional, 3), 3 * conditional - 2 * unconditional)


@pytest.mark.parametrize(
    "other", [{"top_k": 1}, {"temperature": 1e-4}, {"top_p": 1e-6}, {"top_k": 1, "temperature": 1e-30}]
)
def test_temperature_zero_is_argmax(prior, text_ids, other):
    keys = draw_keys([0, 1, 2], 16)
    likeliest = generate_codes(prior, text_ids, keys, SamplingSettings(temperature=0))
    assert torch.equal(generate_codes(prior, text_ids, keys, SamplingSettings(**other)), likeliest)
    logits = prior(prior.join(text_ids, likeliest)).image_logits  # entry i predicts code i
    assert torch.equal(logits.argmax(-1), likeliest)


@pytest.mark.parametrize(
    ("changed", "numbers"),
    [
        ({"keys": draw_keys([0, 1], 16)}, ["(2, 16)", "(3, 16)"]),
        ({"keys": draw_keys([0, 1, 2], 15)}, ["(3, 15)", "(3, 16)"]),
        (fix(torch.zeros(2, 16, dtype=torch.long), first(4)), ["(2, 16)", "(3, 16)"]),
        (fix(torch.zeros(3, 17, dtype=torch.long), torch.ones(17, dtype=torch.bool)), ["(3, 17)", "(3, 16)"]),
        ({"fixed_codes": torch.zeros(3, 16, dtype=torch.long)}, ["fixed_mask", "None", "(3, 16)"]),
        ({"fixed_mask": first(4).expand(3, 16)}, ["fixed_codes", "None", "(3, 16)"]),
        (fix(torch.zeros(3, 16, dtype=torch.int32), first(4)), ["int32", "int64"]),
        (fix(torch.zeros(3, 16, dtype=torch.long), first(4).long()), ["fixed_mask", "int64", "bool"]),
        (fix(torch.full((3, 16), 32), first(1)), [32, 31]),
        (fix(torch.full((3, 16), -1), first(1)), [-1, 31]),
        ({"settings": SamplingSettings(top_k=33)}, ["top_k=33", 32]),
        ({"settings": SamplingSettings(guidance_region=(0, 0, 5, 4))}, ["(0, 0, 5, 4)", "4×4"]),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(tiny_prior, text_ids, changed, numbers):
    arguments = {"keys": draw_keys([0, 1, 2], 16)} | changed
    with refused(ValueError, *numbers):
        generate_codes(tiny_prior, text_ids, **arguments)


@pytest.mark.parametrize(
    ("name", "value", "error", "wrong"),
    [
        ("temperature", -1, ValueError, -1),
        ("temperature", math.nan, ValueError, "nan"),
        ("temperature", "1", TypeError, "'1'"),
        ("top_k", -1, ValueError, -1),
        ("top_k", 2.5, TypeError, 2.5),
        ("top_k", True, TypeError, "True"),
        ("top_p", 0, ValueError, 0),
        ("top_p", 1.5, ValueError, 1.5),
        ("min_p", -0.1, ValueError, -0.1),
        ("min_p", 2, ValueError, 2),
        ("min_p", None, TypeError, "None"),
        ("temperature", [1.0, -1.0], ValueError, -1.0),
        ("temperature", [], ValueError, "()"),
        ("temperature", [1.0, "0"], TypeError, "'0'"),
        ("guidance_region", (0, 0, 4), TypeError, "(0, 0, 4)"),
        ("guidance_region", (0, 0, 4, 1.5), TypeError, 1.5),
        ("guidance_region", (2, 0, 2, 4), ValueError, "(2, 0, 2, 4)"),
        ("guidance_region", (0, -1, 2, 4), ValueError, "(0, -1, 2, 4)"),
        ("guidance_scale", -0.5, ValueError, -0.5),
        ("guidance_scale", math.inf, ValueError, "inf"),
        ("guidance_scale", 1e300, ValueError, 1e300),  # finite, but not in float32
    ],
)
def test_settings_out_of_range_are_refused(name, value, error, wrong):
    with refused(error, f"{name}={wrong}"):
        SamplingSettings(**{name: value})
