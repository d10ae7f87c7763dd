"""Categoricals over a codebook as pure functions: KL, distances, Gumbel noise, samples, nearest entries."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32 or better: half precision is too coarse for a softmax over thousands of codes."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def kl_to_uniform(logits: Tensor) -> Tensor:
    """
    logits (B, K, h, w) -> (B,): Σ over positions of log K − H(q), in nats.

    The KL of the factorised posterior Π Cat to the uniform prior over grids: 0 for uniform logits, h·w·log K for
    one-hot ones (a logit of −inf is a probability of 0), and the same for a picture whatever the batch that it stands
    in. In float32 or better.
    """
    logits = full_precision(logits).movedim(1, -1)
    log_q = F.log_softmax(logits, dim=-1).clamp_min(torch.finfo(logits.dtype).min)  # 0 · log 0 = 0
    return (F.softmax(logits, dim=-1) * (log_q + math.log(logits.shape[-1]))).sum(-1).sum((1, 2))


def squared_distances(z: Tensor, codebook: Tensor) -> Tensor:
    """
    z (B, E, h, w), codebook (K, E) -> ‖z − e_k‖² (B, K, h, w), in float32 or better. K lies last in memory.

    By ‖z‖² − 2 z·e + ‖e‖², about the codebook's mean: an offset that all share would cancel to noise.
    """
    with torch.autocast(z.device.type, enabled=False):
        dtype = torch.promote_types(full_precision(z).dtype, codebook.dtype)
        z, codebook = z.to(dtype).movedim(1, -1), codebook.to(dtype)
        centre = codebook.detach().mean(0)
        z, codebook = z - centre, codebook - centre
        distances = z.pow(2).sum(-1, keepdim=True) - 2 * z @ codebook.T + codebook.pow(2).sum(-1)
        return distances.movedim(-1, 1)


def gumbel_noise(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """
    Standard Gumbel noise of the shape of `logits`, in float32 or better, from uniform noise: on a CPU far faster than
    torch's own.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=dtype)
    return -torch.log(-torch.log(uniform.clamp_min(1e-20)))


def gumbel_softmax(
    logits: Tensor, temperature: float, generator: torch.Generator | None = None, noise: Tensor | None = None
) -> Tensor:
    """
    logits (B, K, h, w) -> softmax((logits + g) / τ) over K, with g standard Gumbel noise: a point of the simplex that
    becomes a one-hot sample of softmax(logits) as τ -> 0 (arXiv 1611.01144, 1611.00712).

    noise: g itself, of the shape of `logits`, where it is not to be drawn: for integrals over it. In float32 or
        better: bf16 has too few levels for the noise of thousands of codes. Raises a ValueError for τ ≤ 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be above 0; `sample_codes` draws the one-hot limit")
    logits = full_precision(logits)
    logits = logits.movedim(1, -1)  # the softmax runs along memory where K lies last, as squared_distances leaves it
    noise = gumbel_noise(logits, generator) if noise is None else noise.movedim(1, -1)
    return F.softmax((logits + noise) / temperature, dim=-1).movedim(-1, 1)


def sample_codes(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """logits (B, K, h, w) -> codes (B, h, w) int64, exact samples of softmax(logits) over K, by Gumbel-max."""
    logits = full_precision(logits.detach()).movedim(1, -1)
    return (logits + gumbel_noise(logits, generator)).argmax(-1)


class Quantized(NamedTuple):
    """
    latents: (B, E, h, w), the nearest entries, with the gradient of z: dL/dz = dL/d latents, straight through.
    codes: (B, h, w) int64, whose entries those are.
    codebook_loss: mean ‖sg z − e‖², which moves the codebook alone. commitment_loss: mean ‖z − sg e‖², which moves z
        alone. Scalars of one value, means over batch, channels and space.
    distances: (B, K, h, w), ‖z − e_k‖², without a gradient.
    """

    latents: Tensor
    codes: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor
    distances: Tensor


def vector_quantize(z: Tensor, codebook: Tensor) -> Quantized:
    """z (B, E, h, w), codebook (K, E) -> its nearest entries, straight-through (VQ-VAE, arXiv 1711.00937)."""
    distances = squared_distances(z.detach(), codebook.detach())
    codes = distances.argmin(1)
    entries = F.embedding(codes, codebook).movedim(-1, 1).to(distances.dtype)
    z = z.to(distances.dtype)
    losses = F.mse_loss(entries, z.detach()), F.mse_loss(z, entries.detach())
    return Quantized(entries.detach() + (z - z.detach()), codes, *losses, distances)
