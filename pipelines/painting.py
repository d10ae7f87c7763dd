"""One call of the pipeline: its arguments checked, its codes drawn, its pictures while they grow, the best kept."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from .checks import check_count, check_prompts
from .drawing.keys import draw_keys, draw_seeds
from .drawing.loop import Callback, draw_codes, watch
from .drawing.settings import SamplingSettings, check_settings
from .judges.judging import Judge, Reranker, default_judge, find_judge, judge_codes, sees_pictures
from .output import TextToImagePipelineOutput
from .running import evaluating

if TYPE_CHECKING:
    from .text_to_image import TextToImagePipeline

NOT_DRAWN = 0.85  # the light grey of what a stream has not come to


@dataclass(frozen=True)
class Given:
    """What is given of the pictures, a row a prompt (P) and then a row a candidate.

    codes, mask: (P, N) int64 and bool, the codes that stay as they are.
    style: (P, S), that of the picture they come from.
    posterior_logits, strength: (P, N, K), as `draw_codes` takes them.
    """

    codes: Tensor
    mask: Tensor
    style: Tensor
    posterior_logits: Tensor | None = None
    strength: float = 1.0

    def repeat(self, rows: int) -> "Given":
        parts = {
            name: part.repeat_interleave(rows, dim=0) for name, part in vars(self).items() if torch.is_tensor(part)
        }
        return replace(self, **parts)

    def to_draw(self) -> dict[str, Any]:
        """The arguments of `draw_codes`."""
        return {
            "fixed_codes": self.codes,
            "fixed_mask": self.mask,
            "posterior_logits": self.posterior_logits,
            "strength": self.strength,
        }


@dataclass(frozen=True, kw_only=True)
class Painting:
    """The arguments of a call, checked and complete; lists and tensors have a row a candidate, R = B · best_of."""

    prompts: list[str]
    captions: Tensor
    other_captions: Tensor | None
    seeds: list[int]
    sampling: SamplingSettings
    given: Given | None
    best_of: int
    reranker: str | Reranker | None
    output_type: Literal["pil", "np", "pt"]
    progress_bar: bool
    callback: Callback | None


def plan(
    pipeline: "TextToImagePipeline",
    prompt: str | list[str],
    *,
    negative_prompt: str | list[str] | None = None,
    num_images_per_prompt: int = 1,
    seed: int | list[int] | None = None,
    output_type: Literal["pil", "np", "pt"] = "pil",
    progress_bar: bool = True,
    callback: Callback | None = None,
    best_of: int = 1,
    reranker: Judge | None = None,
    given: Given | None = None,
    **sampling: Any,
) -> Painting:
    """Check the arguments of a call, which are those of `TextToImagePipeline.__call__`, and fill in its defaults.

    Raises:
        TypeError, ValueError: when an argument cannot be used, saying what to pass instead.
        OSError: when there is no such reranker.
    """
    prompts = check_prompts(prompt, allow_empty=True)
    check_count("num_images_per_prompt", num_images_per_prompt)
    check_count("best_of", best_of)
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f"output_type={output_type!r} is unknown; pass 'pil', 'np' or 'pt'")
    settings = pipeline.settings(**sampling)
    check_settings(settings, pipeline.prior)
    rows = num_images_per_prompt * best_of
    if best_of == 1 and reranker is not None:
        raise ValueError(f"reranker={reranker!r} has nothing to judge at best_of=1; pass best_of, such as 8")
    if settings.guidance_scale == 1 and settings.guidance_region != pipeline.sampling.guidance_region:
        raise ValueError(
            f"guidance_region={settings.guidance_region} does nothing at guidance_scale=1; pass a scale such as 3"
        )
    others = negative_prompts(negative_prompt, len(prompts), settings)
    seeds = draw_seeds(seed, len(prompts), rows)
    if best_of > 1:
        reranker = default_judge(pipeline, "likelihood", "likelihood+reranker") if reranker is None else reranker
        reranker = find_judge(pipeline, "reranker", reranker, prompts)  # a CLIP is loaded before any code is drawn
    return Painting(
        prompts=[text for text in prompts for _ in range(rows)],
        captions=pipeline.encode_prompt(prompts).repeat_interleave(rows, dim=0),
        other_captions=others and pipeline.encode_prompt(others).repeat_interleave(rows, dim=0),
        seeds=seeds,
        sampling=settings,
        given=given and given.repeat(rows),
        best_of=best_of,
        reranker=reranker,
        output_type=output_type,
        progress_bar=progress_bar,
        callback=callback,
    )


def negative_prompts(
    negative_prompt: str | list[str] | None, num_prompts: int, settings: SamplingSettings
) -> list[str] | None:
    """One a prompt, or None for the empty caption. Raises TypeError or ValueError for what guidance cannot use."""
    if negative_prompt is None:
        return None
    others = check_prompts(negative_prompt, allow_empty=True)
    if len(others) not in (1, num_prompts):
        raise ValueError(f"{len(others)} negative prompts for {num_prompts} prompts; pass one for all, or one each")
    if settings.guidance_scale == 1:
        raise ValueError(
            f"negative_prompt={negative_prompt!r} does nothing at guidance_scale=1; pass a scale such as 3"
        )
    return others * (num_prompts // len(others))


def paint(
    pipeline: "TextToImagePipeline", painting: Painting, every: int | None = None
) -> Iterator[TextToImagePipelineOutput]:
    """Yields the pictures so far after each `every` codes of the grid, and in the end the whole pictures.

    every: None yields the end alone.
    """
    total = pipeline.prior.config.grid_size**2
    with evaluating(pipeline.prior):
        draws = draw_codes(
            pipeline.prior,
            painting.captions,
            draw_keys(painting.seeds, total),
            painting.sampling,
            other_captions=painting.other_captions,
            **(painting.given.to_draw() if painting.given else {}),
        )
        due = set() if every is None else moments(painting.given, total, every)
        for done, codes in watch(draws, total, painting.progress_bar, painting.callback):
            if done in due:
                yield _partial(pipeline, painting, codes, done)
        yield _whole(pipeline, painting, codes)


def moments(given: Given | None, total: int, every: int) -> set[int]:
    """How many codes are done when the last drawn one of each `every` in raster order is, but for the very last."""
    drawn = range(total) if given is None else (~given.mask).any(dim=0).nonzero()[:, 0].tolist()
    return {i + 1 for i, following in pairwise(drawn) if i // every < following // every}


def _whole(pipeline: "TextToImagePipeline", painting: Painting, codes: Tensor) -> TextToImagePipelineOutput:
    """All codes (R, N) -> the pictures, of best_of candidates each the one that the reranker puts first."""
    side = pipeline.prior.config.grid_size
    codes, style = codes.unflatten(1, (side, side)), painting.given and painting.given.style
    keep, scores, pixel_values = torch.arange(len(codes)), None, None
    if painting.best_of > 1:
        if sees_pictures(painting.reranker):  # of all candidates, as they are returned
            pixel_values = pipeline.decode_codes(codes, style)
        scores = judge_codes(pipeline, painting.prompts, codes, painting.reranker, pixel_values=pixel_values).cpu()
        best = scores.unflatten(0, (-1, painting.best_of)).argmax(dim=1)  # (B,)
        keep = torch.arange(0, len(codes), painting.best_of) + best
    rows = keep.tolist()
    codes = codes[keep]
    if pixel_values is None:
        pixel_values = pipeline.decode_codes(codes, None if style is None else style[keep])
    else:
        pixel_values = pixel_values[keep]
    return TextToImagePipelineOutput(
        images=pipeline.postprocess(pixel_values, painting.output_type),
        codes=codes,
        prompts=[painting.prompts[row] for row in rows],
        seeds=[painting.seeds[row] for row in rows],
        sampling=painting.sampling,
        step=side**2,
        total=side**2,
        scores=None if scores is None else scores[keep],
    )


def _partial(
    pipeline: "TextToImagePipeline", painting: Painting, codes: Tensor, done: int
) -> TextToImagePipelineOutput:
    """Codes (R, N), −1 where there is none yet -> the pictures so far."""
    side = pipeline.prior.config.grid_size
    codes = codes.unflatten(1, (side, side))
    pixel_values = decode_unfinished(pipeline, codes, done, painting.given and painting.given.style)
    return TextToImagePipelineOutput(
        images=pipeline.postprocess(pixel_values, painting.output_type),
        codes=codes,
        prompts=painting.prompts,
        seeds=painting.seeds,
        sampling=painting.sampling,
        step=done,
        total=side**2,
    )


def decode_unfinished(
    pipeline: "TextToImagePipeline", codes: Tensor, done: int, style: Tensor | None = None
) -> Tensor:
    """Codes (B, h, w), −1 where there is none yet -> pixel values (B, 3, H, W), plain grey there, cut at the grid.

    done: codes in raster order, 1 or more.
    """
    stand_in = codes.flatten(1)[:, done - 1, None, None]  # the decoder looks past the cut: at more of the last code
    pixel_values = pipeline.decode_codes(codes.where(codes >= 0, stand_in), style)
    cell = pixel_values.shape[-1] // codes.shape[-1]
    missing = (codes < 0).repeat_interleave(cell, dim=1).repeat_interleave(cell, dim=2)  # (B, H, W)
    return pixel_values.masked_fill(missing[:, None], NOT_DRAWN)
