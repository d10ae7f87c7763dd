"""Numbers of a trained dVAE and prior on a validation split, in nats unless named.

python -m training.evaluate FOLDER_OF_A_PIPELINE [--data.path …]
"""

import json
import random
from collections import defaultdict

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader

from dvae import DVAE, codebook_usage, count_codes
from prior_transformer import PriorTokenizer, PriorTransformer

from .codes import Collate
from .data import Pictures, caption, to_pixel_values
from .losses import psnr


def validation_images(pictures: Pictures, limit: int) -> Tensor:
    """The first `limit` pictures as they are: uint8 (n, 3, S, S)."""
    images = [torch.from_numpy(pictures.single(i)[0].copy()) for i in range(min(limit, len(pictures)))]
    return torch.stack(images).permute(0, 3, 1, 2)


@torch.no_grad()
def evaluate_dvae(
    dvae: DVAE, pictures: Pictures, device: torch.device, limit: int = 512, batch_size: int = 64
) -> tuple[dict[str, float], Tensor]:
    """
    ELBO, bits per dimension (of dequantised pixels), PSNR in dB of argmax reconstructions, perplexity and share of
    codes in use; and 16 pairs of pictures, rows of originals over rows of reconstructions, (32, 3, S, S).
    """
    generator = torch.Generator(device).manual_seed(0)
    sums: dict[str, list[Tensor]] = defaultdict(list)
    counts, pairs = 0, None
    for images in validation_images(pictures, limit).split(batch_size):
        pixel_values = to_pixel_values(images, device)
        noise = torch.rand(pixel_values.shape, generator=generator, device=device)
        bound = dvae.elbo((255 * pixel_values + noise) / 256, generator)
        codes = dvae.encode(pixel_values)
        reconstructed = dvae.decode(codes)
        counts = counts + count_codes(codes, dvae.config.codebook_size)
        sums["psnr"].append(psnr(pixel_values, reconstructed))
        for name in ("elbo", "log_likelihood", "kl", "bits_per_dim"):
            sums[name].append(bound[name])
        if pairs is None:
            pairs = torch.cat([pixel_values[:16], reconstructed[:16]])
    numbers = {name: torch.cat(values).mean().item() for name, values in sums.items()}
    return {**numbers, **codebook_usage(counts)}, pairs.cpu()


@torch.no_grad()
def evaluate_prior(
    prior: PriorTransformer, tokenizer: PriorTokenizer, encoded: Dataset, device: torch.device, batch_size: int = 64
) -> dict[str, float]:
    """nll per text token (pads counted, as in training) and per code, in nats, of one caption a picture."""
    drawn = FirstCaptions(encoded)
    sums = {"text_loss": 0.0, "image_loss": 0.0}
    for batch in DataLoader(drawn, batch_size, collate_fn=Collate(tokenizer)):
        input_ids = prior.join(batch["text_ids"], batch["codes"]).to(device)
        output = prior(input_ids, labels=input_ids)
        for name in sums:
            sums[name] += output[name].item() * len(input_ids)
    return {name: value / len(drawn) for name, value in sums.items()}


class FirstCaptions(torch.utils.data.Dataset):
    """Every row once, its caption drawn by its own place: the same captions at every evaluation."""

    def __init__(self, encoded: Dataset):
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, i: int) -> tuple[str, Tensor]:
        row = self.encoded[i]
        return caption(json.loads(row["parts"]), random.Random(i)), torch.tensor(row["codes"])
