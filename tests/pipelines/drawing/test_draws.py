"""One code of one picture: what the filters leave, and noise that the picture's key alone decides."""

import itertools
import math

import pytest
import torch

from pipelines.drawing.keys import draw_by_keys, draw_keys, keyed_gumbel
from pipelines.drawing.sampling import filter_logits


@pytest.mark.parametrize("temperature", [0.5, 1, 2])
@pytest.mark.parametrize("top_k", [0, 1, 3, 11])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1])
@pytest.mark.parametrize("min_p", [0, 0.02, 0.3, 1])
def test_filters_equal_brute_force(temperature, top_k, top_p, min_p):
    logits = 3 * torch.randn(20, 11, generator=torch.Generator().manual_seed(0))
    filtered = filter_logits(logits, temperature, top_k, top_p, min_p)
    for row, kept in zip(logits.tolist(), filtered.tolist(), strict=True):
        order = sorted(range(11), key=lambda k: -row[k])[: top_k or 11]
        weights = [math.exp(row[k] / temperature) for k in order]
        nucleus, mass = set(), 0.0
        for k, weight in zip(order, weights, strict=True):
            if mass >= top_p:
                break
            mass += weight / sum(weights)
            if weight >= min_p * weights[0]:
                nucleus.add(k)
        assert {k for k in range(11) if kept[k] > -math.inf} == nucleus
    probabilities, mass = filtered.softmax(-1), (logits / temperature).softmax(-1).where(filtered > -math.inf, 0)
    torch.testing.assert_close(probabilities, mass / mass.sum(-1, keepdim=True))


def test_each_row_may_have_its_own_settings():
    """It is then as if it were alone, whatever the others cut off."""
    values = list(itertools.product([0, 0.5, 1.3], [0, 1, 3, 11, 12], [0.05, 0.9, 1], [0, 0.3]))
    temperature, top_k, top_p, min_p = torch.tensor(values, dtype=torch.float64).unbind(1)
    logits = 3 * torch.randn(len(values), 11, generator=torch.Generator().manual_seed(0))
    together = filter_logits(logits, temperature, top_k.long(), top_p, min_p)
    for i, (t, k, p, m) in enumerate(values):
        assert torch.equal(together[i], filter_logits(logits[i : i + 1], t, k, p, m)[0])


@pytest.mark.parametrize("temperature", [1e-50, 1e-45, 1e-30])
def test_the_least_temperatures_are_their_limit(temperature):
    logits = torch.tensor([[0.1, 2.0, 0.3, 1.9]])
    filtered = filter_logits(logits, temperature, top_k=2)
    assert filtered.softmax(dim=-1).tolist() == [[0, 1, 0, 0]]


def test_filters_leave_ties_and_the_callers_logits_alone():
    logits = torch.zeros(2, 8)
    assert (filter_logits(logits, 1, 0, 5e-324).isfinite().sum(-1) == 1).all()  # a top-p that is 0 in float32
    assert (filter_logits(logits, 1, 3, 1).isfinite().sum(-1) == 3).all()
    assert (filter_logits(logits, 1, 0, 0.5).isfinite().sum(-1) == 4).all()
    assert torch.equal(logits, torch.zeros(2, 8))


def test_frequencies_are_the_probabilities():
    """χ² with 7 degrees of freedom: 0.598 and 20.278 cut 0.1 % and 0.5 % off; a code of probability 0 never comes."""
    logits = torch.tensor([2.0, -1.0, 0.5, 0.0, -torch.inf, 1.0, -3.0, 0.2, -0.5])
    n = 200_000
    keys = draw_keys(list(range(100)), n // 100).flatten()
    counts = draw_by_keys(logits.expand(n, -1), keys).bincount(minlength=9).double()
    assert counts[4] == 0
    expected = (n * logits.softmax(-1).double())[logits > -torch.inf]
    chi_squared = ((counts[logits > -torch.inf] - expected) ** 2 / expected).sum()
    assert 0.598 < chi_squared < 20.278


def test_first_codes_of_neighbouring_seeds_are_independent():
    """Seeds 0, 1, 2, … are what people use: over them, each code of a picture is as uniform as over positions."""
    n, size = 8192, 16
    keys = draw_keys(list(range(n)), 3)
    logits = torch.zeros(n, size)
    for i in range(3):
        counts = draw_by_keys(logits, keys[:, i]).bincount(minlength=size).double()
        chi_squared = ((counts - n / size) ** 2 / (n / size)).sum()
        assert 3.483 < chi_squared < 37.697  # 15 degrees of freedom, 0.1 % on either side
    pairs = draw_by_keys(logits, keys[:, 0]) * size + draw_by_keys(logits, keys[:, 0].roll(1))
    counts = pairs.bincount(minlength=size**2).double()
    chi_squared = ((counts - n / size**2) ** 2 / (n / size**2)).sum()
    assert 190.9 < chi_squared < 330.5  # 255 degrees of freedom


def test_gumbel_noise_has_its_moments():
    """Mean γ = 0.5772, variance π²/6 = 1.6449, within 4 standard errors; each key and code has its own."""
    noise = keyed_gumbel(draw_keys([0], 1000)[0], 1000).double()
    assert noise.isfinite().all()
    assert abs(noise.mean() - 0.577216) < 4 * math.sqrt(1.644934 / noise.numel())
    assert abs(noise.var() - 1.644934) < 4 * math.sqrt(4.4 * 1.644934**2 / noise.numel())
    correlation = torch.corrcoef(
        torch.stack([noise[:-1, :-1].flatten(), noise[1:, :-1].flatten(), noise[:-1, 1:].flatten()])
    )
    assert (correlation - torch.eye(3)).abs().max() < 0.005


def test_splitmix64_reference_value():
    """The published generator's first outputs from seed 1234567, as noise."""
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    expected = [-math.log(-math.log1p(-((word >> 11) + 0.5) / 2**53)) for word in words]
    torch.testing.assert_close(keyed_gumbel(torch.tensor([1234567]), 3)[0], torch.tensor(expected))


@pytest.mark.parametrize("other", [7 + 2**32, 7 + 2**62, 2**63 - 1])
def test_all_bits_of_a_seed_count(other):
    keys = draw_keys([7, other], 64)
    assert len(keys.flatten().unique()) == 128


def test_keys_are_drawn_on_the_cpu_whatever_the_default_device_is():
    with torch.device("meta"):
        assert torch.equal(draw_keys([3], 4), draw_keys([3], 4).cpu()) and draw_keys([3], 4).device.type == "cpu"


def test_keys_depend_on_their_own_seed():
    keys = draw_keys([3, 9, 3], 16)
    assert torch.equal(keys[0], keys[2])
    assert torch.equal(keys[1], draw_keys([9], 16)[0])
    assert (keys[0] != keys[1]).all()
