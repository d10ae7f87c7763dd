"""Trains the dVAE: pictures -> codes -> pictures.

    python -m training.train_dvae training/configs/emoji_cpu.yaml [--training.steps 100 …] [--dry_run]

Leaves output_dir/dvae (averaged weights, config, image processor, metrics.json), checkpoints and pictures beside it;
the networks of adversaries, where the preset has any, in output_dir/adversaries.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from dvae import DVAE, AutoencoderOutput, DVAEConfig, DVAEImageProcessor, LatentPosterior
from dvae.modeling_dvae import ResidualBlock
from pipelines.folder.whole import WEIGHTS, saved_whole

from .adversaries.beside_the_dvae import Adversary, DVAEStep, build_adversaries
from .codes.kmeans import kmeans
from .evaluation.validation import evaluate_dvae
from .loop.command import run_command
from .loop.engine import leave_processes, make_accelerator, need_whole_weights, ready, same_draws
from .loop.losses import dvae_losses
from .loop.pretrained import freeze, load_dvae
from .loop.provenance import save_provenance
from .loop.run import Run
from .loop.run_log import save_numbers
from .loop.schedules import cosine, warmup_cosine
from .loop.stepping import set_lr
from .pictures.assembled import Assembly
from .pictures.in_memory import Pictures, to_pixel_values
from .pictures.loaders import (
    TrainingPictures,
    assembled_batches,
    load_pictures,
    some_pictures,
    stream_parts,
    training_batches,
)
from .pictures.splits import data_fact, fit_scenes
from .pictures.streaming import StreamLoader
from .preflight.plan import plan_or_train
from .presets.reading import parse
from .presets.trainers import DVAETraining
from .sets import KINDS


def main(argv: list[str] | None = None) -> DVAE:
    args = parse("dvae", DVAETraining, argv, __doc__)
    training, output_dir = args.training, Path(args.output_dir)
    accelerator = make_accelerator(training, find_unused_parameters=has_phases(training))
    need_whole_weights(accelerator, "a dVAE")
    fit_scenes(args, KINDS, accelerator.print)
    set_seed(training.seed, device_specific=True)
    dvae = build(args.model, training, accelerator)
    pictures, validation = load_pictures(
        args.data, dvae.config.image_size, accelerator, KINDS, captions=False, batch_size=training.batch_size
    )
    train(dvae, pictures, validation, args, accelerator, output_dir)
    return dvae


def build(model: dict | None, training: DVAETraining, accelerator: Accelerator) -> DVAE:
    if training.init_from:
        dvae = load_dvae(training.init_from)
    else:
        with same_draws(training.seed):
            dvae = DVAE(DVAEConfig(**(model or {})))
    freeze(dvae, training.freeze)
    if training.autoencoder_steps > 0 and training.kmeans_latents < dvae.config.codebook_size:
        raise ValueError(
            f"kmeans_latents={training.kmeans_latents} cannot fill codebook_size={dvae.config.codebook_size}: give "
            "as many or more"
        )
    accelerator.print(
        f"dVAE: {dvae.num_parameters() / 1e6:.2f} M parameters, {dvae.config.grid_size}² codes a picture"
    )
    return dvae


def train(
    dvae: DVAE, pictures: TrainingPictures, validation: Pictures, args, accelerator: Accelerator, output_dir: Path
):
    training: DVAETraining = args.training
    dvae.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # as transformers has its type
    optimizer = torch.optim.AdamW(
        dvae.parameters(), lr=training.lr, betas=training.betas, weight_decay=training.weight_decay, fused=True
    )
    loader = batches(pictures, args, accelerator, dvae.config.grid_size)
    blocks = [block for block in dvae.decoder.blocks if isinstance(block, ResidualBlock)]
    ready(dvae, training, [dvae.encoder, *blocks])  # not the last layer, at which an adversary takes gradients
    model, optimizer = accelerator.prepare(Phases(dvae), optimizer)
    adversaries = build_adversaries(dvae, training, accelerator)
    parts: dict[str, Any] = {name: part for adversary in adversaries for name, part in adversary.parts().items()}
    parts |= stream_parts(loader)

    def evaluate(average: DVAE, run: Run) -> None:
        report(average, validation, args, run)
        save_networks(adversaries, output_dir / "adversaries")

    parts |= {"model": dvae, "optimizer": optimizer, "report": evaluate}
    parts |= {"facts": {"data": data_fact(pictures.source, args.data)}}
    parts |= {"settings": {"autoencoder_steps": training.autoencoder_steps}}
    parts |= {"may_go_on": lambda told: check_warmup(told, training)}
    for line in training.unfinished():
        accelerator.print(line)
    run = Run("dvae", training, accelerator, output_dir, **parts)
    new_step = True
    with run:
        for images in run.batches(loader):
            if new_step:
                enter_phase(run, dvae, pictures)
            lr, temperature, kl_weight = schedules(run.step, training)
            set_lr(optimizer, lr)
            since_warmup = run.step - training.autoencoder_steps
            with accelerator.accumulate(model, *[adversary.wrapped for adversary in adversaries]):
                encoded, cells, pixel_values = on_device(images, accelerator.device)
                output = model(encoded, phase(run.step, training), temperature, cells)
                losses = dvae_losses(pixel_values, output, dvae.likelihood, kl_weight)
                for adversary in adversaries:
                    losses |= adversary.losses(since_warmup, DVAEStep(pixel_values, output, losses, kl_weight))
                run.descend(losses["loss"])
                for adversary in adversaries:
                    losses |= adversary.learn(since_warmup, DVAEStep(pixel_values, output, losses, kl_weight))
            new_step = run.end_step(losses, lr=lr, temperature=temperature, kl_weight=kl_weight)


def batches(pictures: TrainingPictures, args, accelerator: Accelerator, grid_size: int) -> DataLoader | StreamLoader:
    """Of this process: uint8 (B, 3, S, S), or an `Assembly` where scenes are to be put together."""
    training: DVAETraining = args.training
    drawn = {"length": training.steps * training.batch_size, "flip": training.flip}
    if training.assembled_share == 0:
        return training_batches(pictures, args.data, training, accelerator, **drawn)
    together = {"share": training.assembled_share, "grid_size": grid_size}
    return assembled_batches(pictures, args.data, training, accelerator, **drawn, **together)


def on_device(batch: Tensor | Assembly, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor]:
    """What is encoded, (M, 3, S, S); the cells that are decoded, None for its own; what these are to show."""
    if not isinstance(batch, Assembly):
        pixel_values = to_pixel_values(batch, device)
        return pixel_values, None, pixel_values
    encoded, scenes = to_pixel_values(batch.images, device), to_pixel_values(batch.scenes, device)
    pictures = len(batch.cells) - len(scenes)
    return encoded, batch.cells.to(device), torch.cat([encoded[:pictures], scenes])


class Phases(nn.Module):
    """What learns in a step, by the phase's name: of what DDP wraps, `forward` alone synchronises."""

    def __init__(self, dvae: DVAE):
        super().__init__()
        self.dvae = dvae

    def forward(self, pixel_values: Tensor, phase: str, temperature: float, cells: Tensor | None) -> AutoencoderOutput:
        if phase == "autoencoder":
            return self.dvae.autoencode(pixel_values, cells)
        if phase == "decoder":
            return self.dvae.decode_argmax(pixel_values, cells)
        return self.dvae(pixel_values, temperature, cells)


def has_phases(training: DVAETraining) -> bool:
    """Whether some parameters rest in some steps, which DDP has to be told."""
    return training.autoencoder_steps > 0 or training.decoder_steps > 0


def phase(step: int, training: DVAETraining) -> str:
    """What learns at a step: an autoencoder without codes, then the dVAE, then its decoder alone."""
    if step < training.autoencoder_steps:
        return "autoencoder"
    return "dvae" if step < training.steps - training.decoder_steps else "decoder"


def schedules(step: int, training: DVAETraining) -> tuple[float, float, float]:
    """lr, τ and β at a step. τ and β count from the end of the warm-up; the decoder's own phase has its own lr."""
    first = training.steps - training.decoder_steps
    lr = warmup_cosine(step, training.lr, training.lr_end, training.warmup_steps, first)
    if step >= first:
        lr = cosine(step - first, training.lr, training.lr_end, training.decoder_steps)
    since = max(step - training.autoencoder_steps, 0)
    temperature = cosine(since, training.temperature, training.temperature_end, training.temperature_steps)
    return lr, temperature, cosine(since, 0.0, training.kl_weight, training.kl_steps)


def check_warmup(told: dict[str, Any], training: DVAETraining) -> None:
    """
    Raises a ValueError where a run that goes on from a checkpoint would not fill its codebook, or a second time.

    told: what the checkpoint tells of its run.
    """
    step, now = told["step"], training.autoencoder_steps
    before = told.get("autoencoder_steps", now)
    if (step > before) != (step > now):
        raise ValueError(
            f"the checkpoint of step {step} is of a run with autoencoder_steps={before}, not {now}, which lie on "
            f"the other side of it: resume with --training.autoencoder_steps {before}, or start anew"
        )


def enter_phase(run: Run, dvae: DVAE, pictures: TrainingPictures) -> None:
    """What is done once, between a phase's last step and the next one's first."""
    training = cast(DVAETraining, run.training)
    if 0 < run.step == training.autoencoder_steps:
        fill_codebook(dvae, pictures, training, run.accelerator)
        run.average.restart()
    if run.step == training.steps - training.decoder_steps:
        run.average.copy_to_model()  # the encoder stays as it is averaged


@torch.no_grad()
def fill_codebook(dvae: DVAE, pictures: TrainingPictures, training: DVAETraining, accelerator: Accelerator) -> None:
    """The codebook becomes the k-means of latents of fresh draws, the first process's on all."""
    if not isinstance(dvae.posterior, LatentPosterior):
        return
    count = math.ceil(training.kmeans_latents / dvae.config.grid_size**2)
    latents = []
    for images in some_pictures(pictures, count, training.seed + 1, scenes=0.25 if pictures.kind.composes else 0.0):
        z = dvae.posterior.project(dvae.encoder(to_pixel_values(images, accelerator.device)))
        latents.append(z.movedim(1, -1).flatten(0, 2))  # (B·h·w, E)
    centres, mean_distance = kmeans(torch.cat(latents), dvae.config.codebook_size, seed=training.seed)
    centres, mean_distance = (cast(Tensor, broadcast(of_first)) for of_first in (centres, mean_distance))
    dvae.posterior.set_codebook(centres, mean_distance)  # the same on all: sums on GPUs differ in the last bit
    accelerator.print(
        f"codebook from k-means of {sum(map(len, latents)):,} latents, mean distance {mean_distance:.4g}"
    )


def report(dvae: DVAE, validation: Pictures, args, run: Run) -> None:
    """Evaluates the averaged weights, saves them, and a picture: above as is, below through the codes."""
    numbers, pairs = evaluate_dvae(dvae, validation, run.accelerator.device)
    run.evaluated({f"validation_{name}": value for name, value in numbers.items()})
    run.show("reconstructions", to_pil_image(make_grid(pairs, nrow=len(pairs) // 2)))
    with saved_whole(run.output_dir / "dvae", WEIGHTS) as folder:
        dvae.save_pretrained(folder)
        DVAEImageProcessor(dvae.config.image_size).save_pretrained(folder)
        save_numbers(folder / "metrics.json", {"step": run.step, **numbers})
        save_numbers(folder / "recipe.json", args.training.recipe())
        save_provenance(folder, run.facts)


def save_networks(adversaries: list[Adversary], folder: Path) -> None:
    """The adversaries' networks, each alone in a folder of its own, apart from the dVAE."""
    for adversary in adversaries:
        with saved_whole(folder / adversary.name, WEIGHTS) as own:
            adversary.network.save_pretrained(own)


if __name__ == "__main__":
    run_command(partial(plan_or_train, "dvae", DVAETraining, main, __doc__, KINDS), leave_processes)
