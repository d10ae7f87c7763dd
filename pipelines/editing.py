"""From given pictures, or from two prompts: completion, inpainting, variations, interpolation.

What is kept of a picture is its codes, so also a kept part looks as the dVAE reconstructs it. Codes are drawn in
raster order. A new code sees the prompt and all codes above it and to its left, given or new. It sees nothing of what
is given below it.
"""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dvae import DVAE, DVAEImageProcessor, each_picture
from prior_transformer import StreamPrior

from .calls import Call
from .checks import check_count, check_prompts, check_share
from .drawing.keys import draw_seeds
from .output import TextToImagePipelineOutput
from .painting import Given, Painting, PaintingPipeline
from .running import evaluating, in_batches
from .steps import ImageInput


class EditingPipeline(PaintingPipeline):
    """The methods that start from something else than one prompt."""

    def complete(
        self,
        prompt: str | list[str],
        image: ImageInput | list[ImageInput],
        *,
        rows: int | None = None,
        **options: Any,
    ) -> TextToImagePipelineOutput:
        """Go on from the top rows of a picture, as in figure 2 of arXiv 2102.12092.

        Args:
            prompt: one prompt or a list; "" for none.
            image: one for all prompts, or one each: PIL, uint8 (H, W, 3 or 4), or as output_type "np" and "pt" return
                them. The image processor fits it.
            rows: rows of codes that are kept, of grid_size; half of them unless given.
            options: as in `__call__`. best_of keeps the best, as there.

        Raises:
            TypeError, ValueError: when an argument cannot be used, saying what to pass instead.
        """
        return self._paint(self._completion(prompt, image, rows, **options))

    def inpaint(
        self,
        prompt: str | list[str],
        image: ImageInput | list[ImageInput],
        mask: ImageInput | None = None,
        **options: Any,
    ) -> TextToImagePipelineOutput:
        """Paint a part of a picture anew. A code is repainted where its cell of pixels touches the mask.

        Raster order sees only what came before. So a hole is filled to go with the prompt and what lies above and to
        the left, and not with what lies below. best_of=n mends this: of n fillings it keeps the one that makes the
        whole picture the likeliest, what is below the hole included. With a reranker it is also the truest to the
        prompt.

        Args:
            prompt: what the whole picture shows; one or a list; "" for none.
            image: one for all prompts, or one each: PIL, uint8 (H, W, 3 or 4), or as output_type "np" and "pt" return
                them. The image processor fits it.
            mask: of the picture's size, fitted alike: PIL, or an array (H, W) of bool or uint8. White is repainted.
                What is transparent is black. It must be given: `complete` and `vary` do without.
            options: as in `__call__`.

        Raises:
            TypeError, ValueError: when an argument cannot be used, saying what to pass instead.
        """
        return self._paint(self._inpainting(prompt, image, mask, **options))

    def vary(
        self,
        image: ImageInput | list[ImageInput],
        prompt: str | list[str] = "",
        *,
        strength: float = 0.8,
        **options: Any,
    ) -> TextToImagePipelineOutput:
        """Paint variations of a picture.

        Args:
            image: one for all prompts, or one each: PIL, uint8 (H, W, 3 or 4), or as output_type "np" and "pt" return
                them. The image processor fits it.
            prompt: what the variations show; one or a list; "" for none.
            strength: s in [0, 1]. A code is drawn from q(code | picture)^(1 − s) · p(code | codes before it,
                prompt)^s, normalised, of the dVAE's posterior q and the prior p. 1 forgets the picture. 0 asks the
                dVAE alone.
            options: as in `__call__`.

        Raises:
            TypeError, ValueError: when an argument cannot be used, saying what to pass instead.
        """
        return self._paint(self._variation(prompt, image, strength, **options))

    def interpolate(
        self,
        prompt_a: str,
        prompt_b: str,
        steps: int = 8,
        *,
        seed: int | None = None,
        **options: Any,
    ) -> TextToImagePipelineOutput:
        """From one prompt to another: picture k of n sees shares 1 − w and w of their embeddings, w = k / (n − 1).

        The first picture is that of prompt_a, the last that of prompt_b. All have one seed: the prompt alone changes.
        The output's `prompts` tell the shares.

        Args:
            steps: n, 2 or more.
            seed: one for all pictures; None draws one.
            options: as in `__call__`, but for num_images_per_prompt, best_of and reranker.

        Raises:
            TypeError, ValueError: when an argument cannot be used, saying what to pass instead.
        """
        check_count("steps", steps)
        if steps < 2:
            raise ValueError(f"steps={steps} is below 2; pass at least the two ends")
        if several := {"num_images_per_prompt", "best_of", "reranker"} & set(options):
            raise TypeError(f"interpolate paints one picture a step, without {min(several)}; call it for each seed")
        a, b = self.encode_prompt(check_prompts([prompt_a, prompt_b], allow_empty=True))
        painting = self._plan(Call.of([prompt_a] * steps, seed=draw_seeds(seed, 1, 1) * steps, **options))
        shares, others = [k / (steps - 1) for k in range(steps)], painting.other_captions
        painting = replace(
            painting,
            prompts=[f"{1 - w:.2f} {prompt_a} + {w:.2f} {prompt_b}" for w in shares],
            captions=mix_captions(self.prior, a, b, torch.tensor(shares, device="cpu")),
            other_captions=None if others is None else embed_captions(self.prior, others),
        )
        return self._paint(painting)

    # What each paints, which `stream` shows while it grows.

    def _completion(self, prompt: Any, image: Any, rows: int | None, **options: Any) -> Painting:
        side = self.prior.config.grid_size
        rows = max(side // 2, 1) if rows is None else rows
        check_count("rows", rows)
        if rows > side:
            raise ValueError(f"rows={rows} are more than this model's {side} rows of codes; pass 1 to {side}")
        keep = torch.zeros(self._grid, dtype=torch.bool, device="cpu")
        keep[:rows] = True
        prompts, given = self._given(prompt, image, keep)
        return self._plan(Call.of(prompts, **options), given)

    def _inpainting(self, prompt: Any, image: Any, mask: ImageInput | None, **options: Any) -> Painting:
        Call.check_options(options)
        pictures = [self.image_processor.on_background(picture) for picture in each_picture(image)]
        sizes, white = {picture.size for picture in pictures}, white_pixels(mask)
        if sizes != {white.shape[::-1]}:
            raise ValueError(f"the mask is {white.shape[::-1]} but the picture {sorted(sizes)}; pass equal sizes")
        hole = touched_cells(white, self.prior.config.grid_size)
        if not hole.any():
            raise ValueError(
                f"the mask {white.shape[::-1]} is black in its middle square, so nothing would be repainted; pass one "
                f"that is white (128 to 255, or True) where to paint: 0 and 1 must be bool, or 0 and 255"
            )
        prompts, given = self._given(prompt, pictures, ~torch.from_numpy(hole))
        return self._plan(Call.of(prompts, **options), given)

    def _variation(self, prompt: Any, image: Any, strength: float, **options: Any) -> Painting:
        check_share("strength", strength)
        nothing_kept = torch.zeros(self._grid, dtype=torch.bool, device="cpu")
        prompts, given = self._given(prompt, image, nothing_kept, varied=strength < 1)
        style = given.style if strength < 1 else None
        return self._plan(Call.of(prompts, **options), replace(given, strength=strength, style=style))

    def _given(
        self, prompt: str | list[str], image: Any, keep: Tensor, *, varied: bool = False
    ) -> tuple[list[str], Given]:
        """Prompts and their pictures, one of either for all of the other, of whose codes those of keep (h, w) stay.

        varied: whether the other codes are to be near the picture's own.
        """
        prompts, pixel_values = check_prompts(prompt, allow_empty=True), self.preprocess(image)
        num_prompts = max(len(prompts), len(pixel_values))
        if {len(prompts), len(pixel_values)} - {1, num_prompts}:
            raise ValueError(f"{len(pixel_values)} pictures for {len(prompts)} prompts; pass one for all, or one each")
        codes = in_batches(self.dvae.encode, pixel_values).flatten(1).expand(num_prompts, -1)  # (P, N)
        logits = style = None
        if varied:
            logits = in_batches(self.dvae.log_posterior, pixel_values).flatten(2).transpose(1, 2)  # (B, N, K)
            logits = logits.expand(num_prompts, -1, -1)
        if self.dvae.config.style_size:
            dvae = cast(DVAE, self.dvae)  # which alone may have one
            style = in_batches(dvae.encode_style, pixel_values).expand(num_prompts, -1)
        mask = keep.flatten().to(codes.device).expand(num_prompts, -1)
        return prompts * (num_prompts // len(prompts)), Given(codes, mask, style, logits)


def mix_captions(prior: StreamPrior, a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Text ids (T,) of two captions -> prefixes (n, 1 + T, D), shares 1 − w and w of both; weights: w, (n,)."""
    a, b = embed_captions(prior, torch.stack([a, b]))
    return torch.lerp(a, b, weights.to(a)[:, None, None])


def embed_captions(prior: StreamPrior, text_ids: Tensor) -> Tensor:
    """Text ids (n, T) -> prefixes (n, 1 + T, D), which also hold what no ids say, such as a mix of two captions."""
    with evaluating(prior), torch.no_grad():
        return prior.embed_text(text_ids)


def white_pixels(mask: ImageInput | None) -> np.ndarray:
    """A mask -> bool (H, W): True, or white from level 128 on when what is transparent lies on black."""
    if isinstance(mask, Image.Image):
        mask = np.asarray(DVAEImageProcessor(1, background=(0, 0, 0)).on_background(mask).convert("L"))
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"mask={mask!r} is a {type(mask).__name__}; pass PIL, or an array (H, W) of bool or uint8")
    if mask.ndim != 2 or mask.dtype not in (bool, np.uint8):
        raise TypeError(f"mask has shape {mask.shape} of {mask.dtype}; pass PIL, or an array (H, W) of bool or uint8")
    return mask if mask.dtype == bool else mask >= 128


def touched_cells(white: np.ndarray, side: int) -> np.ndarray:
    """A mask, bool (H, W), centre-cropped to a square -> bool (side, side): cells it touches."""
    size = min(white.shape)
    top, left = (white.shape[0] - size) // 2, (white.shape[1] - size) // 2
    white = white[top : top + size, left : left + size]
    spans = [slice(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]  # whole pixels, and those cut
    return np.array([[white[rows, columns].any() for columns in spans] for rows in spans])
