"""log p(x) of a latent model of few dimensions, by quadrature: what every bound is held against."""

import math

import torch
from torch import Tensor

from ..adversaries.avb import LatentModel


@torch.no_grad()
def log_evidence(model: LatentModel, x: Tensor, side: float = 6.0, points: int = 401) -> Tensor:
    """
    log p(x) = log ∫ p(x | z) p(z) dz, by quadrature on `points`^d places of [−side, side]^d: x (n, D) -> (n,), nats.

    Raises a ValueError where the grid is of more than 20 million places, where it is too coarse (every second place
    alone gives another answer, by more than 0.01) or too small (a thousandth of the mass lies on its border).
    """
    dim = model.prior.dim
    if points**dim > 20_000_000:
        raise ValueError(f"points={points} in {dim} dimensions are {points**dim:,} places: take fewer points")
    axis = torch.linspace(-side, side, points, dtype=x.dtype, device=x.device)
    z = torch.stack(torch.meshgrid(*[axis] * dim, indexing="ij"), dim=-1).flatten(0, -2)  # (points^d, d)
    log_prior, step = model.prior.log_prob(z), math.log(2 * side / (points - 1))
    border = (z.abs() == side).any(1)
    found = []
    for row in x:
        log_joint = model.log_likelihood(row.expand(len(z), -1), z) + log_prior
        value = torch.logsumexp(log_joint, 0) + dim * step
        outside = (torch.logsumexp(log_joint[border], 0) + dim * step - value).exp()
        if outside > 1e-3:
            raise ValueError(f"side={side} is too small: {outside:.1%} of the mass lies on the border, take more")
        every_second = log_joint.view(*[points] * dim)[(slice(None, None, 2),) * dim]
        coarse = torch.logsumexp(every_second.flatten(), 0) + dim * (step + math.log(2))
        if not (value - coarse).abs() < 0.01:
            raise ValueError(f"points={points} are too few for side={side}: {value:.4f}, by half of them {coarse:.4f}")
        found.append(value)
    return torch.stack(found)
