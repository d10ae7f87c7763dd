"""Trains the dVAE: pictures -> codes -> pictures.

    accelerate launch -m training.train_dvae training/configs/emoji_cpu.yaml [--training.steps 100 …]

Leaves output_dir/dvae (averaged weights, config, image processor, metrics.json), checkpoints and pictures beside it;
the networks of adversaries, where the preset has any, in output_dir/adversaries.
"""

from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from torchvision.utils import save_image
from tqdm import tqdm

from dvae import DVAE, DVAEConfig, DVAEImageProcessor, LatentPosterior

from .adversaries import Adversary, Batch, build_adversaries
from .arguments import DVAETraining, parse
from .checkpoints import RunLog, averaged, load_checkpoint, save_checkpoint, save_numbers, set_lr
from .data import DrawnPictures, Pictures, in_order, load_split, to_pixel_values
from .evaluate import evaluate_dvae
from .kmeans import kmeans
from .losses import dvae_losses
from .precision import mixed_precision
from .schedules import cosine, warmup_cosine


def main(argv: list[str] | None = None) -> DVAE:
    args = parse("dvae", DVAETraining, argv, __doc__)
    training, output_dir = args.training, Path(args.output_dir)
    accelerator = Accelerator(
        mixed_precision=mixed_precision(training.mixed_precision),
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=has_phases(training))],
    )
    set_seed(training.seed, device_specific=True)
    with accelerator.local_main_process_first():
        pictures = Pictures(load_split(args.data, "train"), args.data, image_size(args.model))
        validation = Pictures(load_split(args.data, "validation"), args.data, image_size(args.model))
    dvae = build(args.model, training, accelerator)
    train(dvae, pictures, validation, args, accelerator, output_dir)
    return dvae


def image_size(model: dict | None) -> int:
    return DVAEConfig(**(model or {})).image_size


def build(model: dict | None, training: DVAETraining, accelerator: Accelerator) -> DVAE:
    if training.init_from:
        return DVAE.from_pretrained(training.init_from, dtype=torch.float32)
    torch.manual_seed(training.seed)  # the same weights on every process
    dvae = DVAE(DVAEConfig(**(model or {})))
    accelerator.print(
        f"dVAE: {dvae.num_parameters() / 1e6:.2f} M parameters, {dvae.config.grid_size}² codes a picture"
    )
    return dvae


def train(dvae: DVAE, pictures: Pictures, validation: Pictures, args, accelerator: Accelerator, output_dir: Path):
    training: DVAETraining = args.training
    dvae = dvae.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        dvae.parameters(), lr=training.lr, betas=training.betas, weight_decay=training.weight_decay, fused=True
    )
    ema = averaged(dvae, training.ema).to(accelerator.device)
    accumulation = training.gradient_accumulation_steps
    local_batch_size = training.local_batch_size(accelerator.num_processes)
    drawn = DrawnPictures(
        pictures, training.steps * training.batch_size, training.seed, args.data.scenes, training.flip
    )
    loader = in_order(drawn, local_batch_size, training.num_workers)
    model, optimizer, loader = accelerator.prepare(dvae.train(), optimizer, loader)
    adversaries = build_adversaries(dvae, training, accelerator)
    accelerator.register_for_checkpointing(ema)
    folder = output_dir / "dvae-checkpoints"
    step = load_checkpoint(accelerator, folder, training.resume_from)
    log = RunLog(output_dir / "dvae-log.jsonl", accelerator.is_main_process)
    bar = tqdm(total=training.steps, initial=step, desc="dvae", disable=not accelerator.is_main_process)

    new_step = True
    for images in accelerator.skip_first_batches(loader, step * accumulation):
        if new_step and 0 < step == training.autoencoder_steps:
            fill_codebook(dvae, ema, pictures, training, accelerator)
        if new_step and step == training.steps - training.decoder_steps:
            dvae.load_state_dict(ema.module.state_dict())  # the encoder stays as it is averaged
        lr, temperature, kl_weight = schedules(step, training)
        since_warmup = step - training.autoencoder_steps
        with accelerator.accumulate(model, *[adversary.wrapped for adversary in adversaries]):
            set_lr(optimizer, lr)
            pixel_values = to_pixel_values(images, accelerator.device)
            output = model(pixel_values, temperature=temperature, latents=phase(step, training))
            losses = dvae_losses(pixel_values, output, dvae.likelihood, kl_weight)
            for adversary in adversaries:
                losses |= adversary.losses(since_warmup, Batch(pixel_values, output, losses, kl_weight))
            accelerator.backward(losses["loss"])
            if accelerator.sync_gradients and training.max_grad_norm:
                accelerator.clip_grad_norm_(dvae.parameters(), training.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            for adversary in adversaries:
                losses |= adversary.learn(since_warmup, Batch(pixel_values, output, losses, kl_weight))
        new_step = accelerator.sync_gradients
        if not new_step:
            continue
        ema.update_parameters(dvae)
        step += 1
        bar.update()
        if step % training.log_every == 0:
            numbers = {name: loss.item() for name, loss in losses.items()}
            bar.set_postfix({name: f"{numbers[name]:.4g}" for name in ("loss", "reconstruction_loss", "kl")})
            log.write(step, lr=lr, temperature=temperature, kl_weight=kl_weight, **numbers)
        if step % training.evaluate_every == 0 or step == training.steps:
            report(ema.module, validation, args, accelerator, output_dir, step, log)
            save_networks(adversaries, output_dir / "adversaries", accelerator)
        if step % training.checkpoint_every == 0 or step == training.steps:
            save_checkpoint(accelerator, folder, step, training.keep_checkpoints)
    bar.close()


def has_phases(training: DVAETraining) -> bool:
    """Whether some parameters rest in some steps, which DDP has to be told."""
    return training.autoencoder_steps > 0 or training.decoder_steps > 0


def phase(step: int, training: DVAETraining) -> str:
    """What the decoder sees at a step: continuous latents, then relaxed codes, then argmax codes."""
    if step < training.autoencoder_steps:
        return "continuous"
    return "relaxed" if step < training.steps - training.decoder_steps else "argmax"


def schedules(step: int, training: DVAETraining) -> tuple[float, float, float]:
    """lr, τ and β at a step. τ and β count from the end of the warm-up; the decoder's own phase has its own lr."""
    first = training.steps - training.decoder_steps
    lr = warmup_cosine(step, training.lr, training.lr_end, training.warmup_steps, first)
    if step >= first:
        lr = cosine(step - first, training.lr, training.lr_end, training.decoder_steps)
    since = max(step - training.autoencoder_steps, 0)
    temperature = cosine(since, training.temperature, training.temperature_end, training.temperature_steps)
    return lr, temperature, cosine(since, 0.0, training.kl_weight, training.kl_steps)


@torch.no_grad()
def fill_codebook(dvae: DVAE, ema, pictures: Pictures, training: DVAETraining, accelerator: Accelerator) -> None:
    """The codebook becomes the k-means of latents of fresh draws, the same on every process; the average restarts."""
    if not isinstance(dvae.posterior, LatentPosterior):
        return
    count = training.kmeans_latents // dvae.config.grid_size**2
    drawn = DrawnPictures(pictures, count, training.seed + 1, scenes=0.25 if pictures.cutouts else 0.0)
    latents = []
    for images in DataLoader(drawn, 64):
        z = dvae.posterior.project(dvae.encoder(to_pixel_values(images, accelerator.device)))
        latents.append(z.movedim(1, -1).flatten(0, 2))  # (B·h·w, E)
    centres, mean_distance = kmeans(torch.cat(latents), dvae.config.codebook_size, seed=training.seed)
    dvae.posterior.set_codebook(centres, mean_distance)
    ema.module.load_state_dict(dvae.state_dict())
    accelerator.print(
        f"codebook from k-means of {sum(map(len, latents)):,} latents, mean distance {mean_distance:.4g}"
    )


def report(dvae: DVAE, validation: Pictures, args, accelerator: Accelerator, output_dir: Path, step: int, log: RunLog):
    """Evaluates the averaged weights on the first process, saves them, and a picture: above as is, below through."""
    if not accelerator.is_main_process:
        return
    dvae.eval()
    numbers, pairs = evaluate_dvae(dvae, validation, accelerator.device)
    log.write(step, **{f"validation_{name}": value for name, value in numbers.items()})
    tqdm.write(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
    folder = output_dir / "dvae-pictures"
    folder.mkdir(parents=True, exist_ok=True)
    save_image(pairs, folder / f"reconstructions-{step:07d}.png", nrow=16)
    dvae.save_pretrained(output_dir / "dvae")
    DVAEImageProcessor(dvae.config.image_size).save_pretrained(output_dir / "dvae")
    save_numbers(output_dir / "dvae" / "metrics.json", {"step": step, **numbers})


def save_networks(adversaries: list[Adversary], folder: Path, accelerator: Accelerator) -> None:
    """The adversaries' networks, each alone in a folder of its own, apart from the dVAE."""
    if accelerator.is_main_process:
        for adversary in adversaries:
            adversary.network.save_pretrained(folder / adversary.name)


if __name__ == "__main__":
    main()
