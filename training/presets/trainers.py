"""What each trainer takes of its section of a preset."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from pipelines.drawing.settings import SamplingSettings

from ..adversaries.adversary_settings import AdversarySettings, PixelSettings, PosteriorSettings, StyleSettings
from ..adversaries.gan import GANSettings
from ..loop.loop_training import LoopTraining
from ..loop.pretrained import LoraSettings
from ..loop.schedules import Steps, in_steps


@dataclass
class TokenizerTraining:
    """
    vocab_size: BPE tokens, pad included. text_length: T, a caption's tokens. captions: how many to learn from.
    keep: leave a tokenizer that is there as it is, since a prior learned with it. seed: of captions that are drawn.
    """

    vocab_size: int = 16384
    text_length: int = 256
    captions: int = 100_000
    keep: bool = False
    seed: int = 0


@dataclass
class DVAETraining(LoopTraining):
    """
    temperature, temperature_end, temperature_steps: of the relaxed codes, τ: a cosine from its start to its end.
    kl_weight, kl_steps: of the KL, β: a cosine from 0 to the weight.
    autoencoder_steps: a warm-up without codes, after which the codebook is the k-means of the latents.
    kmeans_latents: how many latents the k-means sees.
    decoder_steps: the last of the steps, in which the decoder alone learns, on argmax codes as in painting.
        Each is a number of steps, or a share of `steps`, such as "10%"; so are an adversary's start and warmup.
    flip: random horizontal flips; captions play no part in the dVAE.
    assembled_share: of each batch, scenes that are put together of the cells of pieces (pictures/assembled.py), for
        sets that lay their scenes out, such as named cut-outs.
    freeze: shell patterns of the names of parameters that learn nothing, such as [encoder*].
    pixel_adversary, posterior_adversary, style_adversary: None, or the settings of one
        (`--training.pixel_adversary '{}'` takes its defaults).
    """

    temperature: float = 1.0
    temperature_end: float = 1 / 16
    temperature_steps: Steps = 150_000
    kl_weight: float = 6.6
    kl_steps: Steps = 5000
    autoencoder_steps: Steps = 0
    kmeans_latents: int = 65_536
    decoder_steps: Steps = 0
    flip: bool = True
    assembled_share: float = 0.0
    freeze: list[str] = field(default_factory=list)
    pixel_adversary: PixelSettings | None = None
    posterior_adversary: PosteriorSettings | None = None
    style_adversary: StyleSettings | None = None

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.assembled_share <= 1:
            raise ValueError(f"assembled_share={self.assembled_share} must be in [0, 1]")
        if self.assembled_share > 0 and (self.posterior_adversary or self.style_adversary):
            raise ValueError(
                f"assembled_share={self.assembled_share}: a scene that is put together has no codes or style that are "
                "its own, which posterior_adversary and style_adversary judge: set it to 0"
            )
        for name in ("temperature_steps", "kl_steps", "autoencoder_steps", "decoder_steps"):
            setattr(self, name, in_steps(name, getattr(self, name), self.steps))
        if self.init_from is not None and self.autoencoder_steps > 0:
            raise ValueError(
                f"autoencoder_steps={self.autoencoder_steps} would end in a new codebook, in place of the one of "
                f"init_from={self.init_from!r}: add --training.autoencoder_steps 0"
            )
        self._check_phases()
        for name in ("pixel_adversary", "posterior_adversary", "style_adversary"):
            if (adversary := getattr(self, name)) is not None:
                setattr(self, name, self._in_steps(name, adversary))

    def _in_steps(self, name: str, adversary: AdversarySettings) -> AdversarySettings:
        """Its settings in whole steps. Raises a ValueError for one that would never be listened to."""
        start, warmup = (in_steps(f"{name}.{key}", getattr(adversary, key), self.steps) for key in ("start", "warmup"))
        if start > 0 and start >= self.steps - self.autoencoder_steps:
            raise ValueError(
                f"{name}.start={start} is past the last of the {self.steps - self.autoencoder_steps} steps that "
                f"autoencoder_steps={self.autoencoder_steps} of steps={self.steps} leave: give an earlier one, or a "
                "share such as '30%', which fits any run"
            )
        return replace(adversary, start=start, warmup=warmup)

    def _check_phases(self) -> None:
        """Raises a ValueError where no step would be left to learn codes, or the phases are more than the run."""
        before, after = self.autoencoder_steps, self.decoder_steps
        remedy = "give fewer, or shares such as '10%', which fit any run"
        if before + after > self.steps or 0 < before == self.steps:
            raise ValueError(
                f"autoencoder_steps={before} and decoder_steps={after} do not fit into steps={self.steps}: {remedy}"
            )
        first = self.steps - after
        if 0 < first < self.warmup_steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} do not fit into the {first} steps that decoder_steps={after} of "
                f"steps={self.steps} leave: {remedy}"
            )

    def unfinished(self) -> list[str]:
        left = self.steps - self.autoencoder_steps
        ends = {
            "temperature_steps": f"the temperature does not come down to {self.temperature_end:g}",
            "kl_steps": f"the KL's weight does not rise to {self.kl_weight:g}",
        }
        return [
            f"{name}={getattr(self, name)} are more than the {left} steps that there are for it: {what}"
            for name, what in ends.items()
            if getattr(self, name) > left
        ]


@dataclass
class PriorTraining(LoopTraining):
    """
    caption_dropout: share of captions replaced by the empty one, for guidance. bpe_dropout: merges left out.
    cached_scenes: composed scenes encoded beside the pictures. scene_share: share of each batch drawn from them.
    blocks: scenes are instead put together at each draw, of blocks of codes that are cached of their pieces, and
        pictures too (codes/blocks.py); for sets that lay their scenes out, such as named cut-outs.
    sampling: defaults of the saved pipeline (guidance_scale, temperature, top_k, top_p).
    dvae, tokenizer: folders or Hub ids of these, or of pipelines that hold them, or "embedded"; None takes those of
        the pipeline that init_from names, or else output_dir/dvae and output_dir/tokenizer.
    codes: their cache, output_dir/codes unless given. crops, flips: how often a picture is in it (codes.views.Views).
    freeze: shell patterns of the names of parameters that learn nothing, such as ["embeddings.text*"].
    lora: None, or the settings of an adapter that learns alone (`--training.lora '{rank: 8}'`).
    optimizer: "adamw", or "muon": of the blocks' matrices, at the same lr, beside AdamW of all else.
    text_loss_weight: of the prior that init_from names, in place of its config's. Captions cannot be learned by heart:
        their gradient is noise to a prior that has learned its pictures.
    """

    caption_dropout: float = 0.1
    bpe_dropout: float = 0.1
    cached_scenes: int = 0
    scene_share: float = 0.0
    blocks: bool = False
    sampling: dict[str, Any] = field(default_factory=dict)
    dvae: str | None = None
    tokenizer: str | None = None
    codes: str | None = None
    crops: int = 1
    flips: bool = False
    freeze: list[str] = field(default_factory=list)
    lora: LoraSettings | None = None
    optimizer: Literal["adamw", "muon"] = "adamw"
    text_loss_weight: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.blocks and (self.cached_scenes or self.crops > 1 or self.flips):
            asked = f"cached_scenes={self.cached_scenes}, crops={self.crops}, flips={self.flips}"
            raise ValueError(f"blocks put scenes together afresh, of pieces as they are: leave {asked} out")
        try:
            SamplingSettings(**self.sampling)
        except (TypeError, ValueError) as error:
            known = ", ".join(field.name for field in fields(SamplingSettings))
            raise ValueError(f"sampling={self.sampling}: {error}; its keys are {known}") from error
        if self.lora is not None and self.init_from is None:
            raise ValueError("lora adapts a trained prior: say which with --training.init_from")
        if self.text_loss_weight is not None and self.text_loss_weight < 0:
            raise ValueError(f"text_loss_weight={self.text_loss_weight} must not be negative")
        if self.text_loss_weight is not None and self.init_from is None:
            raise ValueError(
                f"text_loss_weight={self.text_loss_weight} is of a prior that init_from names: a new one takes "
                "--model.text_loss_weight"
            )
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
    warmup_steps: Steps = "5.5%"
    weight_decay: float = 0.05
    ema: float = 0.99
    bpe_dropout: float = 0.1
    dvae: str | None = None
    tokenizer: str | None = None

    def __post_init__(self):
        super().__post_init__()
        self.starts_anew("a reranker")


@dataclass
class GANTraining(LoopTraining, GANSettings):
    """
    The game of `GANSettings` on pictures. ema averages the generator.

    lr: the generator's. discriminator_lr_ratio: the discriminator's lr is so many times it, on the same schedule.
    flip: random horizontal flips.
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
        self.starts_anew("a GAN")
