"""Priors p(z) over continuous latents z (B, d): parts of one signature.

prior.log_prob(z (B, d)) -> (B,) in nats;   prior.sample(n) -> (n, d);   prior.centre() -> (d,)
"""

import math

import torch
from torch import Tensor, nn


class GaussianPrior(nn.Module):
    """N(0, I)."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.anchor = nn.Buffer(torch.zeros(dim))  # where samples are made

    def log_prob(self, z: Tensor) -> Tensor:
        return -(z.square() + math.log(2 * math.pi)).sum(1) / 2

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(count, self.dim, generator=generator, dtype=self.anchor.dtype, device=self.anchor.device)

    def centre(self) -> Tensor:
        """The latent of a picture whose own is not known: 0."""
        return self.anchor


class FlowPrior(nn.Module):
    """
    A neural spline flow (arXiv 1906.04032; zuko's, extra `flow`): N(0, I) bent into any density of z.

    Its splines act on [−5, 5] and are the identity beyond, so z is standardised by `location` and `scale` (d,), which
    `standardise` sets from samples. Trained by maximising E_q[log p(z)], it becomes the aggregated posterior.

    transforms: autoregressive layers. hidden: widths of their networks. bins: of their splines.
    """

    def __init__(self, dim: int, transforms: int = 3, hidden: tuple[int, ...] = (64, 64), bins: int = 8):
        super().__init__()
        try:
            from zuko.flows import NSF
        except ImportError as error:
            raise ImportError("a flow prior needs zuko: pip install 'armchair[flow]'") from error
        self.dim = dim
        with torch.device("cpu"):  # zuko cannot build on the meta device, where from_pretrained builds
            self.flow = NSF(dim, transforms=transforms, hidden_features=hidden, bins=bins)
        self.location = nn.Buffer(torch.zeros(dim))
        self.scale = nn.Buffer(torch.ones(dim))

    @torch.no_grad()
    def standardise(self, z: Tensor) -> None:
        """Takes the moments of samples z (n, d) as its location and scale."""
        self.location.copy_(z.mean(0))
        self.scale.copy_(z.std(0, correction=0).clamp_min(1e-6))

    def log_prob(self, z: Tensor) -> Tensor:
        return self.flow().log_prob(self._standard(z)) - self.scale.log().sum()

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(
            count, self.dim, generator=generator, dtype=self.location.dtype, device=self.location.device
        )
        return self.from_noise(noise)

    def centre(self) -> Tensor:
        """The image of the noise 0."""
        return self.from_noise(torch.zeros_like(self.location)[None])[0]

    def to_noise(self, z: Tensor) -> Tensor:
        """z (n, d) -> noise (n, d), N(0, I) where z ~ p."""
        return self.flow().transform(self._standard(z))

    def _standard(self, z: Tensor) -> Tensor:
        """In the flow's own precision, whatever z has."""
        return (z.to(self.location.dtype) - self.location) / self.scale

    def from_noise(self, noise: Tensor) -> Tensor:
        """The inverse of `to_noise`."""
        return self.flow().transform.inv(noise) * self.scale + self.location


LatentPrior = GaussianPrior | FlowPrior
LATENT_PRIORS: dict[str, type[LatentPrior]] = {"gaussian": GaussianPrior, "flow": FlowPrior}
