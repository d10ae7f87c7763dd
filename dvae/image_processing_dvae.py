"""Pictures -> pixel_values in [0, 1], and back."""

from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import BatchFeature, ImageProcessingMixin

ImageLike = Image.Image | np.ndarray


class DVAEImageProcessor(ImageProcessingMixin):
    """
    Resizes the shorter side to `size` and crops the centre; pixels stay in [0, 1], whatever a likelihood maps them to.

    size: side of the square, in pixels. background: what transparent pixels are laid on, (R, G, B) in 0..255.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012, as transformers has it

    def __init__(self, size: int = 256, background: tuple[int, int, int] | list[int] = (255, 255, 255), **kwargs: Any):
        if size < 1:
            raise ValueError(f"size={size} must be at least 1")
        super().__init__(**kwargs)
        self.size = size
        self.background = list(background)

    def __call__(self, images: ImageLike | list[ImageLike], return_tensors: str = "pt") -> BatchFeature:
        """A PIL image, a uint8 array (H, W, 3 or 4) or a list of these -> {"pixel_values": (B, 3, size, size)}."""
        if return_tensors != "pt":
            raise ValueError(f"return_tensors={return_tensors!r} must be 'pt'")
        images = images if isinstance(images, list) else [images]
        if not images:
            raise ValueError("no image given: pass at least one")
        pixels = np.stack([np.asarray(self.fit(image)) for image in images])  # (B, S, S, 3)
        pixel_values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        return BatchFeature({"pixel_values": pixel_values})

    preprocess = __call__

    def fit(self, image: ImageLike) -> Image.Image:
        """One picture -> RGB of size × size: transparency on the background, shorter side to size, centre crop."""
        image = self.on_background(image)
        if image.size == (self.size, self.size):
            return image
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        return image.resize((self.size, self.size), Image.Resampling.LANCZOS, box=box)

    def on_background(self, image: ImageLike) -> Image.Image:
        """One picture, turned upright -> RGB of its own size in 8 bits, transparency laid on the background.

        Raises TypeError for what is no picture.
        """
        image = _from_array(image) if isinstance(image, np.ndarray) else image
        if not isinstance(image, Image.Image):
            raise TypeError(f"an image must be a PIL image or a uint8 array, not {type(image).__name__}")
        image = ImageOps.exif_transpose(image)
        if image.mode[0] in "IF":  # PIL would cut 16 bits off at 255, and make black of 0 to 1
            image = Image.fromarray(_in_8_bits(np.asarray(image, np.float64), image.mode))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            ground = Image.new("RGBA", image.size, (*self.background, 255))
            image = Image.alpha_composite(ground, image)
        return image.convert("RGB")

    def postprocess(
        self, pixel_values: Tensor, output_type: Literal["pil", "np", "pt"] = "pil"
    ) -> list[Image.Image] | np.ndarray | Tensor:
        """pixel_values (B, 3, H, W) in [0, 1] -> PIL images, an array (B, H, W, 3) in [0, 1], or the tensor."""
        if output_type == "pt":
            return pixel_values
        arrays = pixel_values.detach().float().cpu().permute(0, 2, 3, 1).numpy()
        if output_type == "np":
            return arrays
        if output_type == "pil":
            return [Image.fromarray(array) for array in (arrays.clip(0, 1) * 255).round().astype(np.uint8)]
        raise ValueError(f"output_type={output_type!r} must be 'pil', 'np' or 'pt'")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise TypeError(
            f"an array of {array.dtype} is no picture: it must be uint8; for values in [0, 1] pass "
            f"(255 * array).round().astype('uint8')"
        )
    if array.ndim != 2 and array.shape[2:] not in ((3,), (4,)):
        raise TypeError(f"an array {array.shape} is no picture; pass (H, W), (H, W, 3) or (H, W, 4)")
    return Image.fromarray(array)


def _in_8_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """
    Values (H, W) of PIL's wide modes -> uint8 (H, W). "I;16" has 16 bits; "I" too, unless all are below 256; "F" runs
    from 0 to 1, or to 255 where one is above 1.
    """
    highest = values.max(initial=0)
    whole = {"F": 1 if highest <= 1 else 255, "I": 255 if highest <= 255 else 65535}.get(mode, 65535)
    return (values * (255 / whole)).round().clip(0, 255).astype(np.uint8)


DVAEImageProcessor.register_for_auto_class()  # this file is saved beside its settings
