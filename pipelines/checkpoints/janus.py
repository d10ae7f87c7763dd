"""Janus-Pro and Janus of DeepSeek, in transformers' layout and in DeepSeek's: names, shapes, defaults.

A Llama that reads a prompt in a chat and draws 24×24 codes of a VQGAN after it. What describes pictures is not read:
its encoder of pictures, and the head of text.
"""

import json
import re
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import JanusConfig, LlamaConfig

from dvae import DVAEImageProcessor
from prior_transformer import ChatTokenizer, LlamaPrior, LlamaPriorConfig

from .filling import Made, Source, fill
from .first_stages import groups_of, joined
from .known import JANUS
from .reading import reading
from .stored import Stored
from .vqgans import read_vqgan

TITLE = JANUS.title
TEXT_LENGTH = 256  # of a prompt in its chat; what is not used costs nothing
SPECIAL = {"bos": "<｜begin▁of▁sentence｜>", "pad": "<｜▁pad▁｜>", "boi": "<begin_of_image>"}
ROLES = ("<|User|>", "<|Assistant|>")  # of Janus-Pro
PLAIN_ROLES = ("User", "Assistant")  # of Janus-1.3B
SAMPLING = {"guidance_scale": 5.0}

TRANSFORMERS = {
    "trunk": "model.language_model.",
    "codes": "model.generation_embeddings.weight",
    "projection": ("model.generation_aligner.fc1", "model.generation_aligner.hidden_layers.0"),
    "head": ("model.generation_head.proj_out", "model.generation_head.vision_head"),
}
DEEPSEEK = {
    "trunk": "language_model.model.",
    "codes": "gen_embed.weight",
    "projection": ("gen_aligner.layers.0", "gen_aligner.layers.2"),
    "head": ("gen_head.output_mlp_projector", "gen_head.vision_head"),
}
INSIDE = {
    "attention_norm": "input_layernorm",
    "attention.output": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.output": "mlp.down_proj",
}


def read_janus(folder: Path, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """
    What a pipeline is made of, by the names of its arguments. dtype: of the weights; None is the stored one.

    Raises an OSError for the first tensor that is missing or has another shape.
    """
    tokenizer, stored = tokenizer_of(folder), weights_of(folder)
    config, image_size = config_of(folder, tokenizer)
    names = TRANSFORMERS if TRANSFORMERS["codes"] in stored else DEEPSEEK
    with torch.device("meta"):
        prior = LlamaPrior(config)
    fill(prior, {name: source_of(name, names, config) for name in prior.state_dict()}, stored, TITLE, dtype)
    return {
        "dvae": read_vqgan(stored, image_size=image_size, dtype=dtype),
        "prior": prior.eval(),
        "tokenizer": tokenizer,
        "image_processor": DVAEImageProcessor(image_size),
        "sampling": SAMPLING,
        "data": JANUS.data,
        "license": "other",
        "language": "en",
    }


def janus_config(folder: Path) -> LlamaPriorConfig:
    """Of the prior, by the settings alone: no weights need be there."""
    return config_of(folder, tokenizer_of(folder))[0]


def config_of(folder: Path, tokenizer: ChatTokenizer) -> tuple[LlamaPriorConfig, int]:
    """The prior's, and the side of the pictures in pixels."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if settings["model_type"] == "janus":
        whole: Any = JanusConfig(**settings)  # whose parts its class takes as dicts, and holds as configs
        llama, codes = whole.text_config, whole.vq_config
        sizes = (codes.num_embeddings, codes.embed_dim, codes.image_token_embed_dim)
        factor = 2 ** (len(codes.channel_multiplier) - 1)
        image_size = codes.num_patches * factor
    else:
        llama, head = cast(Any, LlamaConfig(**settings["language_config"])), settings["gen_head_config"]["params"]
        sizes = (
            head["image_token_size"],
            settings["gen_aligner_config"]["params"]["input_dim"],
            head["image_token_embed"],
        )
        image_size, factor = settings.get("vision_config", {}).get("params", {}).get("image_size", 384), 16
    codebook_size, code_embedding_size, image_head_size = sizes
    config = LlamaPriorConfig(
        text_vocab_size=len(tokenizer),
        text_length=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        text="chat",
        text_loss_weight=0.0,
        codebook_size=codebook_size,
        code_embedding_size=code_embedding_size,
        image_head_size=image_head_size,
        grid_size=image_size // factor,
        hidden_size=llama.hidden_size,
        num_hidden_layers=llama.num_hidden_layers,
        num_attention_heads=llama.num_attention_heads,
        num_key_value_heads=llama.num_key_value_heads,
        intermediate_size=llama.intermediate_size,
        rope_theta=llama.rope_parameters["rope_theta"],
        rms_norm_eps=llama.rms_norm_eps,
        qk_norm=False,
    )
    return config, image_size


def tokenizer_of(folder: Path) -> ChatTokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r}, taken for {TITLE}, has no tokenizer.json")
    with reading(path):
        tokenizer = Tokenizer.from_file(str(path))
    told = _json(folder / "tokenizer_config.json")
    bos, pad, boi = (_content(told.get(f"{name}_token")) or default for name, default in SPECIAL.items())
    for token in (bos, pad, boi):
        if tokenizer.token_to_id(token) is None:
            raise OSError(f"{str(path)!r}, taken for {TITLE}'s, has no token {token!r}")
    user, assistant = roles_of(folder, tokenizer)
    template = f"{bos}{user}: {{prompt}}\n\n{assistant}:{boi}"
    return ChatTokenizer(tokenizer_object=tokenizer, pad_token=pad, model_max_length=TEXT_LENGTH, template=template)


def roles_of(folder: Path, tokenizer: Tokenizer) -> tuple[str, str]:
    """
    Who speaks in the chat: as its chat template has it, if it names either; else Janus-1.3B is known by its card or by
    having no tokens for Janus-Pro's roles: its sizes are those of Janus-Pro-1B, and it may have the tokens, too.
    """
    template = chat_template_of(folder)
    for roles in (ROLES, PLAIN_ROLES):
        if f"{roles[0]}:" in template:
            return roles
    path = folder / "README.md"
    card = path.read_text(encoding="utf-8", errors="replace").lower() if path.is_file() else ""
    first = "janus-pro" not in card and ("janus-1.3b" in card or "deepseek-llm-1.3b" in card)
    return PLAIN_ROLES if first or tokenizer.token_to_id(ROLES[0]) is None else ROLES


def chat_template_of(folder: Path) -> str:
    """As transformers saves it, in a file of its own or among settings; "" where there is none."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    told = (_json(folder / name).get("chat_template") for name in ("chat_template.json", "tokenizer_config.json"))
    return next((template for template in told if isinstance(template, str)), "")


def weights_of(folder: Path) -> Stored:
    """Of the files that hold a prior of this family: safetensors before pickles."""
    found = [joined(paths) for paths in groups_of(folder)]
    for stored in found:
        if TRANSFORMERS["codes"] in stored or DEEPSEEK["codes"] in stored:
            return stored
    names = ", ".join(path.name for paths in groups_of(folder) for path in paths) or "none"
    raise OSError(
        f"{str(folder)!r}, taken for {TITLE}: none of its files of tensors ({names}) has {TRANSFORMERS['codes']} or "
        f"{DEEPSEEK['codes']}"
    )


def source_of(name: str, names: dict[str, Any], config: LlamaPriorConfig) -> Source:
    """Our name of a weight -> the layout's. Queries, keys and values are one matrix here, as gate and value are."""
    trunk = names["trunk"]
    if name == "embeddings.text.weight":  # of the tokens that there are: the table has room for more
        return Made(
            lambda table: table[: config.text_vocab_size].clone(), (f"{trunk}embed_tokens.weight",), computed=False
        )
    if name == "embeddings.image.weight":
        return names["codes"]
    if found := re.fullmatch(r"(embeddings\.image_projection|image_head)\.(hidden|output)\.(weight|bias)", name):
        part = "head" if found[1] == "image_head" else "projection"
        return f"{names[part][found[2] == 'output']}.{found[3]}"
    if name == "norm.weight":
        return f"{trunk}norm.weight"
    _, layer, inside = name.removesuffix(".weight").split(".", 2)
    joins = {
        "attention.qkv": ("self_attn", "q_proj", "k_proj", "v_proj"),
        "mlp.hidden": ("mlp", "gate_proj", "up_proj"),
    }
    if inside in joins:
        part, *matrices = joins[inside]
        return Made(
            _stack, tuple(f"{trunk}layers.{layer}.{part}.{matrix}.weight" for matrix in matrices), computed=False
        )
    return f"{trunk}layers.{layer}.{INSIDE[inside]}.weight"


def _stack(*matrices: Tensor) -> Tensor:
    return torch.cat(matrices)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def _content(token: Any) -> str | None:
    """A token as tokenizer_config.json has it: a string, or settings."""
    return token.get("content") if isinstance(token, dict) else token
