"""What priors over one stream of text tokens and image codes have in common: all but their blocks and positions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from .cache import PriorCache, Window
from .configuration_stream import StreamConfig
from .prior_block import PriorBlock, ResidualLinear

IGNORED = -100  # a label that no loss counts
RECOMPILE_LIMIT = 64  # of looks: torch's own, 8, counts those of all priors
GIVEN: Any = None  # the default that ModelOutput wants of each field; the logits are never left out


@dataclass
class PriorOutput(ModelOutput):
    """
    loss: (w_t · text_loss + w_i · image_loss) / (w_t + w_i); text_loss, image_loss: means over their own tokens, in
        nats per token.
    text_logits: (B, T, text_vocab_size), entry i predicts t_{i+1}; without a BOS (B, T − 1, …), from t_2 on. This and
        its loss are None where no text is modelled.
    image_logits: (B, m, codebook_size), the first entry predicts the code after the last text token.
    """

    loss: Tensor | None = None
    text_loss: Tensor | None = None
    image_loss: Tensor | None = None
    text_logits: Tensor = GIVEN
    image_logits: Tensor = GIVEN


class StreamEmbeddings(nn.Module):
    """What a prior's embeddings have; `PriorEmbeddings` and `LlamaEmbeddings` say how. Shapes as in `StreamPrior`."""

    bos: nn.Parameter | None  # (D,); None where the text brings its own
    text: nn.Embedding | None  # None where a text encoder has it
    image: nn.Embedding

    def embed_text(self, text_ids: Tensor) -> Tensor:
        """Text ids (B, T) → the prefix (B, P, D), BOS first."""
        raise NotImplementedError

    def embed_codes(self, codes: Tensor, cells: Tensor) -> Tensor:
        """Codes (B, n) at raster positions cells, (n,) or (B, n) → (B, n, D)."""
        raise NotImplementedError

    def padding(self, captions: Tensor) -> Tensor | None:
        """
        Which positions of the prefix nobody sees, bool (B, P): of text ids, or of what `embed_text` makes of them.
        None where every pad is a token as any other.
        """
        return None


class StreamPrior(PreTrainedModel):
    """
    p(text, codes) as one autoregressive stream `[BOS, t_1..t_T, c_1..c_N]`: the hidden state of BOS predicts t_1, …
    of t_T predicts c_1, … of c_{N−1} predicts c_N. Two heads, one a modality, equal the paper's joint softmax with
    the other modality masked out.

    Joint ids (`join`): codes are 0..K−1, text ids follow, so a token sampled from the image head is a dVAE code.
    Shapes: B pictures, T text_length, N = grid_size² codes, K codebook_size, D hidden_size. Source: arXiv
    2102.12092, 2.2.

    A subclass says what its embeddings, blocks and last norm are, and what attention is told of the places: the name
    of each layer's mask, `_mask` and `_turns`. Its config says whether there is a text head.
    """

    config: StreamConfig
    config_class: type[StreamConfig]
    embeddings: StreamEmbeddings
    mask_names: list[str]  # of each layer, first to last
    default_sampling: dict[str, Any]  # how whoever sampled it last did, if that is known
    stored_dtype: bool  # whether a pipeline of it keeps its dtype, if one said so
    quantized: Literal["int8", "int4"]  # what its weights were turned into, if they were
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules: ClassVar[list[str]] = ["PriorBlock"]

    def __init__(
        self,
        config: StreamConfig,
        embeddings: StreamEmbeddings,
        layers: list[PriorBlock],
        norm: nn.Module,
        image_head: nn.Module | None = None,
        head_bias: bool = False,
    ):
        super().__init__(config)
        self._compile_options: dict[str, Any] = {}
        self._compiled_look: Callable[..., Tensor] | None = None
        self.mask_names = ["full"] * len(layers)
        self.embeddings = embeddings
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.text_head = None
        if config.models_text:
            self.text_head = nn.Linear(config.hidden_size, config.text_vocab_size, bias=head_bias)
        self.image_head = image_head or nn.Linear(config.hidden_size, config.codebook_size, bias=head_bias)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """N(0, initializer_range²); divided by sqrt(2 · layers) in the projections that end a residual branch."""
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, StreamEmbeddings):
            for weight in module.parameters(recurse=False):
                init.normal_(weight, std=std)
        elif isinstance(module, ResidualLinear):
            init.normal_(module.weight, std=std / (2 * self.config.num_hidden_layers) ** 0.5)

    @property
    def text_encoder(self) -> PreTrainedModel | None:
        """What it reads text through, which is no part of its weights; None where it reads the ids themselves."""
        return None

    def read_through(self, encoder: Any) -> None:
        """A `TextEncoder` makes features of text ids from now on. Raises a ValueError where the ids are read."""
        raise ValueError("this prior reads the ids of text themselves: it takes no text encoder")

    def get_input_embeddings(self) -> nn.Embedding:
        """The text's, or else the codes', which Accelerate's FSDP2 shards apart from the blocks."""
        text = self.embeddings.text
        return self.embeddings.image if text is None else text

    # What a subclass says of the places.

    def _mask(self, name: str, start: int, stop: int, device: torch.device) -> Tensor:
        """A mask of `mask_names`: which of the stream's positions 0..stop−1 each of start..stop−1 attends to, bool."""
        raise NotImplementedError

    def _turns(self, start: int, stop: int, device: torch.device) -> tuple[Tensor, ...]:
        """What turns queries and keys at the stream's positions start..stop−1, (stop − start, ·) each, if anything."""
        return ()

    # What the decoding loop uses.

    def read(self, captions: Tensor) -> tuple[Tensor, PriorCache]:
        """
        Captions, text ids (P, T) or what `embed_text` makes of them, (P, prefix_length, D) → the hidden states (P, D)
        whose `image_logits` are of the first code, and a cache that has read them.
        """
        prefixes = captions if captions.is_floating_point() else self.embed_text(captions)
        padding = self.embeddings.padding(captions)
        cache = self._make_cache(len(prefixes), padding)
        start, stop = cache.first, self.config.prefix_length
        cache.filled = stop
        masks = dict.fromkeys(self.mask_names)  # every mask is causal over the text
        if padding is not None:
            masks = dict.fromkeys(self.mask_names, _seen(padding[:, start:]))
        turns = self._turns(start, stop, prefixes.device)
        window = Window(cache, len(prefixes), None, start, stop)
        return self._run(prefixes[:, start:], masks, turns, window)[:, -1], cache

    def null(self, captions: Tensor) -> Tensor:
        """The empty caption in place of each, in the form that they have."""
        empty = self.null_text_ids(len(captions)).to(captions.device)
        return self.embed_text(empty) if captions.is_floating_point() else empty

    def look(self, codes: Tensor, places: Tensor, cache: PriorCache) -> Tensor:
        """
        W codes of each row, (R, W), row r's at raster positions places[r]..places[r]+W−1 → logits (R, W, K) of the
        codes that follow each. They are written into the first R rows of the cache, which has all before them.

        places: int64 (R,) on the CPU, where the loop counts: so nobody waits for the device. A code past the grid's
            end counts as its last one, which no other sees; its logits say nothing.

        Not checked: codes that were drawn are in range.
        """
        if self._compiled_look is None:
            return self._look(codes, Window.of(cache, places, codes.shape[1]))
        rows = len(codes)
        spare = min(1 << (rows - 1).bit_length(), len(cache)) - rows  # so few sizes are compiled: what is drawn ends
        codes = F.pad(codes, (0, 0, 0, spare))
        places = F.pad(places, (0, spare), value=self.config.image_length - 1)  # where no other code sees
        cache.filled = self.config.stream_length
        cache.mark_static()
        with torch._dynamo.config.patch(recompile_limit=RECOMPILE_LIMIT):
            return self._compiled_look(self, codes, places.to(codes.device), cache)[:rows]

    def compile_step(self, **options: Any) -> None:
        """
        Compile `look`, a step of the loop, at its next call, in place; options are those of `torch.compile`, of which
        mode="reduce-overhead" replays a step as one CUDA graph.
        """
        self._compile_options = options
        self._compiled_look = torch.compile(StreamPrior._look_anywhere, fullgraph=True, **options)

    def __getstate__(self) -> dict[str, Any]:
        """For pickles and copies, which compile anew: compiled code itself cannot be pickled."""
        return {**self.__dict__, "_compiled_look": self._compiled_look is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._compiled_look = None
        if state["_compiled_look"]:
            self.compile_step(**self._compile_options)

    def _look_anywhere(self, codes: Tensor, places: Tensor, cache: PriorCache) -> Tensor:
        return self._look(codes, Window.anywhere(cache, places, codes.shape[1]))

    def _look(self, codes: Tensor, window: Window) -> Tensor:
        embeds = self.embeddings.embed_codes(codes, window.cells)
        return self.image_head(self._run(embeds, window.masks(), window.turns(), window))

    def _make_cache(self, num_rows: int, padding: Tensor | None) -> PriorCache:
        start, stop, device = self.config.prefix_length, self.config.stream_length, self.device
        masks = {name: self._mask(name, start, stop, device) for name in set(self.mask_names)}
        turns = self._turns(start, stop, device)
        present = None if padding is None else F.pad(~padding, (0, stop - start), value=True)
        cache = PriorCache(self.config, num_rows, masks, turns, present, dtype=self.dtype, device=device)
        if padding is not None:  # what none of them has is neither read nor seen
            cache.first = int(padding.all(dim=0).long().cumprod(0).sum())
        return cache

    def _run(
        self,
        hidden_states: Tensor,
        masks: dict[str, Tensor | None],
        turns: tuple[Tensor, ...],
        window: Window | None = None,
    ) -> Tensor:
        """Embeddings (B, n, D) through all layers → hidden states (B, n, D), ready for a head."""
        for layer, name in zip(self.layers, self.mask_names, strict=True):
            hidden_states = layer(hidden_states, masks[name], *turns, window=window)
        return self.norm(hidden_states)

    def null_text_ids(self, batch_size: int) -> Tensor:
        """The empty caption of guidance and caption dropout: int64 (B, T), all pads."""
        shape = (batch_size, self.config.text_length)
        return torch.full(shape, self.config.pad_token_id, dtype=torch.long, device=self.device)

    def embed_text(self, text_ids: Tensor) -> Tensor:
        """Text ids (B, T) → prefix embeddings (B, prefix_length, D). Raises `ValueError` for another length."""
        if text_ids.shape[1] != self.config.text_length:
            raise ValueError(
                f"{text_ids.shape[1]} text ids do not fill text_length={self.config.text_length}; pad or truncate them"
            )
        _check_range(text_ids, self.config.text_vocab_size, "text ids")
        return self.embeddings.embed_text(text_ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """The first codes (B, n) → (B, n, D). Raises `ValueError` for more than the grid has, or of another model."""
        if codes.shape[1] > self.config.image_length:
            raise ValueError(f"{codes.shape[1]} codes do not fit into grid_size²={self.config.image_length} positions")
        _check_range(codes, self.config.codebook_size, "codes")
        return self.embeddings.embed_codes(codes, torch.arange(codes.shape[1], device=codes.device))

    def store_by_columns(self) -> None:
        """
        Lay the weight of each projection that does not narrow out column after column, its values and shape as they
        were: few rows of float32 times a matrix read memory faster on a CPU where its longer side is contiguous, at
        batch 1 by a sixth and at batch 2 by a quarter.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.out_features >= module.in_features:
                module.weight.data = module.weight.data.t().contiguous().t()

    def image_logits(self, hidden_states: Tensor) -> Tensor:
        """(B, n, D) → (B, n, K): the code that follows each position."""
        return self.image_head(hidden_states)

    def text_logits(self, hidden_states: Tensor) -> Tensor:
        """(B, n, D) → (B, n, text_vocab_size): the text token that follows each position."""
        assert self.text_head is not None  # its config `models_text`
        return self.text_head(hidden_states)

    # Training.

    def join(self, text_ids: Tensor, codes: Tensor) -> Tensor:
        """Text ids (B, T) and codes (B, n), 0 ≤ n ≤ N → joint ids (B, T + n). The only place that offsets text ids."""
        return torch.cat([text_ids + self.config.codebook_size, codes], dim=1)

    def split(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `join`: joint ids (B, T + n) → text ids (B, T), codes (B, n); ignored labels stay ignored."""
        text, codes = input_ids[:, : self.config.text_length], input_ids[:, self.config.text_length :]
        return torch.where(text == IGNORED, text, text - self.config.codebook_size), codes

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> PriorOutput:
        """
        input_ids: joint ids (B, T + n), 0 ≤ n ≤ N.
        labels: None, or joint ids of the shape of input_ids, not shifted, −100 where no loss is wanted. Pads are
            ordinary targets of the text loss, as in the paper. A modality without a single label has loss 0.

        With n = N codes the last one predicts nothing and is left out: image_logits is (B, N, K), entry i predicts
        c_{i+1}. With fewer it is (B, n + 1, K), and the last entry predicts the next code.
        """
        if labels is not None and labels.shape != input_ids.shape:
            raise ValueError(f"labels {tuple(labels.shape)} must have the shape of input_ids {tuple(input_ids.shape)}")
        text_ids, codes = self.split(input_ids)
        embeds = self.embed_text(text_ids)
        if codes.shape[1] > 0:
            embeds = torch.cat([embeds, self.embed_codes(codes)], dim=1)
        hidden_states = self.transform(embeds[:, : self.config.stream_length - 1], self.embeddings.padding(text_ids))
        output = PriorOutput(image_logits=self.image_logits(hidden_states[:, self.config.prefix_length - 1 :]))
        if self.config.models_text:
            output.text_logits = self.text_logits(hidden_states[:, : self.config.prefix_length - 1])
        return output if labels is None else self._add_losses(output, labels)

    def transform(self, inputs_embeds: Tensor, padding: Tensor | None = None) -> Tensor:
        """
        Embeddings (B, n, D) of the stream's first n positions → hidden states (B, n, D), ready for a head.

        padding: which of the prefix nobody sees, bool (B, prefix_length).
        """
        stop, device = inputs_embeds.shape[1], inputs_embeds.device
        masks: dict[str, Tensor | None] = {
            name: None if name == "full" else self._mask(name, 0, stop, device) for name in set(self.mask_names)
        }
        if padding is not None:
            seen = _seen(F.pad(padding, (0, stop - padding.shape[1])))
            masks = {name: seen if mask is None else seen & mask for name, mask in masks.items()}
        return self._run(inputs_embeds, masks, self._turns(0, stop, device))

    def _add_losses(self, output: PriorOutput, labels: Tensor) -> PriorOutput:
        text_labels, image_labels = self.split(labels)
        output.image_loss = _mean_nll(output.image_logits[:, : image_labels.shape[1]], image_labels)
        if not self.config.models_text:
            output.loss = output.image_loss
            return output
        first = self.config.text_length - output.text_logits.shape[1]  # without a BOS nothing predicts t_1
        output.text_loss = _mean_nll(output.text_logits, text_labels[:, first:])
        w_t, w_i = self.config.text_loss_weight, self.config.image_loss_weight
        output.loss = (w_t * output.text_loss + w_i * output.image_loss) / (w_t + w_i)
        return output


def _seen(padding: Tensor) -> Tensor:
    """What each position sees, bool (B, 1, n, n): those before it that are no padding, and itself; padding (B, n)."""
    size = padding.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=padding.device).tril()
    itself = torch.eye(size, dtype=torch.bool, device=padding.device)
    return (causal & ~padding[:, None, None]) | itself


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
