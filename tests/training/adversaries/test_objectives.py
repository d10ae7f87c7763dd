"""The adversaries' objectives: known values, gradients, and R1 and the adaptive weight where both are known."""

import math

import pytest
import torch
from messages import refused
from torch import nn

from training.adversaries.objectives import GAN_OBJECTIVES, Hinge, adaptive_weight, gan_value, r1_penalty

ZERO = torch.zeros(7, dtype=torch.float64)
KNOWN_AT_ZERO = {  # what each side's loss is where every logit is 0
    "minimax": (2 * math.log(2), -math.log(2)),
    "non_saturating": (2 * math.log(2), math.log(2)),
    "hinge": (2.0, 0.0),
}


@pytest.mark.parametrize("name", GAN_OBJECTIVES)
def test_losses_where_nothing_can_be_told(name):
    objective, (discriminator, generator) = GAN_OBJECTIVES[name], KNOWN_AT_ZERO[name]
    assert objective.discriminator(ZERO, ZERO).item() == pytest.approx(discriminator, abs=1e-12)
    assert objective.generator(ZERO).item() == pytest.approx(generator, abs=1e-12)


@pytest.mark.parametrize("name", GAN_OBJECTIVES)
def test_each_side_wants_what_its_name_says_and_losses_stay_finite(name):
    """A right discriminator pays less than a wrong one; a believed fake less than a seen one; also at huge logits."""
    objective, large = GAN_OBJECTIVES[name], torch.full((3,), 1e4)
    assert objective.discriminator(large, -large) < objective.discriminator(-large, large)
    assert objective.generator(large) < objective.generator(-large)
    for loss in (objective.discriminator(-large, large), objective.generator(-large), objective.generator(large)):
        assert loss.isfinite()


@pytest.mark.parametrize("name", GAN_OBJECTIVES)
def test_a_loss_is_a_mean_and_weights_are_its_exact_form(name):
    """The same whatever the batch size; weights 1/n are the mean, and a repeated logit is a doubled weight."""
    objective = GAN_OBJECTIVES[name]
    real, fake = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss, generator = objective.discriminator(real, fake), objective.generator(fake)
    torch.testing.assert_close(objective.discriminator(real.repeat(3), fake.repeat(2)), loss)
    torch.testing.assert_close(objective.generator(fake.view(2, 1, 3)), generator)
    uniform = torch.full((6,), 1 / 6, dtype=torch.float64)
    torch.testing.assert_close(objective.discriminator(real, fake, uniform, uniform), loss)
    weights = torch.tensor([2.0, 1, 1], dtype=torch.float64) / 4
    torch.testing.assert_close(objective.generator(fake[:3], weights), objective.generator(fake[[0, 0, 1, 2]]))


def test_weights_of_another_shape_are_refused():
    with refused(ValueError, "(7,)", "(7, 1)"):
        gan_value(ZERO[:, None], ZERO, real_weights=torch.full((7,), 1 / 7))


def test_hinge_has_no_gradient_beyond_its_margin():
    real, fake = torch.tensor([0.5, 1.5], requires_grad=True), torch.tensor([-0.5, -1.5], requires_grad=True)
    Hinge.discriminator(real, fake).backward()
    assert real.grad.tolist() == [-0.5, 0.0] and fake.grad.tolist() == [0.5, 0.0]


def test_r1_of_a_linear_and_of_a_quadratic_score():
    """D = a·x: ‖a‖², whatever x. D = ½‖x‖²: the mean of ‖x‖²; and its gradient by a scale s of D is 2 s ‖a‖²."""
    a = torch.tensor([3.0, -4.0, 12.0], dtype=torch.float64)
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert r1_penalty(x @ a, x).item() == pytest.approx(169.0, abs=1e-10)
    torch.testing.assert_close(r1_penalty(x.square().sum(1, keepdim=True) / 2, x), x.square().sum(1).mean())
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    r1_penalty(scale * (x @ a), x).backward()
    assert scale.grad.item() == pytest.approx(169.0, abs=1e-10)


def test_r1_does_not_depend_on_the_batch_size_and_sums_a_map_of_logits():
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.manual_seed(0)
    score = nn.Conv2d(3, 1, 3).double()
    once = r1_penalty(score(images), images)
    twice = torch.cat([images, images]).detach().requires_grad_()
    torch.testing.assert_close(r1_penalty(score(twice), twice), once)
    torch.testing.assert_close(r1_penalty(score(images).sum((1, 2, 3)), images), once)


def test_r1_says_what_is_missing():
    with refused(ValueError, "requires_grad_()"):
        r1_penalty(torch.ones(2), torch.ones(2, 3))


@pytest.mark.parametrize(("weight", "epsilon"), [(1.0, 1e-4), (0.8, 1e-4), (0.3, 0.0)])
def test_the_adaptive_weight_of_known_gradients(weight, epsilon):
    """Gradients (3, 4) and (0, g): λ = weight · 5 / (g + ε), and ‖λ ∇L_gan‖ / ‖∇L_rec‖ = weight · g / (g + ε)."""
    for g in (2.0, 1e-4):
        parameter = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        rec, gan = parameter @ torch.tensor([3.0, 4.0]).double(), parameter[1] * g
        value = adaptive_weight(rec, gan, parameter, weight=weight, epsilon=epsilon, maximum=1e9)
        assert value.item() == pytest.approx(weight * 5 / (g + epsilon), rel=1e-12)
        assert not value.requires_grad
        (rec + value * gan).backward()  # both graphs are still there
        assert parameter.grad[1].item() == pytest.approx(4 + weight * 5 * g / (g + epsilon), rel=1e-12)


def test_the_adaptive_weight_scales_with_the_reconstruction_and_is_bounded():
    parameter = torch.zeros(3, requires_grad=True)
    rec, gan = parameter.sum(), (2 * parameter).sum()
    once = adaptive_weight(rec, gan, parameter)
    torch.testing.assert_close(adaptive_weight(7 * rec, gan, parameter), 7 * once)
    assert adaptive_weight(rec, 0 * gan, parameter).item() == pytest.approx(1e4)
    assert adaptive_weight(rec, 0 * gan, parameter, weight=0.5, maximum=8.0).item() == pytest.approx(4.0)
