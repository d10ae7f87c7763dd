"""The patch discriminator on a dVAE's reconstructions: how hard the adaptive weight lets it pull."""

import copy

import pytest
import torch

from dvae import PatchDiscriminator, PatchDiscriminatorConfig
from training.adversaries.objectives import Hinge, adaptive_weight


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("scale", [1.0, 25.0])
def test_the_adversary_pulls_the_last_layer_as_hard_as_the_weight_says(tiny_dvae, weight, scale):
    """‖λ ∇L_gan‖ / ‖∇L_rec‖ = weight · g / (g + 1e-4), g = ‖∇L_gan‖, also when L_rec is 25 times as large."""
    torch.manual_seed(0)
    dvae = copy.deepcopy(tiny_dvae).double()
    discriminator = PatchDiscriminator(PatchDiscriminatorConfig(num_layers=1, width=8)).double()
    pixel_values = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    output = dvae(pixel_values)
    reconstruction = -scale * dvae.likelihood.log_prob(pixel_values, output.maps).double().mean()
    median = torch.sigmoid(dvae.likelihood.split(output.maps)[0]).double()  # in the density's own space, not clamped
    adversarial = Hinge.generator(discriminator(median))
    last = dvae.decoder.blocks[-1].weight
    value = adaptive_weight(reconstruction, adversarial, last, weight=weight)
    (rec,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (gan,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    assert gan.norm() > 0 and rec.norm() > 0
    share = (value * gan).norm() / rec.norm()
    assert share.item() == pytest.approx(weight * (gan.norm() / (gan.norm() + 1e-4)).item(), rel=1e-9)
    assert value.item() == pytest.approx(
        scale * adaptive_weight(reconstruction / scale, adversarial, last, weight).item()
    )
