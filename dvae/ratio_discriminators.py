"""Discriminators whose logit is a log-density ratio: of code grids or latents given a picture. Training-only parts."""

import itertools

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init

from .checked_config import CheckedConfig


@strict
class CodeDiscriminatorConfig(CheckedConfig):
    """
    Architecture of a `CodeDiscriminator`.

    codebook_size: K. grid_size: codes along a side. hidden_size: channels of the picture's features.
    width: its own channels. num_layers: residual 3×3 convolutions between the look-up and the pooling.
    """

    model_type = "armchair_code_discriminator"

    codebook_size: int = 8192
    grid_size: int = 32
    hidden_size: int = 2048
    width: int = 64
    num_layers: int = 2

    def validate_sizes(self):
        for name in ("codebook_size", "grid_size", "hidden_size", "width", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


class CodeDiscriminator(PreTrainedModel):
    """
    T(x, c): features (B, D, h, w) of a picture and codes (B, h, w) -> log-ratio logits (B,).

    Codes, places and features are added, mixed with their neighbours, and summed over the grid before the last layers:
    codes that depend on each other over any distance meet there.
    """

    config_class = CodeDiscriminatorConfig
    config: CodeDiscriminatorConfig
    base_model_prefix = "discriminator"
    main_input_name = "codes"

    def __init__(self, config: CodeDiscriminatorConfig):
        super().__init__(config)
        width = config.width
        self.codes = nn.Embedding(config.codebook_size, width)
        self.places = nn.Embedding(config.grid_size**2, width)
        self.features = nn.Conv2d(config.hidden_size, width, kernel_size=1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(config.num_layers))
        self.mix = nn.Conv2d(width, 2 * width, kernel_size=1)
        self.head = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.LeakyReLU(0.2), nn.Linear(2 * width, 1))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Everything N(0, 1 / fan_in); look-ups N(0, 1)."""
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)

    def forward(self, hidden_states: Tensor, codes: Tensor) -> Tensor:
        side, size = self.config.grid_size, self.config.hidden_size
        if codes.shape[1:] != (side, side) or hidden_states.shape[1:] != (size, side, side):
            raise ValueError(
                f"hidden_states {tuple(hidden_states.shape)} and codes {tuple(codes.shape)} must be "
                f"(B, {size}, {side}, {side}) and (B, {side}, {side})"
            )
        x = (self.codes(codes) + self.places.weight.view(side, side, -1)).movedim(-1, 1)  # (B, width, h, w)
        x = x + self.features(hidden_states)
        for layer in self.layers:
            x = x + layer(F.leaky_relu(x, 0.2))
        pooled = F.leaky_relu(self.mix(x), 0.2).sum(dim=(2, 3)) / side  # (B, 2 · width)
        return self.head(pooled)[:, 0]


@strict
class LatentDiscriminatorConfig(CheckedConfig):
    """
    Architecture of a `LatentDiscriminator`.

    feature_size: D, of the features of x. latent_size: d. width, num_layers: of its hidden layers.
    """

    model_type = "armchair_latent_discriminator"

    feature_size: int = 2048
    latent_size: int = 16
    width: int = 128
    num_layers: int = 2

    def validate_sizes(self):
        for name in ("feature_size", "latent_size", "width", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


class LatentDiscriminator(PreTrainedModel):
    """T(x, z): features (B, D) and latents (B, d) -> log-ratio logits (B,)."""

    config_class = LatentDiscriminatorConfig
    config: LatentDiscriminatorConfig
    base_model_prefix = "discriminator"
    main_input_name = "z"

    def __init__(self, config: LatentDiscriminatorConfig):
        super().__init__(config)
        sizes = [config.feature_size + config.latent_size, *[config.width] * config.num_layers]
        layers = [layer for n, m in itertools.pairwise(sizes) for layer in (nn.Linear(n, m), nn.LeakyReLU(0.2))]
        self.layers = nn.Sequential(*layers, nn.Linear(config.width, 1))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """N(0, 2 / fan_in), as He et al. have it for rectifiers."""
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=(2 / module.in_features) ** 0.5)
            init.zeros_(module.bias)

    def forward(self, features: Tensor, z: Tensor) -> Tensor:
        sizes = (self.config.feature_size, self.config.latent_size)
        if (features.shape[1], z.shape[1]) != sizes or len(features) != len(z):
            raise ValueError(
                f"features {tuple(features.shape)} and z {tuple(z.shape)} must be (B, {sizes[0]}) and (B, {sizes[1]})"
            )
        return self.layers(torch.cat([features, z], dim=1))[:, 0]
