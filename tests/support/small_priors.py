"""A prior of each kind, of five layers on a 3×3 grid, and batches of joint ids; a tiny one for whole pipelines."""

import torch
from transformers import T5Config, T5EncoderModel

from prior_transformer import StreamPrior, TextEncoder, build_prior, prior_config

T, GRID, K, V = 5, 3, 11, 7  # text length, side of the grid, codes, text ids
N = GRID**2
KINDS = {
    "full": {"attention_pattern": "full"},
    "dalle": {"attention_pattern": "dalle", "conv_kernel_size": 3},
    "table": {"attention_pattern": "full", "bos": False, "attention_bias": True, "image_positions": "table"},
    "sandwich": {
        "attention_pattern": "dalle",
        "conv_kernel_size": 3,
        "conv_edges": "clipped",
        "attention_bias": True,
        "head_bias": True,
        "layer_norms": "sandwich",
        "hidden_act": "gelu_pytorch_tanh",
    },
    "sequence": {"model_type": "llama_prior", "rope": "sequence", "qk_norm": False},
    "grid": {"model_type": "llama_prior", "rope": "grid", "num_key_value_heads": 1},
    "chat": {
        "model_type": "llama_prior",
        "text": "chat",
        "text_loss_weight": 0,
        "code_embedding_size": 4,
        "image_head_size": 12,
        "qk_norm": False,
    },
    "features": {
        "model_type": "llama_prior",
        "text": "features",
        "text_feature_size": 6,
        "text_loss_weight": 0,
        "rope": "cells",
        "qk_norm": False,
    },
}

WITH_TEXT = [kind for kind, settings in KINDS.items() if "text" not in settings]  # which model it, too


def make_prior(kind: str = "full", **settings) -> StreamPrior:
    """Five layers, so that "dalle" has every mask; weights wide enough that attention matters."""
    torch.manual_seed(0)
    sizes = {"text_vocab_size": V, "codebook_size": K, "text_length": T, "grid_size": GRID}
    sizes |= {"hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2}
    return with_encoder(build_prior(prior_config({"initializer_range": 0.3} | KINDS[kind] | sizes | settings)).eval())


def with_encoder(prior: StreamPrior) -> StreamPrior:
    """A T5 of one layer for a prior that reads features."""
    config = prior.config
    if config.feature_size is not None:
        sizes = {"d_model": config.feature_size, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
        encoder = T5EncoderModel(T5Config(vocab_size=config.text_vocab_size, **sizes))
        prior.read_through(TextEncoder(encoder, config.pad_token_id))
    return prior


def make_batch(prior: StreamPrior, batch_size: int = 2, seed: int = 0) -> torch.Tensor:
    """Joint ids whose captions end in pads; in a chat they begin with them, one less in each row."""
    generator = torch.Generator().manual_seed(seed)
    text_ids = torch.randint(1, V, (batch_size, T), generator=generator)
    if prior.config.models_text:
        text_ids[:, T - 2 :] = prior.config.pad_token_id
    for i in range(0 if prior.config.models_text else batch_size):
        text_ids[i, : max(T - 3 - i, 0)] = prior.config.pad_token_id
    return prior.join(text_ids, torch.randint(0, K, (batch_size, N), generator=generator))


def make_tiny_prior(text_vocab_size: int, **settings) -> StreamPrior:
    """Two layers over 6 text tokens and 16 of 32 codes; weights large enough that logits differ by whole nats."""
    torch.manual_seed(1)
    sizes = {"text_vocab_size": text_vocab_size, "codebook_size": 32, "text_length": 6, "grid_size": 4}
    sizes |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return with_encoder(
        build_prior(prior_config({"initializer_range": 0.4, "dropout": 0.1} | sizes | settings)).eval()
    )
