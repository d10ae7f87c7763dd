"""Text and image codes -> image codes: an autoregressive transformer over one stream of tokens."""

from .configuration_prior_transformer import PriorTransformerConfig
from .configuration_stream import StreamConfig
from .masks import attention_mask, column_mask, convolutional_mask, full_mask, layer_mask_names, row_mask
from .modeling_prior_transformer import PriorTransformer, PriorTransformerOutput
from .stream import PriorOutput, StreamPrior
from .tokenization_prior import PriorTokenizer

__all__ = [
    "PriorOutput",
    "PriorTokenizer",
    "PriorTransformer",
    "PriorTransformerConfig",
    "PriorTransformerOutput",
    "StreamConfig",
    "StreamPrior",
    "attention_mask",
    "column_mask",
    "convolutional_mask",
    "full_mask",
    "layer_mask_names",
    "row_mask",
]
