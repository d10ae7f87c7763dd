"""LlamaGen's text-to-image models: names, shapes, defaults. A Llama over flan-t5's features of a prompt and codes.

There are no settings beside the tensors: their shapes tell the sizes, and a file's name the side of the pictures.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, normalizers
from torch import Tensor

from dvae import DVAEImageProcessor, VQGANConfig
from prior_transformer import EncoderTokenizer, LlamaPrior, LlamaPriorConfig

from ..folder.components import load_text_encoder
from ..folder.locate import fetch
from .filling import Made, Source, fill, find
from .first_stages import joined
from .known import ENCODER_FILES, LLAMAGEN, LLAMAGEN_CODES, LLAMAGEN_PRIORS, named, t5_of, told_side
from .reading import reading
from .stored import Stored
from .vqgans import read_vqgan, vqgan_config

TITLE = LLAMAGEN.title
T5 = "google/flan-t5-xl"
T5_REMEDY = f"put the files of {T5} into a folder t5 beside the checkpoint, or go online for once"
PAD, EOS = "<pad>", "</s>"
HEAD_SIZE, LARGEST = 64, 2048  # of its priors up to this width: wider ones have heads of 100 or 128
TOP_K = 1000
LICENCE = "mit"
T5_DATA = {"flan-t5 by Google, its text encoder": "Apache 2.0"}

AROUND = {
    "embeddings.image": "tok_embeddings",
    "embeddings.text_projection.hidden": "cls_embedding.cap_proj.fc1",
    "embeddings.text_projection.output": "cls_embedding.cap_proj.fc2",
    "norm": "norm",
    "image_head": "output",
}
NULL = "cls_embedding.uncond_embedding"
INSIDE = {
    "attention_norm": "attention_norm",
    "attention.output": "attention.wo",
    "mlp_norm": "ffn_norm",
    "mlp.output": "feed_forward.w2",
}
# What its authors do to captions and prompts. Left undone: they take out links, file names, long numbers, Chinese,
# HTML's names of characters and quotes around the whole, part words that more than three hyphens join, and mend
# encodings.
CLEANED = [
    normalizers.NFC(),
    normalizers.Lowercase(),
    normalizers.Replace("<person>", "person"),
    normalizers.Replace(Regex("</?[a-z][^<>]*>"), ""),  # tags, and with them the names of special tokens
    normalizers.Replace(Regex(r"@\w+|#\d{1,3}\b"), ""),
    normalizers.Replace(Regex("[`´«»“”¨]"), '"'),
    normalizers.Replace(Regex("[‘’]"), "'"),
    normalizers.Replace(Regex(r"\p{Dash_Punctuation}+"), "-"),
    normalizers.Replace(Regex("[\"']{2,}"), '"'),
    normalizers.Replace(Regex(r"\.{2,}|[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+|\s+\.\s+"), " "),
    normalizers.Replace(Regex(r"(?<=\D),(?=\w)"), ", "),
    normalizers.Replace(Regex(r"(?<=\D)\.(?=\w)"), ". "),
    normalizers.Replace(Regex(r"\s+"), " "),
    normalizers.Strip(),
]


def read_llamagen(folder: Path, dtype: torch.dtype | None, hub_options: dict[str, Any]) -> dict[str, Any]:
    """
    What a pipeline is made of, by the names of its arguments. The text encoder is the one in a folder in this one, or
    else flan-t5-xl from the Hub.

    dtype: of the weights; None is the stored one. hub_options: token, cache_dir, ….

    Raises an OSError for the first tensor that is missing or has another shape.
    """
    stored, codes, image_size = parts_of(folder)
    t5 = t5_of(folder) or fetch_t5(folder, hub_options)
    tokenizer = tokenizer_of(t5, find(stored, NULL, TITLE).shape[0])
    config = config_of(stored, vqgan_config(codes, image_size), tokenizer)
    with torch.device("meta"):
        prior = LlamaPrior(config)
    fill(prior, {name: source_of(name, config) for name in prior.state_dict()}, stored, TITLE, dtype)
    return {
        "dvae": read_vqgan(codes, image_size=image_size, dtype=dtype),
        "prior": prior.eval(),
        "tokenizer": tokenizer,
        "image_processor": DVAEImageProcessor(image_size),
        "text_encoder": load_text_encoder(t5, "auto" if dtype is None else dtype),
        "sampling": {"guidance_scale": 7.5, "top_k": min(TOP_K, config.codebook_size)},
        "data": LLAMAGEN.data | T5_DATA,
        "license": LICENCE,
        "language": "en",
    }


def llamagen_config(folder: Path) -> LlamaPriorConfig:
    """Of the prior, by the shapes of its tensors: none is read."""
    stored, codes, image_size = parts_of(folder)
    t5 = t5_of(folder) or fetch(T5, {}, ["config.json", "tokenizer.json"], T5_REMEDY)
    tokenizer = tokenizer_of(t5, find(stored, NULL, TITLE).shape[0])
    return config_of(stored, vqgan_config(codes, image_size), tokenizer)


def parts_of(folder: Path) -> tuple[Stored, Stored, int]:
    """The tensors of the prior and of the VQGAN, and the side of the pictures in pixels. Of two stages the first."""
    priors, codes = named(folder, "t2i_"), named(folder, LLAMAGEN_CODES)
    for files, name in ((priors, LLAMAGEN_PRIORS[0]), (codes, LLAMAGEN_CODES)):
        if not files:
            raise FileNotFoundError(f"{str(folder)!r}, taken for {TITLE}, has no file such as {name}.pt")
    side = told_side(priors[0])
    if side is None:
        raise OSError(
            f"{str(priors[0])!r}, taken for {TITLE}'s: its name must end with the side of its pictures in pixels, as "
            f"{LLAMAGEN_PRIORS[0]} does"
        )
    stored = joined([priors[0]])
    whole = any(name.startswith("model.") for name in stored)  # as the authors pack it
    return stored.under("model.") if whole else stored, joined([codes[0]]), side


def config_of(stored: Stored, codes: VQGANConfig, tokenizer: EncoderTokenizer) -> LlamaPriorConfig:
    """Raises an OSError for a tensor that sizes are of and that is not there, or is no matrix."""

    def shape(name: str) -> tuple[int, int]:
        found = find(stored, name, TITLE).shape
        if len(found) != 2:
            raise OSError(f"{stored.source}, taken for {TITLE}: {name} has shape {found}, not that of a matrix")
        return found

    codebook_size, width = shape("output.weight")
    text_length, feature_size = shape(NULL)
    rows = shape("layers.0.attention.wqkv.weight")[0]
    if width > LARGEST:
        raise OSError(
            f"{stored.source}, taken for {TITLE}: output.weight is {width} wide, and only of those to {LARGEST} are "
            f"the heads known to be of {HEAD_SIZE}; take t2i_XL"
        )
    return LlamaPriorConfig(
        text_vocab_size=len(tokenizer),
        text_length=text_length,
        pad_token_id=tokenizer.pad_token_id,
        text="features",
        text_feature_size=feature_size,
        text_loss_weight=0.0,
        codebook_size=codebook_size,
        grid_size=codes.grid_size,
        hidden_size=width,
        num_hidden_layers=len({name.split(".")[1] for name in stored if name.startswith("layers.")}),
        num_attention_heads=width // HEAD_SIZE,
        num_key_value_heads=(rows - width) // 2 // HEAD_SIZE,
        intermediate_size=shape("layers.0.feed_forward.w1.weight")[0],
        rope="cells",
        qk_norm=False,
    )


def fetch_t5(folder: Path, hub_options: dict[str, Any]) -> Path:
    """The text encoder's folder from the Hub. Warns before it is fetched for the first time, as it is large."""
    try:
        cached = fetch(T5, hub_options | {"local_files_only": True}, list(ENCODER_FILES))
    except OSError:
        cached = None
    if cached is None or not any(cached.glob("*.safetensors")):
        warnings.warn(f"{str(folder)!r} has no text encoder: {T5} is fetched, 11 GB, for once", stacklevel=2)
    return fetch(T5, hub_options, list(ENCODER_FILES), T5_REMEDY)


def tokenizer_of(t5: Path, text_length: int) -> EncoderTokenizer:
    path = t5 / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{str(t5)!r}, taken for the text encoder of {TITLE}, has no tokenizer.json")
    with reading(path):
        backend = Tokenizer.from_file(str(path))
    for token in (PAD, EOS):
        if backend.token_to_id(token) is None:
            raise OSError(f"{str(path)!r}, taken for that of {TITLE}'s text encoder, has no token {token!r}")
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([*CLEANED, *own])
    return EncoderTokenizer(tokenizer_object=backend, pad_token=PAD, eos_token=EOS, model_max_length=text_length)


def source_of(name: str, config: LlamaPriorConfig) -> Source:
    """Our name of a weight -> LlamaGen's."""
    own = name.removesuffix(".weight")
    if own == "embeddings.null_features":
        return NULL
    if own in AROUND:
        return f"{AROUND[own]}.weight"
    _, layer, inside = own.split(".", 2)
    start = f"layers.{layer}."
    if inside == "attention.qkv":
        return Made(lambda rows: in_halves(rows, config), (f"{start}attention.wqkv.weight",), computed=False)
    if inside == "mlp.hidden":
        matrices = tuple(f"{start}feed_forward.{matrix}.weight" for matrix in ("w1", "w3"))
        return Made(lambda gate, value: torch.cat([gate, value]), matrices, computed=False)
    return f"{start}{INSIDE[inside]}.weight"


def in_halves(rows: Tensor, config: LlamaPriorConfig) -> Tensor:
    """
    Queries', keys' and values' rows, (·, D), those of the first two in another order: the entries of a head that turn
    together are neighbours in LlamaGen, entry i of each half of a head here.
    """
    assert config.num_key_value_heads is not None  # the config fills it in
    values = config.num_key_value_heads * config.head_size
    turned = rows[:-values].unflatten(0, (-1, config.head_size // 2, 2)).transpose(1, 2).flatten(0, 2)
    return torch.cat([turned, rows[-values:]])
