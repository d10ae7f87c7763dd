"""A Janus of tiny size by transformers' own classes, saved as it saves one, or in DeepSeek's layout."""

import json
import re
from pathlib import Path

import torch
from chat import letters
from public_layouts import as_deepseek
from torch import Tensor
from transformers import JanusConfig, JanusForConditionalGeneration

SPECIAL = [
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<image_placeholder>",
    "<begin_of_image>",
    "<end_of_image>",
    "<|User|>",
    "<|Assistant|>",
]
BOS, PAD, BEGIN = SPECIAL[0], SPECIAL[2], SPECIAL[4]
PAD_ID, BEGIN_ID = 2, 4
ROOM = 5  # rows of the text's embedding that no token has


def tiny_janus(levels: int = 3, seed: int = 0) -> JanusForConditionalGeneration:
    """16 codes of 32, two layers of width 32, weights wide enough that logits differ by whole nats."""
    torch.manual_seed(seed)
    factor, tokens = 2 ** (levels - 1), letters(SPECIAL).get_vocab_size()
    text = {"vocab_size": tokens + ROOM, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": PAD_ID, "model_type": "llama"}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 32}
    vision |= {"image_size": 4 * factor, "patch_size": factor, "num_image_tokens": 16}
    codes = {"base_channels": 32, "channel_multiplier": [1] * levels, "num_res_blocks": 1, "latent_channels": 32}
    codes |= {"embed_dim": 8, "num_embeddings": 32, "projection_dim": 32, "image_token_embed_dim": 32}
    parts = {"text_config": text, "vision_config": vision, "vq_config": codes}
    config = JanusConfig(**parts, image_token_id=3, tie_word_embeddings=False)
    janus = JanusForConditionalGeneration(config).eval()
    janus.generation_config.generation_kwargs = {"boi_token_id": BEGIN_ID}
    with torch.no_grad():
        for name, weight in janus.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.5 if "generation" in name else 0.15)
        janus.model.vqmodel.quantize.embedding.weight.mul_(torch.linspace(2, 20, 32)[:, None])
    return janus


def save_tokenizer(folder: Path, special: list[str] = SPECIAL) -> None:
    letters(special).save(str(folder / "tokenizer.json"))
    settings = {"bos_token": BOS, "pad_token": {"content": PAD, "__type": "AddedToken"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def save_transformers(janus: JanusForConditionalGeneration, folder: Path, **options) -> None:
    janus.save_pretrained(folder, **options)
    save_tokenizer(folder)


def save_deepseek(janus: JanusForConditionalGeneration, folder: Path) -> None:
    """config.json as DeepSeek has it, which leaves out what Llama has by default, and one pickle."""
    text, codes = janus.config.text_config, janus.config.vq_config
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    head = {"image_token_embed": codes.image_token_embed_dim, "image_token_size": codes.num_embeddings}
    settings = {
        "model_type": "multi_modality",
        "language_config": {"model_type": "llama", **{name: getattr(text, name) for name in names}},
        "gen_head_config": {"params": head},
        "gen_aligner_config": {"params": {"input_dim": codes.embed_dim}},
        "vision_config": {"params": {"image_size": janus.config.vision_config.image_size}},
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    torch.save(deepseek_names(janus.state_dict()), folder / "pytorch_model.bin")
    save_tokenizer(folder)


def deepseek_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    first = {
        r"lm_head\.": "language_model.lm_head.",
        r"model\.language_model\.": "language_model.model.",
        r"model\.generation_embeddings\.": "gen_embed.",
        r"model\.generation_aligner\.fc1\.": "gen_aligner.layers.0.",
        r"model\.generation_aligner\.hidden_layers\.0\.": "gen_aligner.layers.2.",
        r"model\.generation_head\.proj_out\.": "gen_head.output_mlp_projector.",
        r"model\.generation_head\.": "gen_head.",
        r"model\.(vision_model|aligner)\.": r"\1.",
    }
    vq = "model.vqmodel."
    picture = {name.removeprefix(vq): value for name, value in weights.items() if name.startswith(vq)}
    named = {f"gen_vision_model.{name}": value for name, value in as_deepseek(picture).items()}
    for name, value in weights.items():
        for ours, theirs in first.items():
            if re.match(ours, name):
                named[re.sub(f"^{ours}", theirs, name)] = value
    return named
