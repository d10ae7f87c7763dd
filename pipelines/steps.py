"""The steps of a call, each a public method: prompt -> text ids -> codes -> pixels -> pictures -> their scores."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, Literal, TypeGuard, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .calls import OutputType
from .checks import check_count, check_prompts
from .drawing.keys import draw_keys, draw_seeds
from .drawing.loop import Callback, Drawn, check_codes, draw_codes, watch
from .drawing.settings import SamplingSettings
from .folder.saving import SavedPipeline
from .judges.judging import Judge, PictureJudge, Ranking, ask, find_judge, sees_pictures, sum_of_terms
from .judges.likelihood import Score, score_codes
from .output import Images
from .running import BATCH_SIZE, each_evaluating, evaluating, in_batches

ImageInput = Image.Image | np.ndarray | Tensor
"""PIL; uint8 (H, W, 3 or 4); or as output_type "np" and "pt" return them, in [0, 1]: an array (H, W, 3) or
(B, H, W, 3), a tensor (3, H, W) or (B, 3, H, W). Fitted to the model as its image processor does."""

NOT_DRAWN = 0.85  # the light grey of what a stream has not come to


class PipelineSteps(SavedPipeline):
    """What a call does, step by step; the parts, and how they are loaded and saved, are `SavedPipeline`'s."""

    def settings(self, **values: Any) -> SamplingSettings:
        """The pipeline's `sampling`, with what is given, None apart, in place of its own. Raises TypeError."""
        if unknown := values.keys() - asdict(self.sampling).keys():
            raise TypeError(
                f"{min(unknown)} is no argument of a call; those that sample are {', '.join(asdict(self.sampling))}"
            )
        return replace(self.sampling, **{name: value for name, value in values.items() if value is not None})

    # From a prompt to pictures.

    def encode_prompt(self, prompt: str | list[str]) -> Tensor:
        """One prompt or B -> text ids (B, T) int64 on the pipeline's device. A long prompt is cut, with a warning."""
        prompts = check_prompts(prompt, allow_empty=True)
        return self.tokenizer.encode_captions(prompts).to(self.device)

    def generate_codes(
        self,
        text_ids: Tensor,
        *,
        num_images_per_prompt: int = 1,
        seed: int | list[int] | None = None,
        negative_text_ids: Tensor | None = None,
        fixed_codes: Tensor | None = None,
        fixed_mask: Tensor | None = None,
        window: int | None = None,
        progress_bar: bool = False,
        callback: Callback | None = None,
        **sampling: Any,
    ) -> Tensor:
        """Text ids (B, T) -> codes (B·n, h, w), n = num_images_per_prompt. Arguments as in `__call__`, and:

        Args:
            negative_text_ids: (B, T), or (1, T) for all, in place of the empty caption in guidance.
            fixed_codes, fixed_mask: (B·n, N) int64 and bool. The codes in the mask stay. The rest is drawn in raster
                order to go with what comes before.
            sampling: temperature, top_k, top_p, min_p, guidance_scale, guidance_region.
        """
        check_count("num_images_per_prompt", num_images_per_prompt)
        settings, others = self.settings(**sampling), negative_text_ids
        self._check_region(settings)
        if others is not None:
            if settings.guidance_scale == 1:
                raise ValueError("negative_text_ids do nothing at guidance_scale=1; pass a scale such as 3")
            if len(others) not in (1, len(text_ids)):
                raise ValueError(
                    f"{len(others)} negative_text_ids for {len(text_ids)} text_ids; pass one for all, or one each"
                )
            others = others.to(self.device).expand(len(text_ids), -1).repeat_interleave(num_images_per_prompt, dim=0)
        *_, last = self._draw(
            text_ids.to(self.device).repeat_interleave(num_images_per_prompt, dim=0),
            draw_seeds(seed, len(text_ids), num_images_per_prompt),
            settings,
            other_captions=others,
            fixed_codes=fixed_codes,
            fixed_mask=fixed_mask,
            window=window,
            progress_bar=progress_bar,
            callback=callback,
        )
        return last.codes.unflatten(1, self._grid)  # (B·n, h, w)

    def decode_codes(self, codes: Tensor, style: Tensor | None = None, *, batch_size: int = BATCH_SIZE) -> Tensor:
        """Codes (B, h, w), and a style (B, S) where the dVAE has one -> pixel values (B, 3, H, W) in [0, 1].

        batch_size: pictures decoded at once. Alone, a picture is the same to the last bit whatever its neighbours are:
            of several, a convolution takes other sums, and of 30 pictures two had a pixel of another level.

        Raises ValueError for codes that are not this model's.
        """
        check_count("batch_size", batch_size)
        check_codes(codes, self.prior)
        styles = () if style is None else (style,)
        return in_batches(self.dvae.decode, codes.to(self.device), *styles, batch_size=batch_size)

    def decode_unfinished(self, codes: Tensor, done: int, style: Tensor | None = None) -> Tensor:
        """Codes (B, h, w), −1 where there is none yet -> pixel values (B, 3, H, W), plain grey there, cut at the grid.

        done: codes in raster order, 1 or more.
        """
        stand_in = codes.flatten(1)[:, done - 1, None, None]  # the decoder looks past the cut: at more of the last
        pixel_values = self.decode_codes(codes.where(codes >= 0, stand_in), style)
        cell = pixel_values.shape[-1] // codes.shape[-1]
        missing = (codes < 0).repeat_interleave(cell, dim=1).repeat_interleave(cell, dim=2)  # (B, H, W)
        return pixel_values.masked_fill(missing[:, None], NOT_DRAWN)

    @overload
    def postprocess(self, pixel_values: Tensor, output_type: Literal["pil"] = "pil") -> list[Image.Image]: ...
    @overload
    def postprocess(self, pixel_values: Tensor, output_type: Literal["np"]) -> np.ndarray: ...
    @overload
    def postprocess(self, pixel_values: Tensor, output_type: Literal["pt"]) -> Tensor: ...
    def postprocess(self, pixel_values: Tensor, output_type: OutputType = "pil") -> Images:
        """Pixel values (B, 3, H, W) in [0, 1] -> PIL images, an array (B, H, W, 3), or the tensor in float32."""
        return self.image_processor.postprocess(pixel_values.float(), output_type=output_type)

    # From pictures to codes.

    def preprocess(self, images: ImageInput | list[ImageInput]) -> Tensor:
        """A picture or a list of them, fitted to the model -> pixel values (B, 3, H, W) in [0, 1], as the dVAE's."""
        return self.image_processor(images)["pixel_values"].to(self.device, self.dvae.dtype)

    def encode_images(self, images: ImageInput | list[ImageInput]) -> Tensor:
        """A picture or a list of them, fitted to the model -> codes (B, h, w)."""
        return in_batches(self.dvae.encode, self.preprocess(images))

    @overload
    def reconstruct(
        self, image: ImageInput | list[ImageInput], *, output_type: Literal["pil"] = "pil"
    ) -> list[Image.Image]: ...
    @overload
    def reconstruct(self, image: ImageInput | list[ImageInput], *, output_type: Literal["np"]) -> np.ndarray: ...
    @overload
    def reconstruct(self, image: ImageInput | list[ImageInput], *, output_type: Literal["pt"]) -> Tensor: ...
    def reconstruct(self, image: ImageInput | list[ImageInput], *, output_type: OutputType = "pil") -> Images:
        """A picture or a list of them through the codes and back, as a call's images: what the dVAE keeps of them."""
        return self.postprocess(in_batches(self.dvae.reconstruct, self.preprocess(image)), output_type)

    # How well a picture goes with a prompt.

    def score(self, prompt: str | list[str], images: ImageInput | list[ImageInput]) -> Score:
        """How likely pictures are under the model, given a prompt and without one.

        Args:
            prompt: one for all pictures, or one a picture.
            images: a picture (PIL, or a uint8 array (H, W, 3 or 4)), a list of them, a call's own as output_type "np"
                or "pt" return them, or codes int64 (B, h, w). Pictures are fitted and encoded. Codes that the model
                drew are judged as they are.

        Raises:
            TypeError, ValueError: when prompts and pictures are not as many, or do not fit the model.
        """
        codes = self._codes_of(images)
        prompts = check_prompts(prompt, allow_empty=True)
        if len(prompts) not in (1, len(codes)):
            raise ValueError(f"{len(prompts)} prompts for {len(codes)} pictures; pass one prompt, or one a picture")
        return score_codes(self.prior, self.encode_prompt(prompts).expand(len(codes), -1), codes)

    def rank(self, prompt: str, images: ImageInput | list[ImageInput], by: Judge | None = None) -> Ranking:
        """Order pictures by how well they show a prompt.

        Args:
            prompt: one prompt.
            images: as in `score`.
            by: the judge. "reranker" is the cosine of the pipeline's own, which None takes if there is one. "pmi" is
                log p(codes | prompt) − log p(codes), what the prompt explains, which None takes otherwise.
                "likelihood" is log p(codes | prompt): it prefers plain pictures, and of those painted for one prompt
                the likely ones. "likelihood+reranker" is their sum. Or a CLIP: its folder or Hub id, which
                transformers loads. Or any function of prompts and PIL pictures to scores.

        Raises:
            TypeError, ValueError: as `score`.
            OSError: when there is no such CLIP.
        """
        if not isinstance(prompt, str):
            raise TypeError(f"prompt={prompt!r} is a {type(prompt).__name__}; rank takes one, a string")
        by = ("pmi" if self.reranker is None else "reranker") if by is None else by
        judge = self.find_judge("by", by, check_prompts(prompt, allow_empty=True))
        codes = self._codes_of(images)
        pixel_values = None if are_codes(images) else self.preprocess(images)
        scores = self.judge_codes([prompt] * len(codes), codes, judge, pixel_values=pixel_values)
        return Ranking(scores.argsort(descending=True, stable=True).tolist(), scores)

    def find_judge(self, argument: str, judge: Judge, prompts: list[str]) -> str | PictureJudge:
        """The judge that `judge_codes` takes, loaded when it is a CLIP; as the function of the same name says."""
        return find_judge(argument, judge, prompts, has_reranker=self.reranker is not None, device=self.device)

    def judge_codes(
        self, prompts: list[str], codes: Tensor, judge: str | PictureJudge, *, pixel_values: Tensor | None = None
    ) -> Tensor:
        """Scores (B,) of codes (B, h, w), a prompt each.

        judge: of `find_judge`. pixel_values: (B, 3, H, W), what a judge of pictures sees; None is what the codes
            decode to.
        """
        if pixel_values is None and sees_pictures(judge):
            pixel_values = self.decode_codes(codes)
        if callable(judge):
            assert pixel_values is not None  # a function sees pictures
            return ask(judge, prompts, self.postprocess(pixel_values))
        parts = {"prior": self.prior, "reranker": self.reranker, "pixel_values": pixel_values}
        return sum_of_terms(judge.split("+"), prompts, self.encode_prompt(prompts), codes, **parts)

    # What the steps share.

    @property
    def _grid(self) -> tuple[int, int]:
        """(h, w) of a picture's codes."""
        return self.prior.config.grid_size, self.prior.config.grid_size

    def _check_region(self, sampling: SamplingSettings) -> None:
        """Raises ValueError for a region of guidance that was asked for where there is none."""
        if sampling.guidance_scale == 1 and sampling.guidance_region != self.sampling.guidance_region:
            raise ValueError(
                f"guidance_region={sampling.guidance_region} does nothing at guidance_scale=1; pass a scale such as 3"
            )

    def _draw(
        self,
        captions: Tensor,
        seeds: list[int],
        sampling: SamplingSettings,
        *,
        progress_bar: bool,
        callback: Callback | None,
        **others: Any,
    ) -> Iterator[Drawn]:
        """The items of `draw_codes`, which gets the others, too; watched, and without dropout."""
        total = self.prior.config.grid_size**2
        with evaluating(self.prior), torch.no_grad():
            draws = draw_codes(self.prior, captions, draw_keys(seeds, total), sampling, **others)
        yield from each_evaluating(self.prior, watch(draws, total, progress_bar, callback))

    def _codes_of(self, images: ImageInput | list[ImageInput]) -> Tensor:
        """Pictures, fitted and encoded, or codes (B, h, w) as they are; raises ValueError where these do not fit."""
        if not are_codes(images):
            return self.encode_images(images)
        check_codes(images, self.prior)
        if len(images) == 0:
            raise ValueError(f"codes {tuple(images.shape)} are of no picture; pass at least one")
        return images.to(self.device)


def are_codes(images: ImageInput | list[ImageInput]) -> TypeGuard[Tensor]:
    """Whether it is a tensor, but none of pictures, which are floats (3, H, W) or (B, 3, H, W)."""
    return isinstance(images, Tensor) and not (images.is_floating_point() and images.shape[-3:-2] == (3,))
