"""What training leaves behind: a pipeline that a user loads, and a page of its samples."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image, ImageDraw

from dvae import DVAE, DVAEImageProcessor
from pipelines import TextToImagePipeline
from prior_transformer import PriorTokenizer, PriorTransformer

from .arguments import DataArguments
from .data import caption
from .scenes import HELDOUT_SPLIT

EMOJI_PROMPTS = [
    "an armchair shaped like an avocado", "an armchair", "avocado", "red apple", "cat face", "a fire engine",
    "sailboat", "hamburger", "a cat face beside a red apple", "a sailboat above a fire engine",
    "an avocado on a blue background", "a small dog face", "rocket, 3d", "a flat octopus", "a clipart tree",
    "smiling face with sunglasses",
]  # fmt: skip
EMOJI_DATA = {
    "Noto Emoji": "Apache-2.0",
    "Twemoji": "CC-BY-4.0",
    "Fluent Emoji": "MIT",
    "Open Clip Art Library": "public domain",
    "CLDR names and keywords": "Unicode-3.0",
}


def save_pipeline(
    output_dir: Path,
    dvae: DVAE,
    prior: PriorTransformer,
    tokenizer: PriorTokenizer,
    sampling: dict[str, Any],
    data: DataArguments,
) -> TextToImagePipeline:
    """Writes output_dir/pipeline in half precision, with the numbers that both trainers measured; returns it."""
    metrics = {}
    for name in ("dvae", "prior"):
        path = output_dir / name / "metrics.json"
        if path.exists():
            metrics[name] = json.loads(path.read_text())
    sources = EMOJI_DATA if data.path.endswith("data/emoji") else {data.path: "as its owner says"}
    pipeline = TextToImagePipeline(
        dvae,
        prior,
        tokenizer,
        DVAEImageProcessor(dvae.config.image_size),
        sampling=sampling,
        metrics=metrics,
        data=sources,
    )
    half = copy.deepcopy(pipeline).to(torch.float16)
    half.save_pretrained(output_dir / "pipeline")
    return pipeline


def save_samples(pipeline: TextToImagePipeline, encoded: dict[str, Dataset], path: Path, images: int = 4) -> None:
    """A page: a row a prompt, `images` pictures of seeds 0, 1, … beside its words."""
    prompts = EMOJI_PROMPTS if len(encoded[HELDOUT_SPLIT]) else _prompts(encoded)
    painted = pipeline(prompts, num_images_per_prompt=images, seed=0, progress_bar=False).images
    path.parent.mkdir(parents=True, exist_ok=True)
    page(prompts, painted, images).save(path)


def _prompts(encoded: dict[str, Dataset]) -> list[str]:
    rng = random.Random(0)
    rows = encoded["validation"] if len(encoded["validation"]) else encoded["train"]
    return [caption(json.loads(parts), rng) for parts in rows["parts"][:16]]


def page(prompts: list[str], pictures: list[Image.Image], images: int, columns: int = 2) -> Image.Image:
    """Pictures in rows of `images`, each row under its prompt, in `columns` columns."""
    side = pictures[0].width
    cell = (images * side + 8, side + 16)
    rows = -(-len(prompts) // columns)
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for i, prompt in enumerate(prompts):
        left, top = (i % columns) * cell[0], (i // columns) * cell[1]
        draw.text((left + 2, top + 2), prompt, fill="black")
        for j in range(images):
            sheet.paste(pictures[i * images + j], (left + j * side, top + 14))
    return sheet
