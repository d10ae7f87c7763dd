"""What every prior over one stream of text and codes has in its config.json, validated once, here."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from .checked_config import CheckedConfig


@strict
class StreamConfig(CheckedConfig):
    """
    What the architectures of priors over the stream `[BOS, t_1..t_T, c_1..c_N]` have in common; some go without BOS.

    text_vocab_size: text tokens, the pad included.
    codebook_size: K, codes of the first stage.
    text_length: T, text positions in the stream.
    grid_size: side of the square grid of codes; N = grid_size².
    pad_token_id: the text id of the pad.
    hidden_size, num_hidden_layers, num_attention_heads: width of a position, number of blocks, heads of each.
    intermediate_size: width of the MLP; unless given, what `default_intermediate_size` says.
    dropout: share dropped of the embeddings and of each residual branch, in training.
    initializer_range: standard deviation of the first weights.
    text_loss_weight, image_loss_weight: loss = (w_t · text_loss + w_i · image_loss) / (w_t + w_i); the paper's 1 : 7.

    Raises an error that holds both numbers for sizes that do not fit, and a `TypeError` for an unknown key.
    """

    attribute_map: ClassVar[dict[str, str]] = {"image_vocab_size": "codebook_size"}  # its name in older folders

    text_vocab_size: int = 4096
    codebook_size: int = 1024
    text_length: int = 16
    grid_size: int = 8
    pad_token_id: int = 0
    hidden_size: int = 256
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    intermediate_size: int | None = None
    dropout: float | int = 0.0
    initializer_range: float = 0.02
    text_loss_weight: float | int = 1.0
    image_loss_weight: float | int = 7.0

    def __post_init__(self, **kwargs: Any):
        if self.intermediate_size is None:
            self.intermediate_size = self.default_intermediate_size
        super().__post_init__(**kwargs)

    def validate_sizes(self):
        for name in (
            "text_vocab_size",
            "codebook_size",
            "text_length",
            "grid_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} must be divisible by num_attention_heads={self.num_attention_heads}"
            )

    def validate_pad(self):
        if not 0 <= self.pad_token_id < self.text_vocab_size:
            raise ValueError(
                f"pad_token_id={self.pad_token_id} must be one of the text_vocab_size={self.text_vocab_size} "
                f"text ids, 0 to {self.text_vocab_size - 1}"
            )

    def validate_regularisation(self):
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be in [0, 1)")

    def validate_loss_weights(self):
        weights = (self.text_loss_weight, self.image_loss_weight)
        if min(weights) < 0 or sum(weights) == 0:
            raise ValueError(
                f"text_loss_weight={weights[0]} and image_loss_weight={weights[1]} must not be negative, nor both 0"
            )

    @property
    def default_intermediate_size(self) -> int:
        return 4 * self.hidden_size

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def models_text(self) -> bool:
        """Whether there is a head that predicts text, and so a loss of it."""
        return True

    @property
    def feature_size(self) -> int | None:
        """Width of what a text encoder makes of a text id; None where the prior reads the ids themselves."""
        return None

    @property
    def prefix_length(self) -> int:
        """1 + T, BOS and the text: the positions before the first code."""
        return 1 + self.text_length

    @property
    def image_length(self) -> int:
        """N, the number of codes in a picture."""
        return self.grid_size**2

    @property
    def stream_length(self) -> int:
        """The prefix and the codes."""
        return self.prefix_length + self.image_length

    @property
    def summary(self) -> str:
        """The architecture in a line, for a model card."""
        raise NotImplementedError
