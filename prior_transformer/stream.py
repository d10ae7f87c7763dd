"""What priors over one stream of text tokens and image codes have in common: all but their blocks and positions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .cache import PriorCache
from .configuration_stream import StreamConfig
from .prior_block import PriorBlock, ResidualLinear

IGNORED = -100  # a label that no loss counts
Context = tuple[Tensor | None, ...]  # what a layer's attention is told of the places: its mask, and more


@dataclass
class PriorOutput(ModelOutput):
    """
    loss: (w_t · text_loss + w_i · image_loss) / (w_t + w_i); text_loss, image_loss: means over their own tokens, in
        nats per token.
    text_logits: (B, T, text_vocab_size), entry i predicts t_{i+1}; None when decoding goes on after the text.
    image_logits: (B, m, codebook_size), the first entry predicts the code after the last text token (or after the
        cached tokens).
    """

    loss: Tensor | None = None
    text_loss: Tensor | None = None
    image_loss: Tensor | None = None
    text_logits: Tensor | None = None
    image_logits: Tensor | None = None
    cache: Cache | PriorCache | None = None


class StreamEmbeddings(nn.Module):
    """What a prior's embeddings have; `PriorEmbeddings` and `LlamaEmbeddings` say how. Shapes as in `StreamPrior`."""

    bos: nn.Parameter  # (D,)
    text: nn.Embedding
    image: nn.Embedding

    def embed_text(self, text_ids: Tensor) -> Tensor:
        """Text ids (B, T) → (B, 1 + T, D), BOS first."""
        raise NotImplementedError

    def embed_codes(self, codes: Tensor, start: int) -> Tensor:
        """Codes (B, n) at raster positions start..start+n−1 → (B, n, D)."""
        raise NotImplementedError

    def step(self, codes: Tensor, position: Tensor) -> Tensor:
        """Codes (B,) at one raster position (1,) → (B, D), without dropout."""
        raise NotImplementedError


class StreamPrior(PreTrainedModel):
    """
    p(text, codes) as one autoregressive stream `[BOS, t_1..t_T, c_1..c_N]`: the hidden state of BOS predicts t_1, …
    of t_T predicts c_1, … of c_{N−1} predicts c_N. Two heads, one a modality, equal the paper's joint softmax with
    the other modality masked out.

    Joint ids (`join`): codes are 0..K−1, text ids follow, so a token sampled from the image head is a dVAE code.
    Shapes: B pictures, T text_length, N = grid_size² codes, K codebook_size, D hidden_size. Source: arXiv
    2102.12092, 2.2.

    A subclass says what its embeddings, blocks and last norm are, and what attention is told of the places:
    `_contexts`, `_tables`, `_step_contexts`.
    """

    config: StreamConfig
    embeddings: StreamEmbeddings
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules: ClassVar[list[str]] = ["PriorBlock"]

    def __init__(self, config: StreamConfig, embeddings: StreamEmbeddings, layers: list[PriorBlock], norm: nn.Module):
        super().__init__(config)
        self._compile_options: dict[str, Any] = {}
        self._compiled_step: Callable[..., Tensor] | None = None
        self.embeddings = embeddings
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.text_head = nn.Linear(config.hidden_size, config.text_vocab_size, bias=False)
        self.image_head = nn.Linear(config.hidden_size, config.codebook_size, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """N(0, initializer_range²); divided by sqrt(2 · layers) in the projections that end a residual branch."""
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, StreamEmbeddings):
            init.normal_(module.bos, std=std)
        elif isinstance(module, ResidualLinear):
            init.normal_(module.weight, std=std / (2 * self.config.num_hidden_layers) ** 0.5)

    def get_input_embeddings(self) -> nn.Embedding:
        """The text's, which Accelerate's FSDP2 shards apart from the blocks; the codes' are `embeddings.image`."""
        return self.embeddings.text

    # What a subclass says of the places.

    def _contexts(self, start: int, stop: int, device: torch.device) -> list[Context]:
        """Of each layer, what attention is told where the queries are the stream's positions start..stop−1."""
        raise NotImplementedError

    def _tables(self) -> dict[str, Tensor]:
        """By name, (N, ·): what `_step_contexts` looks up; a cache keeps them."""
        raise NotImplementedError

    def _step_contexts(self, tables: dict[str, Tensor], position: Tensor, stop: int | None) -> list[Context]:
        """Of each layer, what attention is told where the query is one raster position, int64 (1,)."""
        raise NotImplementedError

    # What the decoding loop uses.

    def make_cache(self, batch_size: int) -> PriorCache:
        """
        An empty cache for B whole streams, in the model's dtype. `forward` and `transform` take it and any cache of
        transformers with room for them; `step` takes this one alone.
        """
        return PriorCache(self.config, batch_size, self._tables(), dtype=self.dtype, device=self.device)

    def null_text_ids(self, batch_size: int) -> Tensor:
        """The empty caption of guidance and caption dropout: int64 (B, T), all pads."""
        shape = (batch_size, self.config.text_length)
        return torch.full(shape, self.config.pad_token_id, dtype=torch.long, device=self.device)

    def embed_text(self, text_ids: Tensor) -> Tensor:
        """Text ids (B, T) → prefix embeddings (B, 1 + T, D), BOS first. Raises `ValueError` for another length."""
        if text_ids.shape[1] != self.config.text_length:
            raise ValueError(
                f"{text_ids.shape[1]} text ids do not fill text_length={self.config.text_length}; pad or truncate them"
            )
        _check_range(text_ids, self.config.text_vocab_size, "text ids")
        return self.embeddings.embed_text(text_ids)

    def embed_codes(self, codes: Tensor, start: int = 0) -> Tensor:
        """Codes (B, n) at raster positions start..start+n−1 → (B, n, D). Raises `ValueError` past the grid's end."""
        if start + codes.shape[1] > self.config.image_length:
            raise ValueError(
                f"{codes.shape[1]} codes from position {start} on do not fit into "
                f"grid_size²={self.config.image_length} positions"
            )
        _check_range(codes, self.config.codebook_size, "codes")
        return self.embeddings.embed_codes(codes, start)

    def transform(self, inputs_embeds: Tensor, cache: Cache | PriorCache | None = None, start: int = 0) -> Tensor:
        """
        Embeddings (B, n, D) of the stream positions start..start+n−1 → hidden states (B, n, D), ready for a head.

        cache: holds the positions before start (so start > 0 needs it), and then also these n.
        """
        stop = start + inputs_embeds.shape[1]
        if stop > self.config.stream_length:
            raise ValueError(f"position {stop} is past the stream's stream_length={self.config.stream_length}")
        if start > 0 and cache is None:
            raise ValueError(f"start={start} needs a cache that holds the {start} positions before it")
        hidden_states = inputs_embeds
        for layer, context in zip(self.layers, self._contexts(start, stop, inputs_embeds.device), strict=True):
            hidden_states = layer(hidden_states, *context, stop=stop, cache=cache)
        return self.norm(hidden_states)

    def step(self, codes: Tensor, position: Tensor, cache: PriorCache, stop: int | None = None) -> Tensor:
        """
        Codes (B,) at one raster position, int64 (1,), → logits (B, K) of the next code: what
        `embed_codes`, `transform` and `image_logits` compute, at less than half their overhead. The cache holds all
        positions before this one.

        stop: how many positions of the stream are filled with this one, T + 2 + position, if the caller has it as a
            number: then no other is read. None reads all under a mask, so that one graph serves every position.

        Not checked: codes that were drawn are in range.
        """
        if self._compiled_step is not None:
            cache.mark_static()
            return self._compiled_step(self, codes, position, cache)
        return self._step(codes, position, cache, stop)

    def compile_step(self, **options: Any) -> None:
        """
        Compile `step` at its next call, in place; options are those of `torch.compile`, of which
        mode="reduce-overhead" replays a step as one CUDA graph.
        """
        self._compile_options = options
        self._compiled_step = torch.compile(StreamPrior._step, fullgraph=True, **options)

    def __getstate__(self) -> dict[str, Any]:
        """For pickles and copies, which compile anew: compiled code itself cannot be pickled."""
        return {**self.__dict__, "_compiled_step": self._compiled_step is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._compiled_step = None
        if state["_compiled_step"]:
            self.compile_step(**self._compile_options)

    def _step(self, codes: Tensor, position: Tensor, cache: PriorCache, stop: int | None = None) -> Tensor:
        place = position + self.config.prefix_length
        contexts = self._step_contexts(cache.tables, position, stop)
        hidden_states = self.embeddings.step(codes, position)
        keys, values = cache.keys[:, :, :, :stop], cache.values[:, :, :, :stop]
        for layer, context, layer_keys, layer_values in zip(self.layers, contexts, keys, values, strict=True):
            hidden_states = layer.step(hidden_states, layer_keys, layer_values, place, *context)
        return self.image_head(self.norm(hidden_states))

    def store_by_columns(self) -> None:
        """
        Lay each projection's weight out column after column, its values and shape as they were: one row of float32
        times a matrix then reads memory faster on a CPU, at batch 1 by a sixth and at batch 2 by a quarter.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = module.weight.data.t().contiguous().t()

    def image_logits(self, hidden_states: Tensor) -> Tensor:
        """(B, n, D) → (B, n, K): the code that follows each position."""
        return self.image_head(hidden_states)

    def text_logits(self, hidden_states: Tensor) -> Tensor:
        """(B, n, D) → (B, n, text_vocab_size): the text token that follows each position."""
        return self.text_head(hidden_states)

    # Training.

    def join(self, text_ids: Tensor, codes: Tensor) -> Tensor:
        """Text ids (B, T) and codes (B, n), 0 ≤ n ≤ N → joint ids (B, T + n). The only place that offsets text ids."""
        return torch.cat([text_ids + self.config.codebook_size, codes], dim=1)

    def split(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `join`: joint ids (B, T + n) → text ids (B, T), codes (B, n); ignored labels stay ignored."""
        text, codes = input_ids[:, : self.config.text_length], input_ids[:, self.config.text_length :]
        return torch.where(text == IGNORED, text, text - self.config.codebook_size), codes

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None, cache: Cache | PriorCache | None = None
    ) -> PriorOutput:
        """
        input_ids: joint ids (B, T + n), 0 ≤ n ≤ N; after the text is in `cache`, the next codes alone, (B,
            n).
        labels: None, or joint ids of the shape of input_ids, not shifted, −100 where no loss is wanted. Pads are
            ordinary targets of the text loss, as in the paper. A modality without a single label has loss 0.

        With n = N codes the last one predicts nothing and is left out: image_logits is (B, N, K), entry i predicts
        c_{i+1}. With fewer it is (B, n + 1, K), and the last entry predicts the next code.
        """
        if labels is not None and labels.shape != input_ids.shape:
            raise ValueError(f"labels {tuple(labels.shape)} must have the shape of input_ids {tuple(input_ids.shape)}")
        start = 0 if cache is None else int(cache.get_seq_length())
        if start > 0:
            if labels is not None:
                raise ValueError("labels need the whole stream: call without a cache")
            embeds = self.embed_codes(input_ids, start - self.config.prefix_length)
            image_logits = self.image_logits(self.transform(embeds, cache, start))
            return PriorOutput(image_logits=image_logits, cache=cache)

        text_ids, codes = self.split(input_ids)
        embeds = self.embed_text(text_ids)
        if codes.shape[1] > 0:
            embeds = torch.cat([embeds, self.embed_codes(codes)], dim=1)
        if cache is None:
            embeds = embeds[:, : self.config.stream_length - 1]
        hidden_states = self.transform(embeds, cache)
        output = PriorOutput(
            text_logits=self.text_logits(hidden_states[:, : self.config.text_length]),
            image_logits=self.image_logits(hidden_states[:, self.config.text_length : self.config.stream_length - 1]),
            cache=cache,
        )
        return output if labels is None else self._add_losses(output, labels)

    def _add_losses(self, output: PriorOutput, labels: Tensor) -> PriorOutput:
        text_labels, image_labels = self.split(labels)
        output.text_loss = _mean_nll(output.text_logits, text_labels)
        output.image_loss = _mean_nll(output.image_logits[:, : image_labels.shape[1]], image_labels)
        w_t, w_i = self.config.text_loss_weight, self.config.image_loss_weight
        output.loss = (w_t * output.text_loss + w_i * output.image_loss) / (w_t + w_i)
        return output


def _mean_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """−log softmax(logits)[label], mean over the labels not ignored, in nats per token; 0 where there is none."""
    total = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


def _check_range(ids: Tensor, size: int, name: str):
    """Raises `ValueError` for ids outside 0..size−1, on the CPU alone: elsewhere it would stall every step."""
    if ids.device.type != "cpu" or ids.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = (int(bound) for bound in ids.aminmax())
    if low < 0 or high >= size:
        raise ValueError(
            f"{name} from {low} to {high} are outside 0 to {size - 1}; make input_ids by prior.join(text_ids, codes)"
        )
