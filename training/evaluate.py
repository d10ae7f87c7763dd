"""Numbers of a saved pipeline on a validation split, in nats unless named.

    python -m training.evaluate [--model FOLDER_OR_ID] [--data.path …] [--json FILE] [--markdown FILE]
    python -m training.evaluate --features runs/emoji_cpu --clip openai/clip-vit-base-patch32 --generated 500

Without --model it evaluates the embedded one. --features adds rFID of reconstructions and FID of generated pictures in
the features of a scorer's folder, of a file of Inception's weights, or of a CLIP (`load_extractor`). --clip adds the
CLIP score and R-precision of any CLIP of transformers; without it a scorer or a CLIP of --features gives R-precision.
"""

import json
import random
from collections import defaultdict
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader

from dvae import DVAE, codebook_usage, count_codes
from pipelines import TextToImagePipeline
from prior_transformer import PriorTokenizer, StreamPrior

from .codes.cached import Collate, encode_pictures
from .evaluation.feature_metrics import CLIPFeatures, Extractor, Judge, caption_fit, frechet_distance, load_extractor
from .evaluation.report import report
from .evaluation.surgery import estimate_surgery
from .loop.losses import psnr
from .loop.run_log import HELDOUT_SPLIT
from .pictures.data_arguments import DataArguments
from .pictures.in_memory import Pictures, load_split, to_pixel_values
from .pictures.rows import caption


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
    parser.add_argument("--features", type=str | None, default=None, help="what FID and rFID are measured in")
    parser.add_argument("--clip", type=str | None, default=None, help="a CLIP's folder or Hub id")
    parser.add_argument("--generated", type=int, default=200, help="captions painted for --features and --clip")
    parser.add_argument("--json", type=Path | None, default=None, help="where to write the numbers")
    parser.add_argument("--markdown", type=Path | None, default=None, help="where to write a table of them")
    parser.add_class_arguments(DataArguments, "data")
    args = parser.instantiate(parser.parse_args(argv))
    if (args.features or args.clip) and args.generated < 2:
        raise ValueError(f"generated={args.generated} must be at least 2: --features and --clip judge what is painted")
    judges = load_judges(args.features, args.clip)
    pipeline = TextToImagePipeline.from_pretrained(args.model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    numbers = evaluate_pipeline(pipeline.to(device), args.data, args.heldout_pairs, args.surgery_pictures, device)
    if judges:
        numbers |= evaluate_pictures(pipeline, args.data, judges, args.generated, device)
    settings = {name: getattr(args, name) for name in ("model", "features", "clip", "generated")}
    report(numbers, settings | {"data": args.data.path}, args.json, args.markdown)


def load_judges(features: str | None, clip: str | None) -> dict[str, Extractor]:
    """By the flags' names; first of all the work, so that a wrong one costs nothing."""
    judges = {name: load_extractor(wanted) for name, wanted in (("features", features), ("clip", clip)) if wanted}
    if not isinstance(judges.get("clip"), CLIPFeatures | None):
        raise ValueError(f"--clip {clip} is no CLIP: give it to --features")
    return judges


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
    numbers, _ = evaluate_dvae(dvae, validation, device, limit=len(validation))
    encoded = {"validation": encode_pictures(dvae, validation, 0, seed=0, device=device)}
    if validation.cutouts and heldout_pairs:
        encoded[HELDOUT_SPLIT] = encode_pictures(dvae, validation, heldout_pairs, seed=0, device=device, held_out=True)
    for split, rows in encoded.items():
        nll = evaluate_prior(pipeline.prior.eval(), pipeline.tokenizer, rows)
        numbers |= {f"{split}_{name}": value for name, value in nll.items()}
    if surgery_pictures:
        images = validation_images(validation, surgery_pictures)
        drawn = FirstCaptions(encoded["validation"])
        text_ids = pipeline.tokenizer.encode_captions([drawn[i][0] for i in range(len(images))])
        parts = estimate_surgery(dvae, pipeline.prior, images, text_ids, device)
        numbers |= {f"surgery_{name}": value for name, value in parts.items()}
    return numbers


@torch.no_grad()
def evaluate_pictures(
    pipeline: TextToImagePipeline,
    data: DataArguments,
    judges: dict[str, Extractor],
    generated: int,
    device: torch.device,
) -> dict[str, float]:
    """
    Of the validation split's captioned pictures, and of pictures painted from its first `generated` captions, seeds 0,
    1, …, with the pipeline's own settings: in judges["features"] rfid and fid; by judges["clip"] clip_score; and
    r_precision; each of the real pictures too, as what can be had.
    """
    validation = Pictures(load_split(data, "validation"), data, pipeline.dvae.config.image_size)
    captions = [caption(parts, random.Random(i)) for i, parts in enumerate(validation.parts)]
    captioned = [i for i, text in enumerate(captions) if text.strip()]
    real = to_pixel_values(validation_images(validation, len(validation)), device)
    captions = [captions[i] for i in captioned[:generated]]
    painted = [
        pipeline(part, seed=list(range(start, start + len(part))), output_type="pt", progress_bar=False).images
        for start, part in ((start, captions[start : start + 64]) for start in range(0, len(captions), 64))
    ]
    painted = torch.cat(painted).to(device)
    numbers = {}
    if "features" in judges:
        extractor = judges["features"].to(device)
        reconstructed = torch.cat([pipeline.dvae.reconstruct(part) for part in real.split(64)])
        numbers["rfid"] = frechet_distance(extractor, real, reconstructed)
        numbers["fid"] = frechet_distance(extractor, real, painted)
    judge = judges.get("clip", judges.get("features"))
    if isinstance(judge, Judge):
        for name, pictures in (("", painted), ("real_", real[captioned[:generated]])):
            fit = caption_fit(judge.to(device), pictures, captions)
            numbers[f"{name}r_precision"] = fit["r_precision"]
            if isinstance(judge, CLIPFeatures):
                numbers[f"{name}clip_score"] = fit["score"]
    return numbers


@torch.no_grad()
def evaluate_dvae(
    dvae: DVAE, pictures: Pictures, device: torch.device, limit: int = 512, batch_size: int = 64
) -> tuple[dict[str, float], Tensor]:
    """
    Of the first `limit` pictures: ELBO, bits per dimension (of dequantised pixels), PSNR in dB of argmax
    reconstructions, perplexity and share of codes in use; and P ≤ 16 pairs, originals, then their reconstructions,
    (2 P, 3, S, S).
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
    prior: StreamPrior, tokenizer: PriorTokenizer, encoded: Dataset, batch_size: int = 64
) -> dict[str, float]:
    """nll per text token (pads counted, as in training) and per code, in nats, of one caption a picture."""
    drawn = FirstCaptions(encoded)
    sums = {"text_loss": 0.0, "image_loss": 0.0}
    for batch in DataLoader(drawn, batch_size, collate_fn=Collate(tokenizer)):
        input_ids = prior.join(batch["text_ids"], batch["codes"]).to(prior.device)
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
