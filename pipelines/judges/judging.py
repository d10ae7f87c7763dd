"""Who judges pictures, and the scores they give: what the pipeline itself judges by, a CLIP, or any function.

A *judge* is whatever gives scores to pictures of prompts. The *reranker* is one of them: the pipeline's own component.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..running import evaluating, in_batches
from .likelihood import log_likelihoods, score_codes
from .small_clip import SmallCLIP

PictureJudge = Callable[[list[str], list[Image.Image]], Tensor | np.ndarray | list[float]]
"""Prompts and as many pictures -> scores (B,), higher is better; NaN is the worst."""
Judge = str | Path | PictureJudge
"""As it is asked for: one of `TERMS`, or some joined by "+"; a function; or the folder or Hub id of a CLIP."""

TERMS = ("likelihood", "pmi", "reranker")
"""What the pipeline itself judges by, in nats, so that they add up: log p(codes | prompt), how much of it the prompt
explains, and the cosine of the pipeline's own reranker, times `NATS_A_COSINE`."""
NATS_A_COSINE = 250.0  # measured (training/LOG.md): at 5 likelihood rules, which takes to a ground left empty

BATCH_SIZE = 64


class Ranking(NamedTuple):
    """order: places of the pictures, best first. scores: (B,) in the pictures' own order, higher is better."""

    order: list[int]
    scores: Tensor


def find_judge(
    argument: str, judge: Judge, prompts: list[str], *, has_reranker: bool, device: torch.device | None = None
) -> str | PictureJudge:
    """The judge of these prompts, loaded when it is a CLIP.

    argument: the one that holds it, for errors. has_reranker: whether the pipeline has one of its own. device: where a
        CLIP judges.

    Raises TypeError for what cannot judge, ValueError where every picture would be judged alike or the pipeline has no
    reranker, OSError for no CLIP.
    """
    if callable(judge):
        return judge
    if not isinstance(judge, str | Path):
        what = f"{argument}={judge!r} is a {type(judge).__name__}"
        raise TypeError(f"{what}; pass 'likelihood', 'pmi', 'reranker', a CLIP's folder or Hub id")
    if isinstance(judge, Path) or not set(terms := judge.split("+")) <= set(TERMS):
        return load_clip(judge, device)
    if "reranker" in terms and not has_reranker:
        raise ValueError(f"{argument}={judge!r}, but this pipeline has no reranker; pass 'likelihood', or a CLIP")
    if "likelihood" not in terms and not all(text.strip() for text in prompts):
        raise ValueError(f"to {judge!r} all pictures fit the empty prompt alike; pass 'likelihood', or a prompt")
    return judge


@lru_cache(maxsize=1)
def load_clip(name: str | Path, device: torch.device | None = None) -> PictureJudge:
    """The last one loaded is kept."""
    from .clip import CLIPJudge

    return CLIPJudge.from_pretrained(name, device=device)


def sees_pictures(judge: str | PictureJudge) -> bool:
    """Whether a judge looks at more than codes."""
    return callable(judge) or "reranker" in judge.split("+")


def ask(judge: PictureJudge, prompts: list[str], images: list[Image.Image]) -> Tensor:
    """Its scores, float32 (B,), those it could not give −inf. Raises ValueError when they are not one a picture."""
    scores = torch.as_tensor(judge(prompts, images))
    if scores.shape != (len(images),):
        raise ValueError(f"the judge gave scores {tuple(scores.shape)} for {len(images)} pictures; return one each")
    return scores.float().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)  # what has no score is last


def sum_of_terms(
    terms: list[str],
    prompts: list[str],
    text_ids: Tensor,
    codes: Tensor,
    *,
    prior: Any,
    reranker: SmallCLIP | None,
    pixel_values: Tensor | None,
) -> Tensor:
    """The sum (B,) of some of `TERMS`, in nats. The empty prompt asks the reranker for nothing.

    text_ids: (B, T), of the prompts. codes: (B, h, w). reranker, pixel_values (B, 3, H, W): for its own term alone.
    """
    scores = torch.zeros(len(codes), device=codes.device)
    if "pmi" in terms:
        own = score_codes(prior, text_ids, codes)
        scores += own.log_likelihood * terms.count("likelihood") + own.pmi * terms.count("pmi")
    elif "likelihood" in terms:  # which the empty caption has no part in
        with evaluating(prior):
            scores += log_likelihoods(prior, text_ids, codes.flatten(1)).sum(dim=1) * terms.count("likelihood")
    if "reranker" in terms:
        assert reranker is not None and pixel_values is not None  # whoever asks it has both
        with evaluating(reranker):
            cosines = in_batches(reranker.score, pixel_values, text_ids, batch_size=BATCH_SIZE)
        says_something = torch.tensor([bool(prompt.strip()) for prompt in prompts], device=cosines.device)
        scores += NATS_A_COSINE * cosines * says_something * terms.count("reranker")
    return scores
