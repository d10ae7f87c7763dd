"""A small contrastive model of texts and pictures: how well does a picture show what a text names?

This file is saved beside the weights, so it imports nothing of this project.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

GIVEN: Any = None  # the default that ModelOutput wants of each field; none of these is ever left out


@strict
class SmallCLIPConfig(PreTrainedConfig):
    """
    Architecture of a `SmallCLIP`.

    text_vocab_size: text tokens, the pad included. pad_token_id: the one that says nothing.
    projection_dim: D, of the sphere that texts and pictures share.
    width: channels after the first convolution; the four stages have 1, 2, 4 and 4 times as many.
    image_size: side of the pictures that it learned from; others are resized to it. None: they are taken as they come.

    Raises a `StrictDataclassError` for sizes that cannot be.
    """

    model_type = "armchair_small_clip"

    text_vocab_size: int = 4096
    pad_token_id: int = 0
    projection_dim: int = 128
    width: int = 48
    image_size: int | None = None

    def validate_sizes(self):
        if self.width < 8 or self.width % 8:
            raise ValueError(f"width={self.width} must be a multiple of 8: the second convolutions have 8 groups")
        for name in ("projection_dim", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if not 0 <= self.pad_token_id < self.text_vocab_size:
            raise ValueError(f"pad_token_id={self.pad_token_id} is outside text_vocab_size={self.text_vocab_size}")


@dataclass
class SmallCLIPOutput(ModelOutput):
    """
    image_embeds, text_embeds: (B, D) and (C, D), of length 1.
    logits_per_image: (B, C), their scaled cosines.
    """

    image_embeds: Tensor = GIVEN
    text_embeds: Tensor = GIVEN
    logits_per_image: Tensor = GIVEN


class SmallCLIP(PreTrainedModel):
    """
    CLIP (arXiv 2103.00020, figure 3), 1.3 M parameters by default: pictures (B, 3, S, S) in [0, 1] and text ids (C, T)
    into one unit sphere. A picture goes through eight convolutions, a text is the bag of its tokens: it knows what is
    there, and not which of two things stands to the left.
    """

    config_class = SmallCLIPConfig
    config: SmallCLIPConfig
    base_model_prefix = "clip"
    main_input_name = "pixel_values"

    def __init__(self, config: SmallCLIPConfig):
        super().__init__(config)
        widths = [config.width, 2 * config.width, 4 * config.width, 4 * config.width]
        layers: list[nn.Module] = []
        for n_in, n_out in zip([3, *widths], widths, strict=False):
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
            layers += [nn.Conv2d(n_out, n_out, 3, padding=1, groups=8), nn.BatchNorm2d(n_out), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], config.projection_dim)]
        self.image = nn.Sequential(*layers)
        self.text = nn.EmbeddingBag(
            config.text_vocab_size, config.projection_dim, padding_idx=config.pad_token_id, mode="sum"
        )
        self.text_projection = nn.Linear(config.projection_dim, config.projection_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """As torch has them, token embeddings N(0, 1) and 0 for the pad; scale 10."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            init.uniform_(module.weight, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
            if module.bias is not None:
                init.uniform_(module.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            assert module.running_mean is not None and module.running_var is not None
            assert module.num_batches_tracked is not None
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
        elif isinstance(module, nn.EmbeddingBag):
            init.normal_(module.weight)
            init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, SmallCLIP):
            init.constant_(module.logit_scale, math.log(10.0))

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> (B, D), of any length."""
        size = self.config.image_size
        if size is not None and pixel_values.shape[-2:] != (size, size):
            pixel_values = F.interpolate(pixel_values.float(), (size, size), mode="bilinear", antialias=True)
        return self.image(2 * pixel_values.to(self.dtype) - 1)

    def embed_images(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> float32 (B, D) of length 1."""
        return F.normalize(self.image_features(pixel_values).float(), dim=-1)

    def embed_text(self, text_ids: Tensor) -> Tensor:
        """(C, T) -> float32 (C, D) of length 1."""
        return F.normalize(self.text_projection(F.relu(self.text(text_ids))).float(), dim=-1)

    def forward(self, pixel_values: Tensor, text_ids: Tensor) -> SmallCLIPOutput:
        """Pictures (B, 3, S, S) in [0, 1] with texts (C, T), each with each."""
        image_embeds, text_embeds = self.embed_images(pixel_values), self.embed_text(text_ids)
        logits = self.logit_scale.exp() * image_embeds @ text_embeds.T
        return SmallCLIPOutput(image_embeds, text_embeds, logits)

    @torch.no_grad()
    def score(self, pixel_values: Tensor, text_ids: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) in [0, 1] and a text each (B, T) -> their cosines, float32 (B,)."""
        return torch.cosine_similarity(self.embed_images(pixel_values), self.embed_text(text_ids))


SmallCLIPConfig.register_for_auto_class()  # this file is saved beside the weights
SmallCLIP.register_for_auto_class("AutoModel")
