"""What is done to the logits of codes before they are drawn: guidance, temperature, and the codes cut off."""

import torch
from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance of logits: unconditional + scale · (conditional − unconditional), arXiv 2207.12598.

    Exactly one of the two at scale 0 and 1. scale: one, or a tensor that broadcasts.
    """
    return torch.lerp(unconditional, conditional, scale)


def filter_logits(
    logits: Tensor,
    temperature: float | Tensor = 1.0,
    top_k: int | Tensor = 0,
    top_p: float | Tensor = 1.0,
    min_p: float | Tensor = 0.0,
) -> Tensor:
    """Logits (B, K) over temperature, with −inf for the codes cut off by top-k, then by top-p, then by min-p.

    Each setting is one for all, or (B,), a row each: best on the CPU, where what no row needs is known and left out.
    Temperature 0 is its limit, the likeliest code alone. At least one code is always left.
    """
    rows, size = logits.shape
    temperature, top_p, min_p = (_column(value, rows, torch.float64) for value in (temperature, top_p, min_p))
    temperature = temperature.to(logits.dtype)  # in which the smallest are 0
    top_k = _column(top_k, rows, torch.int64)
    top_k = top_k.where((top_k > 0) & (top_k < size), size).where(temperature > 0, 1)
    temperature = temperature.where(temperature > 0, 1)
    logits = logits - logits.amax(dim=-1, keepdim=True)
    logits = logits / temperature.to(logits)  # at most 0: finite at any temperature
    if (top_k < size).any():
        logits = keep_top_k(logits, top_k)
    if (top_p < 1).any():
        logits = keep_top_p(logits, top_p)
    if (min_p > 0).any():
        logits = keep_min_p(logits, min_p)
    return logits


def keep_top_k(logits: Tensor, k: Tensor) -> Tensor:
    """The k largest logits of each row (B, K), k (B, 1), the others −inf: exactly k, the first among equals."""
    largest = logits.topk(int(k.max()), dim=-1).values
    k = k.to(logits.device)
    least = largest.gather(-1, k - 1)
    above, equal = logits > least, logits == least
    room = k - above.sum(dim=-1, keepdim=True)
    return logits.masked_fill(~(above | (equal & (equal.cumsum(dim=-1) <= room))), -torch.inf)


def keep_top_p(logits: Tensor, p: Tensor) -> Tensor:
    """The nucleus of each row (B, K): the fewest codes whose probabilities sum to p (B, 1) or more; others −inf.

    Source: Holtzman et al. 2020.
    """
    ordered, indices = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    cut = probabilities.cumsum(dim=-1) - probabilities >= p.to(logits)  # the mass of the likelier codes suffices
    cut &= p.to(logits.device) < 1  # 1 keeps all
    cut[:, 0] = False  # the likeliest code stays, also where p itself rounds to 0
    return logits.scatter(-1, indices, ordered.masked_fill(cut, -torch.inf))


def keep_min_p(logits: Tensor, p: Tensor) -> Tensor:
    """The codes of each row (B, K) at least p (B, 1) times as probable as its likeliest; others −inf.

    Source: arXiv 2407.01082.
    """
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + p.log().to(logits), -torch.inf)


def _column(value: float | Tensor, rows: int, dtype: torch.dtype) -> Tensor:
    """One for all or (B,) -> (B, 1)."""
    return torch.as_tensor(value, dtype=dtype, device="cpu").reshape(-1, 1).expand(rows, 1)
