"""
Captions -> text ids: a byte-level BPE, lower-cased, that takes any Unicode and knows one special token, the pad.
"""

import copy
import functools
import unicodedata
import warnings
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import TokenizersBackend

PAD_TOKEN = "<pad>"


class PriorTokenizer(TokenizersBackend):
    """
    Text is normalised by NFC, lower case and a strip of outer white space, and gets one leading space, so that a
    word's tokens do not depend on whether it comes first. `decode_captions(encode_captions([x]))` is the normalised
    x, whatever the characters. `model_max_length` is T, the text length of the prior. "<pad>" in a caption is
    ordinary text. One brought in with an eos_token ends each caption with it, where that fits and nothing was cut.
    """

    pad_token_id: int
    reads = "lower-cased text"

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int, text_length: int) -> "PriorTokenizer":
        """
        Learns a BPE of at most vocab_size tokens (256 bytes and the pad among them; `len(tokenizer)` says how many it
        found).

        captions: any iterable of strings; text_length: T, kept as model_max_length.
        Raises `ValueError` for a vocab_size below 257 or a text_length below 1.
        """
        if vocab_size < 257:
            raise ValueError(f"vocab_size={vocab_size} must be at least 257: 256 bytes and the pad")
        if text_length < 1:
            raise ValueError(f"text_length={text_length} must be at least 1")
        backend = Tokenizer(models.BPE())
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Lowercase(), normalizers.Strip(), normalizers.Prepend(" ")]
        )
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[PAD_TOKEN],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(captions, trainer=trainer)
        return cls(
            tokenizer_object=backend,
            pad_token=PAD_TOKEN,
            model_max_length=text_length,
            split_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )

    def encode_captions(self, captions: list[str], text_length: int | None = None, bpe_dropout: float = 0.0) -> Tensor:
        """
        Captions → text ids, int64 (B, T), padded on the right.

        text_length: T, model_max_length unless given.
        bpe_dropout: share of merges skipped at random (arXiv 1910.13267), for training alone; its draws are the
            tokenizers library's own and cannot be seeded. It leaves the tokenizer as it was.

        A caption that does not fit is cut after a whole character, with a warning that names the words lost (but not
        under bpe_dropout, which lengthens at random). Raises `TypeError` for anything but a list of strings,
        `ValueError` for a text_length below 1 or a bpe_dropout outside [0, 1].
        """
        check_captions(captions)
        text_length = self.model_max_length if text_length is None else text_length
        check_encoding(text_length, bpe_dropout)
        text_ids = torch.full((len(captions), text_length), self.pad_token_id, dtype=torch.long, device="cpu")
        end = [] if self.eos_token_id is None else [self.eos_token_id]
        for i, encoding in enumerate(self._encoder(bpe_dropout).encode_batch(captions)):
            kept = encoding.ids[: _whole_characters(encoding.offsets, text_length)]
            ids = (kept + end)[:text_length] if len(kept) == len(encoding.ids) else kept
            text_ids[i, : len(ids)] = torch.tensor(ids, dtype=torch.long, device="cpu")
            if len(kept) < len(encoding.ids) and bpe_dropout == 0:
                warn_of_lost_words(captions[i], encoding.offsets[len(kept)][0], text_length)
        return text_ids

    def count_cut(self, captions: list[str], text_length: int | None = None) -> int:
        """How many captions `encode_captions` would cut."""
        check_captions(captions)
        text_length = self.model_max_length if text_length is None else text_length
        return sum(len(encoding.ids) > text_length for encoding in self._encoder(0.0).encode_batch(captions))

    def decode_captions(self, text_ids: Tensor) -> list[str]:
        """Text ids (B, T) → normalised captions; pads are left out."""
        rows = [[token for token in row if token != self.pad_token_id] for row in text_ids.tolist()]
        return self.backend_tokenizer.decode_batch(rows)

    def _encoder(self, bpe_dropout: float) -> Tokenizer:
        """The backend, or for BPE dropout a copy of it: `model.dropout` is state that every other user would see."""
        if bpe_dropout not in self._encoders:
            encoder = copy.deepcopy(self.backend_tokenizer)
            encoder.no_truncation()
            encoder.no_padding()
            if isinstance(encoder.model, models.BPE):
                encoder.model.dropout = bpe_dropout or None
            elif bpe_dropout:
                kind = type(encoder.model).__name__
                raise ValueError(f"bpe_dropout={bpe_dropout} must be 0 for this vocabulary, a {kind}, which is no BPE")
            self._encoders[bpe_dropout] = encoder
        self._encoders[bpe_dropout].encode_special_tokens = True  # "<pad>" in a caption is text; copies forget this
        return self._encoders[bpe_dropout]

    @functools.cached_property
    def _encoders(self) -> dict[float, Tokenizer]:
        return {}


PriorTokenizer.register_for_auto_class()  # this file is saved beside its vocabulary


def check_captions(captions: list[str]):
    if isinstance(captions, str):
        raise TypeError(f"captions must be a list of strings; wrap the one you have: [{captions!r}]")
    if not isinstance(captions, list | tuple):
        raise TypeError(f"captions must be a list of strings, not {type(captions).__name__}: {captions!r}")
    for i, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise TypeError(f"captions[{i}] must be a string, not {type(caption).__name__}: {caption!r}")


def check_encoding(text_length: int, bpe_dropout: float, least: int = 1):
    if text_length < least:
        raise ValueError(f"text_length={text_length} must be at least {least}")
    if not 0 <= bpe_dropout <= 1:
        raise ValueError(f"bpe_dropout={bpe_dropout} must be in [0, 1]")


def _whole_characters(offsets: list[tuple[int, int]], text_length: int) -> int:
    """
    How many of the first tokens stay: text_length, or fewer where the next one begins inside the character that the
    last one ends in, as a token may be some bytes of one. offsets: of each token in the caption.
    """
    kept = min(text_length, len(offsets))
    while 0 < kept < len(offsets) and offsets[kept][0] < offsets[kept - 1][1]:
        kept -= 1
    return kept


def warn_of_lost_words(caption: str, cut: int, text_length: int):
    """
    cut: where in the caption the first lost token starts; a word that straddles it is named whole, but not a run of
    letters without case (Lo), as scripts without spaces write whole captions in.
    """
    while cut > 0 and not caption[cut - 1].isspace() and not caption[cut : cut + 1].isspace():
        if unicodedata.category(caption[cut - 1]) == "Lo":
            break
        cut -= 1
    lost = " ".join(caption[cut:].split())
    warnings.warn(f"a caption is longer than {text_length} text tokens; lost from its end: {lost!r}", stacklevel=3)
