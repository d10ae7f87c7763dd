"""Trained dVAEs side by side on pictures that none has seen: a table, and a picture of their reconstructions.

    python -m training.compare_dvaes --models [runs/plain/dvae,runs/pixel/dvae] --scorer runs/emoji_cpu

The Fréchet distance is between features of the extractor `--scorer`, here the scorer's picture tower in a folder that
also holds its tokenizer: it compares these models with each other, and with no figure from elsewhere.
"""

import random

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import save_image

from dvae import FirstStage, codebook_usage, count_codes
from pipelines.checkpoints.first_stages import find_first_stage
from pipelines.commands import check_installed

from .codes.cache import at_once
from .evaluation.feature_metrics import Extractor, frechet_distance, load_extractor
from .evaluation.validation import evaluate_dvae, through_codes
from .loop.command import run_command
from .loop.losses import high_frequency_power
from .pictures.data_arguments import DataArguments
from .pictures.in_memory import Pictures, to_pixel_values
from .pictures.splits import both_splits
from .presets.reading import new_parser
from .sets import KINDS

COLUMNS = ("elbo", "psnr", "high_frequencies", "frechet_distance", "perplexity", "codes_used")


def main(argv: list[str] | None = None) -> None:
    parser = new_parser("compare_dvaes", __doc__)
    parser.add_argument("--models", type=list[str], required=True, help="folders of dVAEs, or of public first stages")
    parser.add_argument("--scorer", type=str, required=True, help="an extractor of features: see load_extractor")
    parser.add_argument("--scenes", type=int, default=1000, help="held-out scenes after the validation split")
    parser.add_argument("--out", type=str, default="comparison.png")
    parser.add_settings(DataArguments, "data")
    args = parser.instantiate(parser.parse_args(argv))
    check_installed("evaluate", "torchmetrics")
    features = load_extractor(args.scorer)
    print("| dVAE | " + " | ".join(COLUMNS) + " |\n| --- |" + " ---: |" * len(COLUMNS))
    rows = []
    for folder in args.models:
        dvae = find_first_stage(folder, dtype=torch.float32)
        _, split = both_splits(args.data, KINDS, captions=False)
        pictures = Pictures(split, args.data, dvae.config.image_size)
        pixel_values = unseen(pictures, args.scenes)
        numbers, reconstructed = compare(dvae, pictures, pixel_values, features)
        cells = [f"{numbers[name]:.4g}" if name in numbers else "" for name in COLUMNS]  # a VQGAN has no ELBO
        print(f"| {folder} | " + " | ".join(cells) + " |")
        rows += [pixel_values[:16]] * (not rows) + [reconstructed[:16]]
    save_image(torch.cat(rows), args.out, nrow=16)
    print(f"{args.out}: the pictures above, then one row for each dVAE")


def unseen(pictures: Pictures, scenes: int) -> Tensor:
    """The validation split, then scenes that its set holds out, where it composes any: (n, 3, S, S) in [0, 1]."""
    count = len(pictures)
    drawn = [pictures.single(i)[0] for i in range(count)]
    if pictures.kind.composes:
        places = range(count, count + scenes)
        drawn += [pictures.scene(random.Random(f"scene-0-{i}"), held_out=True)[0] for i in places]
    return to_pixel_values(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2), torch.device("cpu"))


@torch.no_grad()
def compare(
    dvae: FirstStage, pictures: Pictures, pixel_values: Tensor, features: Extractor
) -> tuple[dict[str, float], Tensor]:
    """
    ELBO in nats and PSNR in dB of the validation split; of `pixel_values` (n, 3, S, S) the high-frequency power of the
    reconstructions over the real, the Fréchet distance between them, and the codebook's use; and the reconstructions.
    """
    numbers, _ = evaluate_dvae(dvae, pictures, pixel_values.device)
    parts = pixel_values.split(min(64, at_once(pixel_values.shape[-1])))
    codes, reconstructed = map(torch.cat, zip(*[through_codes(dvae, part) for part in parts], strict=True))
    power = high_frequency_power(reconstructed).mean() / high_frequency_power(pixel_values).mean()
    usage = codebook_usage(count_codes(codes, dvae.config.codebook_size))
    numbers |= usage | {
        "high_frequencies": power.item(),
        "frechet_distance": frechet_distance(features, pixel_values, reconstructed),
    }
    return numbers, reconstructed


if __name__ == "__main__":
    run_command(main)
