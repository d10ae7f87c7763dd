"""Any Unicode goes in and comes out lower-cased; what is lost is named; dropout leaves no trace."""

import pickle
import unicodedata
import warnings

import pytest
import torch
from messages import refused

from prior_transformer import PriorTokenizer

CAPTIONS = ["an armchair shaped like an avocado", "a red apple", "a fire engine above a sailboat", "cat face"] * 3
TEXTS = [
    "An ARMCHAIR",
    "🥑 + 🪑 = 👩🏽‍🚀",
    "كرسي بذراعين على شكل أفوكادو",
    "牛油果形状的扶手椅",
    "E\u0301te\u0301 a\u0323\u0302",
    "ÅNGSTRÖM İstanbul",
    "two  spaces\tand a tab\nand a line",
    "<pad> is only text",
    "\u200dzero\u0000null\U0010ffff",
]


def normalised(text: str) -> str:
    return "".join(character.lower() for character in unicodedata.normalize("NFC", text)).strip()


@pytest.fixture(scope="module")
def tokenizer() -> PriorTokenizer:
    return PriorTokenizer.train(CAPTIONS, vocab_size=320, text_length=8)


@pytest.mark.parametrize("text", TEXTS)
def test_decode_undoes_encode(tokenizer, text):
    text_ids = tokenizer.encode_captions([text], text_length=128)
    assert tokenizer.decode_captions(text_ids) == [normalised(text)]
    assert int(text_ids.max()) < len(tokenizer)


def test_ids_are_padded_to_the_text_length(tokenizer):
    text_ids = tokenizer.encode_captions(["cat", ""])
    assert text_ids.shape == (2, 8) and text_ids.dtype == torch.long
    assert (text_ids[1] == tokenizer.pad_token_id).all()
    assert text_ids[0, 0] != tokenizer.pad_token_id and text_ids[0, -1] == tokenizer.pad_token_id
    assert tokenizer.encode_captions([]).shape == (0, 8)


def test_case_normal_form_and_place_do_not_matter(tokenizer):
    same = tokenizer.encode_captions(["Caf\u00e9 ", "cafe\u0301", " CAFÉ"])
    assert (same == same[0]).all()
    cat, red_cat = tokenizer.encode_captions(["cat", "red cat"])
    assert cat[0] in red_cat


def test_the_pad_comes_from_no_text(tokenizer):
    assert tokenizer.all_special_tokens == ["<pad>"]
    text_ids = tokenizer.encode_captions(["<pad><pad>"], text_length=32)[0]
    assert tokenizer.pad_token_id not in text_ids[: len("<pad>")]


@pytest.mark.parametrize(
    ("caption", "lost"),
    [
        ("a red apple a red apple a red apple", "'a red apple'"),
        ("a red apple a red apple a xylophone", "'xylophone'"),
        ("cat face cat face cat face cat face 🥑", "'🥑'"),
    ],
)
def test_a_caption_too_long_names_the_words_lost(tokenizer, caption, lost):
    length = len(tokenizer(caption.removesuffix(lost.strip("'")).strip()).input_ids)
    with pytest.warns(UserWarning, match=rf"\b{length}\b.*{lost}"):
        cut = tokenizer.encode_captions([caption], text_length=length)
    assert cut.shape == (1, length)


@pytest.mark.parametrize(
    "caption", ["😀" * 9, "a 👩‍🚀 مرحبا", "猫" * 12, "สวัสดีชาวโลก", "İstanbul ǅ e\u0301", "an armchair, naïve"]
)
def test_a_cut_leaves_whole_characters_at_every_length(tokenizer, caption):
    """What is left is the start of what the whole caption is read as, and no token more would fit."""
    [whole] = tokenizer.decode_captions(tokenizer.encode_captions([caption], text_length=99))
    longest = 0
    for length in range(1, 60):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ids = tokenizer.encode_captions([caption], text_length=length)
        [left] = tokenizer.decode_captions(ids)
        assert whole.startswith(left) and len(left) >= longest
        assert (ids == tokenizer.pad_token_id).sum() < 8 or left == whole, "of a character of some bytes, no more go"
        longest = len(left)
    assert left == whole


def test_captions_that_would_be_cut_are_counted(tokenizer):
    captions = ["a cat", "an armchair shaped like an avocado " * 9, "😀" * 9]
    assert [tokenizer.count_cut(captions, length) for length in (1, 20, 999)] == [3, 2, 0]


def test_a_word_cut_in_its_middle_is_named_whole(tokenizer):
    with pytest.warns(UserWarning, match="'xylophone player'"):
        tokenizer.encode_captions(["a xylophone player"], text_length=3)


def test_without_spaces_what_is_named_starts_with_the_first_lost_token(tokenizer):
    caption = "一张鳄梨形状的扶手椅"
    length = len(tokenizer(caption[:4]).input_ids)
    with pytest.warns(UserWarning, match=f"'{caption[4:]}'"):
        tokenizer.encode_captions([caption], text_length=length)


def test_a_caption_that_fits_is_silent(tokenizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.encode_captions(CAPTIONS)


def test_called_it_pads_and_cuts_as_a_tokenizer_of_transformers(tokenizer):
    captions = ["cat", "an armchair shaped like an avocado above a sailboat"]
    with pytest.warns(UserWarning, match="lost"):
        text_ids = tokenizer.encode_captions(captions)
    called = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    assert torch.equal(called.input_ids, text_ids)
    assert torch.equal(called.attention_mask, (text_ids != tokenizer.pad_token_id).long())
    longest = tokenizer(captions, padding=True, truncation=True, max_length=5)
    assert longest.input_ids == text_ids[:, :5].tolist() and longest.attention_mask[1] == [1] * 5
    assert tokenizer("cat").input_ids == [token for token in text_ids[0].tolist() if token != tokenizer.pad_token_id]
    assert torch.equal(tokenizer.encode_captions(captions[:1]), text_ids[:1]), "a call leaves nothing behind"


def test_bpe_dropout_varies_and_leaves_no_trace(tokenizer):
    before = tokenizer.encode_captions(CAPTIONS[:4])
    state = tokenizer.backend_tokenizer.to_str()
    dropped = [tokenizer.encode_captions(CAPTIONS[:4], text_length=64, bpe_dropout=0.3) for _ in range(4)]
    assert any(not torch.equal(dropped[0], other) for other in dropped[1:])
    for text_ids in dropped:
        assert tokenizer.decode_captions(text_ids) == CAPTIONS[:4]
    assert tokenizer.backend_tokenizer.to_str() == state
    assert torch.equal(tokenizer.encode_captions(CAPTIONS[:4]), before)


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.encode_captions(CAPTIONS, bpe_dropout=0.5)
    tokenizer.save_pretrained(tmp_path)
    for loaded in (PriorTokenizer.from_pretrained(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert loaded.model_max_length == 8 and len(loaded) == len(tokenizer)
        assert torch.equal(loaded.encode_captions(TEXTS, 128), tokenizer.encode_captions(TEXTS, 128))
        assert loaded(TEXTS[7]).input_ids == tokenizer(TEXTS[7]).input_ids


@pytest.mark.parametrize(
    ("captions", "parts"),
    [
        ("a cat", ["['a cat']"]),
        (["a cat", None], ["captions[1]", "NoneType"]),
        ([3], ["captions[0]", "int", 3]),
        (3, ["int", 3]),
    ],
)
def test_anything_but_strings_is_refused(tokenizer, captions, parts):
    with refused(TypeError, *parts):
        tokenizer.encode_captions(captions)


def test_numbers_that_make_no_sense_are_refused(tokenizer):
    with refused(ValueError, "bpe_dropout=1.5"):
        tokenizer.encode_captions(["a"], bpe_dropout=1.5)
    with refused(ValueError, "text_length=0"):
        tokenizer.encode_captions(["a"], text_length=0)
    with refused(ValueError, "vocab_size=100", 257):
        PriorTokenizer.train(CAPTIONS, vocab_size=100, text_length=8)
    with refused(ValueError, "text_length=0"):
        PriorTokenizer.train(CAPTIONS, vocab_size=300, text_length=0)
