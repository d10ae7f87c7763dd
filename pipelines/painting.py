"""How a call paints: its arguments completed, its codes drawn, its pictures while they grow, the best kept."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .calls import Call
from .checks import check_negative_prompts
from .drawing.keys import draw_seeds
from .drawing.loop import Drawn
from .drawing.settings import SamplingSettings, check_settings
from .judges.judging import PictureJudge, sees_pictures
from .output import TextToImagePipelineOutput
from .steps import PipelineSteps


@dataclass(frozen=True)
class Given:
    """What is given of the pictures, a row a prompt (P) and then a row a candidate.

    codes, mask: (P, N) int64 and bool, the codes that stay as they are.
    style: (P, S), that of the picture they come from.
    posterior_logits, strength: (P, N, K), as `draw_codes` takes them; None where it is not asked.
    """

    codes: Tensor
    mask: Tensor
    style: Tensor | None = None
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
    """A call made complete by its pipeline. Lists and tensors have a row a candidate, R = prompts · candidates.

    captions, other_captions: (R, …), of the prompts and of what guidance steers away from, in one form.
    judge: who chooses among best_of.
    """

    call: Call
    prompts: list[str]
    captions: Tensor
    other_captions: Tensor | None
    seeds: list[int]
    sampling: SamplingSettings
    judge: str | PictureJudge | None
    given: Given | None

    @property
    def style(self) -> Tensor | None:
        return None if self.given is None else self.given.style


class PaintingPipeline(PipelineSteps):
    """The steps in a row, which every method that paints takes."""

    def _plan(self, call: Call, given: Given | None = None) -> Painting:
        """The call with the pipeline's own settings filled in, and what it needs made ready.

        Raises:
            ValueError: when its arguments do not fit this pipeline, saying what to pass instead.
            OSError: when there is no such judge.
        """
        prompts, rows = call.prompts, call.candidates
        sampling = self.settings(**call.sampling)
        check_settings(sampling, self.prior)
        self._check_region(sampling)
        others = check_negative_prompts(call.negative_prompt, len(prompts), sampling.guidance_scale)
        return Painting(
            call=call,
            prompts=[text for text in prompts for _ in range(rows)],
            captions=self.encode_prompt(prompts).repeat_interleave(rows, dim=0),
            other_captions=None if others is None else self.encode_prompt(others).repeat_interleave(rows, dim=0),
            seeds=draw_seeds(call.seed, len(prompts), rows),
            sampling=sampling,
            judge=self._judge_of(call),
            given=None if given is None else given.repeat(rows),
        )

    def _judge_of(self, call: Call) -> str | PictureJudge | None:
        """Who chooses among best_of; a CLIP is loaded here, before any code is drawn."""
        if call.best_of == 1:
            return None
        own = "likelihood" if self.reranker is None else "likelihood+reranker"
        return self.find_judge("reranker", own if call.reranker is None else call.reranker, call.prompts)

    def _paint(self, painting: Painting) -> TextToImagePipelineOutput:
        """The whole pictures."""
        (output,) = self._grow(painting)
        return output

    def _grow(self, painting: Painting, every: int | None = None) -> Iterator[TextToImagePipelineOutput]:
        """Yields the pictures so far after each `every` codes of the grid, and in the end the whole pictures.

        every: None yields the end alone.
        """
        due = set() if every is None else moments(painting.given, self.prior.config.grid_size**2, every)
        draws = self._draw(
            painting.captions,
            painting.seeds,
            painting.sampling,
            other_captions=painting.other_captions,
            window=painting.call.window,
            progress_bar=painting.call.progress_bar,
            callback=painting.call.callback,
            **(painting.given.to_draw() if painting.given else {}),
        )
        for drawn in draws:
            if drawn.done in due:
                yield self._unfinished(painting, drawn)
        yield self._finished(painting, drawn)

    def _unfinished(self, painting: Painting, drawn: Drawn) -> TextToImagePipelineOutput:
        """The pictures so far."""
        done, codes = drawn.done, drawn.codes.unflatten(1, self._grid)
        return TextToImagePipelineOutput(
            images=self.postprocess(self.decode_unfinished(codes, done, painting.style), painting.call.output_type),
            codes=codes,
            prompts=painting.prompts,
            seeds=painting.seeds,
            sampling=painting.sampling,
            step=done,
            total=codes[0].numel(),
            passes=drawn.passes,
        )

    def _finished(self, painting: Painting, drawn: Drawn) -> TextToImagePipelineOutput:
        """All pictures, of best_of candidates each the one that the judge puts first."""
        best_of, style, codes = painting.call.best_of, painting.style, drawn.codes.unflatten(1, self._grid)
        keep, scores, pixel_values = torch.arange(len(codes), device="cpu"), None, None
        if painting.judge is not None:
            if sees_pictures(painting.judge):  # of all candidates, as they are returned
                pixel_values = self.decode_codes(codes, style)
            scores = self.judge_codes(painting.prompts, codes, painting.judge, pixel_values=pixel_values).cpu()
            keep = keep[::best_of] + scores.unflatten(0, (-1, best_of)).argmax(dim=1)  # (B,)
        codes = codes[keep]
        if pixel_values is None:
            pixel_values = self.decode_codes(codes, None if style is None else style[keep])
        else:
            pixel_values = pixel_values[keep]
        rows = keep.tolist()
        return TextToImagePipelineOutput(
            images=self.postprocess(pixel_values, painting.call.output_type),
            codes=codes,
            prompts=[painting.prompts[row] for row in rows],
            seeds=[painting.seeds[row] for row in rows],
            sampling=painting.sampling,
            step=codes[0].numel(),
            total=codes[0].numel(),
            passes=drawn.passes,
            scores=None if scores is None else scores[keep],
        )


def moments(given: Given | None, total: int, every: int) -> set[int]:
    """How many codes are done when the last drawn one of each `every` in raster order is, but for the very last."""
    drawn = range(total) if given is None else (~given.mask).any(dim=0).nonzero()[:, 0].tolist()
    return {i + 1 for i, following in pairwise(drawn) if i // every < following // every}
