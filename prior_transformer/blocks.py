"""The parts of the paper's prior: embeddings, MLP, and the block that they stand in."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_prior_transformer import PriorTransformerConfig
from .prior_block import PriorAttention, PriorBlock, ResidualLinear
from .stream import StreamEmbeddings


class PriorEmbeddings(StreamEmbeddings):
    """A token's embedding plus its position's: text by index, codes by row and column or by index. BOS is a vector."""

    text: nn.Embedding

    def __init__(self, config: PriorTransformerConfig):
        super().__init__()
        self.grid_size = config.grid_size
        self.pad_token_id = config.pad_token_id
        self.bos = nn.Parameter(torch.empty(config.hidden_size)) if config.bos else None
        self.text = nn.Embedding(config.text_vocab_size, config.hidden_size)
        self.text_pad = nn.Embedding(config.text_length, config.hidden_size)
        self.text_position = nn.Embedding(config.text_length, config.hidden_size)
        self.image = nn.Embedding(config.codebook_size, config.hidden_size)
        self.by_grid = config.image_positions == "grid"
        if self.by_grid:
            self.image_row = nn.Embedding(config.grid_size, config.hidden_size)
            self.image_column = nn.Embedding(config.grid_size, config.hidden_size)
        else:
            self.image_position = nn.Embedding(config.image_length, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def embed_text(self, text_ids: Tensor) -> Tensor:
        is_pad = (text_ids == self.pad_token_id)[..., None]  # (B, T, 1)
        tokens = torch.where(is_pad, self.text_pad.weight, self.text(text_ids)) + self.text_position.weight
        if self.bos is not None:
            tokens = torch.cat([self.bos.expand(text_ids.shape[0], 1, -1), tokens], dim=1)
        return self.dropout(tokens)  # (B, 1 + T, D), or (B, T, D) without BOS

    def embed_codes(self, codes: Tensor, cells: Tensor) -> Tensor:
        if self.by_grid:
            position = self.image_row(cells // self.grid_size) + self.image_column(cells % self.grid_size)
        else:
            position = self.image_position(cells)
        return self.dropout(self.image(codes) + position)  # (B, n, D)


class PriorMLP(nn.Module):
    def __init__(self, config: PriorTransformerConfig):
        super().__init__()
        assert config.intermediate_size is not None  # the config fills it in
        self.hidden = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = ResidualLinear(config.intermediate_size, config.hidden_size)
        self.approximate = "tanh" if config.hidden_act == "gelu_pytorch_tanh" else "none"

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.output(F.gelu(self.hidden(hidden_states), approximate=self.approximate))


def prior_block(config: PriorTransformerConfig, layer_idx: int) -> PriorBlock:
    norm, sandwich = partial(layer_norm, config), config.layer_norms == "sandwich"
    attention = PriorAttention(config, layer_idx, config.attention_bias)
    return PriorBlock(norm, attention, PriorMLP(config), config.dropout, sandwich)


def last_norm(config: PriorTransformerConfig) -> nn.Module:
    """After the last block: one, or of sandwiches two, one after the other."""
    if config.layer_norms == "sandwich":
        return nn.Sequential(layer_norm(config), layer_norm(config))
    return layer_norm(config)


def layer_norm(config: PriorTransformerConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
