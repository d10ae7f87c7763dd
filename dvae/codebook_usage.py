"""How much of a codebook is in use: its collapse is the classic failure of a discrete VAE."""

import torch
from torch import Tensor


def codebook_usage(counts: Tensor) -> dict[str, float]:
    """Counts of each code (K,) -> perplexity exp H of their shares, and the share of codes ever used."""
    p = counts.double() / counts.sum().clamp_min(1)
    perplexity = torch.exp(-torch.special.xlogy(p, p).sum())
    return {"perplexity": perplexity.item(), "codes_used": (counts > 0).double().mean().item()}


def count_codes(codes: Tensor, codebook_size: int) -> Tensor:
    """codes of any shape -> how often each of the K codes occurs, (K,) int64."""
    return torch.bincount(codes.flatten(), minlength=codebook_size)
