"""Trains the scorer on the real pictures and prints its figures on real, reconstructed and generated ones.

    python -m training.train_scorer training/configs/emoji_cpu.yaml [--training.steps 600 …]

Takes output_dir/tokenizer, the size of output_dir/dvae's pictures (64 without one), and output_dir/pipeline to score.
Leaves output_dir/scorer and scores.json.

The scorer is a `SmallCLIP` of names. It steers the training of the generator and is no judge of it: it saw the same
pictures.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from torch import Tensor

from pipelines import TextToImagePipeline
from pipelines.folder.whole import WEIGHTS, saved_whole, settled
from pipelines.judges.small_clip import SmallCLIP, SmallCLIPConfig
from prior_transformer import PriorTokenizer

from .emoji.captions import plain_name
from .emoji.named_cutouts import NamedCutouts
from .emoji.pair_scores import cut_things, heldout_pairs
from .emoji.scenes import GROUNDS
from .evaluation.scorer import r_precision, ranks
from .loop.command import run_command
from .loop.engine import leave_processes, make_accelerator
from .loop.loop_training import LoopTraining
from .loop.pretrained import picture_size
from .loop.provenance import save_provenance
from .loop.run import Run
from .loop.schedules import Steps
from .pictures.data_arguments import DataArguments
from .pictures.in_memory import Pictures, shuffled
from .pictures.layouts import QUARTERS
from .pictures.loaders import own_batches
from .pictures.splits import data_fact, load_split
from .presets.reading import parse
from .sets import KINDS
from .train_reranker import CollateCaptions, learn


@dataclass
class ScorerTraining(LoopTraining):
    """prompts: how many short names are painted and scored. load: take the scorer that is there; train nothing."""

    steps: int = 900
    batch_size: int = 128
    mixed_precision: str = "bf16"
    lr: float = 2e-3
    lr_end: float = 1e-5
    warmup_steps: Steps = "5.5%"
    weight_decay: float = 0.05
    ema: float = 0.0
    prompts: int = 200
    load: bool = False

    def __post_init__(self):
        super().__post_init__()
        self.starts_anew("a scorer")


def main(argv: list[str] | None = None) -> None:
    args = parse("scorer", ScorerTraining, argv, __doc__)
    training, output_dir = args.training, Path(args.output_dir)
    set_seed(training.seed)
    tokenizer = PriorTokenizer.from_pretrained(output_dir / "tokenizer")
    if not isinstance(load_split(args.data, "train", KINDS).kind, NamedCutouts):
        raise ValueError(
            f"{args.data.path} has captions: the scorer learns names, of a set with columns {NamedCutouts.named_by}; "
            "judge by training.evaluate --clip instead"
        )
    image_size = picture_size(output_dir / "dvae")
    pictures = Pictures(load_split(args.data, "train", KINDS), args.data, image_size)
    if not training.load:
        config = SmallCLIPConfig(
            text_vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, image_size=image_size
        )
        scorer = SmallCLIP(config)
        train(scorer, tokenizer, pictures, training, output_dir)
    state = PartialState()
    state.wait_for_everyone()
    if not state.is_main_process:
        return
    scorer = SmallCLIP.from_pretrained(settled(output_dir / "scorer"), dtype=torch.float32)
    scores = score(scorer.eval(), tokenizer, pictures, args.data, training, output_dir / "pipeline")
    (output_dir / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    for name, value in scores.items():
        print(f"{name:40} {value:.3f}")


RECOLOURED = 0.25  # of the pictures: else a scorer goes by the colour that a thing has as a rule


class NamedPictures(torch.utils.data.Dataset):
    """
    `length` draws, each a picture (uint8 (3, S, S)), sometimes in another colour, its name, and its name again: that
    is what it shows.
    """

    def __init__(self, pictures: Pictures, length: int, seed: int):
        self.pictures, self.length, self.seed = pictures, length, seed
        composer = pictures.laid_out
        whole = [piece for piece in range(composer.pieces) if composer.quarters(piece) == QUARTERS]
        self.recoloured = [piece for piece in whole if composer.colour(piece) is not None]
        self.names = {part["things"][0]["name"] for part in pictures.parts}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> tuple[Tensor, str, str]:
        rng, composer = random.Random(f"{self.seed}-{i}"), self.pictures.laid_out
        if self.recoloured and rng.random() < RECOLOURED:
            piece = rng.choice(self.recoloured)
            image, name = composer.show(piece).picture, plain_name(composer.name(piece))
            (colour,) = [word for word, rgb in GROUNDS.items() if rgb == composer.colour(piece)]
            name = f"{colour} {name}" if f"{colour} {name}" in self.names else name  # as another drawing is called
        else:
            image, parts = self.pictures.single(shuffled(i, len(self.pictures), self.seed))
            name = parts["things"][0]["name"]
        return torch.from_numpy(image.copy()).permute(2, 0, 1), name, name


def train(
    scorer: SmallCLIP, tokenizer: PriorTokenizer, pictures: Pictures, training: ScorerTraining, output_dir: Path
) -> None:
    """Leaves output_dir/scorer, and its checkpoints beside it."""
    accelerator = make_accelerator(training)
    drawn = NamedPictures(pictures, training.steps * training.batch_size, training.seed)
    loader = own_batches(drawn, training, accelerator, collate=CollateCaptions(tokenizer, bpe_dropout=0.0))

    def save(average: SmallCLIP, run: Run) -> None:
        with saved_whole(output_dir / "scorer", WEIGHTS) as folder:
            average.save_pretrained(folder)
            save_provenance(folder, run.facts)

    data = data_fact(pictures.source, pictures.data)
    learn("scorer", scorer, tokenizer, loader, data, training, accelerator, output_dir, save)


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
    held_out = Pictures(load_split(data, "validation", KINDS), data, pictures.image_size)
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
        pairs = heldout_pairs(pictures.laid_out, training.prompts)
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
    run_command(main, leave_processes)
