"""Gumbel-max, Gumbel-softmax and the score function (rows 7 and 8), by quadrature, by sampling and by enumeration."""

import itertools
import math

import pytest
import torch
from messages import refused

from dvae import gumbel_softmax, sample_codes
from dvae.categoricals import gumbel_noise
from pipelines.drawing.keys import draw_by_keys, draw_keys, keyed_gumbel
from training.adversaries.score_function import score_function_surrogate

P = torch.tensor([0.5, 0.25, 0.12, 0.08, 0.04, 0.01], dtype=torch.float64)
N = 1_000_000


def drawn_by_keys(seed: int) -> torch.Tensor:
    keys = draw_keys(list(range(1000 * seed, 1000 * seed + 1000)), N // 1000).flatten()
    return draw_by_keys(P.log().float().expand(N, -1), keys)


def drawn_by_the_posterior(seed: int) -> torch.Tensor:
    logits = P.log().float()[None, :, None, None].expand(1, -1, 1000, N // 1000)
    return sample_codes(logits, torch.Generator().manual_seed(seed)).flatten()


def rounded_from_the_relaxed(seed: int) -> torch.Tensor:
    """The argmax of a Gumbel-softmax sample, at a high temperature: exact all the same."""
    logits = P.log().float()[None, :, None, None].expand(1, -1, 1000, N // 1000)
    return gumbel_softmax(logits, 2.0, torch.Generator().manual_seed(seed)).argmax(1).flatten()


@pytest.mark.parametrize("draw", [drawn_by_keys, drawn_by_the_posterior, rounded_from_the_relaxed])
def test_gumbel_max_draws_the_categorical(draw):
    """Row 7. χ² with 5 degrees of freedom over a million draws: 0.1 % is cut off on either side."""
    counts = draw(seed=0).bincount(minlength=6).double()
    chi_squared = ((counts - N * P) ** 2 / (N * P)).sum().item()
    assert 0.2102 < chi_squared < 20.515


@pytest.mark.parametrize("source", ["keys", "posterior"])
def test_the_maximum_is_a_gumbel_again(source):
    """Row 7. max_k (log π_k + g_k) has mean γ = 0.5772 and variance π²/6 = 1.6449, within 4 standard errors."""
    if source == "keys":
        noise = keyed_gumbel(draw_keys([0], N)[0], 6)
    else:
        noise = gumbel_noise(torch.zeros(N, 6), torch.Generator().manual_seed(0))
    highest = (P.log() + noise).amax(-1)
    assert abs(highest.mean() - 0.577216) < 4 * math.sqrt(1.644934 / N)
    assert abs(highest.var() - 1.644934) < 4 * 1.644934 * math.sqrt(4.4 / N)


def test_a_relaxed_sample_is_no_categorical():
    """At τ = 1 the mean of the relaxed sample is not π, though its argmax is exactly drawn: evaluate hard."""
    logits = P.log()[None, :, None, None].expand(1, -1, 100, 1000)
    relaxed = gumbel_softmax(logits, 1.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(relaxed.sum(1), torch.ones(1, 100, 1000, dtype=torch.float64))
    assert relaxed.mean(dim=(0, 2, 3))[0] < 0.47  # of 0.5, with a standard error of 0.001
    assert relaxed.mean(dim=(0, 2, 3))[5] > 0.015  # of 0.01


def bias_of_two(f, temperature: float, p: float = 0.7) -> float:
    """
    d/dlogit E f(c₁) under the Gumbel-softmax less that under the categorical, K = 2, by quadrature.

    Only g₁ − g₂ matters, a logistic of quantile log u/(1 − u): the integral is over its density, on a fine grid.
    """
    difference = torch.linspace(-40, 40, 200_001, dtype=torch.float64)
    density = torch.sigmoid(difference) * torch.sigmoid(-difference)
    noise = torch.stack([difference, torch.zeros_like(difference)])[None, :, :, None]  # (1, 2, n, 1)
    logit = torch.tensor(math.log(p / (1 - p)), dtype=torch.float64, requires_grad=True)
    logits = torch.stack([logit, torch.zeros_like(logit)])[None, :, None, None].expand_as(noise)
    c = gumbel_softmax(logits, temperature, noise=noise)[0, 0, :, 0]
    expectation = torch.trapezoid(density * f(c), difference)
    (gradient,) = torch.autograd.grad(expectation, logit)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return (gradient - p * (1 - p) * (f(ends)[1] - f(ends)[0])).item()


@pytest.mark.parametrize("temperature", [0.1, 0.05])
def test_the_bias_of_the_relaxed_gradient_by_quadrature(temperature):
    """Row 8. −0.0898 τ² for f = c, +0.084 τ for f = (c − .45)²: the second is .00811 at τ = .1, .00415 at .05."""
    linear = bias_of_two(lambda c: c, temperature)
    assert linear == pytest.approx(-0.0898 * temperature**2, rel=0.02)
    square = bias_of_two(lambda c: (c - 0.45) ** 2, temperature)
    assert square == pytest.approx({0.1: 0.00811, 0.05: 0.00415}[temperature], abs=5e-6)


LOGITS = torch.tensor([0.3, -0.5, 1.0, 0.0, -1.2, 0.6], dtype=torch.float64)
VALUES = torch.tensor([1.0, -0.5, 0.3, 2.0, -1.0, 0.8], dtype=torch.float64)


def reward(c: torch.Tensor) -> torch.Tensor:
    """f of points (n, 6) of the simplex: not linear, so that a relaxed point is not worth the mean of its corners."""
    return (c @ VALUES - 0.45) ** 2


def enumerated_gradient() -> torch.Tensor:
    logits = LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(logits.softmax(0) @ reward(torch.eye(6, dtype=torch.float64)), logits)
    return gradient


def relaxed_gradients(temperature: float, seed: int, n: int = 200_000) -> torch.Tensor:
    """One gradient by the logits a sample, (n, 6)."""
    logits = LOGITS.expand(n, 6).clone().requires_grad_()
    c = gumbel_softmax(logits[:, :, None, None], temperature, torch.Generator().manual_seed(seed))[:, :, 0, 0]
    (gradients,) = torch.autograd.grad(reward(c).sum(), logits)
    return gradients


@pytest.mark.parametrize("seed", [0, 1])
def test_a_lower_temperature_trades_bias_for_variance(seed):
    """Row 8, K = 6: from τ = .5 on the bias falls, and as τ halves the variance comes to double."""
    temperatures = [0.5, 0.25, 0.125, 0.0625, 0.03125]
    gradients = [relaxed_gradients(t, seed) for t in temperatures]
    biases = [(g.mean(0) - enumerated_gradient()).norm().item() for g in gradients]
    variances = [g.var(0).sum().item() for g in gradients]
    assert biases[0] > 1.4 * biases[1] > 1.4**2 * biases[2]
    growth = [after / before for before, after in itertools.pairwise(variances)]
    assert growth == sorted(growth, reverse=True)
    assert 2.3 < growth[1] < 2.6 and 1.95 < growth[3] < 2.2


def test_through_the_argmax_comes_no_gradient():
    """
    "E f = E_g f(argmax(θ + g)), so differentiate inside" is no equality: almost everywhere that derivative is 0. The
    relaxation shows how: the colder, the fewer samples carry the whole gradient.
    """
    assert enumerated_gradient().norm() > 0.1
    shares = [(relaxed_gradients(t, seed=0).abs().sum(1) > 1e-3).double().mean().item() for t in (0.5, 0.1, 0.02)]
    assert shares[0] > 0.9 and shares[2] < 0.2 and shares[2] < shares[1] / 2


@pytest.mark.parametrize("seed", [0, 1])
def test_the_score_function_is_without_bias(seed):
    """Row 8. Within 4 standard errors of the enumerated gradient; a baseline takes variance and adds no bias."""
    exact, spreads = enumerated_gradient(), []
    n, points = 200_000, torch.eye(6, dtype=torch.float64)
    codes = sample_codes(LOGITS[None, :, None, None].expand(1, 6, 1, n), torch.Generator().manual_seed(seed))[0, 0]
    value = reward(points[codes])
    for baseline in (None, 0.6, value.mean()):
        logits = LOGITS.expand(n, 6).clone().requires_grad_()
        log_q = logits.log_softmax(-1).gather(1, codes[:, None])[:, 0]
        (each,) = torch.autograd.grad(score_function_surrogate(log_q, value, baseline), logits)
        each = n * each  # the surrogate is a mean: n times its gradient by a sample's own logits is that sample's
        error = each.std(0) / math.sqrt(n)
        assert ((each.mean(0) - exact).abs() < 4 * error).all()
        spreads.append(error.norm().item())
    assert spreads[2] < 0.9 * spreads[0]


def test_the_surrogate_differentiates_log_q_alone():
    log_q = torch.tensor([-1.0, -2.0], requires_grad=True)
    value = torch.tensor([3.0, 5.0], requires_grad=True)
    surrogate = score_function_surrogate(log_q, value, baseline=torch.tensor([1.0, 2.0]))
    assert surrogate.shape == ()
    assert torch.autograd.grad(surrogate, (log_q, value), allow_unused=True)[1] is None
    surrogate = score_function_surrogate(log_q, value, baseline=torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(torch.autograd.grad(surrogate, log_q)[0], torch.tensor([1.0, 1.5]))
    with refused(ValueError, "(2,)", "(3,)"):
        score_function_surrogate(log_q, torch.ones(3))
    with refused(ValueError, "(2, 1)", "(2,)"):
        score_function_surrogate(log_q, value, torch.ones(2, 1))
