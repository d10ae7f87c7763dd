"""The architecture of the paper's prior: saved as config.json, validated once, here."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from .configuration_stream import StreamConfig


@strict
class PriorTransformerConfig(StreamConfig):
    """
    Architecture of a `PriorTransformer`; what is not named here stands in `StreamConfig`.

    pad_token_id: the text id replaced by a learned pad embedding for each position.
    intermediate_size: width of the MLP, 4 × hidden_size unless given.
    attention_pattern: "full" (causal), or "dalle": the paper's row, column and convolutional masks (see masks.py).
    bos: whether the stream begins with a learned BOS; without one nothing predicts the first text token.
    attention_bias: whether queries, keys, values and attention's output have biases. head_bias: whether the heads do.
    layer_norms: "pre": one before each branch, and one after the last block; "sandwich": one behind each branch, too
        (arXiv 2105.13290, section 2.4), and a second after the last block, as ruDALL-E has it.
    hidden_act: of the MLP, "gelu", or "gelu_pytorch_tanh", the approximation by tanh.
    image_positions: how a code's place is embedded: "grid", its row's vector plus its column's; "table", its own.
    conv_kernel_size: side of the last layer's convolutional mask, for "dalle" alone.
    conv_edges: where that mask's square leaves a row: "wrapped", the paper's, goes on at the next one; "clipped" ends.
        A saved config without it is clipped, as all were then.
    layer_norm_eps: added to the variance.

    Source: arXiv 2102.12092, section 2.2 and appendix B.
    """

    model_type = "armchair_prior"

    attention_pattern: Literal["full", "dalle"] = "full"
    bos: bool = True
    attention_bias: bool = False
    head_bias: bool = False
    layer_norms: Literal["pre", "sandwich"] = "pre"
    hidden_act: Literal["gelu", "gelu_pytorch_tanh"] = "gelu"
    image_positions: Literal["grid", "table"] = "grid"
    conv_kernel_size: int = 11
    conv_edges: Literal["wrapped", "clipped"] = "wrapped"
    layer_norm_eps: float = 1e-5

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "PriorTransformerConfig":
        """What was saved before conv_edges was an option has it "clipped"."""
        return super().from_dict({"conv_edges": "clipped", **config_dict}, **kwargs)

    def validate_conv_kernel_size(self):
        if self.conv_kernel_size < 1 or self.conv_kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size={self.conv_kernel_size} must be odd: it is centred on its token")

    @property
    def prefix_length(self) -> int:
        return self.text_length + self.bos

    @property
    def num_key_value_heads(self) -> int:
        return self.num_attention_heads

    @property
    def summary(self) -> str:
        return (
            f"{self.num_hidden_layers} layers of width {self.hidden_size}, {self.num_attention_heads} heads, "
            f"{self.attention_pattern} attention"
        )


PriorTransformerConfig.register_for_auto_class()  # this file is saved beside the weights
