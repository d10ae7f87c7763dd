"""Numbers of a saved pipeline on a validation split, in nats unless named.

    python -m training.evaluate [--model FOLDER_OR_ID] [--data.path …]

Without --model it evaluates the embedded one.
"""

import json
import random
from collections import defaultdict

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader

from dvae import DVAE, codebook_usage, count_codes
from pipelines import TextToImagePipeline
from prior_transformer import PriorTokenizer, PriorTransformer

from .codes import Collate, encode_pictures
from .data import Pictures, load_split, to_pixel_values
from .data_arguments import DataArguments
from .decoding import caption
from .losses import psnr
from .scenes import HELDOUT_SPLIT
from .surgery import estimate_surgery


def validation_images(pictures: Pictures, limit: int) -> Tensor:
    """The first `limit` pictures as they are: uint8 (n, 3, S, S)."""
    images = [torch.from_numpy(pictures.single(i)[0].copy()) for i in range(min(limit, len(pictures)))]
    return torch.stack(images).permute(0, 3, 1, 2)


def main(argv: list[str] | None = None) -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--model", type=str | None, default=None, help="a pipeline's folder or Hub id")
    parser.add_argument("--heldout_pairs", type=int, default=256, help="scenes of held-out pairs, for cut-outs")
    parser.add_argument("--surgery_pictures", type=int, default=512, help="pictures of the ELBO surgery; 0 for none")
    parser.add_class_arguments(DataArguments, "data")
    args = parser.instantiate(parser.parse_args(argv))
    pipeline = TextToImagePipeline.from_pretrained(args.model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    numbers = evaluate_pipeline(pipeline.to(device), args.data, args.heldout_pairs, args.surgery_pictures, device)
    for name, value in numbers.items():
        print(f"{name:32} {value:12.5g}")


def evaluate_pipeline(
    pipeline: TextToImagePipeline,
    data: DataArguments,
    heldout_pairs: int,
    surgery_pictures: int,
    device: torch.device,
) -> dict[str, float]:
    """
    The dVAE's numbers, then the prior's on the validation split and, for cut-outs, on scenes of held-out pairs; then
    the surgery of their common ELBO on the first pictures of the validation split (`estimate_surgery`).
    """
    dvae, size = pipeline.dvae.eval(), pipeline.dvae.config.image_size
    validation = Pictures(load_split(data, "validation"), data, size)
    numbers, _ = evaluate_dvae(dvae, validation, device)
    encoded = {"validation": encode_pictures(dvae, validation, 0, seed=0, device=device)}
    if validation.cutouts and heldout_pairs:
        encoded[HELDOUT_SPLIT] = encode_pictures(dvae, validation, heldout_pairs, seed=0, device=device, held_out=True)
    for split, rows in encoded.items():
        nll = evaluate_prior(pipeline.prior.eval(), pipeline.tokenizer, rows, device)
        numbers |= {f"{split}_{name}": value for name, value in nll.items()}
    if surgery_pictures:
        images = validation_images(validation, surgery_pictures)
        drawn = FirstCaptions(encoded["validation"])
        text_ids = pipeline.tokenizer.encode_captions([drawn[i][0] for i in range(len(images))])
        parts = estimate_surgery(dvae, pipeline.prior, images, text_ids, device)
        numbers |= {f"surgery_{name}": value for name, value in parts.items()}
    return numbers


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
        hidden_states = dvae.encoder(pixel_values)
        codes = dvae.posterior.encode(hidden_states)
        reconstructed = dvae.decode(codes, dvae.style.encode(hidden_states))
        counts = counts + count_codes(codes, dvae.config.codebook_size)
        sums["psnr"].append(psnr(pixel_values, reconstructed))
        for name in ("elbo", "log_likelihood", "kl", "style_kl", "bits_per_dim"):
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


if __name__ == "__main__":
    main()
