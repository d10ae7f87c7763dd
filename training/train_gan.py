"""Trains a GAN of pictures: noise -> pictures, against a patch discriminator.

    python -m training.train_gan training/configs/emoji_gan.yaml [--training.r1_gamma 1 …]

Leaves output_dir/gan/generator (averaged weights), output_dir/gan/discriminator, checkpoints and pictures beside them.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from dvae import GANGenerator, PatchDiscriminator
from pipelines.folder.whole import saved_whole

from .adversaries.gan import gan_step
from .adversaries.objectives import gan_value
from .evaluation.validation import validation_images
from .loop.command import run_command
from .loop.engine import leave_processes, make_accelerator, need_whole_weights, same_draws
from .loop.provenance import save_provenance
from .loop.run import Run
from .loop.run_log import save_numbers
from .loop.schedules import warmup_cosine
from .loop.stepping import set_lr
from .pictures.in_memory import to_pixel_values
from .pictures.loaders import TrainingPictures, load_pictures, stream_parts, training_batches
from .pictures.splits import data_fact, fit_scenes
from .presets.models import gan_configs
from .presets.reading import parse
from .presets.trainers import GANTraining
from .sets import KINDS


class Networks(nn.ModuleDict):
    generator: GANGenerator
    discriminator: PatchDiscriminator


def main(argv: list[str] | None = None) -> Networks:
    """Returns `generator` and `discriminator` as trained, without the average."""
    args = parse("gan", GANTraining, argv, __doc__)
    training = args.training
    accelerator = make_accelerator(training)
    need_whole_weights(accelerator, "a GAN")
    fit_scenes(args, KINDS, accelerator.print)
    set_seed(training.seed, device_specific=True)
    models = build(args.model or {}, training.seed)
    networks = {"generator": models.generator, "discriminator": models.discriminator}
    count = {name: f"{model.num_parameters() / 1e6:.2f} M" for name, model in networks.items()}
    accelerator.print(f"GAN: {count}, a patch of {models.discriminator.config.receptive_field} pixels")
    size = models.generator.config.image_size
    pictures, validation = load_pictures(
        args.data, size, accelerator, KINDS, captions=False, batch_size=training.batch_size
    )
    train(models, pictures, validation_images(validation, 256), args, accelerator, Path(args.output_dir))
    return models


def build(model: dict, seed: int) -> Networks:
    """The two networks of the preset's `model: {generator: …, discriminator: …}`, the same on every process."""
    generator, discriminator = gan_configs(model)
    with same_draws(seed):
        networks = {"generator": GANGenerator(generator), "discriminator": PatchDiscriminator(discriminator)}
    return Networks(networks)


def train(
    models: Networks,
    pictures: TrainingPictures,
    validation: Tensor,
    args,
    accelerator: Accelerator,
    output_dir: Path,
) -> None:
    training: GANTraining = args.training
    models.to(memory_format=torch.channels_last)
    optimizers = [
        torch.optim.AdamW(model.parameters(), training.lr, training.betas, weight_decay=training.weight_decay)
        for model in models.values()
    ]
    local_batch_size = training.local_batch_size(accelerator.num_processes)
    length = training.steps * training.discriminator_steps * training.batch_size
    loader = training_batches(pictures, args.data, training, accelerator, length=length, flip=training.flip)
    prepared = accelerator.prepare(models.generator.train(), models.discriminator.train(), *optimizers)
    generator, discriminator, generator_optimizer, discriminator_optimizer = prepared
    parts: dict[str, Any] = {"discriminator": models.discriminator, "discriminator_optimizer": discriminator_optimizer}
    parts |= stream_parts(loader)

    def evaluate(average: GANGenerator, run: Run) -> None:
        report(average, models.discriminator, validation, run)

    run = Run(
        "gan",
        training,
        accelerator,
        output_dir,
        model=models.generator,
        optimizer=generator_optimizer,
        report=evaluate,
        facts={"data": data_fact(pictures.source, args.data)},
        **parts,
    )
    with run:
        batches = run.batches(loader, per_step=training.discriminator_steps)
        while run.step < training.steps:
            lr = warmup_cosine(run.step, training.lr, training.lr_end, training.warmup_steps, training.steps)
            set_lr(generator_optimizer, lr)
            set_lr(discriminator_optimizer, lr * training.discriminator_lr_ratio)
            losses = gan_step(
                generator,
                discriminator,
                generator_optimizer,
                discriminator_optimizer,
                sample_real=lambda count: to_pixel_values(next(batches), accelerator.device),
                sample_latents=lambda count: latents(count, models.generator, accelerator.device),
                batch_size=local_batch_size,
                settings=training,
                descend=run.descend,
            )
            run.end_step(losses, lr=lr)


def latents(count: int, generator: GANGenerator, device: torch.device, rng: torch.Generator | None = None) -> Tensor:
    """(count, Z) standard normal."""
    return torch.randn(count, generator.config.latent_size, generator=rng, device=device)


@torch.no_grad()
def report(
    generator: GANGenerator,
    discriminator: PatchDiscriminator,
    validation: Tensor,
    run: Run,
) -> None:
    """Saves the averaged generator, the discriminator, 64 pictures of fixed noise, and V on held-out pictures."""
    output_dir, device = run.output_dir, run.accelerator.device
    z = latents(len(validation), generator, device, torch.Generator(device).manual_seed(0))
    fake = torch.cat([generator(part) for part in z.split(64)])
    real_logits = torch.cat([discriminator(to_pixel_values(part, device)) for part in validation.split(64)])
    fake_logits = torch.cat([discriminator(part) for part in fake.split(64)])
    numbers = {"value": gan_value(real_logits, fake_logits).item()}
    run.evaluated({f"validation_{name}": value for name, value in numbers.items()})
    run.show("samples", to_pil_image(make_grid(fake[:64], nrow=8)))
    with saved_whole(output_dir / "gan", ("generator", "discriminator")) as folder:
        generator.save_pretrained(folder / "generator")
        discriminator.save_pretrained(folder / "discriminator")
        save_numbers(folder / "metrics.json", {"step": run.step, **numbers})
        save_provenance(folder, run.facts)


if __name__ == "__main__":
    run_command(main, leave_processes)
