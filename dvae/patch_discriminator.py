"""The discriminator of pixels: one logit for each overlapping patch, real or not. A training-only part."""

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .checked_config import CheckedConfig


@strict
class PatchDiscriminatorConfig(CheckedConfig):
    """
    Architecture of a `PatchDiscriminator`; the defaults are pix2pix's (arXiv 1611.07004, appendix 6.1.2).

    num_layers: convolutions of stride 2, before two of stride 1; they set the receptive field: 16, 34 or 70 pixels
        at 1, 2 or 3 layers.
    width: channels after the first convolution; they double with each one, up to eight times.
    in_channels: 3 for RGB.
    """

    model_type = "armchair_patch_discriminator"

    num_layers: int = 3
    width: int = 64
    in_channels: int = 3

    def validate_sizes(self):
        for name in ("num_layers", "width", "in_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def receptive_field(self) -> int:
        """Side, in pixels, of the patch that one logit sees: r ← 2r + 2 a stride-2 layer back, from 7."""
        side = 7  # the two convolutions of stride 1
        for _ in range(self.num_layers):
            side = 2 * side + 2
        return side

    @property
    def smallest_image(self) -> int:
        """Side of the smallest picture that still has one logit."""
        return 3 * 2**self.num_layers


class ChannelNorm(nn.LayerNorm):
    """
    Layer norm over the channels of each position, (B, C, h, w) -> (B, C, h, w).

    Not batch norm, which ties the pictures of a batch to each other: R1 would then mix their gradients, and two
    processes would normalise by different moments. Not instance or group norm either, whose moments over space let
    every logit see the whole picture: the receptive field would be no patch.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class PatchDiscriminator(PreTrainedModel):
    """
    pix2pix's PatchGAN (arXiv 1611.07004): pictures (B, 3, H, W) in [0, 1] -> raw logits (B, 1, h', w').

    4×4 convolutions and leaky ReLU; h' = ⌊H / 2^num_layers⌋ − 2. A logit sees `config.receptive_field` pixels square.
    """

    config_class = PatchDiscriminatorConfig
    config: PatchDiscriminatorConfig
    base_model_prefix = "discriminator"
    main_input_name = "images"

    def __init__(self, config: PatchDiscriminatorConfig):
        super().__init__(config)
        widths = [config.width * min(2**i, 8) for i in range(config.num_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(config.in_channels, widths[0], 4, stride=2, padding=1)]
        for i in range(config.num_layers):
            stride = 2 if i < config.num_layers - 1 else 1
            layers += [
                nn.LeakyReLU(0.2),
                nn.Conv2d(widths[i], widths[i + 1], 4, stride=stride, padding=1),
                ChannelNorm(widths[i + 1]),
            ]
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Convolutions N(0, 0.02²), as pix2pix has them; norms the identity."""
        if isinstance(module, nn.Conv2d):
            init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, ChannelNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        self.check_images(images)
        return self.layers(2 * images - 1)

    def check_images(self, images: Tensor) -> None:
        channels, smallest = self.config.in_channels, self.config.smallest_image
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(f"images {tuple(images.shape)} must be (B, {channels}, H, W)")
        if min(images.shape[2:]) < smallest:
            raise ValueError(
                f"images of {images.shape[2]}×{images.shape[3]} have no patch: num_layers={self.config.num_layers} "
                f"needs a side of at least {smallest}; take fewer layers"
            )
