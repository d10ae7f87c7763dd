"""The pipeline: prompt -> text ids -> codes -> pixels -> pictures, each step a public method."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from .checks import check_num_images, check_prompts, check_seeds
from .sampling import Callback, draw_keys, generate_codes
from .saving import SavedPipeline
from .settings import SamplingSettings

Images = list[Image.Image] | np.ndarray | Tensor


@dataclass
class TextToImagePipelineOutput:
    """What a call returns; its entries are in one order: all pictures of the first prompt, then of the next.

    images: list of PIL images, or an array (B, H, W, 3) or tensor (B, 3, H, W) with values in [0, 1].
    codes: int64 (B, h, w). prompts, seeds: one an image; an image's own prompt and seed paint it again.
    sampling: the settings in force.
    """

    images: Images
    codes: Tensor
    prompts: list[str]
    seeds: list[int]
    sampling: SamplingSettings


class TextToImagePipeline(SavedPipeline):
    """Paints pictures from prompts; its parts, and how it is loaded and saved, are `SavedPipeline`'s."""

    def __call__(
        self,
        prompt: str | list[str],
        *,
        num_images_per_prompt: int = 1,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float | None = None,
        seed: int | list[int] | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        progress_bar: bool = True,
        callback: Callback | None = None,
    ) -> TextToImagePipelineOutput:
        """Paint each prompt num_images_per_prompt times.

        Args:
            prompt: one prompt or a list.
            temperature, top_k, top_p, guidance_scale: see `SamplingSettings`; None is the pipeline's own `sampling`.
                Neutral values: temperature 1, top_k 0, top_p 1, guidance_scale 1.
            seed: an int s gives the pictures of every prompt the seeds s, s + 1, …; a list has one an image; None
                draws fresh ones. The output holds them. A picture depends on its prompt and seed, not its neighbours.
            output_type: "pil", "np" (B, H, W, 3) or "pt" (B, 3, H, W).
            callback: called as callback(i, codes (B, i + 1)) after each code.

        Raises:
            TypeError, ValueError: when an argument cannot be used, saying what to pass instead.
        """
        prompts = check_prompts(prompt)
        check_num_images(num_images_per_prompt)
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type={output_type!r} is unknown; pass 'pil', 'np' or 'pt'")
        sampling = self._settings(temperature=temperature, top_k=top_k, top_p=top_p, guidance_scale=guidance_scale)
        seeds = self._seeds(seed, len(prompts), num_images_per_prompt)
        codes = self.generate_codes(
            self.encode_prompt(prompts),
            num_images_per_prompt=num_images_per_prompt,
            **asdict(sampling),
            seed=seeds,
            progress_bar=progress_bar,
            callback=callback,
        )
        images = self.postprocess(self.decode_codes(codes), output_type)
        prompts = [text for text in prompts for _ in range(num_images_per_prompt)]  # one an image
        return TextToImagePipelineOutput(images, codes, prompts, seeds, sampling)

    def encode_prompt(self, prompt: str | list[str]) -> Tensor:
        """One prompt or B -> text ids (B, T) int64 on the pipeline's device. A long prompt is cut, with a warning."""
        text_ids = self.tokenizer.encode_captions(check_prompts(prompt), text_length=self.prior.config.text_length)
        return text_ids.to(self.device)

    def generate_codes(
        self,
        text_ids: Tensor,
        *,
        num_images_per_prompt: int = 1,
        seed: int | list[int] | None = None,
        fixed_codes: Tensor | None = None,
        progress_bar: bool = False,
        callback: Callback | None = None,
        **sampling: float | None,
    ) -> Tensor:
        """Text ids (B, T) -> codes (B·n, h, w), n = num_images_per_prompt; arguments as in `__call__`.

        fixed_codes: (B·n, m) known codes of the first m positions in raster order; the rest is drawn to go with them.
        sampling: temperature, top_k, top_p, guidance_scale.
        """
        check_num_images(num_images_per_prompt)
        side = self.prior.config.grid_size
        seeds = self._seeds(seed, len(text_ids), num_images_per_prompt)
        with _evaluating(self.prior), tqdm(total=side**2, unit="code", disable=not progress_bar) as bar:

            def after_each_code(i: int, codes: Tensor) -> None:
                bar.update(i + 1 - bar.n)
                if callback is not None:
                    callback(i, codes)

            codes = generate_codes(
                self.prior,
                text_ids.to(self.device).repeat_interleave(num_images_per_prompt, dim=0),
                draw_keys(seeds, side**2),
                self._settings(**sampling),
                fixed_codes=fixed_codes,
                callback=after_each_code,
            )
        return codes.unflatten(1, (side, side))  # (B·n, h, w)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Codes (B, h, w) -> pixel values (B, 3, H, W) in [0, 1]."""
        return self.dvae.decode(codes.to(self.device))

    def postprocess(self, pixel_values: Tensor, output_type: Literal["pil", "np", "pt"] = "pil") -> Images:
        """Pixel values (B, 3, H, W) in [0, 1] -> PIL images, an array (B, H, W, 3), or the tensor in float32."""
        return self.image_processor.postprocess(pixel_values.float(), output_type=output_type)

    def _settings(self, **values: float | None) -> SamplingSettings:
        """The pipeline's settings, with those that were given in place of its own."""
        return replace(self.sampling, **{name: value for name, value in values.items() if value is not None})

    def _seeds(self, seed: int | list[int] | None, num_prompts: int, num_images_per_prompt: int) -> list[int]:
        """One seed an image."""
        check_seeds(seed, num_prompts * num_images_per_prompt)
        if seed is None:
            return [secrets.randbelow(2**32) for _ in range(num_prompts * num_images_per_prompt)]
        if isinstance(seed, list | tuple):
            return [int(value) for value in seed]
        return [int(seed) + i for _ in range(num_prompts) for i in range(num_images_per_prompt)]


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """No dropout inside, and the model's own mode again after."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
