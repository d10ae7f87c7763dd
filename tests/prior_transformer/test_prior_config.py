"""What does not fit is refused with both numbers; what was saved comes back."""

import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from messages import refused

from prior_transformer import LlamaPriorConfig, PriorTransformerConfig


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, ["hidden_size=30", "num_attention_heads=4"]),
        ({"pad_token_id": 99, "text_vocab_size": 99}, ["pad_token_id=99", "text_vocab_size=99"]),
        ({"grid_size": 0}, ["grid_size=0", 1]),
        ({"num_hidden_layers": -1}, ["num_hidden_layers=-1", 1]),
        ({"conv_kernel_size": 4}, ["conv_kernel_size=4"]),
        ({"dropout": 1}, ["dropout=1"]),
        ({"text_loss_weight": 0, "image_loss_weight": 0}, ["text_loss_weight=0", "image_loss_weight=0"]),
        ({"attention_pattern": "axial"}, ["attention_pattern", "axial"]),
        ({"hidden_size": "256"}, ["hidden_size", "256"]),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, parts):
    with refused(StrictDataclassError, *parts):
        PriorTransformerConfig(**settings)


def test_a_typo_is_refused_with_the_key_that_was_meant():
    with refused(TypeError, "hiden_size", "hidden_size"):
        PriorTransformerConfig(hiden_size=64)
    with refused(TypeError, "xyzzy", "grid_size"):  # one of all that are known
        PriorTransformerConfig(xyzzy=1)


def test_an_unknown_key_in_a_file_is_refused(tmp_path):
    PriorTransformerConfig().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rotary": True}))
    with refused(TypeError, "rotary"):
        PriorTransformerConfig.from_pretrained(tmp_path)


def test_save_and_load(tmp_path):
    config = PriorTransformerConfig(grid_size=4, attention_pattern="dalle", dropout=0.1, text_loss_weight=2)
    config.save_pretrained(tmp_path)
    loaded = PriorTransformerConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() | {"transformers_version": None} == config.to_dict() | {"transformers_version": None}
    assert PriorTransformerConfig.from_dict(config.to_dict()).to_diff_dict() == config.to_diff_dict()


def test_lengths_of_the_stream():
    config = PriorTransformerConfig(text_length=6, grid_size=4)
    assert (config.image_length, config.stream_length) == (16, 23)
    assert config.intermediate_size == 4 * config.hidden_size


@pytest.mark.parametrize("kind", [PriorTransformerConfig, LlamaPriorConfig])
def test_a_key_of_older_folders_is_read_and_saved_by_its_name_of_today(kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind.model_type, "image_vocab_size": 77}))
    config = kind.from_pretrained(tmp_path)
    assert config.codebook_size == config.image_vocab_size == kind(image_vocab_size=77).codebook_size == 77
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["codebook_size"] == 77 and "image_vocab_size" not in saved
