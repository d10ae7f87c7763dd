"""minDALL-E of Kakao Brain: names, shapes, defaults. A GPT over 64 text tokens and 16×16 codes of a VQGAN."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import CharBPETokenizer
from torch import Tensor

from dvae import DVAEImageProcessor
from prior_transformer import PriorTokenizer, PriorTransformer, PriorTransformerConfig

from .filling import Made, Source, fill
from .known import MINDALLE, read_settings
from .pickles import read_pickle
from .reading import reading
from .vqgans import read_vqgan

TITLE = MINDALLE.title
FIRST_STAGE, PRIOR = "stage1_last.ckpt", "stage2_last.ckpt"
TOKENIZER = ("tokenizer/bpe-16k-vocab.json", "tokenizer/bpe-16k-merges.txt")
PAD, UNKNOWN = "[PAD]", "[UNK]"
TOP_K = 256
LICENCE = "cc-by-nc-sa-4.0"

AROUND = {
    "embeddings.text_position": "pos_emb_txt",
    "embeddings.image": "tok_emb_img",
    "embeddings.image_position": "pos_emb_img",
    "norm": "ln_f",
    "image_head": "head_img",
}
INSIDE = {
    "attention_norm": "ln1",
    "attention.output": "attn.proj",
    "mlp_norm": "ln2",
    "mlp.hidden": "mlp.0",
    "mlp.output": "mlp.2",
}


def read_mindalle(folder: Path, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """
    What a pipeline is made of, by the names of its arguments. dtype: of the weights; None is the stored one.

    Raises an OSError for the first tensor that is missing or has another shape.
    """
    tokenizer = tokenizer_of(folder)
    config, image_size = config_of(folder, tokenizer)
    stored = read_pickle(file_of(folder, PRIOR)).under("state_dict.")
    with torch.device("meta"):
        prior = PriorTransformer(config)
    fill(prior, {name: source_of(name, config) for name in prior.state_dict()}, stored, TITLE, dtype)
    return {
        "dvae": read_vqgan(read_pickle(file_of(folder, FIRST_STAGE)), image_size=image_size, dtype=dtype),
        "prior": prior.eval(),
        "tokenizer": tokenizer,
        "image_processor": DVAEImageProcessor(image_size),
        "sampling": {"top_k": min(TOP_K, config.codebook_size)},
        "data": MINDALLE.data,
        "license": LICENCE,
        "language": "en",
    }


def mindalle_config(folder: Path) -> PriorTransformerConfig:
    """Of the prior, by the settings alone: no weights need be there."""
    return config_of(folder, tokenizer_of(folder))[0]


def config_of(folder: Path, tokenizer: PriorTokenizer) -> tuple[PriorTransformerConfig, int]:
    """The prior's, and the side of the pictures in pixels."""
    settings = read_settings(folder / "config.yaml")
    prior, sizes = settings["stage2"], settings["stage2"]["hparams"]
    if sizes.get("gelu_use_approx"):
        raise ValueError("gelu_use_approx=True: such a prior is not read, only one of the exact GELU")
    config = PriorTransformerConfig(
        text_vocab_size=len(tokenizer),
        text_length=sizes["ctx_len_txt"],
        pad_token_id=tokenizer.pad_token_id,
        codebook_size=prior["vocab_size_img"],
        grid_size=math.isqrt(sizes["ctx_len_img"]),
        hidden_size=sizes["embed_dim"],
        num_hidden_layers=sizes["n_layers"],
        num_attention_heads=sizes["n_heads"],
        bos=False,
        attention_bias=True,
        image_positions="table",
    )
    return config, settings["stage1"]["hparams"]["resolution"]


def tokenizer_of(folder: Path) -> PriorTokenizer:
    """Of lower case; what its vocabulary has no letter for is one token."""
    vocabulary, merges = (file_of(folder, name) for name in TOKENIZER)
    with reading(vocabulary):
        json.loads(vocabulary.read_text(encoding="utf-8"))  # as tokenizers does not say which of the two is broken
    with reading(merges):
        names = (str(vocabulary), str(merges))
        backend = CharBPETokenizer.from_file(*names, unk_token=UNKNOWN, lowercase=True)._tokenizer
    length = read_settings(folder / "config.yaml")["stage2"]["hparams"]["ctx_len_txt"]
    return PriorTokenizer(tokenizer_object=backend, pad_token=PAD, model_max_length=length, split_special_tokens=True)


def file_of(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r}, taken for {TITLE}, has no {name}")
    return path


def source_of(name: str, config: PriorTransformerConfig) -> Source:
    """Our name of a weight -> minDALL-E's. Its pads are a token as any other, at each position the same."""
    own, _, kind = name.rpartition(".")
    rows, length, pad = config.text_vocab_size, config.text_length, config.pad_token_id
    if own == "embeddings.text_pad":
        return Made(lambda table: table[pad].expand(length, -1).contiguous(), ("tok_emb_txt.weight",), computed=False)
    if own in ("embeddings.text", "text_head"):  # of the tokens that there are: the table has room for more
        table = {"embeddings.text": "tok_emb_txt", "text_head": "head_txt"}[own]
        return Made(lambda table: table[:rows].clone(), (f"{table}.weight",), computed=False)
    if own in AROUND:
        return f"{AROUND[own]}.{kind}"
    _, layer, inside = own.split(".", 2)
    if inside == "attention.qkv":
        matrices = tuple(f"blocks.{layer}.attn.{matrix}.{kind}" for matrix in ("query", "key", "value"))
        return Made(_stack, matrices, computed=False)
    return f"blocks.{layer}.{INSIDE[inside]}.{kind}"


def _stack(*parts: Tensor) -> Tensor:
    return torch.cat(parts)
