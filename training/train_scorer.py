"""Trains the scorer on the real pictures and prints its figures on real, reconstructed and generated ones.

    python -m training.train_scorer training/configs/emoji_cpu.yaml [--training.steps 600 …]

Takes output_dir/tokenizer, and output_dir/pipeline to score. Leaves output_dir/scorer and scores.json.

The scorer is a `SmallCLIP` of names. It steers the training of the generator and is no judge of it: it saw the same
pictures.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipelines import TextToImagePipeline
from pipelines.judges.small_clip import SmallCLIP, SmallCLIPConfig
from prior_transformer import PriorTokenizer

from .arguments import parse
from .data import Pictures, is_cutouts, load_split, shuffled
from .data_arguments import DataArguments
from .decoding import CUTOUT_COLUMNS
from .pair_scores import cut_things, heldout_pairs
from .precision import cpu_computes_bf16
from .pretrained import picture_size
from .schedules import warmup_cosine
from .scorer import augment, contrastive_loss, r_precision, ranks


@dataclass
class ScorerTraining:
    """steps of batch_size pictures. prompts: how many short names are painted and scored; load: skip the training."""

    steps: int = 900
    batch_size: int = 128
    lr: float = 2e-3
    seed: int = 0
    prompts: int = 200
    load: bool = False


def main(argv: list[str] | None = None) -> None:
    args = parse("scorer", ScorerTraining, argv, __doc__)
    training, output_dir = args.training, Path(args.output_dir)
    tokenizer = PriorTokenizer.from_pretrained(output_dir / "tokenizer")
    if not is_cutouts(load_split(args.data, "train"), args.data):
        raise ValueError(
            f"{args.data.path} has captions: the scorer learns names, of a set with columns {CUTOUT_COLUMNS}; "
            "judge by training.evaluate --clip instead"
        )
    image_size = picture_size(output_dir / "dvae")
    pictures = Pictures(load_split(args.data, "train"), args.data, image_size)
    if training.load:
        scorer = SmallCLIP.from_pretrained(output_dir / "scorer", dtype=torch.float32)
    else:
        scorer = SmallCLIP(SmallCLIPConfig(text_vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id))
        train(scorer, tokenizer, pictures, training)
        scorer.save_pretrained(output_dir / "scorer")
    scores = score(scorer.eval(), tokenizer, pictures, args.data, training, output_dir / "pipeline")
    (output_dir / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    for name, value in scores.items():
        print(f"{name:40} {value:.3f}")


def train(scorer: SmallCLIP, tokenizer: PriorTokenizer, pictures: Pictures, training: ScorerTraining) -> None:
    names, places = name_places(pictures)
    name_ids = tokenizer.encode_captions(names)
    images = torch.from_numpy(np.stack([pictures.single(i)[0] for i in range(len(pictures))])).permute(0, 3, 1, 2)
    torch.manual_seed(training.seed)
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=training.lr, weight_decay=0.05, fused=True)
    scorer.train()
    bar = tqdm(range(training.steps), desc="scorer")
    for step in bar:
        batch = [
            shuffled(step * training.batch_size + j, len(images), training.seed) for j in range(training.batch_size)
        ]
        own = places[batch]
        pixel_values = augment(images[batch].float() / 255)
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, training.lr, 1e-5, 50, training.steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_computes_bf16()):
            loss = contrastive_loss(scorer(pixel_values, name_ids[own]).logits_per_image, own)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")


def name_places(pictures: Pictures) -> tuple[list[str], Tensor]:
    """All names of the set in order, and the place of each picture's own among them (n,)."""
    own = [parts["things"][0]["name"] for parts in pictures.parts]
    names = sorted(set(own))
    place = {name: i for i, name in enumerate(names)}
    return names, torch.tensor([place[name] for name in own])


def score(
    scorer: SmallCLIP,
    tokenizer: PriorTokenizer,
    pictures: Pictures,
    data: DataArguments,
    training: ScorerTraining,
    folder: Path,
) -> dict[str, float]:
    """
    R-precision among 100 names and top-5 among all: of real pictures held out, of those learned from that have the
    prompts' names, of both reconstructed, and of what the pipeline paints for the prompts. "pair": of the things of
    scenes of two that training never put together, real, reconstructed and painted, each judged alone.
    """
    every = name_places(pictures)[0]
    name_ids = tokenizer.encode_captions(every)
    place = {name: i for i, name in enumerate(every)}
    prompts = short_names(every, training.prompts)
    held_out = Pictures(load_split(data, "validation"), data, pictures.image_size)
    sets = {
        "": real_pictures(held_out, place, set(every)),
        "learned_": real_pictures(pictures, place, set(prompts)),
    }
    pipeline = TextToImagePipeline.from_pretrained(folder) if (folder / "model_index.json").exists() else None
    scores = {}
    for kind, (real, own) in sets.items():
        scores |= figures(f"{kind}real", scorer, real, own, name_ids)
        if pipeline is not None:
            again = torch.cat([pipeline.dvae.reconstruct(part) for part in real.split(64)])
            scores |= figures(f"{kind}reconstructed", scorer, again, own, name_ids)
    if pipeline is not None:
        painted = pipeline(prompts, seed=0, output_type="pt").images
        scores |= figures("generated", scorer, painted, torch.tensor([place[name] for name in prompts]), name_ids)
        pairs = heldout_pairs(pictures, training.prompts)
        both = torch.tensor([place[name] for pair in pairs.names for name in pair])
        again = torch.cat([pipeline.dvae.reconstruct(part) for part in pairs.images.split(64)])
        painted = pipeline(pairs.prompts, seed=0, output_type="pt").images
        for kind, images in {"real": pairs.images, "reconstructed": again, "generated": painted}.items():
            scores |= figures(f"pair_{kind}", scorer, cut_things(images, pairs.vertical), both, name_ids)
    return scores


def real_pictures(pictures: Pictures, place: dict[str, int], names: set[str]) -> tuple[Tensor, Tensor]:
    """The single pictures of these names, (n, 3, S, S) in [0, 1], and the places of their names, (n,)."""
    own = [parts["things"][0]["name"] for parts in pictures.parts]
    chosen = [i for i, name in enumerate(own) if name in names]
    images = torch.from_numpy(np.stack([pictures.single(i)[0] for i in chosen]))
    return images.permute(0, 3, 1, 2) / 255, torch.tensor([place[own[i]] for i in chosen])


def short_names(names: list[str], count: int) -> list[str]:
    """`count` names of at most two words, always the same."""
    names = [name for name in names if len(name.split()) <= 2]
    return sorted(random.Random(0).sample(names, min(count, len(names))))


def figures(kind: str, scorer: SmallCLIP, pixel_values: Tensor, own: Tensor, name_ids: Tensor) -> dict[str, float]:
    return {
        f"{kind}_r_precision_of_100": r_precision(scorer, pixel_values, own, name_ids).mean().item(),
        f"{kind}_top5_of_{len(name_ids)}": (ranks(scorer, pixel_values, own, name_ids) < 5).float().mean().item(),
    }


if __name__ == "__main__":
    main()
