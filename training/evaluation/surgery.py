"""ELBO surgery: what the KL of a posterior is made of, exactly on tables and grids, and as an estimate on pictures.

    E_x KL(q(c | x) ‖ p)  =  I(x; c)  +  KL(q_agg ‖ p),      q_agg(c) = mean over the n pictures of q(c | x)

The first part is what the codes say of the picture; the second is what the prior gets wrong, and is 0 for the best of
priors, the aggregated posterior. (Hoffman & Johnson 2016, "ELBO surgery".)
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dvae import DVAE, ELBOOutput
from dvae.categoricals import full_precision
from prior_transformer import PriorTransformer

from ..pictures.in_memory import to_pixel_values
from ..theory.divergences import categorical_kl

TRAINED = ("prior", "captioned")  # the trained prior without a caption, and with it


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
    return _gathered(F.log_softmax(logits, dim=1), codes)


def _gathered(log_q: Tensor, codes: Tensor) -> Tensor:
    """log_q (n, K, h, w), codes (m, h, w) -> Σ over positions of log_q at the codes, (n, m)."""
    log_q, codes = log_q.flatten(2), codes.flatten(1)
    return sum(log_q[:, codes[:, i], i] for i in range(codes.shape[1]))


def aggregated_log_prob(logits: Tensor, codes: Tensor, chunk_size: int = 512) -> Tensor:
    """logits (n, K, h, w), codes (m, h, w) -> log q_agg(c) = log mean_i q(c | x_i), (m,); `chunk_size` at a time."""
    log_q = F.log_softmax(logits, dim=1)
    parts = [_gathered(log_q, chunk).logsumexp(0) for chunk in codes.split(chunk_size)]
    return torch.cat(parts) - math.log(len(logits))


def prior_log_prob(prior: PriorTransformer, text_ids: Tensor, codes: Tensor) -> Tensor:
    """text_ids (B, T), codes (B, h, w) or (B, h·w) -> log p(codes | text), (B,), summed over codes, in nats."""
    codes = codes.flatten(1)
    logits = prior(prior.join(text_ids, codes)).image_logits  # (B, N, K), entry i predicts code i
    return F.log_softmax(full_precision(logits), dim=-1).gather(-1, codes[..., None])[..., 0].sum(1)


@torch.no_grad()
def estimate_surgery(
    dvae: DVAE,
    prior: PriorTransformer,
    images: Tensor,
    text_ids: Tensor,
    device: torch.device,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, float]:
    """
    images uint8 (n, 3, S, S), their captions (n, T) -> the parts of a trained model's ELBO on these n pictures.

    One hard grid c ~ q(c | x) a picture, by `DVAE.elbo`, of dequantised pixels. Nats a picture, unless named:

    reconstruction: log p(x | c). kl_uniform: KL(q ‖ uniform), closed, = mutual_information + marginal_kl_uniform.
    mutual_information: mean log q(c | x) / q_agg(c), of the n pictures and no others: at most log_n, which is beside
        it. Where it stands there, each picture's codes tell it from all the n, and more pictures would give more. An
        implicit posterior's is that of the codes with picture and noise.
    marginal_kl_uniform, _prior, _captioned: the rest of the KL, to the uniform prior, to the trained one without a
        caption, and to the trained one with it. As mutual information is cut off at log n, these hold what is above.
        A caption tells of its picture, so the last may fall below 0.
    saved_by_prior, saved_by_captioned: marginal_kl_uniform less that to the trained prior = N log K − nll: n and its
        bound do not enter. The prior is the learned aggregated posterior, and this is what it was learned for.
    bits_per_dim_uniform, _prior, _captioned: −ELBO in bits a subpixel under each prior, of 256 levels.
    nll_prior, nll_captioned: of the drawn codes, nats a code; argmax_nll_…: of the argmax codes, which the prior was
        trained on.
    """
    generator = torch.Generator(device).manual_seed(seed)
    outputs, nll = [], []
    for start in range(0, len(images), batch_size):
        pixel_values = to_pixel_values(images[start : start + batch_size], device)
        noise = torch.rand(pixel_values.shape, generator=generator, device=device)
        outputs.append(dvae.elbo((255 * pixel_values + noise) / 256, generator))
        captions = text_ids[start : start + batch_size].to(device)
        empty = prior.null_text_ids(len(captions))
        grids = {"": outputs[-1].codes, "argmax_": dvae.encode(pixel_values)}
        nll.append(
            {
                f"{kind}nll_{name}": -prior_log_prob(prior, text, codes)
                for kind, codes in grids.items()
                for name, text in (("prior", empty), ("captioned", captions))
            }
        )
    bound = ELBOOutput(**{name: torch.cat([output[name] for output in outputs]) for name in outputs[0]})
    means = {name: torch.cat([part[name] for part in nll]).mean().item() for name in nll[0]}
    numbers = _parts(bound, {name: means[f"nll_{name}"] for name in TRAINED})
    for name in ("uniform", *TRAINED):
        nats = numbers["mutual_information"] + numbers[f"marginal_kl_{name}"] - numbers["reconstruction"]
        bits = nats / (dvae.config.num_pixel_channels * math.log(2)) + dvae.likelihood.level_bits
        numbers[f"bits_per_dim_{name}"] = bits
    return numbers | {name: value / bound.codes[0].numel() for name, value in means.items()}


def _parts(bound: ELBOOutput, nll: dict[str, float]) -> dict[str, float]:
    """n pictures' bounds and, by prior, the mean nll of their codes in nats a picture -> the sums of the estimate."""
    log_q = F.log_softmax(bound.logits, dim=1).gather(1, bound.codes[:, None]).sum(dim=(1, 2, 3))  # (n,)
    information = (log_q - aggregated_log_prob(bound.logits, bound.codes)).mean().item()
    uniform_nll = math.log(bound.logits.shape[1]) * bound.codes[0].numel()
    marginal_kl = bound.kl.mean().item() - information
    saved = {name: uniform_nll - value for name, value in nll.items()}
    return {
        "pictures": len(bound.codes),
        "log_n": math.log(len(bound.codes)),
        "reconstruction": bound.log_likelihood.mean().item(),
        "kl_uniform": bound.kl.mean().item(),
        "mutual_information": information,
        "marginal_kl_uniform": marginal_kl,
        **{f"marginal_kl_{name}": marginal_kl - value for name, value in saved.items()},
        **{f"saved_by_{name}": value for name, value in saved.items()},
    }
