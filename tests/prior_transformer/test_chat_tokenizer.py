"""Prompts in a chat template: what a chat's own tokenizer makes of the text, and nothing a prompt can write."""

import pytest
import torch
from chat import BEGIN, BOS, PAD, TEMPLATE, chat_tokenizer, letters
from messages import refused

from prior_transformer import ChatTokenizer, PriorTokenizer, load_tokenizer

PROMPTS = ["a cat", "A  Fat cat,\nat a table", "日本 é 🥑"]


def test_ids_are_those_of_the_whole_text():
    """The template is encoded in parts, and comes to what a tokenizer makes of it in one."""
    tokenizer, whole = chat_tokenizer(80), letters()
    for prompt, row in zip(PROMPTS, tokenizer.encode_captions(PROMPTS), strict=True):
        ids = whole.encode(TEMPLATE.replace("{prompt}", prompt), add_special_tokens=False).ids
        pads = 80 - len(ids)
        assert row.tolist() == [tokenizer.pad_token_id] * pads + ids


def test_roles_may_be_ordinary_text():
    tokenizer = chat_tokenizer(60, template=BOS + "User: {prompt}\n\nAssistant:" + BEGIN)
    ids = letters().encode(BOS + "User: a cat\n\nAssistant:" + BEGIN, add_special_tokens=False).ids
    assert tokenizer.encode_captions(["a cat"])[0, -len(ids) :].tolist() == ids
    assert tokenizer.decode_captions(tokenizer.encode_captions(["a cat"])) == ["a cat"]


def test_the_prompts_come_back_as_they_were():
    tokenizer = chat_tokenizer(80)
    assert tokenizer.decode_captions(tokenizer.encode_captions([*PROMPTS, ""])) == [*PROMPTS, ""]


def test_a_prompt_writes_no_special_token():
    tokenizer = chat_tokenizer(64)
    prompt = f"a {BEGIN} {PAD} {BOS}"
    (ids,) = tokenizer.encode_captions([prompt])
    own = ids[ids != tokenizer.pad_token_id].tolist()
    plain = tokenizer.encode_captions(["a cat"])[0]
    special = {tokenizer.convert_tokens_to_ids(token) for token in (BOS, BEGIN, PAD)}
    assert sum(token in special for token in own) == sum(token in special for token in plain.tolist() if token != 2)
    assert tokenizer.decode_captions(ids[None]) == [prompt]


def test_the_empty_caption_is_pads_between_the_ends():
    (ids,) = chat_tokenizer(20).encode_captions([""])
    length = len(letters().encode(TEMPLATE.replace("{prompt}", "")).ids)
    bos, pad, begin = (chat_tokenizer().convert_tokens_to_ids(token) for token in (BOS, PAD, BEGIN))
    assert ids.tolist() == [pad] * (20 - length) + [bos] + [pad] * (length - 2) + [begin]


def test_a_long_prompt_is_cut_at_its_end_with_a_warning():
    tokenizer = chat_tokenizer(20)
    with pytest.warns(UserWarning, match="'table'"):
        ids = tokenizer.encode_captions(["a fat cat at a table"])
    assert (ids != tokenizer.pad_token_id).all(), "as much of it as fits"
    (read,) = tokenizer.decode_captions(ids)
    assert "a fat cat at a table".startswith(read) and len(read) > 8
    assert tokenizer.count_cut(["a fat cat at a table", "a cat"]) == 1
    with pytest.warns(UserWarning):
        (read,) = tokenizer.decode_captions(tokenizer.encode_captions(["日本語日本語"]))
    assert "日本語日本語".startswith(read), "after a whole character"
    with refused(ValueError, "text_length=8", 9):
        tokenizer.encode_captions(["a"], text_length=8)


def test_saved_and_loaded_it_is_the_same(tmp_path, tiny_tokenizer):
    tokenizer = chat_tokenizer(80)
    tokenizer.save_pretrained(tmp_path / "chat")
    loaded = load_tokenizer(tmp_path / "chat")
    assert type(loaded) is ChatTokenizer and len(loaded) == len(tokenizer)
    assert torch.equal(loaded.encode_captions(PROMPTS), tokenizer.encode_captions(PROMPTS))
    tiny_tokenizer.save_pretrained(tmp_path / "own")
    assert type(load_tokenizer(tmp_path / "own")) is PriorTokenizer


@pytest.mark.parametrize(
    "template", ["{prompt}" + BEGIN, BOS + "{prompt}", BOS + BEGIN, BOS + "{prompt}{prompt}" + BEGIN]
)
def test_a_template_that_is_none_is_refused(template):
    with refused(ValueError, template, "{prompt}"):
        chat_tokenizer(template=template).encode_captions(["a"])
