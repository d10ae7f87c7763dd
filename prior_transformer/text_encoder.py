"""A frozen encoder of text that a prior reads prompts through."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class TextEncoder:
    """
    Features of text ids, by a model of transformers' such as `T5EncoderModel`, whose places are relative to each
    other: so pads may come first. It is no module: what it computes with is no part of the prior that has it, stays in
    evaluation mode and takes no gradients.
    """

    def __init__(self, model: Any, pad_token_id: int):
        self.model, self.pad_token_id = model.eval().requires_grad_(False), pad_token_id

    @torch.no_grad()
    def __call__(self, text_ids: Tensor) -> Tensor:
        """Text ids (B, T), padded on the left → features (B, T, F), zeros at pads."""
        seen = text_ids != self.pad_token_id
        first = int((~seen[:, :-1]).all(dim=0).long().cumprod(0).sum())  # what none of them has is not read
        seen = seen[:, first:]
        output = self.model(input_ids=text_ids[:, first:], attention_mask=seen.long())
        return F.pad(output.last_hidden_state * seen[..., None], (0, 0, first, 0))
