"""Likelihoods of pixels: each owns its map into its own space, the way back, and its log-density.

A decoder gives `maps` (B, 6, H, W): three of location μ and three of ln of the scale. Pixels are in [0, 1], and every
log-density is one of pixels in [0, 1], in nats, so that densities can be compared with each other. Bernoulli alone
gives probabilities, of pixels that are 0 or 1.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Likelihood(nn.Module):
    """A factorised density of each pixel-channel, with location and scale from the decoder."""

    num_maps = 6
    level_bits = 8  # what a density in [0, 1] leaves out of the code length of one of 256 levels: log2 256

    def __init__(self, min_log_scale: float | None = None):
        super().__init__()
        self.min_log_scale = min_log_scale

    def split(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """maps (B, 6, H, W) -> μ and ln scale, (B, 3, H, W) each in float32 or better; the floor is a soft one."""
        location, log_scale = maps.to(torch.promote_types(maps.dtype, torch.float32)).chunk(2, dim=1)
        if self.min_log_scale is not None:
            log_scale = self.min_log_scale + F.softplus(log_scale - self.min_log_scale)
        return location, log_scale

    def map_pixels(self, pixel_values: Tensor) -> Tensor:
        """Pixels in [0, 1] -> the space of the density."""
        return pixel_values

    def dequantised(self, pixel_values: Tensor, noise: Tensor) -> Tensor:
        """Pixels of 256 levels in [0, 1], noise in [0, 1) -> (level + noise) / 256, of which it is a density."""
        return (255 * pixel_values + noise) / 256

    def unmap(self, maps: Tensor) -> Tensor:
        """maps (B, 6, H, W) -> pixels (B, 3, H, W) in [0, 1]: the density's median, without its scale."""
        return self.median(maps).clamp(0, 1)

    def median(self, maps: Tensor) -> Tensor:
        """maps (B, 6, H, W) -> the density's median in its own space (B, 3, H, W), not clamped."""
        return self.split(maps)[0]

    def log_prob(self, pixel_values: Tensor, maps: Tensor) -> Tensor:
        """pixels (B, 3, H, W) in [0, 1], maps (B, 6, H, W) -> log-density (B, 3, H, W) in nats, nothing reduced."""
        return self.log_density(self.map_pixels(pixel_values), *self.split(maps))

    def log_density(self, x: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """x in the density's own space, any shape that broadcasts -> ln f(x | μ, e^log_scale), in nats."""
        raise TypeError(f"{type(self).__name__} is the interface: take one of {', '.join(LIKELIHOODS)}")


class LogitLaplace(Likelihood):
    """
    f(x | μ, b) = exp(−|logit x − μ| / b) / (2 b x (1 − x)) on (0, 1); pixels enter as (1 − 2ε) x + ε with ε = 0.1.

    Its support is bounded as pixels are (arXiv 2102.12092, appendix A.3, equation 2). `log_density` is ln f;
    `log_prob`, a density of pixels in [0, 1], has the map's Jacobian, ln (1 − 2ε), beside it.
    """

    epsilon = 0.1

    def map_pixels(self, pixel_values: Tensor) -> Tensor:
        return (1 - 2 * self.epsilon) * pixel_values + self.epsilon

    def unmap(self, maps: Tensor) -> Tensor:
        return ((self.median(maps) - self.epsilon) / (1 - 2 * self.epsilon)).clamp(0, 1)

    def median(self, maps: Tensor) -> Tensor:
        return torch.sigmoid(self.split(maps)[0])

    def log_density(self, x: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        distance = (torch.logit(x) - location).abs()
        return -distance * torch.exp(-log_scale) - log_scale - math.log(2) - torch.log(x * (1 - x))

    def log_prob(self, pixel_values: Tensor, maps: Tensor) -> Tensor:
        return super().log_prob(pixel_values, maps) + math.log(1 - 2 * self.epsilon)


class Laplace(Likelihood):
    """f(x | μ, b) = exp(−|x − μ| / b) / (2 b)."""

    def log_density(self, x: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        return -(x - location).abs() * torch.exp(-log_scale) - log_scale - math.log(2)


class Gaussian(Likelihood):
    """f(x | μ, σ) = exp(−(x − μ)² / 2σ²) / (σ √2π)."""

    def log_density(self, x: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        return -0.5 * ((x - location) * torch.exp(-log_scale)) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)


class Bernoulli(Likelihood):
    """P(x | μ) = σ(μ)^x (1 − σ(μ))^(1 − x) of pixels 0 or 1: a probability, at most 1; the maps' scale is not used."""

    level_bits = 0

    def dequantised(self, pixel_values: Tensor, noise: Tensor) -> Tensor:
        """As they are: of 0 and 1 it gives probabilities."""
        return pixel_values

    def median(self, maps: Tensor) -> Tensor:
        """Its mean σ(μ), from which the more probable pixel follows by rounding."""
        return torch.sigmoid(self.split(maps)[0])

    def log_density(self, x: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        return x * location - F.softplus(location)


LIKELIHOODS = {"logit_laplace": LogitLaplace, "laplace": Laplace, "gaussian": Gaussian, "bernoulli": Bernoulli}
