"""The tokenizers that there are, by the class that their tokenizer_config.json names."""

from pathlib import Path
from typing import Any

from transformers.models.auto.tokenization_auto import get_tokenizer_config

from .tokenization_chat import ChatTokenizer
from .tokenization_encoder import EncoderTokenizer
from .tokenization_prior import PriorTokenizer

TOKENIZERS: dict[str, type[PriorTokenizer]] = {
    kind.__name__: kind for kind in (PriorTokenizer, ChatTokenizer, EncoderTokenizer)
}


def load_tokenizer(name: str | Path, **options: Any) -> PriorTokenizer:
    """`from_pretrained` of whichever tokenizer a folder or Hub id holds; where it names none, a `PriorTokenizer`."""
    kind = get_tokenizer_config(str(name), **options).get("tokenizer_class")
    return TOKENIZERS.get(str(kind), PriorTokenizer).from_pretrained(name, **options)
