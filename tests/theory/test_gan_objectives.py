"""Rows 15 and 16: the value of the GAN's game on tables, between Gaussians and as trained; saturation."""

import math

import pytest
import torch
from torchvision.ops import MLP

from training.adversaries.objectives import GAN_OBJECTIVES, Hinge, Minimax, NonSaturating, gan_value
from training.theory.divergences import GaussianMixture, categorical_jsd, jsd
from training.theory.two_sample import sampled_gan_value, train_discriminator

PAIRS = {"N(2, 1)": (2.0, 1.0, -0.712633), "N(1, 4)": (1.0, 2.0, -1.129944)}  # mean, scale, 2 JSD − 2 log 2


def tables(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    size = 2 + seed
    return tuple(torch.rand(2, size, dtype=torch.float64, generator=rng).log().mul(2).softmax(1))


@pytest.mark.parametrize("seed", range(20))
def test_the_best_discriminators_value_is_the_jensen_shannon_divergence(seed):
    """V(D*) = 2 JSD − 2 log 2 with the logit log p − log q; every other discriminator has less."""
    p, q = tables(seed)
    best = (p / q).log()
    value = gan_value(best, best, p, q)
    assert value.item() == pytest.approx(2 * categorical_jsd(p, q).item() - 2 * math.log(2), abs=1e-12)
    other = best + torch.randn(best.shape, dtype=best.dtype, generator=torch.Generator().manual_seed(seed))
    assert gan_value(other, other, p, q) < value


@pytest.mark.parametrize("seed", range(20))
def test_the_best_hinge_discriminator_pays_twice_the_overlap(seed):
    """Logits sign(p − q) cost 2 (1 − TV), the generator −E_q sign(p − q), and other logits cost more."""
    p, q = tables(seed)
    best, overlap = torch.sign(p - q), torch.minimum(p, q).sum()
    loss = Hinge.discriminator(best, best, p, q)
    assert loss.item() == pytest.approx(2 * overlap.item(), abs=1e-12)
    other = best + torch.randn(best.shape, dtype=best.dtype, generator=torch.Generator().manual_seed(seed))
    assert Hinge.discriminator(other, other, p, q) > loss


@pytest.mark.parametrize("objective", [Minimax, NonSaturating])
def test_a_table_against_a_table_ends_at_minus_two_log_two(objective):
    """The generator's table becomes the data's, D = ½ everywhere, V = −1.386294."""
    p, _ = tables(4)
    logits, scores = (torch.zeros(len(p), dtype=torch.float64, requires_grad=True) for _ in range(2))
    generator, discriminator = torch.optim.Adam([logits], 0.02, (0.0, 0.9)), torch.optim.Adam([scores], 0.1)
    for step in range(600):
        for _ in range(5):
            discriminator.zero_grad()
            objective.discriminator(scores, scores, p, logits.detach().softmax(0)).backward()
            discriminator.step()
        generator.param_groups[0]["lr"] = 0.02 * (1 - step / 600)
        generator.zero_grad()
        objective.generator(scores.detach(), logits.softmax(0)).backward()
        generator.step()
    q = logits.detach().softmax(0)
    torch.testing.assert_close(q, p, atol=2e-3, rtol=0)
    torch.testing.assert_close(scores.detach().sigmoid(), torch.full_like(p, 0.5), atol=5e-3, rtol=0)
    assert gan_value(scores, scores, p, q).item() == pytest.approx(-1.386294, abs=1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_the_value_between_gaussians_by_quadrature(name):
    mean, scale, value = PAIRS[name]
    numbers = torch.tensor([0.0, 1.0, mean, scale], dtype=torch.float64)
    real, fake = GaussianMixture.single(*numbers[:2]), GaussianMixture.single(*numbers[2:])
    assert 2 * jsd(real, fake).item() - 2 * math.log(2) == pytest.approx(value, abs=1e-6)


@pytest.mark.seeds(1)
@pytest.mark.parametrize("name", PAIRS)
def test_a_trained_discriminator_reaches_the_value(name, seed, record_property):
    mean, scale, value = PAIRS[name]
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    discriminator = MLP(1, [64, 64, 1])
    samplers = (
        lambda count: torch.randn(count, 1, generator=rng),
        lambda count: mean + scale * torch.randn(count, 1, generator=rng),
    )
    train_discriminator(discriminator, *samplers, steps=1500)
    found = sampled_gan_value(discriminator, *samplers)
    record_property("V", found)
    assert found == pytest.approx(value, abs=0.01)


@pytest.mark.seeds(1)
def test_a_trained_hinge_discriminator_pays_twice_the_overlap(seed, record_property):
    """N(0, 1) against N(2, 1): 2 (1 − TV) = 4 Φ(−1) = .634621."""
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    discriminator = MLP(1, [64, 64, 1])
    samplers = (
        lambda count: torch.randn(count, 1, generator=rng),
        lambda count: 2 + torch.randn(count, 1, generator=rng),
    )
    train_discriminator(discriminator, *samplers, objective="hinge", steps=1500)
    with torch.no_grad():
        loss = Hinge.discriminator(*(discriminator(sample(200_000)) for sample in samplers))
    record_property("loss", loss.item())
    assert loss.item() == pytest.approx(2 * math.erfc(1 / math.sqrt(2)), abs=0.01)


@pytest.mark.parametrize(
    ("name", "slope"), [("minimax", -0.002472623), ("non_saturating", -0.997527377), ("hinge", -1.0)]
)
def test_saturation(name, slope):
    """The generator's gradient for a logit of −6, where the discriminator is sure of a fake."""
    logit = torch.tensor([-6.0], dtype=torch.float64, requires_grad=True)
    GAN_OBJECTIVES[name].generator(logit).backward()
    assert logit.grad.item() == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize("prior", [0.5, 0.75, 0.9])
def test_one_half_needs_equal_class_priors(prior):
    """
    A slip of the lecture: where p = q the best D is not ½ but the share of real data among all, p(y = 1).

    Weights π p and (1 − π) p are one sample with unequal classes: the loss is flat at D = π alone.
    """
    p, _ = tables(5)
    logits = torch.full_like(p, math.log(prior / (1 - prior))).requires_grad_()
    NonSaturating.discriminator(logits, logits, prior * p, (1 - prior) * p).backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(p), atol=1e-14, rtol=0)
    torch.testing.assert_close(logits.detach().sigmoid(), torch.full_like(p, prior))


def test_the_value_of_tables_with_zeros():
    """½, ½, 0 and 0, ½, ½: 2 JSD − 2 log 2 = −log 2; and 0 where nothing overlaps."""
    p, q = torch.tensor([0.5, 0.5, 0.0]).double(), torch.tensor([0.0, 0.5, 0.5]).double()
    best = (p / q).log()
    assert gan_value(best, best, p, q).item() == pytest.approx(-math.log(2), abs=1e-12)
    apart = (torch.eye(2)[0] / torch.eye(2)[1]).log()
    assert gan_value(apart, apart, torch.eye(2)[0], torch.eye(2)[1]).item() == 0
