"""Numbers of a saved pipeline on a validation split, in nats unless named.

    python -m training.evaluate [--model FOLDER_OR_ID] [--data.path …] [--json FILE] [--markdown FILE]
    python -m training.evaluate --features runs/emoji_cpu --clip openai/clip-vit-base-patch32 --generated 500

Without --model it evaluates the embedded one. --features adds rFID of reconstructions and FID of generated pictures in
the features of a scorer's folder, of a file of Inception's weights, or of a CLIP (`load_extractor`). --clip adds the
CLIP score and R-precision of any CLIP of transformers; without it a scorer or a CLIP of --features gives R-precision.
--scenes RUN paints every kind of scene that the set lays out, of pairs that training never shows, and says what of
each is to be seen (evaluation/scenes.py). RUN is a folder with scorer/ and tokenizer/ as training.train_scorer leaves
it, or a pipeline's, or "embedded", whose reranker then judges: of pictures that it did not choose.
"""

from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor

from dvae import DVAE
from pipelines import TextToImagePipeline
from pipelines.commands import check_installed

from .codes.blocks import Blocks, PieceContents, ground_codes, scenes_of, singles_of
from .codes.cache import encode_now
from .codes.cached import FirstCaptions
from .codes.views import Contents
from .evaluation.feature_metrics import (
    CLIPFeatures,
    Extractor,
    SmallCLIPFeatures,
    TextExtractor,
    caption_fit,
    frechet_distance,
    load_extractor,
)
from .evaluation.report import report
from .evaluation.scenes import Scores, judge_scenes
from .evaluation.scenes import flat as scene_numbers
from .evaluation.scenes import table as scene_table
from .evaluation.surgery import estimate_surgery
from .evaluation.validation import evaluate_dvae, evaluate_prior, validation_images
from .loop.command import run_command
from .loop.run_log import HELDOUT_SPLIT
from .pictures.data_arguments import DataArguments
from .pictures.in_memory import Pictures, to_pixel_values
from .pictures.splits import Split, both_splits, load_split
from .presets.reading import new_parser
from .sets import KINDS


def main(argv: list[str] | None = None) -> None:
    parser = new_parser("evaluate", __doc__)
    parser.add_argument("--model", type=str | None, default=None, help="a pipeline's folder or Hub id")
    parser.add_argument("--heldout_pairs", type=int, default=256, help="scenes of held-out pairs, for cut-outs")
    parser.add_argument(
        "--surgery_pictures", type=int, default=512, help="pictures of the ELBO surgery, fewer of many codes; 0: none"
    )
    parser.add_argument("--features", type=str | None, default=None, help="what FID and rFID are measured in")
    parser.add_argument("--clip", type=str | None, default=None, help="a CLIP's folder or Hub id")
    parser.add_argument("--generated", type=int, default=200, help="captions painted for --features and --clip")
    parser.add_argument("--scenes", type=str | None, default=None, help="whose scorer or reranker names their things")
    parser.add_argument("--scenes_a_kind", type=int, default=100, help="how many scenes of each kind --scenes paints")
    parser.add_argument("--json", type=Path | None, default=None, help="where to write the numbers")
    parser.add_argument("--markdown", type=Path | None, default=None, help="where to write a table of them")
    parser.add_settings(DataArguments, "data")
    args = parser.instantiate(parser.parse_args(argv))
    if (args.features or args.clip) and args.generated < 2:
        raise ValueError(f"generated={args.generated} must be at least 2: --features and --clip judge what is painted")
    if args.features:
        check_installed("evaluate", "torchmetrics")
    extractors, scorer = load_extractors(args.features, args.clip), load_scorer(args.scenes)
    pipeline = TextToImagePipeline.from_pretrained(args.model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    numbers = evaluate_pipeline(pipeline.to(device), args.data, args.heldout_pairs, args.surgery_pictures, device)
    if extractors:
        numbers |= evaluate_pictures(pipeline, args.data, extractors, args.generated, device)
    found = evaluate_scenes(pipeline, args.data, scorer, args.scenes_a_kind, device) if scorer else {}
    settings = {name: getattr(args, name) for name in ("model", "features", "clip", "generated")}
    told = settings | {"data": args.data.path}
    report(numbers, told, args.json, args.markdown, scene_numbers(found), scene_table(found) if found else None)


def load_extractors(features: str | None, clip: str | None) -> dict[str, Extractor]:
    """By the flags' names; first of all the work, so that a wrong one costs nothing."""
    extractors = {name: load_extractor(wanted) for name, wanted in (("features", features), ("clip", clip)) if wanted}
    if not isinstance(extractors.get("clip"), CLIPFeatures | None):
        raise ValueError(f"--clip {clip} is no CLIP: give it to --features")
    return extractors


def load_scorer(run: str | None) -> TextExtractor | None:
    """Raises a ValueError where there is neither a scorer nor a reranker in the folder."""
    if run is None:
        return None
    scorer = load_extractor(run)
    if not isinstance(scorer, SmallCLIPFeatures):
        raise ValueError(f"--scenes {run} has neither scorer/ nor reranker/: training.train_scorer PRESET leaves one")
    return scorer


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
    _, split = both_splits(data, KINDS)
    validation, write = Pictures(split, data, size), split.kind.caption
    numbers, _ = evaluate_dvae(dvae, validation, device, limit=len(validation))
    encoded = encode_split(pipeline, split, data, heldout_pairs, device)
    for name, rows in encoded.items():
        nll = evaluate_prior(pipeline.prior.eval(), pipeline.tokenizer, rows, write)
        numbers |= {f"{name}_{loss}": value for loss, value in nll.items()}
    if surgery_pictures and isinstance(dvae, DVAE):  # it is of an ELBO, and a VQGAN has no density
        images = validation_images(validation, min(surgery_pictures, as_many_as_fit(dvae)))
        drawn = FirstCaptions(encoded["validation"], write)
        text_ids = pipeline.tokenizer.encode_captions([drawn[i][0] for i in range(len(images))])
        parts = estimate_surgery(dvae, pipeline.prior, images, text_ids, device)
        numbers |= {f"surgery_{name}": value for name, value in parts.items()}
    return numbers


def as_many_as_fit(dvae: DVAE) -> int:
    """Pictures of a surgery, which holds ln q of all their codes: in 2 GiB."""
    return max(2**31 // (4 * dvae.config.codebook_size * dvae.config.grid_size**2), 2)


def encode_split(
    pipeline: TextToImagePipeline, split: Split, data: DataArguments, heldout_pairs: int, device: torch.device
) -> dict[str, Dataset]:
    """What the prior is evaluated on, as it learned it: pictures encoded whole, or put together of blocks."""
    dvae, size = pipeline.dvae, pipeline.dvae.config.image_size
    if split.kind.rows_are_pieces and (pipeline.recipe or {}).get("prior", {}).get("blocks"):
        pieces = PieceContents(split, data, size, dvae.config.grid_size)
        blocks = Blocks(encode_now(dvae, pieces, device), pieces, ground_codes(dvae, pieces.composer, device))
        encoded = {"validation": singles_of(blocks)}
        held_out = scenes_of(blocks, heldout_pairs, seed=0) if split.kind.holds_out and heldout_pairs else None
        return encoded | ({HELDOUT_SPLIT: held_out} if held_out else {})
    contents = {"validation": Contents(split, data, size)}
    if split.kind.holds_out and heldout_pairs:
        contents[HELDOUT_SPLIT] = Contents(split, data, size, scenes=heldout_pairs, held_out=True)
    return {name: encode_now(dvae, part, device) for name, part in contents.items()}


@torch.no_grad()
def evaluate_pictures(
    pipeline: TextToImagePipeline,
    data: DataArguments,
    extractors: dict[str, Extractor],
    generated: int,
    device: torch.device,
) -> dict[str, float]:
    """
    Of the validation split's captioned pictures, and of pictures painted from its first `generated` captions, seeds 0,
    1, …, with the pipeline's own settings: in extractors["features"] rfid and fid; by extractors["clip"] clip_score;
    and r_precision; each of the real pictures too, as what can be had.
    """
    validation = Pictures(load_split(data, "validation", KINDS), data, pipeline.dvae.config.image_size)
    captions = validation.captions(len(validation))
    captioned = [i for i, text in enumerate(captions) if text.strip()]
    real = to_pixel_values(validation_images(validation, len(validation)), device)
    captions = [captions[i] for i in captioned[:generated]]
    painted = [
        pipeline(part, seed=list(range(start, start + len(part))), output_type="pt", progress_bar=False).images
        for start, part in ((start, captions[start : start + 64]) for start in range(0, len(captions), 64))
    ]
    painted = torch.cat(painted).to(device)
    numbers = {}
    if "features" in extractors:
        extractor = extractors["features"].to(device)
        reconstructed = torch.cat([pipeline.dvae.reconstruct(part) for part in real.split(64)])
        numbers["rfid"] = frechet_distance(extractor, real, reconstructed)
        numbers["fid"] = frechet_distance(extractor, real, painted)
    of_texts = extractors.get("clip", extractors.get("features"))
    if isinstance(of_texts, TextExtractor):
        for name, pictures in (("", painted), ("real_", real[captioned[:generated]])):
            fit = caption_fit(of_texts.to(device), pictures, captions)
            numbers[f"{name}r_precision"] = fit["r_precision"]
            if isinstance(of_texts, CLIPFeatures):
                numbers[f"{name}clip_score"] = fit["score"]
    return numbers


@torch.no_grad()
def evaluate_scenes(
    pipeline: TextToImagePipeline, data: DataArguments, scorer: TextExtractor, count: int, device: torch.device
) -> dict[str, dict[str, Scores]]:
    """
    Of the training split's things, in `count` scenes of each kind: what is painted by the pipeline's own settings,
    seeds 0, 1, …, the drawings through its codes, and the drawings themselves. Raises a ValueError of a set that lays
    out none.
    """
    split = load_split(data, "train", KINDS)
    if not split.kind.rows_are_pieces:
        raise ValueError(f"{data.path} lays out no scenes of its rows: leave --scenes out")
    pictures = Pictures(split, data, pipeline.dvae.config.image_size)

    def paint(prompts: list[str]) -> Tensor:
        parts = [(start, prompts[start : start + 64]) for start in range(0, len(prompts), 64)]
        options = {"output_type": "pt", "progress_bar": False}
        return torch.cat(
            [pipeline(part, seed=list(range(start, start + len(part))), **options).images for start, part in parts]
        )

    def reconstruct(images: Tensor) -> Tensor:
        return torch.cat([pipeline.dvae.reconstruct(part.to(device)) for part in images.split(64)])

    return judge_scenes(pictures.laid_out, split.kind, len(pictures), scorer, paint, reconstruct, count)


if __name__ == "__main__":
    run_command(main)
