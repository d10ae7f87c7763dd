"""Trains the reranker: how well a picture goes with its caption, which best_of asks.

    python -m training.train_reranker training/configs/emoji_cpu.yaml [--training.steps 100 …]

Takes output_dir/tokenizer, and the size of output_dir/dvae's pictures; or what training.tokenizer and training.dvae
name. Leaves output_dir/reranker (averaged weights, its tokenizer, metrics.json), which training.train_prior and
training.finish put into the pipeline, and checkpoints beside it.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import DataLoader

from pipelines.folder.whole import WEIGHTS, saved_whole
from pipelines.judges.small_clip import SmallCLIP
from prior_transformer import PriorTokenizer, load_tokenizer

from .evaluation.feature_metrics import SmallCLIPFeatures, caption_fit
from .evaluation.scorer import augment, contrastive_loss
from .evaluation.validation import validation_images
from .loop.command import run_command
from .loop.engine import leave_processes, make_accelerator, need_whole_weights, same_draws
from .loop.fingerprints import tokenizer_digest
from .loop.loop_training import LoopTraining
from .loop.pretrained import check_own_parts, find_part, part_of_run, picture_size
from .loop.provenance import save_provenance
from .loop.run import Run
from .loop.run_log import save_numbers
from .loop.schedules import warmup_cosine
from .loop.stepping import set_lr
from .pictures.in_memory import Pictures, shuffled, to_pixel_values
from .pictures.loaders import TrainingPictures, load_pictures, own_batches, stream_parts
from .pictures.readers import Row
from .pictures.report import LOOKED_AT, cut_captions
from .pictures.splits import data_fact, fit_scenes
from .pictures.streaming import StreamedPictures, StreamLoader
from .presets.models import reranker_config
from .presets.reading import parse
from .presets.trainers import RerankerTraining
from .sets import KINDS

VALIDATION = 1000  # pictures


def main(argv: list[str] | None = None) -> SmallCLIP:
    args = parse("reranker", RerankerTraining, argv, __doc__)
    training, output_dir = args.training, Path(args.output_dir)
    accelerator = make_accelerator(training)
    need_whole_weights(accelerator, "a reranker")
    fit_scenes(args, KINDS, accelerator.print)
    set_seed(training.seed, device_specific=True)
    tokenizer = load_tokenizer(part_of_run("tokenizer", training, output_dir))
    size = picture_size(find_part(training.dvae, "dvae") if training.dvae else output_dir / "dvae")
    reranker = build(args.model or {}, tokenizer, size, training.seed)
    accelerator.print(f"reranker: {reranker.num_parameters() / 1e6:.2f} M parameters")
    accelerator.print(f"pictures of {size} px")
    pictures, validation = load_pictures(args.data, size, accelerator, KINDS, batch_size=training.batch_size)
    if isinstance(pictures, Pictures) and (cut := cut_captions(pictures.captions(LOOKED_AT), tokenizer)):
        accelerator.print(cut)
    train(reranker, tokenizer, pictures, validation, args, accelerator, output_dir)
    return reranker


def build(model: dict, tokenizer: PriorTokenizer, image_size: int, seed: int) -> SmallCLIP:
    """One that reads the tokenizer's ids. Raises a ValueError for a key of the preset's `model` that it has not."""
    config = reranker_config(
        model, text_vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, image_size=image_size
    )
    with same_draws(seed):
        return SmallCLIP(config)


class CaptionedPictures(torch.utils.data.Dataset):
    """
    `length` draws, each (uint8 (3, S, S), its caption, what it shows): a scene with probability `scenes`, else the
    next picture of an epoch. Draws that show the same are equally right for each other's captions.
    """

    def __init__(self, pictures: Pictures, length: int, seed: int, scenes: float):
        self.pictures, self.length, self.seed, self.scenes = pictures, length, seed, scenes

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> tuple[Tensor, str, str]:
        kind, rng = self.pictures.kind, random.Random(f"{self.seed}-{i}")
        if rng.random() < self.scenes:
            image, parts = self.pictures.scene(rng)
        else:
            index = shuffled(i, len(self.pictures), self.seed)
            image, parts = self.pictures.drawn(index, rng), self.pictures.parts[index]
        return torch.from_numpy(image.copy()).permute(2, 0, 1), kind.caption(parts, rng), kind.shown(parts)


class StreamedCaptions(StreamedPictures):
    """The same draws of what is not in memory."""

    def draw(self, row: Row, rng: random.Random) -> tuple[Tensor, str, str]:
        image, parts = super().draw(row, rng), self.kind.parts(row)
        return image, self.kind.caption(parts, rng), self.kind.shown(parts)


def captioned_batches(
    pictures: TrainingPictures, tokenizer: PriorTokenizer, args, accelerator: Accelerator
) -> DataLoader | StreamLoader:
    """This process's batches, as `CollateCaptions` makes them."""
    training: RerankerTraining = args.training
    if isinstance(pictures, Pictures):
        length = training.steps * training.batch_size
        drawn = CaptionedPictures(pictures, length, training.seed, args.data.scenes)
    else:
        drawn = StreamedCaptions(pictures.source, args.data, pictures.image_size)
    return own_batches(drawn, training, accelerator, collate=CollateCaptions(tokenizer, training.bpe_dropout))


class CollateCaptions:
    """Draws -> images (B, 3, S, S), text ids (B, T), and numbers (B, 2) of what each shows and what it says."""

    def __init__(self, tokenizer: PriorTokenizer, bpe_dropout: float):
        self.tokenizer, self.bpe_dropout = tokenizer, bpe_dropout

    def __call__(self, draws: list[tuple[Tensor, str, str]]) -> tuple[Tensor, Tensor, Tensor]:
        images, captions, subjects = zip(*draws, strict=True)
        text_ids = self.tokenizer.encode_captions(list(captions), bpe_dropout=self.bpe_dropout)
        return torch.stack(images), text_ids, torch.tensor([numbered(subjects), numbered(captions)]).T


def numbered(texts: Sequence[str]) -> list[int]:
    """Equal ones have equal numbers."""
    numbers = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return [numbers[text] for text in texts]


def train(
    reranker: SmallCLIP,
    tokenizer: PriorTokenizer,
    pictures: TrainingPictures,
    validation: Pictures,
    args,
    accelerator: Accelerator,
    output_dir: Path,
) -> None:
    loader = captioned_batches(pictures, tokenizer, args, accelerator)

    def evaluate(average: SmallCLIP, run: Run) -> None:
        report(average, tokenizer, validation, run)

    data = data_fact(pictures.source, args.data)
    check_own_parts(args.training, output_dir, ["tokenizer"], data, accelerator.print)
    learn("reranker", reranker, tokenizer, loader, data, args.training, accelerator, output_dir, evaluate)


def learn(
    name: str,
    model: SmallCLIP,
    tokenizer: PriorTokenizer,
    loader: DataLoader | StreamLoader,
    data: dict[str, Any],
    training: LoopTraining,
    accelerator: Accelerator,
    output_dir: Path,
    report: Callable[[SmallCLIP, Run], None],
) -> None:
    """The run, called `name`, of a contrastive model on the batches of `CollateCaptions`; the scorer's is another.

    data: what it keeps of its pictures, by `data_fact`.
    """
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # as transformers has its type
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.lr, betas=training.betas, weight_decay=training.weight_decay, fused=True
    )
    wrapped, optimizer = accelerator.prepare(model.train(), optimizer)
    parts: dict[str, Any] = {
        "model": model,
        "optimizer": optimizer,
        "report": report,
        "facts": {"data": data, "tokenizer": tokenizer_digest(tokenizer)},
        **stream_parts(loader),
    }
    run = Run(name, training, accelerator, output_dir, **parts)
    with run:
        for images, text_ids, subjects in run.batches(loader):
            lr = warmup_cosine(run.step, training.lr, training.lr_end, training.warmup_steps, training.steps)
            set_lr(optimizer, lr)
            with accelerator.accumulate(wrapped):
                pixel_values = augment(to_pixel_values(images, accelerator.device))
                logits = wrapped(pixel_values, text_ids.to(accelerator.device)).logits_per_image
                loss = contrastive_loss(logits, subjects.to(accelerator.device))
                run.descend(loss)
            run.end_step({"loss": loss}, lr=lr)


def report(reranker: SmallCLIP, tokenizer: PriorTokenizer, validation: Pictures, run: Run) -> None:
    """How well the averaged weights tell held-out pictures' captions apart; saves them."""
    pixel_values = to_pixel_values(validation_images(validation, VALIDATION), run.accelerator.device)
    fit = caption_fit(SmallCLIPFeatures(reranker, tokenizer), pixel_values, validation.captions(VALIDATION))
    numbers = {f"validation_{name}": value for name, value in fit.items()}
    run.evaluated(numbers)
    with saved_whole(run.output_dir / "reranker", WEIGHTS) as folder:
        tokenizer.save_pretrained(folder)  # whose ids it reads
        reranker.save_pretrained(folder)
        save_numbers(folder / "metrics.json", {"step": run.step, **numbers})
        save_numbers(folder / "recipe.json", run.training.recipe())
        save_provenance(folder, run.facts)


if __name__ == "__main__":
    run_command(main, leave_processes)
