"""The prior of Llama's family: RMSNorm, SwiGLU and rotary positions; its parts are in llama_blocks.py."""

import torch
from torch import Tensor

from .configuration_llama_prior import LlamaPriorConfig
from .llama_blocks import LlamaEmbeddings, RMSNorm, llama_block, rotations
from .masks import full_mask
from .stream import Context, StreamPrior


class LlamaPrior(StreamPrior):
    """
    The decoder of Llama over the stream of `StreamPrior`; the family of Janus-Pro and LlamaGen. A pad is a token as
    any other. Source: arXiv 2302.13971, and 2406.06525 for pictures.
    """

    config: LlamaPriorConfig

    def __init__(self, config: LlamaPriorConfig):
        embeddings = LlamaEmbeddings(config)
        layers = [llama_block(config, i) for i in range(config.num_hidden_layers)]
        super().__init__(config, embeddings, layers, RMSNorm(config.hidden_size, config.rms_norm_eps))

    def _contexts(self, start: int, stop: int, device: torch.device) -> list[Context]:
        implied = start == 0 or stop - start == 1  # "causal" or "all", which the fast kernels want as None
        mask = None if implied else _mask(start, stop, device)
        return [(mask, *rotations(self.config, start, stop, device))] * len(self.layers)

    def _tables(self) -> dict[str, Tensor]:
        start, stop = self.config.prefix_length, self.config.stream_length
        cos, sin = rotations(self.config, start, stop, self.device)
        return {"mask": _mask(start, stop, self.device), "cos": cos, "sin": sin}

    def _step_contexts(self, tables: dict[str, Tensor], position: Tensor, stop: int | None) -> list[Context]:
        mask = None if stop else tables["mask"][position]
        return [(mask, tables["cos"][position], tables["sin"][position])] * len(self.layers)


LlamaPrior.register_for_auto_class("AutoModel")  # its code is saved beside the weights


def _mask(start: int, stop: int, device: torch.device) -> Tensor:
    """Which of the positions 0..stop−1 each of start..stop−1 attends to: bool (stop − start, stop)."""
    key = torch.arange(stop, device=device)
    return full_mask(key[start:, None], key[None, :])
