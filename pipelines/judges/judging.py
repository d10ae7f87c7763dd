"""How well a picture goes with a prompt: by the model's own likelihood, code by code, or by another model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..checks import check_prompts
from ..drawing.loop import check_codes
from ..running import evaluating, in_batches

if TYPE_CHECKING:
    from ..text_to_image import TextToImagePipeline

Reranker = Callable[[list[str], list[Image.Image]], Tensor | np.ndarray | list[float]]
"""Prompts and as many pictures -> scores (B,), higher is better; NaN is the worst."""
Judge = str | Path | Reranker
"""Who ranks: one of `TERMS`, or some joined by "+"; a reranker, or the folder or Hub id of a CLIP to load as one."""

TERMS = ("likelihood", "pmi", "reranker")
"""What the pipeline itself judges by, in nats, so that they add up: log p(codes | prompt), how much of it the prompt
explains, and the cosine of the pipeline's own reranker, times `NATS_A_COSINE`."""
NATS_A_COSINE = 250.0  # measured (training/LOG.md): at 5 likelihood rules, which takes to a ground left empty

BATCH_SIZE = 64


@dataclass(frozen=True)
class Score:
    """Log-likelihoods in nats of B pictures' codes under the plain model: temperature 1, no guidance.

    code_log_likelihood: float32 (B, h, w), log p(code | the codes before it, prompt).
    code_log_prior: float32 (B, h, w), the same given the empty caption.

    A dVAE's code is a part of the picture, so these judge the picture as the dVAE sees it.
    """

    code_log_likelihood: Tensor
    code_log_prior: Tensor

    @property
    def log_likelihood(self) -> Tensor:
        """log p(codes | prompt), (B,)."""
        return self.code_log_likelihood.sum(dim=(1, 2))

    @property
    def log_prior(self) -> Tensor:
        """log p(codes) by the empty caption, (B,)."""
        return self.code_log_prior.sum(dim=(1, 2))

    @property
    def code_pmi(self) -> Tensor:
        """What the prompt adds to each code's log-likelihood, (B, h, w)."""
        return self.code_log_likelihood - self.code_log_prior

    @property
    def pmi(self) -> Tensor:
        """Pointwise mutual information of picture and prompt, log p(codes | prompt) − log p(codes), (B,)."""
        return self.log_likelihood - self.log_prior

    def heat_maps(self, by: Literal["pmi", "likelihood"] = "pmi", size: int = 256) -> list[Image.Image]:
        """A picture each of size × size pixels, a square a code: red above 0, white at 0, blue below."""
        values = {"pmi": self.code_pmi, "likelihood": self.code_log_likelihood}
        if by not in values:
            raise ValueError(f"by={by!r} is unknown; pass 'pmi' or 'likelihood'")
        return [heat_map(grid, size) for grid in values[by].cpu().numpy()]


class Ranking(NamedTuple):
    """order: places of the pictures, best first. scores: (B,) in the pictures' own order, higher is better."""

    order: list[int]
    scores: Tensor


def score(pipeline: "TextToImagePipeline", prompt: str | list[str], images: Any) -> Score:
    """How likely pictures are under the model, given a prompt and without one.

    Args:
        prompt: one for all pictures, or one a picture.
        images: a picture (PIL, or a uint8 array (H, W, 3 or 4)), a list of them, or codes (B, h, w). Pictures are
            fitted and encoded; codes that the model drew are judged as they are.

    Raises:
        TypeError, ValueError: when prompts and pictures are not as many, or do not fit the model.
    """
    codes = codes_of(pipeline, images)
    prompts = check_prompts(prompt, allow_empty=True)
    if len(prompts) not in (1, len(codes)):
        raise ValueError(f"{len(prompts)} prompts for {len(codes)} pictures; pass one prompt, or one a picture")
    return score_codes(pipeline, pipeline.encode_prompt(prompts).expand(len(codes), -1), codes)


def rank(pipeline: "TextToImagePipeline", prompt: str, images: Any, by: Judge | None = None) -> Ranking:
    """Order pictures by how well they show a prompt.

    Args:
        prompt: one prompt.
        images: as in `score`.
        by: "reranker": the cosine of the pipeline's own, which None takes if there is one. "pmi": log p(codes |
            prompt) − log p(codes), what the prompt explains, which None takes otherwise. "likelihood": log p(codes |
            prompt), which prefers plain pictures, and of those painted for one prompt the likely ones.
            "likelihood+reranker" is their sum. Or a CLIP: its folder or Hub id, which transformers loads, or any
            function of prompts and PIL pictures to scores.

    Raises:
        TypeError, ValueError: as `score`; OSError: when there is no such CLIP.
    """
    if not isinstance(prompt, str):
        raise TypeError(f"prompt={prompt!r} is a {type(prompt).__name__}; rank takes one, a string")
    by = default_judge(pipeline, "pmi", "reranker") if by is None else by
    by = find_judge(pipeline, "by", by, check_prompts(prompt, allow_empty=True))
    codes = codes_of(pipeline, images)
    pixel_values = None if torch.is_tensor(images) else pipeline.preprocess(images)
    scores = judge_codes(pipeline, [prompt] * len(codes), codes, by, pixel_values=pixel_values)
    return Ranking(scores.argsort(descending=True, stable=True).tolist(), scores)


def default_judge(pipeline: "TextToImagePipeline", without: str, with_reranker: str) -> str:
    return without if pipeline.reranker is None else with_reranker


def find_judge(pipeline: "TextToImagePipeline", name: str, judge: Judge, prompts: list[str]) -> str | Reranker:
    """The judge, loaded when it is a CLIP. name: of the argument that holds it.

    Raises TypeError for what cannot judge, ValueError where every picture would be judged alike or the pipeline has no
    reranker, OSError for no CLIP.
    """
    if not (isinstance(judge, str | Path) or callable(judge)):
        what = f"{name}={judge!r} is a {type(judge).__name__}"
        raise TypeError(f"{what}; pass 'likelihood', 'pmi', 'reranker', a CLIP's folder or Hub id")
    terms = judge.split("+") if isinstance(judge, str) else [""]
    if not set(terms) <= set(TERMS):
        return judge if callable(judge) else load_reranker(judge)
    if "reranker" in terms and pipeline.reranker is None:
        raise ValueError(f"{name}={judge!r}, but this pipeline has no reranker; pass 'likelihood', or a CLIP")
    if "likelihood" not in terms and not all(text.strip() for text in prompts):
        raise ValueError(f"to {judge!r} all pictures fit the empty prompt alike; pass 'likelihood', or a prompt")
    return judge


def codes_of(pipeline: "TextToImagePipeline", images: Any) -> Tensor:
    """Pictures, fitted and encoded, or codes (B, h, w) as they are. Raises ValueError for codes that do not fit."""
    if not torch.is_tensor(images):
        return pipeline.encode_images(images)
    check_codes(images, pipeline.prior)
    if len(images) == 0:
        raise ValueError(f"codes {tuple(images.shape)} are of no picture; pass at least one")
    return images.to(pipeline.device)


def judge_codes(
    pipeline: "TextToImagePipeline",
    prompts: list[str],
    codes: Tensor,
    by: str | Reranker,
    *,
    pixel_values: Tensor | None = None,
) -> Tensor:
    """Scores (B,) of codes (B, h, w), a prompt each; by: of `find_judge`. pixel_values: (B, 3, H, W) of the pictures
    that a reranker sees; None is what the codes decode to.
    """
    if pixel_values is None and sees_pictures(by):
        pixel_values = pipeline.decode_codes(codes)
    if not callable(by):
        return sum_of_terms(pipeline, prompts, codes, by.split("+"), pixel_values)
    scores = torch.as_tensor(by(prompts, pipeline.postprocess(pixel_values)))
    if scores.shape != (len(codes),):
        raise ValueError(f"the reranker gave scores {tuple(scores.shape)} for {len(codes)} pictures; return one each")
    return scores.float().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)  # what has no score is last


def sees_pictures(by: str | Reranker) -> bool:
    """Whether a judge looks at more than codes."""
    return callable(by) or "reranker" in by.split("+")


def sum_of_terms(
    pipeline: "TextToImagePipeline", prompts: list[str], codes: Tensor, terms: list[str], pixel_values: Tensor | None
) -> Tensor:
    """The sum (B,) of some of `TERMS`, in nats. The empty prompt asks the reranker for nothing."""
    text_ids, scores = pipeline.encode_prompt(prompts), torch.zeros(len(codes), device=pipeline.device)
    if {"likelihood", "pmi"} & set(terms):
        own = score_codes(pipeline, text_ids, codes)
        scores += own.log_likelihood * terms.count("likelihood") + own.pmi * terms.count("pmi")
    if "reranker" in terms:
        with evaluating(pipeline.reranker):
            cosines = in_batches(pipeline.reranker.score, pixel_values, text_ids, batch_size=BATCH_SIZE)
        says_something = torch.tensor([bool(prompt.strip()) for prompt in prompts], device=cosines.device)
        scores += NATS_A_COSINE * cosines * says_something * terms.count("reranker")
    return scores


def score_codes(pipeline: "TextToImagePipeline", text_ids: Tensor, codes: Tensor) -> Score:
    """Text ids (B, T) and codes (B, h, w) -> their `Score`."""
    prior, grid = pipeline.prior, codes.shape[1:]
    empty = prior.null_text_ids(len(codes)).to(codes.device)
    with evaluating(prior):
        given, alone = (log_likelihoods(prior, ids, codes.flatten(1)) for ids in (text_ids, empty))
    return Score(given.unflatten(1, grid), alone.unflatten(1, grid))


@torch.no_grad()
def log_likelihoods(prior: Any, text_ids: Tensor, codes: Tensor) -> Tensor:
    """log p(code | the codes before it, text) in nats: text ids (B, T), codes (B, N) -> float32 (B, N)."""
    parts = []
    for ids, part in zip(text_ids.split(BATCH_SIZE), codes.split(BATCH_SIZE), strict=True):
        embeddings = torch.cat([prior.embed_text(ids), prior.embed_codes(part[:, :-1], start=0)], dim=1)
        logits = prior.image_logits(prior.transform(embeddings)[:, -part.shape[1] :])  # (B, N, K)
        parts.append(logits.float().log_softmax(dim=-1).gather(2, part[:, :, None])[:, :, 0])
    return torch.cat(parts)


def heat_map(values: np.ndarray, size: int) -> Image.Image:
    """Values (h, w) -> a square each in size × size pixels: red above 0, white 0, blue below, full at the largest."""
    strength = values[:, :, None] / max(np.abs(values).max(), np.finfo(np.float32).tiny)
    red, white, blue = np.array([178, 24, 43]), np.array([255, 255, 255]), np.array([33, 102, 172])
    colours = white + np.abs(strength) * (np.where(strength > 0, red, blue) - white)
    return Image.fromarray(colours.round().astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)


@lru_cache(maxsize=1)
def load_reranker(name: str | Path) -> Reranker:
    """The last one loaded is kept."""
    from .clip import CLIPReranker

    return CLIPReranker.from_pretrained(name)
