"""The prior of Llama's family: RMSNorm, SwiGLU and rotary positions; its parts are in llama_blocks.py."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .configuration_llama_prior import LlamaPriorConfig
from .llama_blocks import EMBEDDINGS, MLP, RMSNorm, llama_block, rotations
from .masks import full_mask
from .stream import StreamPrior
from .text_encoder import TextEncoder


class LlamaPrior(StreamPrior):
    """
    The decoder of Llama over the stream of `StreamPrior`; the family of Janus-Pro and LlamaGen. Source: arXiv
    2302.13971, and 2406.06525 for pictures.
    """

    config: LlamaPriorConfig
    embeddings: Any  # one of EMBEDDINGS

    def __init__(self, config: LlamaPriorConfig):
        embeddings = EMBEDDINGS[config.text](config)
        layers = [llama_block(config, i) for i in range(config.num_hidden_layers)]
        norm, head = RMSNorm(config.hidden_size, config.rms_norm_eps), None
        if config.image_head_size:
            head = MLP(config.hidden_size, config.image_head_size, config.codebook_size)
        super().__init__(config, embeddings, layers, norm, head)

    @property
    def text_encoder(self) -> PreTrainedModel | None:
        encoder = self.embeddings.encoder if self.config.text == "features" else None
        return None if encoder is None else encoder.model

    def read_through(self, encoder: TextEncoder) -> None:
        """For text="features"; the encoder's weights are no part of the prior's."""
        if self.config.text != "features":
            super().read_through(encoder)
        self.embeddings.encoder = encoder

    def null(self, captions: Tensor) -> Tensor:
        return super().null(captions) if self.config.text == "caption" else self.embeddings.null(captions)

    def _mask(self, name: str, start: int, stop: int, device: torch.device) -> Tensor:
        key = torch.arange(stop, device=device)
        return full_mask(key[start:, None], key[None, :])

    def _turns(self, start: int, stop: int, device: torch.device) -> tuple[Tensor, ...]:
        return rotations(self.config, start, stop, device)


LlamaPrior.register_for_auto_class("AutoModel")  # its code is saved beside the weights
