"""The VQGAN of the public tokenizers (arXiv 2012.09841): pixels (B, 3, H, W) in [0, 1] <-> codes (B, h, w).

It is brought in trained, and has what a first stage has and no losses: `DVAE` is what one trains here.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init

from .configuration_vqgan import VQGANConfig
from .posterior_base import Posterior
from .posteriors import POSTERIORS


def norm(config: VQGANConfig, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(config.norm_groups, channels, eps=config.norm_eps)


class ResidualBlock(nn.Module):
    """shortcut(x) + conv(silu(norm(conv(silu(norm(x)))))), both convolutions 3×3."""

    def __init__(self, config: VQGANConfig, n_in: int, n_out: int):
        super().__init__()
        self.norm_1, self.conv_1 = norm(config, n_in), nn.Conv2d(n_in, n_out, 3, padding=1)
        self.norm_2, self.conv_2 = norm(config, n_out), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shortcut = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv_1(F.silu(self.norm_1(x)))
        return self.shortcut(x) + self.conv_2(F.silu(self.norm_2(hidden)))


class Attention(nn.Module):
    """x + one head of attention over all places of norm(x), its maps 1×1 convolutions."""

    def __init__(self, config: VQGANConfig, channels: int):
        super().__init__()
        self.norm = norm(config, channels)
        self.query, self.key, self.value, self.output = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        maps = (self.query, self.key, self.value)
        q, k, v = (one(normed).flatten(2).transpose(1, 2)[:, None] for one in maps)  # (B, 1, H·W, C)
        attended = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).view_as(x)
        return x + self.output(attended)


class Downsample(nn.Conv2d):
    """A 3×3 convolution of stride 2, padded by one row below and one column to the right."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Conv2d):
    """Nearest neighbours, then a 3×3 convolution."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Blocks at one resolution, an attention after each where the level has it, then the change of resolution."""

    def __init__(self, config: VQGANConfig, level: int, n_in: int, num_blocks: int, resample: type | None):
        super().__init__()
        width = config.channels * config.channel_multipliers[level]
        attends = level in config.attention_levels
        self.blocks = nn.ModuleList(ResidualBlock(config, n_in if i == 0 else width, width) for i in range(num_blocks))
        self.attentions = nn.ModuleList(
            Attention(config, width) if attends else nn.Identity() for _ in range(num_blocks)
        )
        self.resample = nn.Identity() if resample is None else resample(width)

    def forward(self, x: Tensor) -> Tensor:
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = attention(block(x))
        return self.resample(x)


def middle(config: VQGANConfig, width: int) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(config, width, width), Attention(config, width), ResidualBlock(config, width, width)
    )


class Encoder(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, latent_channels, h, w)."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.channel_multipliers]
        last = len(widths) - 1
        self.first = nn.Conv2d(3, config.channels, 3, padding=1)
        self.levels = nn.Sequential(
            *(
                Level(config, i, n_in, config.blocks_per_level, Downsample if i < last else None)
                for i, n_in in enumerate([config.channels, *widths[:-1]])
            )
        )
        self.middle = middle(config, widths[-1])
        self.norm = norm(config, widths[-1])
        self.last = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        hidden = self.levels(self.first((2 * pixel_values - 1).to(self.first.weight.dtype)))
        return self.last(F.silu(self.norm(self.middle(hidden))))


class Decoder(nn.Module):
    """(B, codebook_dim, h, w) -> (B, 3, H, W), where −1 is black and 1 full; its levels start at the grid."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.channel_multipliers]
        last = len(widths) - 1
        self.of_codes = nn.Conv2d(config.codebook_dim, config.latent_channels, 1)
        self.first = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.middle = middle(config, widths[-1])
        self.levels = nn.Sequential(
            *(
                Level(config, i, widths[min(i + 1, last)], config.blocks_per_level + 1, Upsample if i > 0 else None)
                for i in range(last, -1, -1)
            )
        )
        self.norm = norm(config, widths[0])
        self.last = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        hidden = self.middle(self.first(self.of_codes(latents)))
        return self.last(F.silu(self.norm(self.levels(hidden))))


class VQGAN(PreTrainedModel):
    """
    A pretrained VQGAN: the first stage of taming-transformers, minDALL-E, ruDALL-E, LlamaGen and Janus.

        pixel_values (B, 3, H, W) in [0, 1] --encode--> codes (B, h, w) int64 --decode--> pixel_values

    H and W are any that `config.downsample_factor` divides; h and w are these divided by it.
    """

    config_class: type[VQGANConfig] = VQGANConfig
    config: VQGANConfig
    posterior: Posterior
    base_model_prefix = "vqgan"
    main_input_name = "pixel_values"
    _keep_in_fp32_modules_strict: ClassVar = {"codebook"}  # from_pretrained's casts; others see Codebook

    def __init__(self, config: VQGANConfig):
        super().__init__(config)
        self.encoder = Encoder(config)
        self.posterior = POSTERIORS[config.posterior](
            config.latent_channels, config.codebook_size, config.codebook_dim
        )
        self.decoder = Decoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Convolutions N(0, 1 / fan_in), biases 0, norms the identity, codebook N(0, 1)."""
        if isinstance(module, nn.Conv2d):
            init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.GroupNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)

    def check_pixels(self, pixel_values: Tensor) -> None:
        factor, shape = self.config.downsample_factor, tuple(pixel_values.shape)
        if len(shape) != 4 or shape[1] != 3 or shape[2] % factor or shape[3] % factor:
            raise ValueError(f"pixel_values {shape} must be (B, 3, H, W), H and W divisible by {factor}")

    def _hidden_states(self, pixel_values: Tensor) -> Tensor:
        self.check_pixels(pixel_values)
        return self.encoder(pixel_values)

    @torch.no_grad()
    def encode(self, pixel_values: Tensor) -> Tensor:
        """pixel_values (B, 3, H, W) in [0, 1] -> codes (B, h, w) int64, by argmax: two encodes agree."""
        return self.posterior.encode(self._hidden_states(pixel_values))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, h, w) int64 in 0..K−1 -> pixel_values (B, 3, H, W) in [0, 1], float32."""
        if codes.ndim != 3:
            raise ValueError(f"codes {tuple(codes.shape)} must be (B, h, w)")
        return ((self.decoder(self.posterior.embed(codes)).float() + 1) / 2).clamp(0, 1)

    def reconstruct(self, pixel_values: Tensor) -> Tensor:
        """pixel_values (B, 3, H, W) in [0, 1] -> the same through the codes."""
        return self.decode(self.encode(pixel_values))

    @torch.no_grad()
    def log_posterior(self, pixel_values: Tensor) -> Tensor:
        """
        pixel_values (B, 3, H, W) in [0, 1] -> ln q(c | x), (B, K, h, w), in float32.

        Of "gumbel" what its head says. A vector quantiser is sure of its nearest code: 0 there and −inf elsewhere, so
        that a variation of any strength below 1 is the picture itself, as for a `DVAE` of posterior "vq".
        """
        return self.posterior.log_posterior(self._hidden_states(pixel_values))


VQGAN.register_for_auto_class("AutoModel")  # its code is saved beside the weights
