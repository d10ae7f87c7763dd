"""The architecture of the prior of Llama's family: saved as config.json, validated once, here."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from .configuration_stream import StreamConfig


@strict
class LlamaPriorConfig(StreamConfig):
    """
    Architecture of a `LlamaPrior`; what is not named here stands in `StreamConfig`.

    num_key_value_heads: heads of keys and values, each read by an equal group of the num_attention_heads heads of
        queries (arXiv 2305.13245); as many as those unless given.
    intermediate_size: width of the SwiGLU, 8/3 × hidden_size rounded up to a multiple of 64 unless given: as many
        weights as a plain MLP of 4 × hidden_size has.
    rope: what queries and keys are turned by: "sequence", the place in the stream; "grid", a code's row and column; or
        "cells", the same, and queries and keys of the text are 0 (LlamaGen; see `rotations` in llama_blocks.py).
    rope_theta: the wavelengths are 2π to nearly 2π · rope_theta places.
    text: "caption", after a learned BOS T tokens, pads among them, that the prior models too; or "chat", the last of T
        positions are a prompt in a chat template, of which no token is modelled, and the pads before it are seen by
        nobody (Janus; see `ChatEmbeddings` in llama_blocks.py); or "features", the same with what a text encoder makes
        of a prompt (LlamaGen; see `FeatureEmbeddings`).
    text_feature_size: width of that encoder's features; None for text that is no features.
    code_embedding_size: width of the table of codes, which an MLP then takes to hidden_size; None is a table alone.
    image_head_size: width of the MLP that the codes' logits come from; None is a matrix alone.
    qk_norm: whether queries and keys are divided by their root mean square, and have a gain, before they are turned
        (arXiv 2302.05442).
    rms_norm_eps: added to the mean square.

    Source: arXiv 2302.13971, section 2.2.
    """

    model_type = "llama_prior"

    num_key_value_heads: int | None = None
    rope: Literal["sequence", "grid", "cells"] = "sequence"
    rope_theta: float | int = 10_000.0
    text: Literal["caption", "chat", "features"] = "caption"
    text_feature_size: int | None = None
    code_embedding_size: int | None = None
    image_head_size: int | None = None
    qk_norm: bool = True
    rms_norm_eps: float = 1e-5

    def __post_init__(self, **kwargs: Any):
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        super().__post_init__(**kwargs)

    def validate_text(self):
        if not self.models_text and self.text_loss_weight != 0:
            raise ValueError(
                f"text_loss_weight={self.text_loss_weight} must be 0 for text={self.text!r}, which is not modelled"
            )
        if (self.text == "features") != (self.text_feature_size is not None):
            raise ValueError(
                f"text_feature_size={self.text_feature_size} does not go with text={self.text!r}: text='features' has "
                f"one, the width of its encoder, and no other text"
            )

    def validate_sizes(self):
        super().validate_sizes()
        assert self.num_key_value_heads is not None  # `__post_init__` fills it in
        if self.num_key_value_heads < 1 or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must be divisible by "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        for name in ("code_embedding_size", "image_head_size", "text_feature_size"):
            if (size := getattr(self, name)) is not None and size < 1:
                raise ValueError(f"{name}={size} must be at least 1, or None")
        parts = 2 if self.rope == "sequence" else 4
        if self.head_size % parts:
            raise ValueError(
                f"hidden_size={self.hidden_size} / num_attention_heads={self.num_attention_heads} must be divisible "
                f"by {parts}: rope={self.rope!r} turns pairs of a head's entries"
            )

    def validate_rope(self):
        if self.rope_theta <= 0:
            raise ValueError(f"rope_theta={self.rope_theta} must be above 0")
        if self.rope == "cells" and self.models_text:
            raise ValueError(
                f"rope='cells' leaves no queries and keys to text, which text={self.text!r} models: choose rope='grid'"
            )

    @property
    def default_intermediate_size(self) -> int:
        return 64 * -(-self.hidden_size // 24)

    @property
    def models_text(self) -> bool:
        return self.text == "caption"

    @property
    def feature_size(self) -> int | None:
        return self.text_feature_size

    @property
    def prefix_length(self) -> int:
        """1 + T of a caption, which a learned BOS precedes, else T."""
        return self.text_length + (self.text == "caption")

    @property
    def summary(self) -> str:
        return (
            f"{self.num_hidden_layers} layers of width {self.hidden_size}, {self.num_attention_heads} heads "
            f"({self.num_key_value_heads} of keys and values), rotary positions by {self.rope}"
        )


LlamaPriorConfig.register_for_auto_class()  # this file is saved beside the weights
