"""ELBO surgery of a trained model, estimated on pictures: what its KL is made of, and what its prior saves.

training/theory/exact_surgery.py has the identity, and the exact parts on tables and grids.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dvae import DVAE, ELBOOutput
from dvae.categoricals import full_precision
from prior_transformer import StreamPrior

from ..pictures.in_memory import to_pixel_values
from ..theory.exact_surgery import gathered

TRAINED = ("prior", "captioned")  # the trained prior without a caption, and with it


def aggregated_log_prob(logits: Tensor, codes: Tensor, chunk_size: int = 512) -> Tensor:
    """logits (n, K, h, w), codes (m, h, w) -> log q_agg(c) = log mean_i q(c | x_i), (m,); `chunk_size` at a time."""
    log_q = F.log_softmax(logits, dim=1)
    parts = [gathered(log_q, chunk).logsumexp(0) for chunk in codes.split(chunk_size)]
    return torch.cat(parts) - math.log(len(logits))


def prior_log_prob(prior: StreamPrior, text_ids: Tensor, codes: Tensor) -> Tensor:
    """text_ids (B, T), codes (B, h, w) or (B, h·w) -> log p(codes | text), (B,), summed over codes, in nats."""
    codes = codes.flatten(1)
    logits = prior(prior.join(text_ids, codes)).image_logits  # (B, N, K), entry i predicts code i
    return F.log_softmax(full_precision(logits), dim=-1).gather(-1, codes[..., None])[..., 0].sum(1)


@torch.no_grad()
def estimate_surgery(
    dvae: DVAE,
    prior: StreamPrior,
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
        outputs.append(dvae.elbo(dvae.likelihood.dequantised(pixel_values, noise), generator))
        captions = text_ids[start : start + batch_size].to(device)
        empty = prior.null(captions)
        grids = {"": outputs[-1].codes, "argmax_": dvae.encode(pixel_values)}
        nll.append(
            {
                f"{kind}nll_{name}": -prior_log_prob(prior, text, codes)
                for kind, codes in grids.items()
                for name, text in (("prior", empty), ("captioned", captions))
            }
        )
    bound = ELBOOutput(**{name: torch.cat([output[name] for output in outputs]) for name in outputs[0]})
    bound.logits = dvae.posterior.log_probs(bound.logits)
    means = {name: torch.cat([part[name] for part in nll]).mean().item() for name in nll[0]}
    numbers = _parts(bound, {name: means[f"nll_{name}"] for name in TRAINED})
    style_kl = bound.style_kl.mean().item()
    for name in ("uniform", *TRAINED):
        nats = numbers["mutual_information"] + numbers[f"marginal_kl_{name}"] + style_kl - numbers["reconstruction"]
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
