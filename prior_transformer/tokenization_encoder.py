"""Prompts -> text ids of a text encoder, whose features a prior reads."""

from functools import cached_property

import torch
from torch import Tensor

from .tokenization_chat import ChatTokenizer, Frame


class EncoderTokenizer(ChatTokenizer):
    """
    A prompt and the encoder's end of text, `eos_token=`, padded on the left. `model_max_length` is T, the text length
    of the prior. One id more than the encoder has stands for no text, at all T positions of the empty caption "".
    """

    eos_token_id: int
    reads = "text"

    def __len__(self) -> int:
        """With the id that stands for no text, which is the last."""
        return super().__len__() + 1

    @cached_property
    def frame(self) -> Frame:
        return Frame([], "", "", [self.eos_token_id])

    def decode_captions(self, text_ids: Tensor) -> list[str]:
        return super().decode_captions(text_ids.where(text_ids != len(self) - 1, self.pad_token_id))

    def _empty(self, ids: Tensor, text_length: int) -> Tensor:
        return torch.full((text_length,), len(self) - 1, device="cpu")


EncoderTokenizer.register_for_auto_class()  # this file is saved beside its vocabulary
