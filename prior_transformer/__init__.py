"""Text and image codes -> image codes: autoregressive transformers over one stream of tokens."""

from .configuration_llama_prior import LlamaPriorConfig
from .configuration_prior_transformer import PriorTransformerConfig
from .configuration_stream import StreamConfig
from .masks import (
    attention_mask,
    clipped_convolutional_mask,
    column_mask,
    convolutional_mask,
    full_mask,
    layer_mask_names,
    row_mask,
)
from .modeling_llama_prior import LlamaPrior
from .modeling_prior_transformer import PriorTransformer, PriorTransformerOutput
from .priors import PRIORS, build_prior, load_prior, load_prior_config, prior_class, prior_config
from .stream import PriorOutput, StreamPrior
from .text_encoder import TextEncoder
from .tokenization_chat import ChatTokenizer
from .tokenization_encoder import EncoderTokenizer
from .tokenization_prior import PriorTokenizer
from .tokenizers import TOKENIZERS, load_tokenizer

__all__ = [
    "PRIORS",
    "TOKENIZERS",
    "ChatTokenizer",
    "EncoderTokenizer",
    "LlamaPrior",
    "LlamaPriorConfig",
    "PriorOutput",
    "PriorTokenizer",
    "PriorTransformer",
    "PriorTransformerConfig",
    "PriorTransformerOutput",
    "StreamConfig",
    "StreamPrior",
    "TextEncoder",
    "attention_mask",
    "build_prior",
    "clipped_convolutional_mask",
    "column_mask",
    "convolutional_mask",
    "full_mask",
    "layer_mask_names",
    "load_prior",
    "load_prior_config",
    "load_tokenizer",
    "prior_class",
    "prior_config",
    "row_mask",
]
