"""What a call returns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from .drawing.settings import SamplingSettings

Images = list[Image.Image] | np.ndarray | Tensor


@dataclass
class TextToImagePipelineOutput:
    """What a call returns; its entries are in one order: all pictures of the first prompt, then of the next.

    images: list of PIL images, or an array (B, H, W, 3) or tensor (B, 3, H, W) with values in [0, 1].
    codes: int64 (B, h, w), −1 where a stream has not come yet.
    prompts, seeds: one an image; an image's own prompt and seed, with the same settings, paint it again.
    sampling: the settings in force.
    step, total: codes done, and codes of a picture; equal but in a stream's first items.
    scores: float32 (B,), of the pictures that best_of kept, higher is better; None without it.
    passes: how often the prior looked at codes to draw them; fewer than codes, as it may look at several of each.
    """

    images: Any  # Images; which of them, output_type says
    codes: Tensor
    prompts: list[str]
    seeds: list[int]
    sampling: SamplingSettings
    step: int
    total: int
    scores: Tensor | None = None
    passes: int = 0

    def __getitem__(self, index: int) -> Images:
        """output[0] is output.images, as of diffusers' outputs."""
        if index != 0:
            raise IndexError(f"output[{index}] is not there: output[0] is output.images, as of diffusers' outputs")
        return self.images
