"""Prompts -> text ids in a chat template, with the tokenizer of the language model that a prior was."""

import re
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import torch
from tokenizers import Encoding
from torch import Tensor

from .tokenization_prior import PriorTokenizer, check_captions, check_encoding, warn_of_lost_words

PROMPT = "{prompt}"


class Frame(NamedTuple):
    """
    A template: ids that come first and last, and between them the text that has the prompt in it, in two halves.
    Special tokens part texts: so this one can be encoded alone, where no prompt can write a special token.
    """

    head: list[int]
    before: str
    after: str
    tail: list[int]


class ChatTokenizer(PriorTokenizer):
    """
    Puts a prompt into the template that it is made with, `template=`, which has "{prompt}" once, and begins and ends
    with a special token of the vocabulary: BOS, and the one that begins a picture. `model_max_length` is T, the text
    length of the prior. The prompt's letters stay as they are, and a special token's name in it is ordinary text.
    """

    reads = "text in a chat template"

    # No __init__: transformers loads the tokenizer.json of a class that has its own one as another vocabulary.

    def __len__(self) -> int:
        """1 + the largest id, as an embedding needs rows: there may be ids that stand for nothing."""
        return 1 + max(self.backend_tokenizer.get_vocab(with_added_tokens=True).values())

    def encode_captions(self, captions: list[str], text_length: int | None = None, bpe_dropout: float = 0.0) -> Tensor:
        """
        Prompts → text ids, int64 (B, T), padded on the left; arguments and errors as `PriorTokenizer` has them.

        "" is the empty caption: first and last token of the template, and pads in place of those between. A prompt
        that does not fit is cut at its own end: the template stays whole.
        """
        check_captions(captions)
        text_length = self.model_max_length if text_length is None else text_length
        check_encoding(text_length, bpe_dropout, least=len(self._ids(self._encode([""])[0])))
        text_ids = torch.full((len(captions), text_length), self.pad_token_id, dtype=torch.long, device="cpu")
        for i, encoding in enumerate(self._encode(captions, bpe_dropout)):
            kept = captions[i]
            while (lost := len(self._ids(encoding)) - text_length) > 0:
                kept = kept[: self._end(encoding, len(kept), lost)]
                encoding = self._encode([kept], bpe_dropout)[0]
            if len(kept) < len(captions[i]) and bpe_dropout == 0:
                warn_of_lost_words(captions[i], len(kept), text_length)
            ids = torch.tensor(self._ids(encoding), device="cpu")
            if captions[i] == "":
                ids = self._empty(ids, text_length)
            text_ids[i, text_length - len(ids) :] = ids
        return text_ids

    def count_cut(self, captions: list[str], text_length: int | None = None) -> int:
        """How many captions `encode_captions` would cut."""
        check_captions(captions)
        text_length = self.model_max_length if text_length is None else text_length
        return sum(len(self._ids(encoding)) > text_length for encoding in self._encode(captions))

    def decode_captions(self, text_ids: Tensor) -> list[str]:
        """Text ids (B, T) → the prompts in them, "" of the empty caption."""
        frame = self.frame
        rows = [[token for token in row if token != self.pad_token_id] for row in text_ids.tolist()]
        texts = self.backend_tokenizer.decode_batch(
            [row[len(frame.head) : len(row) - len(frame.tail)] for row in rows], skip_special_tokens=False
        )
        return [text.removeprefix(frame.before).removesuffix(frame.after) for text in texts]

    @cached_property
    def frame(self) -> Frame:
        """Raises a `ValueError` for a template that is none."""
        template = self.init_kwargs["template"]
        added = self.backend_tokenizer.get_added_tokens_decoder()
        special = {token.content: i for i, token in added.items() if token.special}
        names = sorted(special, key=len, reverse=True)
        pieces = [piece for piece in re.split(f"({'|'.join(map(re.escape, names))})", template) if piece]
        places = [i for i, piece in enumerate(pieces) if PROMPT in piece]
        if template.count(PROMPT) != 1 or pieces[0] not in special or pieces[-1] not in special:
            raise ValueError(f"template={template!r} must hold {PROMPT} once, between two special tokens")
        ids = [
            [special[piece]] if piece in special else self._encoder(0.0).encode(piece, add_special_tokens=False).ids
            for piece in pieces
        ]
        head, tail = ids[: places[0]], ids[places[0] + 1 :]
        before, after = pieces[places[0]].split(PROMPT)
        return Frame(list(chain(*head)), before, after, list(chain(*tail)))

    def _encode(self, prompts: list[str], bpe_dropout: float = 0.0) -> list[Encoding]:
        """Of the text that has the prompt in it."""
        texts = [self.frame.before + prompt + self.frame.after for prompt in prompts]
        return self._encoder(bpe_dropout).encode_batch(texts, add_special_tokens=False)

    def _empty(self, ids: Tensor, text_length: int) -> Tensor:
        """Of the empty caption, as many ids as it has, from those of a template without a prompt."""
        ids[1:-1] = self.pad_token_id
        return ids

    def _ids(self, encoding: Encoding) -> list[int]:
        return self.frame.head + encoding.ids + self.frame.tail

    def _end(self, encoding: Encoding, length: int, lost: int) -> int:
        """Where a prompt of this length ends that has `lost` tokens fewer, or a character."""
        first = len(self.frame.before)
        ends = [end - first for start, end in encoding.offsets if start < first + length]
        return max(0, min(length - 1, ends[-lost - 1] if lost < len(ends) else 0))


ChatTokenizer.register_for_auto_class()  # this file is saved beside its vocabulary
