"""Trains the dVAE: pictures -> codes -> pictures.

    accelerate launch -m training.train_dvae training/configs/emoji_cpu.yaml [--training.steps 100 …] [--dry_run]

Leaves output_dir/dvae (averaged weights, config, image processor, metrics.json), checkpoints and pictures beside it;
the networks of adversaries, where the preset has any, in output_dir/adversaries.
"""

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, set_seed
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from dvae import DVAE, AutoencoderOutput, DVAEConfig, DVAEImageProcessor, LatentPosterior

from .adversaries.beside_the_dvae import Adversary, DVAEStep, build_adversaries
from .codes.kmeans import kmeans
from .evaluation.validation import evaluate_dvae
from .loop.engine import make_accelerator, need_whole_weights, ready, same_draws
from .loop.losses import dvae_losses
from .loop.pretrained import find_part, freeze
from .loop.run import Run
from .loop.run_log import save_numbers
from .loop.schedules import cosine, warmup_cosine
from .loop.stepping import set_lr
from .pictures.in_memory import Pictures, to_pixel_values
from .pictures.loaders import TrainingPictures, load_pictures, some_pictures, stream_parts, training_batches
from .pictures.splits import fit_scenes
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
        dvae = DVAE.from_pretrained(find_part(training.init_from, "dvae"), dtype=torch.float32)
    else:
        with same_draws(training.seed):
            dvae = DVAE(DVAEConfig(**(model or {})))
    freeze(dvae, training.freeze)
    accelerator.print(
        f"dVAE: {dvae.num_parameters() / 1e6:.2f} M parameters, {dvae.config.grid_size}² codes a picture"
    )
    return dvae


def train(
    dvae: DVAE, pictures: TrainingPictures, validation: Pictures, args, accelerator: Accelerator, output_dir: Path
):
    training: DVAETraining = args.training
    dvae = dvae.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        dvae.parameters(), lr=training.lr, betas=training.betas, weight_decay=training.weight_decay, fused=True
    )
    length = training.steps * training.batch_size
    loader = training_batches(pictures, args.data, training, accelerator, length=length, flip=training.flip)
    ready(dvae, training, [dvae.encoder, dvae.decoder])
    model, optimizer = accelerator.prepare(Phases(dvae), optimizer)
    adversaries = build_adversaries(dvae, training, accelerator)
    parts = {name: part for adversary in adversaries for name, part in adversary.parts().items()}
    parts |= stream_parts(loader)

    def evaluate(average: DVAE, run: Run) -> None:
        report(average, validation, args, run)
        save_networks(adversaries, output_dir / "adversaries")

    parts |= {"model": dvae, "optimizer": optimizer, "report": evaluate}
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
                pixel_values = to_pixel_values(images, accelerator.device)
                output = model(pixel_values, phase(run.step, training), temperature)
                losses = dvae_losses(pixel_values, output, dvae.likelihood, kl_weight)
                for adversary in adversaries:
                    losses |= adversary.losses(since_warmup, DVAEStep(pixel_values, output, losses, kl_weight))
                run.descend(losses["loss"])
                for adversary in adversaries:
                    losses |= adversary.learn(since_warmup, DVAEStep(pixel_values, output, losses, kl_weight))
            new_step = run.end_step(losses, lr=lr, temperature=temperature, kl_weight=kl_weight)


class Phases(nn.Module):
    """What learns in a step, by the phase's name: of what DDP wraps, `forward` alone synchronises."""

    def __init__(self, dvae: DVAE):
        super().__init__()
        self.dvae = dvae

    def forward(self, pixel_values: Tensor, phase: str, temperature: float) -> AutoencoderOutput:
        if phase == "autoencoder":
            return self.dvae.autoencode(pixel_values)
        return self.dvae.decode_argmax(pixel_values) if phase == "decoder" else self.dvae(pixel_values, temperature)


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


def enter_phase(run: Run, dvae: DVAE, pictures: TrainingPictures) -> None:
    """What is done once, between a phase's last step and the next one's first."""
    training: DVAETraining = run.training
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
    count = training.kmeans_latents // dvae.config.grid_size**2
    latents = []
    for images in some_pictures(pictures, count, training.seed + 1, scenes=0.25 if pictures.kind.composes else 0.0):
        z = dvae.posterior.project(dvae.encoder(to_pixel_values(images, accelerator.device)))
        latents.append(z.movedim(1, -1).flatten(0, 2))  # (B·h·w, E)
    centres, mean_distance = kmeans(torch.cat(latents), dvae.config.codebook_size, seed=training.seed)
    dvae.posterior.set_codebook(broadcast(centres), broadcast(mean_distance))  # sums on GPUs differ in the last bit
    accelerator.print(
        f"codebook from k-means of {sum(map(len, latents)):,} latents, mean distance {mean_distance:.4g}"
    )


def report(dvae: DVAE, validation: Pictures, args, run: Run) -> None:
    """Evaluates the averaged weights, saves them, and a picture: above as is, below through the codes."""
    output_dir = run.output_dir
    numbers, pairs = evaluate_dvae(dvae, validation, run.accelerator.device)
    run.evaluated({f"validation_{name}": value for name, value in numbers.items()})
    run.show("reconstructions", to_pil_image(make_grid(pairs, nrow=len(pairs) // 2)))
    dvae.save_pretrained(output_dir / "dvae")
    DVAEImageProcessor(dvae.config.image_size).save_pretrained(output_dir / "dvae")
    save_numbers(output_dir / "dvae" / "metrics.json", {"step": run.step, **numbers})
    save_numbers(output_dir / "dvae" / "recipe.json", args.training.recipe())


def save_networks(adversaries: list[Adversary], folder: Path) -> None:
    """The adversaries' networks, each alone in a folder of its own, apart from the dVAE."""
    for adversary in adversaries:
        adversary.network.save_pretrained(folder / adversary.name)


if __name__ == "__main__":
    plan_or_train("dvae", DVAETraining, main, __doc__, KINDS)
