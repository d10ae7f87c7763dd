"""The paper's prior: learned positions, LayerNorm, GELU, and its masks; its parts are in blocks.py."""

import torch
from torch import Tensor

from .blocks import PriorEmbeddings, last_norm, prior_block
from .configuration_prior_transformer import PriorTransformerConfig
from .masks import attention_mask, layer_mask_names
from .stream import PriorOutput, StreamPrior

PriorTransformerOutput = PriorOutput  # its first name


class PriorTransformer(StreamPrior):
    """The decoder-only transformer of arXiv 2102.12092, section 2.2 and appendix B: see `StreamPrior`."""

    config: PriorTransformerConfig

    def __init__(self, config: PriorTransformerConfig):
        embeddings = PriorEmbeddings(config)
        layers = [prior_block(config, i) for i in range(config.num_hidden_layers)]
        super().__init__(config, embeddings, layers, last_norm(config), head_bias=config.head_bias)
        self.mask_names = layer_mask_names(config.attention_pattern, config.num_hidden_layers, config.conv_edges)

    def _mask(self, name: str, start: int, stop: int, device: torch.device) -> Tensor:
        sizes = {
            "prefix_length": self.config.prefix_length,
            "grid_size": self.config.grid_size,
            "kernel_size": self.config.conv_kernel_size,
        }
        return attention_mask(name, start=start, stop=stop, device=device, **sizes)


PriorTransformer.register_for_auto_class("AutoModel")  # its code is saved beside the weights
