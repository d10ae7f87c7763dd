"""A texture that no code can say: likelihood leaves it out, a pixel adversary brings it back at a small price."""

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from dvae import DVAE, DVAEConfig
from training.adversaries.adversary_settings import PixelSettings
from training.adversaries.beside_the_dvae import DVAEStep, PixelAdversary
from training.loop.losses import dvae_losses, high_frequency_power

COLOURS = torch.tensor([[0.3, 0.5, 0.7], [0.7, 0.3, 0.5], [0.5, 0.7, 0.3], [0.6, 0.6, 0.6]])
AMPLITUDE = 0.2


def draw(batch_size: int, generator: torch.Generator) -> Tensor:
    """(B, 3, 16, 16): four squares, each of one of four colours, under a texture of independent signs."""
    squares = COLOURS[torch.randint(4, (batch_size, 2, 2), generator=generator)].permute(0, 3, 1, 2)
    signs = torch.randint(2, (batch_size, 1, 16, 16), generator=generator) * 2.0 - 1
    return F.interpolate(squares, scale_factor=8) + AMPLITUDE * signs


def trained(weight: float, steps: int = 1000) -> tuple[float, float]:
    """Trains with a pixel adversary of this weight -> (share of high-frequency power, mean squared error)."""
    torch.manual_seed(0)
    sizes = {"image_size": 16, "downsample_factor": 8, "codebook_size": 8, "codebook_dim": 16, "widths": [16] * 4}
    dvae = DVAE(DVAEConfig(**sizes, likelihood="gaussian", min_log_scale=-2.0, resampling="shuffle", post_gain=0.5))
    adversary = PixelAdversary(
        dvae,
        PixelSettings(weight=weight, num_layers=1, width=16, start=200, warmup=100, lr=1e-3),
        Accelerator(cpu=True),
    )
    optimizer = torch.optim.Adam(dvae.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        pixel_values = draw(16, generator)
        output = dvae(pixel_values, temperature=max(1 - step / 300, 0.1))
        losses = dvae_losses(pixel_values, output, dvae.likelihood, kl_weight=0.0)
        batch = DVAEStep(pixel_values, output, losses, 0.0)
        losses |= adversary.losses(step, batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        adversary.learn(step, batch)
    pictures = draw(256, torch.Generator().manual_seed(1))
    reconstructed = dvae.eval().reconstruct(pictures)
    error = (reconstructed - pictures).square().mean().item()
    power = high_frequency_power(reconstructed).mean() / high_frequency_power(pictures).mean()
    return power.item(), error


@pytest.mark.slow
def test_a_pixel_adversary_brings_back_a_texture_that_no_code_can_say():
    power_without, error_without = trained(weight=0.0)
    power_with, error_with = trained(weight=0.8)
    assert power_without <= 0.005
    assert power_with >= 0.03
    assert error_with <= 1.15 * error_without
