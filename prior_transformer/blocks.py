"""The parts of the prior: embeddings, attention, MLP, and the block that joins them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .cache import PriorCache
from .configuration_prior_transformer import PriorTransformerConfig


def eager_attention_forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **kwargs
) -> tuple[Tensor, Tensor]:
    """
    softmax(q kᵀ · scaling) v, written out. query, key, value: (B, H, ·, D/H); returns (B, n, H, D/H) and the weights.

    For training in bf16 on a CPU this is the fast one (`set_attn_implementation("eager")`): there the backward of
    torch's fused kernel took six times as long at 76 positions.
    """
    scores = (query * scaling) @ key.transpose(2, 3)  # (B, H, n, keys)
    if mask is None and query.shape[2] > 1:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1)
    return (weights.to(value.dtype) @ value).transpose(1, 2), weights


class PriorEmbeddings(nn.Module):
    """A token's embedding plus its position's: text by index, codes by row and column. BOS is a vector of its own."""

    def __init__(self, config: PriorTransformerConfig):
        super().__init__()
        self.grid_size = config.grid_size
        self.pad_token_id = config.pad_token_id
        self.bos = nn.Parameter(torch.empty(config.hidden_size))
        self.text = nn.Embedding(config.text_vocab_size, config.hidden_size)
        self.text_pad = nn.Embedding(config.text_length, config.hidden_size)
        self.text_position = nn.Embedding(config.text_length, config.hidden_size)
        self.image = nn.Embedding(config.image_vocab_size, config.hidden_size)
        self.image_row = nn.Embedding(config.grid_size, config.hidden_size)
        self.image_column = nn.Embedding(config.grid_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def embed_text(self, text_ids: Tensor) -> Tensor:
        is_pad = (text_ids == self.pad_token_id)[..., None]  # (B, T, 1)
        tokens = torch.where(is_pad, self.text_pad.weight, self.text(text_ids)) + self.text_position.weight
        bos = self.bos.expand(text_ids.shape[0], 1, -1)
        return self.dropout(torch.cat([bos, tokens], dim=1))  # (B, 1 + T, D)

    def embed_codes(self, codes: Tensor, start: int) -> Tensor:
        cells = torch.arange(start, start + codes.shape[1], device=codes.device)
        position = self.image_row(cells // self.grid_size) + self.image_column(cells % self.grid_size)
        return self.dropout(self.image(codes) + position)  # (B, n, D)

    def step(self, codes: Tensor, position: Tensor) -> Tensor:
        """Codes (B,) at one raster position (1,) → (B, D)."""
        place = self.image_row(position // self.grid_size) + self.image_column(position % self.grid_size)  # (1, D)
        return self.image(codes) + place


class ResidualLinear(nn.Linear):
    """The projection that ends a residual branch: a class of its own, so that its first weights can be narrower."""


class PriorAttention(nn.Module):
    def __init__(self, config: PriorTransformerConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.scaling = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.is_causal = True
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.output = ResidualLinear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: Tensor, mask: Tensor | None, cache: Cache | PriorCache | None, stop: int):
        batch_size, length, _ = hidden_states.shape
        qkv = self.qkv(hidden_states).view(batch_size, length, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, n, D/H)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)  # (B, H, max_cache_len, D/H)
            key, value = key[:, :, :stop], value[:, :, :stop]  # only what is filled
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        attended, _ = attend(self, query, key, value, mask, scaling=self.scaling)  # (B, n, H, D/H)
        return self.output(attended.reshape(batch_size, length, -1))

    def step(self, hidden_states: Tensor, keys: Tensor, values: Tensor, place: Tensor, mask: Tensor | None) -> Tensor:
        """One position of each stream, (B, D) → (B, D); its key and value go to `place` (1,) of (B, H, ·, D/H)."""
        query, key, value = self.qkv(hidden_states).view(len(keys), 3, self.num_heads, 1, -1).unbind(1)
        keys.index_copy_(2, place, key.to(keys.dtype))  # another one under autocast
        values.index_copy_(2, place, value.to(values.dtype))
        attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)  # (B, H, 1, D/H)
        return self.output(attended.flatten(1))


class PriorMLP(nn.Module):
    def __init__(self, config: PriorTransformerConfig):
        super().__init__()
        self.hidden = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = ResidualLinear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.output(F.gelu(self.hidden(hidden_states)))


class PriorBlock(GradientCheckpointingLayer):
    """Pre-LN: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: PriorTransformerConfig, layer_idx: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = PriorAttention(config, layer_idx)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = PriorMLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None, stop: int, cache: Cache | PriorCache | None = None
    ) -> Tensor:
        attended = self.attention(self.attention_norm(hidden_states), mask, cache, stop)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.mlp_norm(hidden_states)))

    def step(self, hidden_states: Tensor, keys: Tensor, values: Tensor, place: Tensor, mask: Tensor | None) -> Tensor:
        """The same for one position of each stream, without dropout: (B, D) → (B, D)."""
        attended = self.attention.step(self.attention_norm(hidden_states), keys, values, place, mask)
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.mlp_norm(hidden_states))
