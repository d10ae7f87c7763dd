"""What is done to the logits of one code before it is drawn: guidance, temperature, and the codes cut off."""

import math

import torch
from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance of logits: unconditional + scale · (conditional − unconditional), arXiv 2207.12598.

    Exactly one of the two at scale 0 and 1.
    """
    return torch.lerp(unconditional, conditional, scale)


def filter_logits(
    logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """Logits (B, K) over temperature, with −inf for the codes cut off by top-k, then by top-p, then by min-p.

    Temperature 0 is its limit, the likeliest code alone. At least one code is always left.
    """
    if temperature == 0:
        return keep_top_k(logits, 1)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature  # at most 0: finite at any temperature
    if 0 < top_k < logits.shape[-1]:
        logits = keep_top_k(logits, top_k)
    if top_p < 1:
        logits = keep_top_p(logits, top_p)
    if min_p > 0:
        logits = keep_min_p(logits, min_p)
    return logits


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest logits of each row (B, K), the others −inf: exactly k are kept, also among equals."""
    values, indices = logits.topk(k, dim=-1)
    return torch.full_like(logits, -torch.inf).scatter(-1, indices, values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The nucleus of each row (B, K): the fewest codes whose probabilities sum to p or more (Holtzman et al. 2020)."""
    ordered, indices = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    cut = probabilities.cumsum(dim=-1) - probabilities >= p  # the mass of the likelier codes suffices
    cut[:, 0] = False  # the likeliest code stays, also where p itself rounds to 0
    return logits.scatter(-1, indices, ordered.masked_fill(cut, -torch.inf))


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """The codes of each row (B, K) at least p times as probable as its likeliest, arXiv 2407.01082; others −inf."""
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), -torch.inf)
