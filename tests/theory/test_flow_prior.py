"""Row 4: a flow as the prior over continuous latents, against a mixture whose best Gaussian is known."""

import math

import pytest
import torch

from dvae import FlowPrior, GaussianPrior
from training.loop.schedules import cosine
from training.theory.divergences import GaussianMixture
from training.theory.ring import ring_centres, sample_mixture

CENTRES = ring_centres(4, 2.0)  # (±2, 0), (0, ±2)
SCALE = 0.4


def mixture_log_prob(z: torch.Tensor) -> torch.Tensor:
    squared = torch.cdist(z, CENTRES.to(z)).square()
    return (-squared / (2 * SCALE**2)).logsumexp(1) - math.log(4 * 2 * math.pi * SCALE**2)


def grid(points: int, side: float = 5.0) -> tuple[torch.Tensor, float]:
    axis = torch.linspace(-side, side, points, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), (2 * side / (points - 1)) ** 2


def kl_from_mixture(log_p) -> float:
    """KL(mixture ‖ p) by quadrature."""
    z, cell = grid(501)
    log_q = mixture_log_prob(z)
    return (cell * log_q.exp() * (log_q - log_p(z))).sum().item()


def fit(prior: FlowPrior, sample, steps: int, lr: float = 3e-3) -> None:
    prior.standardise(sample(10_000))
    optimizer = torch.optim.Adam(prior.parameters(), lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = cosine(step, lr, 0.0, steps)
        optimizer.zero_grad()
        (-prior.log_prob(sample(512)).mean()).backward()
        optimizer.step()


def test_no_gaussian_is_near_the_four():
    """KL to N(0, I) is 1.607473; to the best affine map of it, the Gaussian of its moments, 1.217581."""
    prior = GaussianPrior(2).double()
    assert kl_from_mixture(prior.log_prob) == pytest.approx(1.607473, abs=1e-5)
    scale = math.sqrt(SCALE**2 + 2)
    best = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), scale)
    assert kl_from_mixture(lambda z: best.log_prob(z).sum(1)) == pytest.approx(1.217581, abs=1e-5)


@pytest.mark.seeds(1)
def test_a_spline_flow_becomes_the_mixture(seed, record_property):
    """KL < 0.03 from 1.6; its mass on a grid is 1; there and back is the identity; it samples what it says."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    prior = FlowPrior(2)
    fit(prior, lambda count: sample_mixture(CENTRES, SCALE, count, generator), steps=700)
    prior.double()
    with torch.no_grad():
        kl = kl_from_mixture(prior.log_prob)
        record_property("KL", kl)
        assert -1e-3 < kl < 0.03
        z, cell = grid(501)
        assert (cell * prior.log_prob(z).exp()).sum().item() == pytest.approx(1, abs=1e-3)
        z = sample_mixture(CENTRES, SCALE, 2000, generator).double()
        torch.testing.assert_close(prior.from_noise(prior.to_noise(z)), z, atol=1e-3, rtol=0)
        samples = prior.sample(20_000, generator)
        assert samples.shape == (20_000, 2)
        nearest = torch.cdist(samples, CENTRES.double()).argmin(1).bincount(minlength=4) / 20_000
        record_property("share of a mode", nearest.min().item())
        torch.testing.assert_close(nearest, torch.full((4,), 0.25), atol=0.03, rtol=0)
        torch.testing.assert_close(prior.centre(), prior.from_noise(torch.zeros(1, 2, dtype=torch.float64))[0])


def test_the_log_density_counts_the_standardisation():
    """Moved and scaled, an untrained flow of one dimension integrates to 1 all the same, by the trapezoid rule."""
    torch.manual_seed(0)
    prior = FlowPrior(1).double()
    prior.standardise(3 + 2 * torch.randn(1000, 1, dtype=torch.float64))
    x = torch.linspace(-27, 33, 200_001, dtype=torch.float64)  # fine: its slope jumps at the splines' knots
    with torch.no_grad():
        density = prior.log_prob(x[:, None]).exp()
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-4)
    assert GaussianMixture.single(*torch.tensor([3.0, 2.0])).log_prob(prior.location.float()).item() > -2.0


@pytest.mark.parametrize("prior", [GaussianPrior(3), FlowPrior(3)], ids=["gaussian", "flow"])
def test_a_generator_decides_the_samples(prior):
    with torch.no_grad():
        first, again, other = (prior.sample(4, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert prior.log_prob(first).shape == (4,) and prior.centre().shape == (3,)


def test_a_double_is_taken_in_the_flows_own_precision():
    torch.manual_seed(0)
    prior, z = FlowPrior(2), torch.randn(5, 2)
    assert torch.equal(prior.log_prob(z.double()), prior.log_prob(z))
    assert torch.equal(prior.to_noise(z.double()), prior.to_noise(z))
