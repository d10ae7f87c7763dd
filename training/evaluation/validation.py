"""Numbers of a dVAE, and of a prior, on held-out pictures."""

import random
from collections import defaultdict
from collections.abc import Callable

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader

from dvae import DVAE, FirstStage, codebook_usage, count_codes
from prior_transformer import PriorTokenizer, StreamPrior

from ..codes.cache import at_once
from ..codes.cached import Collate, FirstCaptions
from ..loop.losses import psnr
from ..pictures.in_memory import Pictures, to_pixel_values
from ..pictures.kinds import Parts


def validation_images(pictures: Pictures, limit: int) -> Tensor:
    """The first `limit` pictures as they are: uint8 (n, 3, S, S)."""
    images = [torch.from_numpy(pictures.single(i)[0].copy()) for i in range(min(limit, len(pictures)))]
    return torch.stack(images).permute(0, 3, 1, 2)


@torch.no_grad()
def through_codes(dvae: FirstStage, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) -> codes (B, h, w), and the pictures made of them; encoded once, but for a style beside them."""
    codes = dvae.encode(pixel_values)
    return codes, dvae.reconstruct(pixel_values) if dvae.config.style_size else dvae.decode(codes)


@torch.no_grad()
def evaluate_dvae(
    dvae: FirstStage, pictures: Pictures, device: torch.device, limit: int = 512, batch_size: int = 64
) -> tuple[dict[str, float], Tensor]:
    """
    Of the first `limit` pictures: PSNR in dB of argmax reconstructions, perplexity and share of codes in use; of a
    `DVAE`, which has a density, ELBO and bits per dimension (of dequantised pixels); and P ≤ 16 pairs, originals, then
    their reconstructions, (2 P, 3, S, S).
    """
    generator = torch.Generator(device).manual_seed(0)
    sums: dict[str, list[Tensor]] = defaultdict(list)
    counts = torch.zeros(dvae.config.codebook_size, dtype=torch.int64, device=device)
    pairs, found = torch.empty(0), validation_images(pictures, limit)
    for images in found.split(min(batch_size, at_once(found.shape[-1]))):
        pixel_values = to_pixel_values(images, device)
        codes, reconstructed = through_codes(dvae, pixel_values)
        counts += count_codes(codes, dvae.config.codebook_size)
        sums["psnr"].append(psnr(pixel_values, reconstructed))
        if isinstance(dvae, DVAE):
            noise = torch.rand(pixel_values.shape, generator=generator, device=device)
            bound = dvae.elbo(dvae.likelihood.dequantised(pixel_values, noise), generator)
            for name in ("elbo", "log_likelihood", "kl", "style_kl", "bits_per_dim"):
                sums[name].append(bound[name])
        if len(pairs) == 0:
            pairs = torch.cat([pixel_values[:16], reconstructed[:16]])
    numbers = {name: torch.cat(values).mean().item() for name, values in sums.items()}
    return {**numbers, **codebook_usage(counts)}, pairs.cpu()


@torch.no_grad()
def evaluate_prior(
    prior: StreamPrior,
    tokenizer: PriorTokenizer,
    encoded: Dataset,
    write: Callable[[Parts, random.Random], str],
    batch_size: int = 64,
) -> dict[str, float]:
    """
    nll per text token (pads counted, as in training), where the prior models text, and per code, in nats, of a caption
    a picture, by `write`.
    """
    drawn = FirstCaptions(encoded, write)
    sums = {"text_loss": 0.0, "image_loss": 0.0} if prior.config.models_text else {"image_loss": 0.0}
    for batch in DataLoader(drawn, batch_size, collate_fn=Collate(tokenizer)):
        input_ids = prior.join(batch["text_ids"], batch["codes"]).to(prior.device)
        output = prior(input_ids, labels=input_ids)
        for name in sums:
            sums[name] += output[name].item() * len(input_ids)
    return {name: value / len(drawn) for name, value in sums.items()}
