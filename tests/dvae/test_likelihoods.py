"""Likelihoods: densities that integrate to 1, medians, maps there and back."""

import pytest
import torch

from dvae import LIKELIHOODS


def maps_of(location: float, log_scale: float, n: int) -> torch.Tensor:
    """One picture of n × 1 pixels whose every map entry is the same."""
    maps = torch.empty(1, 6, n, 1)
    maps[:, :3], maps[:, 3:] = location, log_scale
    return maps


@pytest.mark.parametrize("log_scale", [-2.0, -0.5])
@pytest.mark.parametrize("location", [-0.6, 0.0, 0.9])
def test_the_logit_laplace_density_integrates_to_one(location, log_scale):
    """Over logits, where it is smooth: x = σ(u), dx = x (1 − x) du; on the mapped axis."""
    likelihood = LIKELIHOODS["logit_laplace"]()
    u = torch.linspace(-40, 40, 800_001, dtype=torch.float64)
    x = torch.sigmoid(u)
    log_density = likelihood.log_density(x, torch.tensor(location), torch.tensor(log_scale))
    inside = (x > 0) & (x < 1)
    integral = torch.trapezoid((log_density.exp() * x * (1 - x))[inside], u[inside])
    assert integral.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["laplace", "gaussian"])
def test_the_other_densities_integrate_to_one(name):
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64)
    log_density = LIKELIHOODS[name]().log_density(x, torch.tensor(0.4), torch.tensor(-0.7))
    assert torch.trapezoid(log_density.exp(), x).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("location", [-3.0, 0.0, 1.7])
def test_the_bernoulli_gives_two_probabilities_and_has_no_scale(location):
    likelihood = LIKELIHOODS["bernoulli"](min_log_scale=-1.0)
    both = torch.tensor([0.0, 1.0]).view(1, 1, 2, 1).expand(1, 3, 2, 1)
    log_p = likelihood.log_prob(both, maps_of(location, 0.3, 2))
    torch.testing.assert_close(log_p.exp().sum(dim=2), torch.ones(1, 3, 1))
    torch.testing.assert_close(log_p[0, 0, 1, 0], torch.tensor(location).sigmoid().log())
    assert torch.equal(log_p, likelihood.log_prob(both, maps_of(location, -5.0, 2)))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_unmap_inverts_map(name):
    """A location at the mapped pixel (in the density's own space) comes back as the pixel."""
    likelihood = LIKELIHOODS[name]()
    pixel_values = torch.linspace(0, 1, 256).view(1, 1, 256, 1).expand(1, 3, 256, 1)
    mapped = likelihood.map_pixels(pixel_values)
    location = torch.logit(mapped) if name in ("logit_laplace", "bernoulli") else mapped
    back = likelihood.unmap(torch.cat([location, torch.zeros_like(location)], dim=1))
    torch.testing.assert_close(back, pixel_values, atol=1e-6, rtol=0)


def test_the_median_of_the_logit_laplace_is_sigmoid_of_its_location():
    likelihood = LIKELIHOODS["logit_laplace"]()
    u = torch.linspace(-40, 0.8, 400_001, dtype=torch.float64)  # x below σ(0.8)
    x = torch.sigmoid(u)
    log_density = likelihood.log_density(x, torch.tensor(0.8), torch.tensor(-1.0))
    below = torch.trapezoid(log_density.exp() * x * (1 - x), u)
    assert below.item() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("name", sorted(set(LIKELIHOODS) - {"bernoulli"}))
def test_the_floor_bounds_the_density_of_a_constant_picture(name):
    pixel_values = torch.full((1, 3, 4, 1), 0.5)
    location = 0.0 if name == "logit_laplace" else 0.5
    free = LIKELIHOODS[name]().log_prob(pixel_values, maps_of(location, -20.0, 4))
    floored = LIKELIHOODS[name](min_log_scale=-3.0).log_prob(pixel_values, maps_of(location, -20.0, 4))
    assert free.min() > 15 and floored.max() < 6


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_nothing_is_reduced(name):
    likelihood = LIKELIHOODS[name]()
    assert likelihood.log_prob(torch.rand(2, 3, 5, 7), torch.randn(2, 6, 5, 7)).shape == (2, 3, 5, 7)


def test_levels_are_spread_over_their_width_and_what_is_binary_stays_so():
    levels = torch.arange(256) / 255
    for name, likelihood in LIKELIHOODS.items():
        for noise in (0.0, 0.999):
            spread = likelihood().dequantised(levels, torch.full_like(levels, noise))
            expected = levels if name == "bernoulli" else (torch.arange(256) + noise) / 256
            torch.testing.assert_close(spread, expected)
