"""What training leaves behind: a pipeline that a user loads, with its numbers and a page of its samples.

    python -m training.finish training/configs/emoji_cpu.yaml

puts output_dir/prior, and the dVAE and the tokenizer that it learned with, together as output_dir/pipeline again:
after the dVAE's decoder has learned on, with output_dir/reranker, or with the figures that training.train_scorer left
in output_dir/scores.json.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw

from dvae import DVAEImageProcessor, FirstStage
from pipelines import TextToImagePipeline
from pipelines.checkpoints.first_stages import find_first_stage
from pipelines.folder.locate import RERANKER, public_name
from pipelines.folder.whole import settled
from pipelines.judges.small_clip import SmallCLIP
from prior_transformer import PriorTokenizer, StreamPrior, load_prior, load_tokenizer

from .codes.cached import captions_of
from .loop.command import run_command
from .loop.fingerprints import codes_digests, encoder_fact, tokenizer_digest
from .loop.pretrained import UNKNOWN_LICENCE, brought_in, part_of_run, read_through_encoder, sources_of
from .loop.provenance import check_facts, files_of, read_provenance
from .pictures.data_arguments import DataArguments
from .presets.reading import parse
from .presets.trainers import PriorTraining
from .sets import about, caption

SAMPLES = 16  # prompts of the page, where the set has none of its own
PARTS = ("dvae", "prior", "reranker")  # whose numbers and recipes the card has


def main(argv: list[str] | None = None) -> None:
    args = parse("prior", PriorTraining, argv, __doc__)
    output_dir = Path(args.output_dir)
    dvae = find_first_stage(part_of_run("dvae", args.training, output_dir), dtype=torch.float32)
    prior = load_prior(settled(output_dir / "prior"), dtype=torch.float32)
    tokenizer = load_tokenizer(part_of_run("tokenizer", args.training, output_dir))
    read_through_encoder(prior, tokenizer, args.training)
    check_prior(output_dir / "prior", prior, dvae, tokenizer, args.training)
    prompts = cached_prompts(Path(args.training.codes or output_dir / "codes"))
    save_pipeline(output_dir, dvae, prior, tokenizer, args.training, args.data, prompts)
    print(how_to_paint(output_dir))


def how_to_paint(output_dir: Path) -> str:
    return f"{output_dir / 'pipeline'} is whole: python -m pipelines 'a prompt' --model {output_dir / 'pipeline'}"


def check_prior(
    folder: Path, prior: StreamPrior, dvae: FirstStage, tokenizer: PriorTokenizer, training: PriorTraining
) -> None:
    """Raises a ValueError where it learned with another dVAE, but for its decoder, tokenizer or text encoder."""
    here = {"dvae": codes_digests(dvae), "tokenizer": tokenizer_digest(tokenizer)} | encoder_fact(prior)
    check_facts(str(folder), read_provenance(folder), here, training.may_differ, "train the prior anew")


def cached_prompts(codes: Path) -> list[str]:
    """The captions that training.train_prior painted, of the first validation pictures in the cache; [] without it."""
    shards = sorted((codes / "validation").glob("codes-*.parquet"))
    return captions_of(pq.read_table(shards[0], columns=["parts"]).to_pydict(), SAMPLES, caption) if shards else []


def save_pipeline(
    output_dir: Path,
    dvae: FirstStage,
    prior: StreamPrior,
    tokenizer: PriorTokenizer,
    training: PriorTraining,
    data: DataArguments,
    prompts: list[str] | None = None,
) -> TextToImagePipeline:
    """
    Writes output_dir/pipeline in half precision with its card and samples of the prompts, with output_dir/reranker if
    that reads this tokenizer; returns it in full. The reranker of a pipeline that the prior started from is left out:
    it does not know the new pictures.
    """
    reranker = reranker_of(output_dir, tokenizer, training)
    folders = {name: output_dir / name for name in ("prior", RERANKER)}
    folders["dvae"] = Path(part_of_run("dvae", training, output_dir))
    measured = {name: folders[name] / "metrics.json" for name in PARTS}
    metrics = read_json({**measured, "scorer": output_dir / "scores.json"})
    recipe = read_json({name: folders[name] / "recipe.json" for name in PARTS})
    if reranker is None:
        for told in (metrics, recipe):
            told.pop(RERANKER, None)
    known = about(data.path)
    own = known.sources if known else {public_name(data.path): UNKNOWN_LICENCE}
    sources = sources_of([training.init_from] if training.init_from else []) | brought_in(training.dvae) | own
    pipeline = TextToImagePipeline(
        dvae,
        prior,
        tokenizer,
        DVAEImageProcessor(dvae.config.image_size),
        sampling=training.sampling,
        metrics=metrics,
        recipe=recipe,
        data=sources,
        license=known.license if known and sources == known.sources else None,
        language=known.language if known and sources == known.sources else None,
        reranker=reranker,
        text_encoder=prior.text_encoder,
    ).to(prior.device)
    pipeline.samples = page(pipeline, known.prompts if known else prompts or ["a picture"])
    copy.deepcopy(pipeline).to(torch.float16).save_pretrained(output_dir / "pipeline")
    return pipeline


def reranker_of(output_dir: Path, tokenizer: PriorTokenizer, training: PriorTraining) -> SmallCLIP | None:
    """
    None where there is none, or one that learned with another tokenizer, or does not say with which; or from other
    pictures than the prior.
    """
    folder = settled(output_dir / RERANKER)
    if not (folder / "config.json").exists():
        return None
    own, others = (files_of(read_provenance(output_dir / part)) for part in (RERANKER, "prior"))
    if own and others and own != others and "data" not in training.may_differ:
        print(
            f"{folder} learned from files {own}, the prior from {others}: it is left out; train it again, or take it "
            "by --training.may_differ '[data]'"
        )
        return None
    told = (folder / "tokenizer.json").exists() and tokenizer_digest(load_tokenizer(folder))
    if told != tokenizer_digest(tokenizer):
        print(f"{folder} learned with another tokenizer and is left out: train it again")
        return None
    return SmallCLIP.from_pretrained(folder, dtype=torch.float32)


def read_json(files: dict[str, Path]) -> dict[str, Any]:
    """What those of the files say that are there, by name."""
    return {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}


def page(pipeline: TextToImagePipeline, prompts: list[str], images: int = 4, columns: int = 2) -> Image.Image:
    """Pictures of the seeds 0, 1, … in rows of `images`, each row under its prompt, in `columns` columns."""
    pictures = pipeline(prompts, num_images_per_prompt=images, seed=0, progress_bar=False).images
    side = pictures[0].width
    cell = (images * side + 8, side + 16)
    sheet = Image.new("RGB", (columns * cell[0], -(-len(prompts) // columns) * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for i, prompt in enumerate(prompts):
        left, top = (i % columns) * cell[0], (i // columns) * cell[1]
        draw.text((left + 2, top + 2), prompt, fill="black")
        for j in range(images):
            sheet.paste(pictures[i * images + j], (left + j * side, top + 14))
    return sheet


if __name__ == "__main__":
    run_command(main)
