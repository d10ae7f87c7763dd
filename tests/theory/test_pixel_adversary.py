"""
A texture that no code can say: likelihood leaves it out, a pixel adversary brings it back at a small price.

A code is a colour and the texture is drawn afresh for each picture, so the best reconstruction is the plain colours,
with an error of the texture's own power: any texture that the decoder adds costs its power again. The game has no
equilibrium: the power wanders, whatever the seed. What can be held is the path, of which one keeps the best moment.
"""

import copy
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional as F

from dvae import DVAE, DVAEConfig
from training.adversaries.adversary_settings import PixelSettings
from training.adversaries.beside_the_dvae import DVAEStep, PixelAdversary
from training.loop.losses import high_frequency_power
from training.loop.schedules import cosine

COLOURS = torch.tensor([[0.3, 0.5, 0.7], [0.7, 0.3, 0.5], [0.5, 0.7, 0.3], [0.6, 0.6, 0.6]])
AMPLITUDE = 0.2
WINDOW = 10  # steps that a moment is averaged over


class Moment(NamedTuple):
    """Of reconstructions, as multiples of the texture's power: high frequencies, and the mean squared error."""

    power: float
    error: float


def decoder_of_colours() -> DVAE:
    """Four codes, whose embeddings lie far apart, and a decoder; no encoder is asked: codes are known."""
    sizes = {"image_size": 16, "downsample_factor": 8, "codebook_size": 4, "codebook_dim": 8, "widths": [32] * 4}
    shape = {"blocks_per_group": 1, "resampling": "shuffle", "post_gain": 1.0}
    dvae = DVAE(DVAEConfig(**sizes, **shape, likelihood="gaussian", min_log_scale=-2.0))
    torch.nn.init.normal_(dvae.posterior.codebook.weight)
    return dvae


def train(
    dvae: DVAE, seed: int, steps: int, lr: float, lr_end: float, adversary: PixelAdversary | None = None
) -> list[Moment]:
    """Decoder and embeddings learn four squares a picture, under a texture of independent signs -> moments passed."""
    generator = torch.Generator().manual_seed(seed)
    parts = (dvae.decoder, dvae.posterior.codebook, dvae.likelihood)
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], lr)
    powers, errors = [], []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = cosine(step, lr, lr_end, steps)
        codes = torch.randint(4, (8, 2, 2), generator=generator)
        signs = torch.randint(2, (8, 1, 16, 16), generator=generator) * 2.0 - 1
        pixel_values = F.interpolate(COLOURS[codes].permute(0, 3, 1, 2), scale_factor=8) + AMPLITUDE * signs
        maps = dvae.decoder(dvae.posterior.embed(codes))
        reconstruction = -dvae.likelihood.log_prob(pixel_values, maps).mean()
        losses = {"loss": reconstruction, "reconstruction_loss": reconstruction}
        batch = DVAEStep(pixel_values, SimpleNamespace(maps=maps), losses, 0.0)
        if adversary:
            losses = losses | adversary.losses(step, batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        if adversary:
            adversary.learn(step, batch)
        reconstructed = dvae.likelihood.median(maps.detach())
        powers.append(high_frequency_power(reconstructed).mean())
        errors.append((reconstructed - pixel_values).square().mean())
    moments = torch.stack([torch.stack(powers), torch.stack(errors)], dim=1).view(-1, WINDOW, 2).mean(1)
    return [Moment(*row) for row in (moments / AMPLITUDE**2).tolist()]


@pytest.mark.slow
@pytest.mark.seeds(1)
def test_a_pixel_adversary_brings_back_a_texture_that_no_code_can_say(seed, record_property):
    """Without it at most .005 of the power; with it .03 and more for 15 % more squared error, at the best moment."""
    torch.manual_seed(seed)
    dvae = decoder_of_colours()
    train(dvae, seed, 600, lr=1e-2, lr_end=5e-4)
    plain, game = copy.deepcopy(dvae), copy.deepcopy(dvae)
    without = train(plain, seed + 1000, 400, lr=5e-4, lr_end=5e-5)[-1]
    settings = PixelSettings(weight=0.9, num_layers=1, width=16, start=50, warmup=50, lr=1e-3)
    moments = train(
        game, seed + 1000, 400, lr=5e-4, lr_end=5e-4, adversary=PixelAdversary(game, settings, Accelerator(cpu=True))
    )
    power = max(moment.power for moment in moments if moment.error <= 1.15 * without.error)
    record_property("power without", without.power)
    record_property("error without", without.error)
    record_property("power for 15 % more error", power)
    assert without.error == pytest.approx(1, abs=0.03)
    assert without.power <= 0.005
    assert 0.03 <= power <= 0.2, "a texture costs its own power"
