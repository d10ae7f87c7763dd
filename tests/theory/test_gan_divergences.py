"""Rows 13, 14 and 17: what likelihood does not say of quality, the two-sample classifier, which modes a fit takes."""

import math

import pytest
import torch
from messages import refused

from training.theory.divergences import (
    GaussianMixture,
    categorical_jsd,
    categorical_kl,
    diluted_log_prob,
    fit_gaussian,
    gaussian_fits,
    jsd,
    kernel_density_log_prob,
    kl,
)
from training.theory.ring import sample_mixture
from training.theory.two_sample import c2st


def mixture(*components: tuple[float, float, float]) -> GaussianMixture:
    """(weight, mean, scale) of each, in float64."""
    return GaussianMixture(*torch.tensor(components, dtype=torch.float64).T)


def single(mean: float, scale: float) -> GaussianMixture:
    return mixture((1.0, mean, scale))


EVEN = mixture((0.5, -2.0, 0.5), (0.5, 2.0, 0.5))
UNEVEN = mixture((0.7, -2.0, 0.6), (0.3, 2.0, 0.6))


def test_whole_numbers_are_numbers():
    """KL(N(0, 1) ‖ N(1, 1)) = ½, of means that are given as integers too."""
    for means in ((0.0, 1.0), (0, 1)):
        assert kl(*(GaussianMixture.single(mean, 1) for mean in means)).item() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("data", "divergence", "mean", "scale", "value"),
    [
        (EVEN, "forward", 0.0, 2.061553, 0.723553),
        (EVEN, "reverse", 1.999801, 0.500398, 0.693053),  # or the mode at −2, as good
        (EVEN, "jsd", 0.0, 2.042405, 0.200963),
        (UNEVEN, "forward", -0.8, 1.928730, 0.557954),
        (UNEVEN, "reverse", -1.998157, 0.603165, 0.355860),
        (UNEVEN, "jsd", -1.997133, 0.605090, 0.116962),
    ],
)
def test_the_best_gaussian(data, divergence, mean, scale, value):
    """Forward KL covers, reverse KL seeks a mode, and the JSD does the one or the other: it is not always seeking."""
    fit = fit_gaussian(data, divergence)
    symmetric = data is EVEN
    assert (abs(fit.mean) if symmetric else fit.mean) == pytest.approx(mean, abs=1e-5)
    assert fit.scale == pytest.approx(scale, abs=1e-5)
    assert fit.divergence == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jsd"])
def test_no_gaussian_of_a_grid_is_nearer(divergence):
    """Three components, none of the row's numbers: brute force finds none better, and the fit's own value is right."""
    data = mixture((0.3, -4.0, 0.8), (0.5, 0.5, 0.4), (0.2, 3.0, 1.2))
    fit = fit_gaussian(data, divergence)
    measure = {"forward": kl, "reverse": lambda p, q: kl(q, p), "jsd": jsd}[divergence]
    values = [
        measure(data, single(mean.item(), scale)).item()
        for mean in torch.linspace(-5, 4, 37)
        for scale in (0.3, 0.4, 0.5, 0.8, 1.2, 1.8, 2.5, 3.0)
    ]
    assert fit.divergence <= min(values) + 1e-9
    assert fit.divergence == pytest.approx(measure(data, single(fit.mean, fit.scale)).item(), abs=1e-10)


def test_forward_fit_has_the_datas_moments():
    """Whatever the mixture, and in float32 as well."""
    data = GaussianMixture(
        torch.tensor([0.2, 0.5, 0.3]), torch.tensor([-3.0, 0.0, 7.0]), torch.tensor([1.0, 2.0, 0.5])
    )
    fit, (mean, scale) = fit_gaussian(data, "forward"), data.moments()
    assert fit.mean == pytest.approx(mean.item(), abs=1e-5) and fit.scale == pytest.approx(scale.item(), abs=1e-5)


def test_reverse_kl_and_jsd_have_several_minima():
    """Why one start is not enough: in .7 / .3 the lesser mode is a minimum of its own."""
    reverse = {round(fit.mean, 2) for fit in gaussian_fits(UNEVEN, "reverse")}
    assert {-2.0, 2.0} == reverse
    assert len({round(fit.mean, 2) for fit in gaussian_fits(UNEVEN, "jsd")}) == 3


@pytest.mark.parametrize(("m", "s"), [(0.0, 1.0), (1.5, 0.2), (-3.0, 4.0)])
def test_kl_between_gaussians_by_its_formula(m, s):
    """KL(N(m, s²) ‖ N(0, 1)) = (s² + m² − 1) / 2 − log s; the JSD is symmetric and at most log 2."""
    p, q = single(m, s), single(0.0, 1.0)
    assert kl(p, q).item() == pytest.approx((s**2 + m**2 - 1) / 2 - math.log(s), abs=1e-9)
    assert jsd(p, q).item() == pytest.approx(jsd(q, p).item(), abs=1e-12)
    assert 0 <= jsd(p, q).item() + 1e-12 <= math.log(2) + 1e-12
    in_single = kl(GaussianMixture.single(float(m), float(s)), GaussianMixture.single(0.0, 1.0))
    assert in_single.item() == pytest.approx((s**2 + m**2 - 1) / 2 - math.log(s), rel=1e-5, abs=2e-6)


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jsd"])
def test_a_fit_in_other_units_is_the_same(divergence):
    def in_units(unit: float) -> GaussianMixture:
        return GaussianMixture(UNEVEN.weights, unit * UNEVEN.means, unit * UNEVEN.scales)

    fit = fit_gaussian(UNEVEN, divergence)
    for unit in (1e-5, 1e5):
        other = fit_gaussian(in_units(unit), divergence)
        assert (other.mean / unit, other.scale / unit) == pytest.approx((fit.mean, fit.scale), abs=1e-4)
        assert other.divergence == pytest.approx(fit.divergence, abs=1e-9)


def test_far_apart_the_jsd_is_log_two_and_the_density_integrates_to_one():
    assert jsd(single(0.0, 1.0), single(1000.0, 1e-3)).item() == pytest.approx(math.log(2), abs=1e-9)
    x = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
    assert torch.trapezoid(UNEVEN.log_prob(x).exp(), x).item() == pytest.approx(1.0, abs=1e-9)
    assert UNEVEN.expectation(torch.ones_like).item() == pytest.approx(1.0, abs=1e-12)


def test_divergences_of_tables():
    """Point masses: log 2 apart, 0 together; KL to a table without support is infinite."""
    p, q = torch.tensor([[1.0, 0.0], [0.25, 0.75]], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert categorical_jsd(p[0], q).item() == pytest.approx(math.log(2), abs=1e-15)
    assert categorical_jsd(p, p).tolist() == [0.0, 0.0]
    assert categorical_kl(p, q).tolist() == [math.inf, math.inf]
    assert categorical_kl(q, p[1]).item() == pytest.approx(-math.log(0.75), abs=1e-15)
    assert categorical_kl(q, p).tolist() == pytest.approx([math.inf, -math.log(0.75)], abs=1e-15)
    assert (
        categorical_jsd(q, p).tolist()
        == categorical_jsd(p, q).tolist()
        == [
            pytest.approx(math.log(2), abs=1e-15),
            categorical_jsd(p[1], q).item(),
        ]
    )


def test_wrong_mixtures_and_names_are_refused():
    with refused(ValueError, "weights", 0.8):
        mixture((0.5, 0.0, 1.0), (0.3, 1.0, 1.0))
    with refused(ValueError, "divergence='wasserstein'", "forward", "reverse", "jsd"):
        fit_gaussian(EVEN, "wasserstein")


@pytest.mark.seeds(1)
@pytest.mark.parametrize("dimensions", [2, 8])
def test_perfect_samples_of_no_likelihood(seed, dimensions, record_property):
    """Gaussians of ε = 1e-6 on the samples: no classifier tells its samples from new data, log-likelihood ≪ −1000."""
    rng = torch.Generator().manual_seed(seed)
    train, test = torch.randn(2, 1500, dimensions, dtype=torch.float64, generator=rng)
    assert kernel_density_log_prob(test, train, bandwidth=1e-6).mean() <= -1000
    assert kernel_density_log_prob(train, train, bandwidth=1e-6).mean() > 10
    samples = sample_mixture(train, 1e-6, 1500, rng)
    accuracy = c2st(samples, test, steps=100, seed=seed).accuracy
    record_property("accuracy", accuracy)
    assert accuracy == pytest.approx(0.5, abs=0.06)


def test_kernel_density_by_hand():
    """Two samples at ±1, one dimension, bandwidth ½, at 0: the density N(1; 0, ¼)."""
    value = kernel_density_log_prob(torch.zeros(1, 1), torch.tensor([[-1.0], [1.0]]), bandwidth=0.5)
    assert value.item() == pytest.approx(-2 - math.log(0.5 * math.sqrt(2 * math.pi)), abs=1e-6)


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_noise_that_likelihood_does_not_see(share):
    """share · p + (1 − share) · noise at 784 dimensions loses −log share nats, 4.605170 at .01, and never more."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 784, dtype=torch.float64, generator=rng)
    p = torch.distributions.Normal(torch.zeros(784, dtype=torch.float64), 1.0)
    log_p, log_noise = p.log_prob(x).sum(1), torch.distributions.Normal(0.0, 2.0).log_prob(x).sum(1)
    gap = diluted_log_prob(log_p, log_noise, share) - log_p
    assert gap.mean().item() == pytest.approx(math.log(share), abs=1e-6)
    assert gap.min().item() >= math.log(share) - 1e-9
    one_dimension = (
        diluted_log_prob(p.log_prob(x)[:, 0], torch.full((2000,), -3.0).double(), share) - p.log_prob(x)[:, 0]
    )
    assert one_dimension.min().item() >= math.log(share) and one_dimension.mean().item() > math.log(share) + 0.5


@pytest.mark.seeds(1)
def test_the_classifier_finds_nothing_between_equals(seed, record_property):
    first, second = torch.randn(2, 200_000, 1, generator=torch.Generator().manual_seed(seed))
    result = c2st(first, second, seed=seed)
    record_property("accuracy", result.accuracy)
    assert result.accuracy == pytest.approx(0.5, abs=0.005)
    assert result.p_value > 1e-6 and result.standard_error == pytest.approx(0.5 / math.sqrt(200_000), rel=1e-6)


@pytest.mark.seeds(1)
@pytest.mark.parametrize("counts", [(200_000, 200_000), (40_000, 200_000)])
def test_the_classifier_finds_what_can_be_found(counts, seed, record_property):
    """N(0, 1) against N(2, 1): the best accuracy is Φ(1) = .8413, whatever the counts: each class is half of it."""
    rng = torch.Generator().manual_seed(seed)
    first, second = torch.randn(counts[0], 1, generator=rng), 2 + torch.randn(counts[1], 1, generator=rng)
    result = c2st(first, second, seed=seed)
    record_property("accuracy", result.accuracy)
    assert result.accuracy == pytest.approx(0.8413, abs=4 * result.standard_error)
    assert result.p_value < 1e-12


@pytest.mark.seeds(1)
def test_unequal_counts_of_equals_are_still_chance(seed, record_property):
    """The ½ needs equal class priors: a plain classifier would be right 9 times in 10 by the counts alone."""
    first, second = torch.randn(180_000, 3, generator=torch.Generator().manual_seed(seed)).split([162_000, 18_000])
    result = c2st(first, second, steps=300, seed=seed)
    record_property("accuracy", result.accuracy)
    assert result.accuracy == pytest.approx(0.5, abs=4 * result.standard_error)


def test_samples_that_cannot_be_compared_are_refused():
    with refused(ValueError, "(2,)", "(3,)"):
        c2st(torch.zeros(9, 2), torch.zeros(9, 3))
    with refused(ValueError, 3, 9, 4):
        c2st(torch.zeros(3, 2), torch.zeros(9, 2))


def test_a_component_of_no_weight_changes_no_fit():
    for weights in ((0.0, 1.0), (1.0, 0.0)):
        fit = fit_gaussian(mixture((weights[0], -1.0, 0.5), (weights[1], 2.0, 0.7)), "forward")
        mean, scale = ((-1.0, 0.5), (2.0, 0.7))[weights.index(1.0)]
        assert (fit.mean, fit.scale) == (pytest.approx(mean, abs=1e-6), pytest.approx(scale, abs=1e-6))


def test_a_kernel_density_knows_its_own_samples_in_single_precision():
    """Each sample's own kernel alone: −log n − d log(ε √2π), 20.09 at ε = 1e-6, n = 300, d = 2."""
    train = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    expected = -math.log(300) - 2 * math.log(1e-6 * math.sqrt(2 * math.pi))
    assert kernel_density_log_prob(train, train, bandwidth=1e-6).mean().item() == pytest.approx(expected, abs=1e-3)


def test_the_classifier_takes_whole_numbers_and_refuses_what_is_not_finite():
    rng = torch.Generator().manual_seed(0)
    dice = [torch.randint(1, 7, (2000, 1), generator=rng) for _ in range(2)]
    result = c2st(*dice, steps=100)
    assert result.accuracy == pytest.approx(0.5, abs=4 * result.standard_error)
    with refused(ValueError, "nan"):
        c2st(torch.full((9, 1), math.nan), torch.zeros(9, 1))


def test_what_is_no_set_of_samples_or_no_share_is_refused():
    points = torch.zeros(8)
    with refused(ValueError, "(8,)", "(8,)", "(n, d)"):
        c2st(points, points)
    with refused(ValueError, "(8,)", "(8,)", "(n, d)"):
        kernel_density_log_prob(points, points, 1.0)
    with refused(ValueError, "share=1.5", 0, 1):
        diluted_log_prob(points, points - 1, 1.5)
    assert torch.equal(diluted_log_prob(points, points - 1, 1), points)
    assert torch.equal(diluted_log_prob(points, points - 1, 0), points - 1)
