"""A continuous latent of the whole picture, beside its codes: for what is costly to say in codes, such as light."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .configuration_dvae import DVAEConfig
from .continuous_posteriors import LATENT_POSTERIORS, GaussianLatents
from .latent_priors import LATENT_PRIORS, LatentPrior


class StyleOutput(NamedTuple):
    """
    z: (B, S), a sample. log_q: (B,), its log-density; of an implicit posterior that given its noise.
    kl: (B,), log q − log p at z, in nats; of an implicit posterior in the mean an upper bound.
    """

    z: Tensor
    log_q: Tensor
    kl: Tensor


class Style(nn.Module):
    """
    z (B, S) ~ q(z | x), of the encoder's features averaged over the grid; added, projected, to every latent of a code.
    """

    def __init__(self, config: DVAEConfig):
        super().__init__()
        size = config.style_size
        noise = {"noise_size": size} if config.style_posterior == "implicit" else {}
        self.posterior: GaussianLatents = LATENT_POSTERIORS[config.style_posterior](config.widths[-1], size, **noise)
        self.prior: LatentPrior = LATENT_PRIORS[config.style_prior](size)
        self.project = nn.Linear(size, config.codebook_dim)

    def features(self, hidden_states: Tensor) -> Tensor:
        """hidden_states (B, D, h, w) -> (B, D), in the weights' own precision."""
        return hidden_states.mean(dim=(2, 3)).to(self.project.weight.dtype)

    def forward(self, hidden_states: Tensor, generator: torch.Generator | None = None) -> StyleOutput:
        with torch.autocast(hidden_states.device.type, enabled=False):
            draw = self.posterior(self.features(hidden_states), generator)
            log_q = draw.log_prob()
            return StyleOutput(draw.z, log_q, log_q - self.prior.log_prob(draw.z))

    def encode(self, hidden_states: Tensor) -> Tensor:
        """hidden_states -> z (B, S), without noise."""
        with torch.autocast(hidden_states.device.type, enabled=False):
            return self.posterior.mode(self.features(hidden_states))

    def add(self, latents: Tensor, z: Tensor | None) -> Tensor:
        """latents (B, E, h, w), z (B, S), None for the prior's centre -> (B, E, h, w)."""
        z = self.prior.centre()[None] if z is None else z
        return latents + self.project(z)[:, :, None, None]


class NoStyle(nn.Module):
    """The codes say all: the style of style_size=0, (B, 0)."""

    def forward(self, hidden_states: Tensor, generator: torch.Generator | None = None) -> StyleOutput:
        zeros = hidden_states.new_zeros(len(hidden_states), dtype=torch.float32)
        return StyleOutput(self.encode(hidden_states), zeros, zeros)

    def encode(self, hidden_states: Tensor) -> Tensor:
        return hidden_states.new_zeros(len(hidden_states), 0)

    def add(self, latents: Tensor, z: Tensor | None) -> Tensor:
        return latents
