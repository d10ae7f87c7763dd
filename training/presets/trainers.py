"""Presets: one YAML for all trainers, overridden by dotted flags; a typo is an error that names the key.

    output_dir: runs/mine
    data: {path: ..., ...}
    tokenizer: {vocab_size: ..., ...}
    dvae: {model: {...}, training: {...}}
    prior: {model: {...}, training: {...}}
    reranker: {model: {...}, training: {...}}
    gan: {model: {generator: {...}, discriminator: {...}}, training: {...}}

A trainer reads `output_dir`, `data` and its own section, so that `--training.lr` means its own.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..adversaries.gan import GANSettings
from ..loop.loop_training import LoopTraining
from ..pictures.data_arguments import DataArguments

SECTIONS = ("output_dir", "data", "tokenizer", "dvae", "prior", "reranker", "gan")


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
    codes: their cache, output_dir/codes unless given. crops, flips: how often a picture is in it (codes.views.Views).
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
        super().__post_init__()
        if self.lora is not None and self.init_from is None:
            raise ValueError("lora adapts a trained prior: say which with --training.init_from")
        if self.lora is not None and self.freeze:
            raise ValueError(f"lora freezes all but its own: leave freeze={self.freeze} out")


@dataclass
class RerankerTraining(LoopTraining):
    """
    A picture's wrong captions are those of the other pictures of its process's micro-batch. ema averages the weights.
    bpe_dropout: merges left out.
    dvae, tokenizer: folders or Hub ids of these, or of pipelines that hold them, or "embedded"; None takes
        output_dir/dvae, whose pictures' size it learns at, 64 without one, and output_dir/tokenizer.
    """

    steps: int = 900
    batch_size: int = 128
    lr: float = 2e-3
    lr_end: float = 1e-5
    warmup_steps: int = 50
    weight_decay: float = 0.05
    ema: float = 0.99
    bpe_dropout: float = 0.1
    dvae: str | None = None
    tokenizer: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.init_from is not None:
            raise ValueError(f"init_from={self.init_from!r} is for the dVAE and the prior: a reranker starts anew")
        if self.activation_checkpointing or self.compile:
            raise ValueError("activation_checkpointing and compile are for the dVAE and the prior: leave them out")


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
        LoopTraining.__post_init__(self)
        GANSettings.__post_init__(self)
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
    parser.add_argument("--config", action="config", help="a YAML of the keys below; a PRESET has sections of them")
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
