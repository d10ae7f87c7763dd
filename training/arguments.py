"""Presets: one YAML for the three trainers, overridden by dotted flags; a typo is an error that names the key.

    output_dir: runs/mine
    data: {path: ..., ...}
    tokenizer: {vocab_size: ..., ...}
    dvae: {model: {...}, training: {...}}
    prior: {model: {...}, training: {...}}
    gan: {model: {generator: {...}, discriminator: {...}}, training: {...}}

A trainer reads `output_dir`, `data` and its own section, so that `--training.lr` means its own.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from .data_arguments import DataArguments
from .gan import GANSettings

NOT_RECIPE = {
    "num_workers", "log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints", "resume_from", "init_from",
    "log_with", "sampling", "dvae", "tokenizer", "compile", "activation_checkpointing", "max_skipped_steps",
}  # fmt: skip
Tracker = Literal["tensorboard", "wandb", "trackio"]
SECTIONS = ("output_dir", "data", "tokenizer", "dvae", "prior", "gan")


@dataclass
class TokenizerTraining:
    """
    vocab_size: BPE tokens, pad included. text_length: T, a caption's tokens. captions: how many to learn from.
    keep: leave a tokenizer that is there as it is, since a prior learned with it.
    """

    vocab_size: int = 16384
    text_length: int = 256
    captions: int = 100_000
    keep: bool = False
    seed: int = 0


@dataclass
class LoopTraining:
    """
    What both loops take.

    batch_size: pictures that an optimiser step sees, over all processes and accumulation steps, so that a preset
        means the same on one CPU and on many GPUs.
    steps: optimiser steps. lr falls on a cosine from its peak, after `warmup_steps`, to `lr_end`.
    ema: decay of the averaged weights, which are evaluated and saved.
    resume_from: a checkpoint folder, or "latest".
    init_from: the weights to start from: a saved model's folder or Hub id, or a whole pipeline's, or "embedded";
        its config is theirs, and the preset's `model` is not read.
    keep_checkpoints: the newest ones kept.
    max_skipped_steps: how many steps in a row may have a loss or gradient that is not finite; each changes nothing.
    activation_checkpointing: each block's activations are computed again in the backward pass, not kept.
    compile: the blocks, by torch.compile.
    log_with: trackers that are told a run's numbers and pictures, each installed (`pip install "armchair[trackers]"`).
    powersgd_rank: of the gradients that DDP's processes send each other after the warm-up; None sends them whole.
    """

    steps: int = 1000
    batch_size: int = 32
    gradient_accumulation_steps: int = 1
    mixed_precision: str = "no"
    lr: float = 1e-4
    lr_end: float = 1.25e-6
    warmup_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    max_grad_norm: float | None = None
    ema: float = 0.999
    seed: int = 0
    num_workers: int = 0
    log_every: int = 20
    evaluate_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    max_skipped_steps: int = 20
    activation_checkpointing: bool = False
    compile: bool = False
    powersgd_rank: int | None = None
    log_with: Tracker | list[Tracker] | None = None
    resume_from: str | None = None
    init_from: str | None = None

    def local_batch_size(self, num_processes: int) -> int:
        """Pictures of one process in one forward pass. Raises a ValueError when the batch does not divide."""
        parts = num_processes * self.gradient_accumulation_steps
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size={self.batch_size} must be divisible by {num_processes} processes × "
                f"{self.gradient_accumulation_steps} gradient_accumulation_steps = {parts}"
            )
        return self.batch_size // parts

    def recipe(self) -> dict[str, Any]:
        """What shaped the weights, for the model card: the settings that are on, but for logs, files and painting."""
        on = {name: value for name, value in asdict(self).items() if name not in NOT_RECIPE}
        return {name: value for name, value in on.items() if value not in (None, []) and value is not False}


@dataclass
class AdversarySettings:
    """
    start: the step, after the dVAE's warm-up as an autoencoder, from which it listens to the adversary.
    warmup: how many steps before that its own network starts to learn, so that it has something to say.
    width: channels of its network. lr, betas: of its Adam.
    """

    start: int = 0
    warmup: int = 0
    width: int = 64
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.9)


@dataclass
class PixelSettings(AdversarySettings):
    """
    weight: the adversary's gradient at the decoder's last layer, as a multiple of the reconstruction's.
    num_layers: of the patch discriminator: a receptive field of 16, 34 or 70 pixels at 1, 2 or 3.
    objective: "hinge", "non_saturating" or "minimax". r1: γ of γ/2 · E‖∇D‖² on pictures; 0 leaves it out.
    """

    weight: float = 0.5
    num_layers: int = 2
    objective: str = "hinge"
    r1: float = 0.0


@dataclass
class PosteriorSettings(AdversarySettings):
    """
    draws: fixed noises that the marginals are averaged over. baseline: decay of the mean that the score function
        subtracts.
    """

    draws: int = 16
    baseline: float = 0.95


@dataclass
class StyleSettings(AdversarySettings):
    """draws: noises that the moments of adaptive contrast are averaged over."""

    draws: int = 16


@dataclass
class DVAETraining(LoopTraining):
    """
    temperature, temperature_end, temperature_steps: cosine of τ. kl_weight, kl_steps: cosine of β from 0.
    autoencoder_steps: a warm-up without codes, after which the codebook is the k-means of the latents.
    kmeans_latents: how many latents the k-means sees.
    decoder_steps: the last of the steps, in which the decoder alone learns, on argmax codes as in painting.
    flip: random horizontal flips; captions play no part in the dVAE.
    freeze: shell patterns of the names of parameters that learn nothing, such as [encoder*].
    pixel_adversary, posterior_adversary, style_adversary: None, or the settings of one
        (`--training.pixel_adversary '{}'` takes its defaults).
    """

    temperature: float = 1.0
    temperature_end: float = 1 / 16
    temperature_steps: int = 150_000
    kl_weight: float = 6.6
    kl_steps: int = 5000
    autoencoder_steps: int = 0
    kmeans_latents: int = 65_536
    decoder_steps: int = 0
    flip: bool = True
    freeze: list[str] = field(default_factory=list)
    pixel_adversary: PixelSettings | None = None
    posterior_adversary: PosteriorSettings | None = None
    style_adversary: StyleSettings | None = None


@dataclass
class LoraSettings:
    """
    Low-rank adapters: y = W x + alpha / rank · B A x, W frozen, B 0 at the start (arXiv 2106.09685).

    targets: which linear layers of a block. train: modules trained whole and saved with the adapter, such as [text],
        the text embedding. dropout: of x.
    """

    rank: int = 16
    alpha: float = 32
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["qkv", "output", "hidden"])
    train: list[str] = field(default_factory=list)


@dataclass
class PriorTraining(LoopTraining):
    """
    caption_dropout: share of captions replaced by the empty one, for guidance. bpe_dropout: merges left out.
    cached_scenes: composed scenes encoded beside the pictures. scene_share: share of each batch drawn from them.
    sampling: defaults of the saved pipeline (guidance_scale, temperature, top_k, top_p).
    dvae, tokenizer: folders or Hub ids of these, or of pipelines that hold them, or "embedded"; None takes those of
        the pipeline that init_from names, or else output_dir/dvae and output_dir/tokenizer.
    codes: their cache, output_dir/codes unless given. crops, flips: how often a picture is in it (code_cache.Views).
    freeze: shell patterns of the names of parameters that learn nothing, such as ["embeddings.text*"].
    lora: None, or the settings of an adapter that learns alone (`--training.lora '{rank: 8}'`).
    """

    caption_dropout: float = 0.1
    bpe_dropout: float = 0.1
    cached_scenes: int = 0
    scene_share: float = 0.0
    sampling: dict[str, Any] = field(default_factory=dict)
    dvae: str | None = None
    tokenizer: str | None = None
    codes: str | None = None
    crops: int = 1
    flips: bool = False
    freeze: list[str] = field(default_factory=list)
    lora: LoraSettings | None = None

    def __post_init__(self):
        if self.lora is not None and self.init_from is None:
            raise ValueError("lora adapts a trained prior: say which with --training.init_from")
        if self.lora is not None and self.freeze:
            raise ValueError(f"lora freezes all but its own: leave freeze={self.freeze} out")


@dataclass
class GANTraining(LoopTraining, GANSettings):
    """
    The game of `GANSettings` on pictures. lr is the generator's; the discriminator's is discriminator_lr_ratio times
    it, on the same schedule. ema averages the generator. flip: random horizontal flips.
    """

    lr: float = 2e-4
    lr_end: float = 2e-5
    betas: tuple[float, float] = (0.0, 0.99)
    weight_decay: float = 0.0
    discriminator_lr_ratio: float = 1.0
    flip: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.gradient_accumulation_steps != 1:
            raise ValueError(
                f"gradient_accumulation_steps={self.gradient_accumulation_steps} must be 1: a GAN's two steps "
                "alternate on each batch; take a smaller batch_size, or more processes"
            )
        if self.init_from is not None:
            raise ValueError(f"init_from={self.init_from!r} is for the dVAE and the prior: a GAN starts anew")
        if self.activation_checkpointing or self.compile:
            raise ValueError("activation_checkpointing and compile are for the dVAE and the prior: leave them out")


def parse(
    section: str,
    training_type: type,
    argv: list[str] | None = None,
    doc: str | None = None,
    program: str | None = None,
):
    """`PRESET [--data.… --model.… --training.… --output_dir …]` -> a namespace of these, each of its own type."""
    from jsonargparse import ArgumentParser

    argv = list(sys.argv[1:] if argv is None else argv)
    program = f"python -m training.{program or f'train_{section}'}"
    usage = f"{program} PRESET [--training.KEY VALUE …] [--model.KEY VALUE …] [--data.KEY VALUE …]"
    parser = ArgumentParser(prog=program, usage=usage, description=doc)
    parser.add_argument("--config", action="config", help="the preset; the first argument without a flag is one too")
    parser.add_argument("--output_dir", type=str, required=True)
    parser.add_class_arguments(DataArguments, "data")
    parser.add_class_arguments(training_type, "training")
    parser.add_argument("--model", type=dict[str, Any] | None, default=None, help="fields of the model's config")
    if argv and not argv[0].startswith("-"):
        try:
            argv[:1] = ["--config", json.dumps(read_preset(Path(argv[0]), section))]
        except (OSError, ValueError) as error:
            parser.error(str(error))
    args = parser.parse_args(argv)
    return parser.instantiate(args)


def read_preset(path: Path, section: str) -> dict[str, Any]:
    """The YAML at `path` -> what the trainer of `section` reads of it. Raises a ValueError that names a wrong key."""
    if not path.is_file():
        raise FileNotFoundError(f"no preset at {path}: training/configs/ holds those of this project")
    preset = yaml.safe_load(path.read_text()) or {}
    unknown = set(preset) - set(SECTIONS)
    if unknown:
        raise ValueError(f"{path}: unknown key {sorted(unknown)[0]!r}; a preset holds {', '.join(SECTIONS)}")
    own = preset.get(section) or {}
    if section == "tokenizer":
        own = {"training": own}
    shared = {key: preset[key] for key in ("output_dir", "data") if key in preset}
    return {**shared, **own}
