"""The block that priors are stacks of, and what its parts share: attention written out, and a branch's last matrix."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .cache import Window
from .configuration_stream import StreamConfig


def eager_attention_forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **kwargs
) -> tuple[Tensor, Tensor]:
    """
    softmax(q kᵀ · scaling) v, written out. query (B, H, n, D/H); key, value (B, H/g, ·, D/H), each of whose heads
    serves g of the queries'. Returns (B, n, H, D/H) and the weights.

    For training in bf16 on a CPU this is the fast one (`set_attn_implementation("eager")`): there the backward of
    torch's fused kernel took six times as long at 76 positions.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query * scaling) @ key.transpose(2, 3)  # (B, H, n, keys)
    if mask is None and query.shape[2] > 1:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1)
    return (weights.to(value.dtype) @ value).transpose(1, 2), weights


class ResidualLinear(nn.Linear):
    """The projection that ends a residual branch: a class of its own, so that its first weights can be narrower."""


class PriorAttention(nn.Module):
    def __init__(self, config: StreamConfig, layer_idx: int, bias: bool = False):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.sizes = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.head_size**-0.5
        self.is_causal = True
        self.qkv = nn.Linear(config.hidden_size, sum(self.sizes) * config.head_size, bias=bias)
        self.output = ResidualLinear(config.hidden_size, config.hidden_size, bias=bias)

    def heads(self, hidden_states: Tensor, *turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, n, D) → queries (B, H, n, D/H), keys and values (B, H/g, n, D/H). turns: for who turns them."""
        heads = self.qkv(hidden_states).unflatten(-1, (-1, self.config.head_size))  # (B, n, H + 2 H/g, D/H)
        return heads.transpose(1, 2).split(self.sizes, dim=1)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None, *turns: Tensor, window: Window | None = None
    ) -> Tensor:
        """
        (B, n, D) → (B, n, D). window: where in a cache these n are; it holds what they attend to besides.

        mask: (n, keys) or (B, 1, n, keys); None is "causal" where nothing comes before them, else "all".
        """
        query, key, value = self.heads(hidden_states, *turns)
        if window is not None:
            key, value = window.write(self.layer_idx, key, value)
        if window is None or window.is_text:
            attend = ALL_ATTENTION_FUNCTIONS.get_interface(
                self.config._attn_implementation,  # pyright: ignore[reportArgumentType]  # None is answered, too
                eager_attention_forward,
            )
            attended, _ = attend(self, query, key, value, mask, scaling=self.scaling)  # (B, n, H, D/H)
        else:
            attended = self._look_back(query, key, value, mask)
        return self.output(attended.flatten(2))

    def _look_back(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Over a cache: the g heads of queries that share one of keys read it as g · n queries of one head."""
        groups, num_queries = self.num_key_value_groups, query.shape[2]
        if groups > 1:
            query = query.unflatten(1, (-1, groups)).flatten(2, 3)  # (B, H/g, g · n, D/H)
            mask = None if mask is None else mask.tile(groups, 1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scaling)
        return attended.unflatten(2, (groups, num_queries)).flatten(1, 2).transpose(1, 2)  # (B, n, H, D/H)


LARGEST = torch.finfo(torch.float16).max  # 65504


class PriorBlock(GradientCheckpointingLayer):
    """
    x + attention(norm(x)), then x + mlp(norm(x)); sandwich: each branch is normalised once more before it is added,
    attention's between the bounds of float16, which it may overflow, as ruDALL-E has it.

    norm: makes one of these. context: what attention needs to know of the places, its mask and whatever its
    `heads` takes; the prior makes it, its blocks hand it on.
    """

    def __init__(
        self,
        norm: Callable[[], nn.Module],
        attention: PriorAttention,
        mlp: nn.Module,
        dropout: float,
        sandwich: bool = False,
    ):
        super().__init__()
        self.sandwich = sandwich
        self.attention_norm = norm()
        self.attention = attention
        self.attended_norm = norm() if sandwich else nn.Identity()
        self.mlp_norm = norm()
        self.mlp = mlp
        self.output_norm = norm() if sandwich else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: Tensor, *context: Tensor | None, window: Window | None = None) -> Tensor:
        attended = self.attention(self.attention_norm(hidden_states), *context, window=window)
        if self.sandwich:
            attended = attended.clamp(-LARGEST, LARGEST)
        hidden_states = hidden_states + self.dropout(self.attended_norm(attended))
        output = self.mlp(self.mlp_norm(hidden_states))
        return hidden_states + self.dropout(self.output_norm(output))
