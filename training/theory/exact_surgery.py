"""ELBO surgery, exactly: on tables of a few codes, and on grids whose every value is walked through.

    E_x KL(q(c | x) ‖ p)  =  I(x; c)  +  KL(q_agg ‖ p),      q_agg(c) = mean over the n pictures of q(c | x)

The first part is what the codes say of the picture; the second is what the prior gets wrong, and is 0 for the best of
priors, the aggregated posterior. (Hoffman & Johnson 2016, "ELBO surgery".)
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .divergences import categorical_kl


class ELBOSurgery(NamedTuple):
    """Scalars, means over the n pictures, in nats: elbo = reconstruction − mutual_information − marginal_kl."""

    reconstruction: Tensor
    mutual_information: Tensor
    marginal_kl: Tensor
    elbo: Tensor


def elbo_surgery(q: Tensor, loglik: Tensor, prior: Tensor) -> ELBOSurgery:
    """
    Exact, on tables: q(c | x) (n, K), log p(x | c) (n, K), p(c) (K,) -> the parts of the mean ELBO of n pictures.

    reconstruction: E_q log p(x | c). mutual_information: I(x; c) of a picture drawn evenly among the n; at most
    log n and at most H(q_agg). marginal_kl: KL(q_agg ‖ p). elbo: the mean of E_q log p(x | c) − KL(q ‖ p), on its own
    way, not from the parts. Where q is 0, loglik may be −inf.
    """
    if loglik.shape != q.shape or prior.shape != q.shape[1:]:
        raise ValueError(
            f"q {tuple(q.shape)}, loglik {tuple(loglik.shape)} and prior {tuple(prior.shape)} "
            "must be (n, K), (n, K) and (K,)"
        )
    aggregated = q.mean(0)
    reconstruction = (q * loglik.masked_fill(q == 0, 0)).sum(1)
    return ELBOSurgery(
        reconstruction=reconstruction.mean(),
        mutual_information=categorical_kl(q, aggregated).mean(),
        marginal_kl=categorical_kl(aggregated, prior),
        elbo=(reconstruction - categorical_kl(q, prior)).mean(),
    )


class GridSurgery(NamedTuple):
    """
    Scalars in nats, against the uniform prior over grids:
    mean kl_to_uniform = mutual_information + marginal_kl, and marginal_kl = position_kl + total_correlation.
    """

    mutual_information: Tensor
    marginal_kl: Tensor
    position_kl: Tensor
    total_correlation: Tensor


def grid_surgery(logits: Tensor) -> GridSurgery:
    """
    Exact, by a walk over all K^(h·w) grids: logits (n, K, h, w) of q(c | x) = Π Cat, one row a picture.

    marginal_kl: KL(q_agg ‖ uniform), of whole grids. position_kl: Σ over positions of log K − H of the position's
    own marginal. total_correlation: KL(q_agg ‖ Π of its marginals), which no prior of independent codes can take.
    """
    grids = enumerate_grids(*logits.shape[1:]).to(logits.device)
    q = grid_log_probs(logits, grids).exp()  # (n, K^(h·w))
    aggregated, uniform = q.mean(0), q.new_full(q.shape[1:], 1 / len(grids))
    one_uniform = q.new_full(logits.shape[1:2], 1 / logits.shape[1])
    marginals = F.softmax(logits, dim=1).mean(0, keepdim=True)  # (1, K, h, w)
    independent = grid_log_probs(marginals.log(), grids)[0].exp()
    return GridSurgery(
        mutual_information=categorical_kl(q, aggregated).mean(),
        marginal_kl=categorical_kl(aggregated, uniform),
        position_kl=categorical_kl(marginals[0].movedim(0, -1), one_uniform).sum(),
        total_correlation=categorical_kl(aggregated, independent),
    )


def enumerate_grids(codebook_size: int, height: int, width: int) -> Tensor:
    """All grids of codes, (K^(h·w), h, w) int64; the last position turns fastest. A million at most."""
    count = codebook_size ** (height * width)
    if count > 1_000_000:
        raise ValueError(f"{codebook_size} codes on {height}×{width} give {count} grids: a million at most")
    axes = [torch.arange(codebook_size)] * (height * width)
    return torch.cartesian_prod(*axes).view(count, height, width)


def grid_log_probs(logits: Tensor, codes: Tensor) -> Tensor:
    """logits (n, K, h, w), codes (m, h, w) -> log Π Cat(c_j | x_i), (n, m): every grid under every picture's q."""
    if codes.shape[1:] != logits.shape[2:]:
        raise ValueError(f"codes {tuple(codes.shape)} must be (m, {logits.shape[2]}, {logits.shape[3]})")
    return gathered(F.log_softmax(logits, dim=1), codes)


def gathered(log_q: Tensor, codes: Tensor) -> Tensor:
    """log_q (n, K, h, w), codes (m, h, w) -> Σ over positions of log_q at the codes, (n, m)."""
    log_q, codes = log_q.flatten(2), codes.flatten(1)
    return torch.stack([log_q[:, codes[:, i], i] for i in range(codes.shape[1])]).sum(0)
