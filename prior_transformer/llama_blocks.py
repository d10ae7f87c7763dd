"""The parts of the prior of Llama's family: RMSNorm, SwiGLU, rotary positions, and attention turned by them."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_llama_prior import LlamaPriorConfig
from .prior_block import PriorAttention, PriorBlock, ResidualLinear
from .stream import StreamEmbeddings
from .text_encoder import TextEncoder


class RMSNorm(nn.Module):
    """gain · x / sqrt(mean(x²) + eps) over the last dimension, in float32 whatever x is (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, hidden_states: Tensor) -> Tensor:
        normed = F.rms_norm(hidden_states.float(), self.weight.shape, eps=self.eps)
        return (self.weight * normed).to(hidden_states.dtype)


class SwiGLU(nn.Module):
    """output(silu(gate) · value), gate and value side by side in one matrix, `hidden` (arXiv 2002.05202)."""

    def __init__(self, config: LlamaPriorConfig):
        super().__init__()
        assert config.intermediate_size is not None  # the config fills it in
        self.hidden = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.output = ResidualLinear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        gate, value = self.hidden(hidden_states).chunk(2, dim=-1)
        return self.output(F.silu(gate) * value)


class MLP(nn.Module):
    """
    output(GELU(hidden(x))): what takes a narrow table of codes to D, and a wide head to logits; without biases, and
    with GELU's approximation by tanh, features of text to D.
    """

    def __init__(self, in_size: int, hidden_size: int, out_size: int, *, bias: bool = True, approximate: str = "none"):
        super().__init__()
        self.approximate = approximate
        self.hidden = nn.Linear(in_size, hidden_size, bias=bias)
        self.output = nn.Linear(hidden_size, out_size, bias=bias)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output(F.gelu(self.hidden(inputs), approximate=self.approximate))


class LlamaEmbeddings(StreamEmbeddings):
    """A token's embedding and no position's: attention knows the places. BOS is a vector of its own."""

    def __init__(self, config: LlamaPriorConfig):
        super().__init__()
        width, narrow = config.hidden_size, config.code_embedding_size
        self.bos = nn.Parameter(torch.empty(width)) if config.text == "caption" else None
        self.text = None if config.text == "features" else nn.Embedding(config.text_vocab_size, width)
        self.image = nn.Embedding(config.codebook_size, narrow or width)
        self.image_projection = MLP(narrow, width, width) if narrow else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def embed_text(self, text_ids: Tensor) -> Tensor:
        assert self.bos is not None and self.text is not None  # a caption's prefix has them
        bos = self.bos.expand(text_ids.shape[0], 1, -1)
        return self.dropout(torch.cat([bos, self.text(text_ids)], dim=1))  # (B, 1 + T, D)

    def embed_codes(self, codes: Tensor, cells: Tensor) -> Tensor:
        return self.dropout(self.image_projection(self.image(codes)))  # (B, n, D)


class ChatEmbeddings(LlamaEmbeddings):
    """
    The prefix is a prompt in a chat template, from its BOS token to the one that begins a picture, at the end of T
    positions: what comes before is pads that nobody sees, embedded as zeros. A pad further on is a token as any other.
    """

    def __init__(self, config: LlamaPriorConfig):
        super().__init__(config)
        self.pad_token_id = config.pad_token_id

    def embed_text(self, text_ids: Tensor) -> Tensor:
        assert self.text is not None  # a chat has it
        embeds = self.text(text_ids).masked_fill(self.padding(text_ids)[..., None], 0)
        return self.dropout(embeds)  # (B, T, D)

    def padding(self, captions: Tensor) -> Tensor:
        return leading_pads(captions, self.pad_token_id)

    def null(self, captions: Tensor) -> Tensor:
        """Of each prompt all but its first and last token are pads, which are seen: as many as its own tokens were."""
        kept = self.padding(captions)
        kept = kept.scatter(1, kept.sum(dim=1, keepdim=True).clamp(max=kept.shape[1] - 1), True)
        kept[:, -1] = True
        if captions.is_floating_point():
            assert self.text is not None  # a chat has it
            return torch.where(kept[..., None], captions, self.text.weight[self.pad_token_id])
        return captions.where(kept, self.pad_token_id)


class FeatureEmbeddings(LlamaEmbeddings):
    """
    The prefix is what a text encoder makes of T text ids, through an MLP. Pads come first, nobody sees them, and they
    are embedded as zeros. The last id of the vocabulary is none of the encoder's: it stands for no text, and has a
    feature of its own at each position.

    encoder: whose weights are no part of these: `LlamaPrior.read_through` puts it in.
    """

    def __init__(self, config: LlamaPriorConfig):
        super().__init__(config)
        assert config.feature_size is not None  # the config sees to it
        self.pad_token_id, self.null_token_id = config.pad_token_id, config.text_vocab_size - 1
        self.encoder: TextEncoder | None = None
        self.null_features = nn.Parameter(torch.empty(config.text_length, config.feature_size))
        sizes = (config.feature_size, config.hidden_size, config.hidden_size)
        self.text_projection = MLP(*sizes, bias=False, approximate="tanh")

    def embed_text(self, text_ids: Tensor) -> Tensor:
        return self.dropout(self.text_projection(self.features(text_ids)))  # (B, T, D)

    def features(self, text_ids: Tensor) -> Tensor:
        """(B, T) → (B, T, F), zeros at pads. Raises a `ValueError` where there is text and no encoder to read it."""
        is_null = (text_ids == self.null_token_id)[..., None]
        features = self.null_features.where(is_null, 0)  # (B, T, F)
        rows = (~is_null[:, -1, 0]).nonzero()[:, 0]  # those of text
        if len(rows) > 0:
            if self.encoder is None:
                raise ValueError("this prior reads text through an encoder, and has none: read_through puts one in")
            features = features.index_copy(0, rows, self.encoder(text_ids[rows]).to(features))
        return features

    def padding(self, captions: Tensor) -> Tensor:
        return leading_pads(captions, self.pad_token_id)

    def null(self, captions: Tensor) -> Tensor:
        """No text, at as many positions as each prompt has."""
        padding = self.padding(captions)
        if captions.is_floating_point():
            return self.text_projection(self.null_features).where(~padding[..., None], 0)
        return captions.where(padding, self.null_token_id)


def leading_pads(captions: Tensor, pad_token_id: int) -> Tensor:
    """Of text ids (B, T), or of embeddings (B, T, D) which are zeros there, bool (B, T)."""
    is_pad = (captions == 0).all(dim=-1) if captions.is_floating_point() else captions == pad_token_id
    return is_pad.long().cumprod(dim=1).bool()


EMBEDDINGS: dict[str, type[LlamaEmbeddings]] = {
    "caption": LlamaEmbeddings,
    "chat": ChatEmbeddings,
    "features": FeatureEmbeddings,
}


def places(config: LlamaPriorConfig, start: int, stop: int, device: torch.device) -> Tensor:
    """
    Where the stream's positions start..stop−1 are, along the axes that rotations know, int64 (axes, n).

    "sequence": one axis, the position in the stream. "grid": two, row and column. BOS and the text, which have
    neither, are on the diagonal, (p, p), and the grid begins after them, at (1 + T, 1 + T): so the text keeps its
    order, and a code sees another one at the same turn wherever in the picture the two are. "cells": row and column
    from (0, 0) on; of the text they say nothing.
    """
    position = torch.arange(start, stop, device=device)
    if config.rope == "sequence":
        return position[None]
    cell = position - config.prefix_length
    rows_and_columns = torch.stack([cell // config.grid_size, cell % config.grid_size])
    if config.rope == "cells":
        return rows_and_columns
    return torch.where(cell < 0, position, config.prefix_length + rows_and_columns)


def rotations(config: LlamaPriorConfig, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """
    Cosines and sines of what the stream's positions start..stop−1 are turned by, float32 (n, D/H / 2) each.

    Entry i of a head's D/H and entry i + D/H / 2 are a pair, as in transformers' Llama. A place p along an axis that
    has P pairs turns the j-th of them by p · rope_theta^(−j/P). "sequence" has all pairs (arXiv 2104.09864); of "grid"
    and "cells" the first half of the pairs is turned by the row, the other by the column. Both are 0 at the text of
    "cells", so that what they turn becomes 0.
    """
    along = places(config, start, stop, device)  # (axes, n)
    pairs = config.head_size // 2 // len(along)
    frequencies = config.rope_theta ** -(torch.arange(pairs, device=device) / pairs)
    angles = along[..., None] * frequencies  # (axes, n, pairs)
    angles = angles.transpose(0, 1).flatten(1)  # (n, D/H / 2)
    if config.rope == "cells":
        is_code = (torch.arange(start, stop, device=device) >= config.prefix_length)[:, None]
        return angles.cos() * is_code, angles.sin() * is_code
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, H, n, D/H), each pair turned by its angle; in float32, returned in the dtype of the heads."""
    left, right = heads.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1).to(heads.dtype)


class LlamaAttention(PriorAttention):
    """Queries and keys are turned by their places, so that a product of two knows how far apart they are alone."""

    def __init__(self, config: LlamaPriorConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        norm = partial(RMSNorm, config.head_size, config.rms_norm_eps) if config.qk_norm else nn.Identity
        self.query_norm, self.key_norm = norm(), norm()

    def heads(self, hidden_states: Tensor, *turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `PriorAttention.heads`; turns: the two of `rotations`, (n, D/H / 2) or (B, 1, n, D/H / 2) each."""
        query, key, value = super().heads(hidden_states)
        return rotate(self.query_norm(query), *turns), rotate(self.key_norm(key), *turns), value


def llama_block(config: LlamaPriorConfig, layer_idx: int) -> PriorBlock:
    norm = partial(RMSNorm, config.hidden_size, config.rms_norm_eps)
    return PriorBlock(norm, LlamaAttention(config, layer_idx), SwiGLU(config), config.dropout)
