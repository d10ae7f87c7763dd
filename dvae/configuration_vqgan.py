"""The architecture of a VQGAN: saved as config.json, validated once, here."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from .checked_config import CheckedConfig


@strict
class VQGANConfig(CheckedConfig):
    """
    Architecture of a `VQGAN`; the defaults are those of f16 with 16,384 codes (arXiv 2012.09841).

    image_size: side of the square pictures that a pipeline paints, in pixels; the network itself takes any sides that
        `downsample_factor` divides.
    channels: of the first convolution. channel_multipliers: of a level's channels over it, from full resolution down
        to the grid; one level more than halvings.
    blocks_per_level: residual blocks of a level of the encoder; the decoder has one more.
    attention_levels: levels, 0 at full resolution, where an attention follows each block; the middle always has one.
    latent_channels: of the encoder's output and the decoder's input. codebook_dim: width of a code's embedding.
    codebook_size: K, the number of codes.
    posterior: "vq" (nearest entry), "normalised_vq" (nearest by angle: LlamaGen, Janus), or "gumbel" (a logits head).
    norm_groups, norm_eps: of the group norms.

    Raises a `StrictDataclassError` that holds both numbers for sizes that do not fit;
    a `TypeError` for an unknown key.
    """

    model_type = "armchair_vqgan"

    image_size: int = 256
    channels: int = 128
    channel_multipliers: list[int] | tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks_per_level: int = 2
    attention_levels: list[int] | tuple[int, ...] = (4,)
    latent_channels: int = 256
    codebook_dim: int = 256
    codebook_size: int = 16384
    posterior: Literal["vq", "normalised_vq", "gumbel"] = "vq"
    norm_groups: int = 32
    norm_eps: float = 1e-6

    def validate_sizes(self):
        for name in ("image_size", "channels", "blocks_per_level", "latent_channels", "codebook_dim", "norm_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.channel_multipliers or min(self.channel_multipliers) < 1:
            raise ValueError(f"channel_multipliers={list(self.channel_multipliers)} must each be at least 1")
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size={self.codebook_size} must be at least 2: one code says nothing")
        if self.image_size % self.downsample_factor:
            raise ValueError(
                f"image_size={self.image_size} must be divisible by {self.downsample_factor}, by which "
                f"{len(self.channel_multipliers)} channel_multipliers halve the picture"
            )
        if self.channels % self.norm_groups:
            raise ValueError(f"channels={self.channels} must be divisible by norm_groups={self.norm_groups}")

    def validate_attention(self):
        last = len(self.channel_multipliers) - 1
        if wrong := [level for level in self.attention_levels if not 0 <= level <= last]:
            raise ValueError(f"attention_levels={list(self.attention_levels)}: {wrong[0]} is none of 0 to {last}")

    @property
    def downsample_factor(self) -> int:
        """Pixels to one code along a side."""
        return 2 ** (len(self.channel_multipliers) - 1)

    @property
    def grid_size(self) -> int:
        """Codes along a side: image_size / downsample_factor."""
        return self.image_size // self.downsample_factor

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of a picture's codes."""
        return self.grid_size, self.grid_size

    @property
    def style_size(self) -> int:
        """0: its codes say all that it keeps of a picture."""
        return 0

    def code_settings(self) -> dict[str, Any]:
        """What decides the codes of a picture beside the weights and their shapes."""
        return {name: getattr(self, name) for name in ("image_size", "posterior", "norm_groups", "norm_eps")}

    @property
    def summary(self) -> str:
        """The architecture in a line, for a model card."""
        widths = ", ".join(str(self.channels * multiplier) for multiplier in self.channel_multipliers)
        return f"VQGAN, {self.posterior} posterior, {widths} channels"


VQGANConfig.register_for_auto_class()  # this file is saved beside the weights
