"""The pipeline: prompt -> text ids -> codes -> pixels -> pictures, each step a public method.

The call itself is in painting.py; what starts from a given picture in editing.py; what judges one in judging.py.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from . import editing
from .checks import check_count, check_prompts
from .drawing.keys import draw_keys, draw_seeds
from .drawing.loop import Callback, check_codes, draw_codes, watch
from .drawing.settings import Region, SamplingSettings
from .folder.saving import SavedPipeline
from .judges import judging
from .judges.judging import Judge
from .output import Images, TextToImagePipelineOutput
from .painting import paint, plan
from .running import BATCH_SIZE, evaluating, in_batches

__all__ = ["TextToImagePipeline", "TextToImagePipelineOutput"]


class TextToImagePipeline(SavedPipeline):
    """Paints pictures from prompts; its parts, and how it is loaded and saved, are `SavedPipeline`'s."""

    def __call__(
        self,
        prompt: str | list[str],
        *,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        temperature: float | list[float] | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        guidance_scale: float | None = None,
        guidance_region: Region | None = None,
        seed: int | list[int] | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        progress_bar: bool = True,
        callback: Callback | None = None,
        best_of: int = 1,
        reranker: Judge | None = None,
    ) -> TextToImagePipelineOutput:
        """Paint each prompt num_images_per_prompt times.

        Args:
            prompt: one prompt or a list. "" is the empty caption: the unconditional picture.
            negative_prompt: what guidance steers away from, one for all or one a prompt, in place of the empty
                caption; it needs a guidance_scale other than 1.
            temperature, top_k, top_p, min_p, guidance_scale, guidance_region: see `SamplingSettings`; None is the
                pipeline's own `sampling`. Neutral values: temperature 1, top_k 0, top_p 1, min_p 0, guidance_scale 1.
            seed: an int s gives the pictures of every prompt the seeds s, s + 1, …; a list has one an image; None
                draws fresh ones. The output holds them. A picture depends on its prompt and seed, not its neighbours.
            output_type: "pil", "np" (B, H, W, 3) or "pt" (B, 3, H, W).
            callback: called as callback(i, codes (B, i + 1)) after each code.
            best_of: paints n candidates for each picture, seeds s, s + 1, … in a row, and keeps the best: its seed
                paints it again without the others. A list of seeds has one a candidate.
            reranker: who judges them, as in `rank`. None is "likelihood+reranker": the model itself and the pipeline's
                own reranker, where it has one. "pmi" is for pictures from elsewhere: of those drawn for one prompt it
                prefers the unlikely ones (training/LOG.md).

        Raises:
            TypeError, ValueError: when an argument cannot be used, saying what to pass instead.
        """
        painting = plan(
            self,
            prompt,
            negative_prompt=negative_prompt,
            num_images_per_prompt=num_images_per_prompt,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            guidance_scale=guidance_scale,
            guidance_region=guidance_region,
            seed=seed,
            output_type=output_type,
            progress_bar=progress_bar,
            callback=callback,
            best_of=best_of,
            reranker=reranker,
        )
        return editing.last(paint(self, painting))

    def stream(
        self,
        prompt: str | list[str],
        *,
        image: editing.Picture | list[editing.Picture] | None = None,
        mask: editing.Picture | None = None,
        rows: int | None = None,
        strength: float | None = None,
        every: int | None = None,
        **options: Any,
    ) -> Iterator[TextToImagePipelineOutput]:
        """Paint as the call does, or as a method that starts from a picture, showing the pictures while they grow.

        Args:
            image: a picture, or one a prompt, to start from. With mask the stream is that of `inpaint`, with strength
                of `vary`, with rows or alone of `complete`; mask, rows and strength exclude one another.
            every: codes between pictures, given ones counted; None is one row of the grid.
            options: as in the call. With best_of, all candidates are shown while they grow.

        Yields:
            outputs with `.images`, light grey where nothing is given or drawn yet, `.step` and `.total`; the last is
            what the call, or the method, returns. Closing the iterator, or leaving its loop, stops the work.

        Raises:
            TypeError, ValueError: at once, when an argument cannot be used.
        """
        every = self.prior.config.grid_size if every is None else every
        check_count("every", every)
        if "given" in options:
            raise TypeError("given is no argument of a call; pass image=… to start from a picture")
        start = {"image": image, "mask": mask, "rows": rows, "strength": strength}
        return paint(self, editing.plan_stream(self, prompt, **start, **options), every=every)

    # Each step alone.

    def encode_prompt(self, prompt: str | list[str]) -> Tensor:
        """One prompt or B -> text ids (B, T) int64 on the pipeline's device. A long prompt is cut, with a warning."""
        prompts = check_prompts(prompt, allow_empty=True)
        return self.tokenizer.encode_captions(prompts, text_length=self.prior.config.text_length).to(self.device)

    def generate_codes(
        self,
        text_ids: Tensor,
        *,
        num_images_per_prompt: int = 1,
        seed: int | list[int] | None = None,
        negative_text_ids: Tensor | None = None,
        fixed_codes: Tensor | None = None,
        fixed_mask: Tensor | None = None,
        progress_bar: bool = False,
        callback: Callback | None = None,
        **sampling: Any,
    ) -> Tensor:
        """Text ids (B, T) -> codes (B·n, h, w), n = num_images_per_prompt; arguments as in `__call__`.

        negative_text_ids: (B, T), or (1, T) for all, in place of the empty caption in guidance.
        fixed_codes, fixed_mask: (B·n, N) int64 and bool: the codes in the mask stay, the rest is drawn in raster
            order to go with what comes before.
        sampling: temperature, top_k, top_p, min_p, guidance_scale, guidance_region.
        """
        check_count("num_images_per_prompt", num_images_per_prompt)
        side = self.prior.config.grid_size
        others = negative_text_ids
        if others is not None:
            if len(others) not in (1, len(text_ids)):
                raise ValueError(
                    f"{len(others)} negative_text_ids for {len(text_ids)} text_ids; pass one for all, or one each"
                )
            others = others.to(self.device).expand(len(text_ids), -1).repeat_interleave(num_images_per_prompt, dim=0)
        draws = draw_codes(
            self.prior,
            text_ids.to(self.device).repeat_interleave(num_images_per_prompt, dim=0),
            draw_keys(draw_seeds(seed, len(text_ids), num_images_per_prompt), side**2),
            self.settings(**sampling),
            other_captions=others,
            fixed_codes=fixed_codes,
            fixed_mask=fixed_mask,
        )
        with evaluating(self.prior):
            *_, (_, codes) = watch(draws, side**2, progress_bar, callback)
        return codes.unflatten(1, (side, side))  # (B·n, h, w)

    def decode_codes(self, codes: Tensor, style: Tensor | None = None, *, batch_size: int = BATCH_SIZE) -> Tensor:
        """Codes (B, h, w), and a style (B, S) where the dVAE has one -> pixel values (B, 3, H, W) in [0, 1].

        batch_size: pictures decoded at once, which bounds the memory that this takes beside its result.

        Raises ValueError for codes that are not this model's.
        """
        check_count("batch_size", batch_size)
        check_codes(codes, self.prior)
        return in_batches(self.dvae.decode, codes.to(self.device), style, batch_size=batch_size)

    def postprocess(self, pixel_values: Tensor, output_type: Literal["pil", "np", "pt"] = "pil") -> Images:
        """Pixel values (B, 3, H, W) in [0, 1] -> PIL images, an array (B, H, W, 3), or the tensor in float32."""
        return self.image_processor.postprocess(pixel_values.float(), output_type=output_type)

    def encode_images(self, images: Image.Image | np.ndarray | list) -> Tensor:
        """A picture or a list of them (PIL, or uint8 (H, W, 3 or 4)), fitted to the model -> codes (B, h, w)."""
        return in_batches(self.dvae.encode, self.preprocess(images))

    def preprocess(self, images: Image.Image | np.ndarray | list) -> Tensor:
        """A picture or a list of them, fitted to the model -> pixel values (B, 3, H, W) in [0, 1], as the dVAE's."""
        return self.image_processor(images)["pixel_values"].to(self.device, self.dvae.dtype)

    def settings(self, **values: Any) -> SamplingSettings:
        """The pipeline's `sampling`, with what is given, None apart, in place of its own. Raises TypeError."""
        if unknown := values.keys() - asdict(self.sampling).keys():
            raise TypeError(
                f"{min(unknown)} is no argument of a call; those that sample are {', '.join(asdict(self.sampling))}"
            )
        return replace(self.sampling, **{name: value for name, value in values.items() if value is not None})

    # From given pictures, or two prompts: editing.py.

    complete = editing.complete
    inpaint = editing.inpaint
    vary = editing.vary
    interpolate = editing.interpolate
    reconstruct = editing.reconstruct

    # How well a picture goes with a prompt: judging.py.

    score = judging.score
    rank = judging.rank
