"""All codes of a loop at once, as the pipeline takes them."""

from typing import Any

from torch import Tensor

from pipelines.drawing.loop import Callback, draw_codes, watch
from pipelines.drawing.settings import SamplingSettings


def generate_codes(
    prior: Any,
    text_ids: Tensor,
    keys: Tensor,
    settings: SamplingSettings | None = None,
    *,
    callback: Callback | None = None,
    **given: Tensor | float | int | None,
) -> Tensor:
    """What `draw_codes`, of which it takes the arguments, ends with: codes (B, N)."""
    draws = draw_codes(prior, text_ids, keys, settings, **given)
    *_, last = watch(draws, keys.shape[1], progress_bar=False, callback=callback)
    return last.codes
