"""The GAN step where its gradients can be worked out, on the Dirac GAN (arXiv 1801.04406, section 2)."""

import pytest
import torch
from messages import refused
from torch import nn

from training.adversaries.gan import GANSettings, discriminator_losses, gan_step, generator_loss, unrolled_parameters

REAL = torch.zeros(3, 1, dtype=torch.float64)


def slope(value: float) -> nn.Linear:
    """D(x) = ψ x, the discriminator of the Dirac GAN (arXiv 1801.04406, section 2)."""
    linear = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(linear.weight, value)
    return linear


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_the_generators_gradient_goes_through_the_unrolled_steps(steps):
    """Hinge, real data at 0, a fake at θ: ψ_k = ψ − k η θ, so the loss is −ψ θ + k η θ², its slope −ψ + 2 k η θ."""
    psi, theta, eta = 0.3, torch.tensor(0.5, dtype=torch.float64, requires_grad=True), 0.05
    settings = GANSettings(objective="hinge", unrolled_steps=steps, unrolled_lr=eta)
    discriminator, fake = slope(psi), theta.expand(4, 1)
    weight = unrolled_parameters(discriminator, REAL, fake, settings)["weight"]
    assert weight.item() == pytest.approx(psi - steps * eta * 0.5, abs=1e-12)
    generator_loss(discriminator, REAL, fake, settings).backward()
    assert theta.grad.item() == pytest.approx(-psi + 2 * steps * eta * 0.5, abs=1e-12)
    assert discriminator.weight.grad is None and discriminator.weight.item() == psi
    discriminator.unused = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    with torch.no_grad():
        value = generator_loss(discriminator, REAL, fake, settings).item()
    assert value == pytest.approx(-psi * 0.5 + steps * eta * 0.25, abs=1e-12)


def test_r1_adds_half_gamma_times_the_squared_slope():
    """D(x) = ψ x: the penalty is ψ², so a loss with γ is γ/2 · ψ² above the one without, and pulls ψ to 0."""
    discriminator, fake = slope(0.3), torch.ones(2, 1, dtype=torch.float64)
    plain = discriminator_losses(discriminator, REAL, fake, GANSettings())
    with_r1 = discriminator_losses(discriminator, REAL, fake, GANSettings(r1_gamma=10.0))
    assert plain["r1"] == 0 and with_r1["r1"].item() == pytest.approx(0.09, abs=1e-12)
    difference = with_r1["discriminator_loss"] - plain["discriminator_loss"]
    assert difference.item() == pytest.approx(5 * 0.09, abs=1e-12)
    (gradient,) = torch.autograd.grad(difference, discriminator.weight)
    assert gradient.item() == pytest.approx(10 * 0.3, abs=1e-12)


@pytest.mark.parametrize("settings", [GANSettings(), GANSettings(r1_gamma=1.0, discriminator_steps=3)], ids=str)
def test_a_step_moves_both_sides_once_each_and_leaves_no_gradient(settings):
    torch.manual_seed(0)
    generator, discriminator = nn.Linear(2, 1).double(), slope(0.3)
    before = generator.weight.detach().clone()
    optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in (generator, discriminator)]
    drawn = []

    def sample_real(count: int) -> torch.Tensor:
        drawn.append(count)
        return torch.ones(count, 1, dtype=torch.float64)

    losses = gan_step(
        generator,
        discriminator,
        *optimizers,
        sample_real=sample_real,
        sample_latents=lambda count: torch.randn(count, 2, dtype=torch.float64),
        batch_size=8,
        settings=settings,
    )
    assert losses.keys() == {"discriminator_loss", "r1", "value", "generator_loss"}
    assert drawn == [8] * settings.discriminator_steps
    assert discriminator.weight.item() != 0.3 and not torch.equal(generator.weight, before)
    assert all(p.grad is None for model in (generator, discriminator) for p in model.parameters())


def test_settings_are_checked():
    with refused(ValueError, "objective='wasserstein'", "minimax", "non_saturating", "hinge"):
        GANSettings(objective="wasserstein")
    with refused(ValueError, "unrolled_steps=-1", 0):
        GANSettings(unrolled_steps=-1)
