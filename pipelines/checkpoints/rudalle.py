"""ruDALL-E Malevich of Sber AI, its third version: names, shapes, defaults. The paper's transformer, in Russian.

128 text tokens and 32×32 codes of a Gumbel VQGAN, through the paper's masks. The first text token is always BOS, which
is our BOS; a pad is another token at each position. Its authors keep the VQGAN and the tokenizer in two other
repositories, from where they are fetched unless they lie beside the weights.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from dvae import VQGAN, DVAEImageProcessor
from prior_transformer import PriorTokenizer, PriorTransformer, PriorTransformerConfig, attention_mask

from ..folder.locate import find_file
from .filling import Made, Source, fill, find
from .known import RUDALLE, RUDALLE_CODES, RUDALLE_PRIOR, RUDALLE_WORDS
from .pickles import read_pickle
from .reading import reading
from .stored import Stored
from .vqgans import read_vqgan, vqgan_config

TITLE = RUDALLE.title
HEADS = 16  # which no tensor's shape tells
PAD, BOS, SPECIAL = 0, 2, ("<PAD>", "<UNK>", "<BOS>", "<EOS>")  # by id
LONGEST, LARGEST = 2**10, 2**23  # letters of a token, bytes of its tokenizer: far above what there is
SPACES = r"[ \t\n\v\f\r▁]+"
SAMPLING = {"top_k": 2048, "top_p": 0.995}
LICENCE = "apache-2.0"
MASKS = {"row": "row_mask", "column": "col_mask", "clipped_convolutional": "conv_mask"}

AROUND = {
    "embeddings.image": "image_embeddings",
    "embeddings.image_row": "image_row_embeddings",
    "embeddings.image_column": "image_col_embeddings",
    "norm.0": "transformer.final_layernorm",
    "norm.1": "to_logits.0",
}
INSIDE = {
    "attention_norm": "input_layernorm",
    "attention.qkv": "attention.query_key_value",
    "attention.output": "attention.dense",
    "attended_norm": "before_first_addition_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "mlp.hidden": "mlp.dense_h_to_4h",
    "mlp.output": "mlp.dense_4h_to_h",
    "output_norm": "before_second_addition_layernorm",
}


def read_rudalle(folder: Path, dtype: torch.dtype | None, hub_options: dict[str, Any]) -> dict[str, Any]:
    """
    What a pipeline is made of, by the names of its arguments.

    dtype: of the weights; None is the stored one. hub_options: token, cache_dir, …, for what lies elsewhere.

    Raises an OSError for the first tensor that is missing or has another shape.
    """
    stored = read_pickle(folder / RUDALLE_PRIOR)
    config = config_of(stored)
    check_masks(stored, config)
    tokenizer = read_tokenizer(find_file(RUDALLE, folder, RUDALLE_WORDS, hub_options), config)
    with torch.device("meta"):
        prior = PriorTransformer(config)
    fill(prior, {name: source_of(name, config) for name in prior.state_dict()}, stored, TITLE, dtype)
    dvae = read_first_stage(find_file(RUDALLE, folder, RUDALLE_CODES, hub_options), config.grid_size, dtype)
    return {
        "dvae": dvae,
        "prior": prior.eval(),
        "tokenizer": tokenizer,
        "image_processor": DVAEImageProcessor(dvae.config.image_size),
        "sampling": SAMPLING | {"top_k": min(SAMPLING["top_k"], config.codebook_size)},
        "data": RUDALLE.data,
        "license": LICENCE,
        "language": "ru",
    }


def rudalle_config(folder: Path) -> PriorTransformerConfig:
    """Of the prior, by the shapes of its tensors: there are no settings."""
    return config_of(read_pickle(folder / RUDALLE_PRIOR))


def config_of(stored: Stored) -> PriorTransformerConfig:
    def shape(name: str) -> tuple[int, ...]:
        return find(stored, name, TITLE).shape

    rows, width = shape("text_embeddings.weight")
    length = shape("text_pos_embeddings.weight")[0] - 1  # the last one is of its second version
    hidden = shape("transformer.layers.0.mlp.dense_h_to_4h.bias")[0]
    layers = sum(name.startswith("transformer.layers.") and name.endswith(".attention.dense.bias") for name in stored)
    if layers % 4 == 2:
        raise ValueError(f"{layers} layers: the last of so many has its mask of columns, which is not read")
    return PriorTransformerConfig(
        text_vocab_size=rows - length,
        text_length=length - 1,
        text_loss_weight=0.0,  # its pads are as many tokens as there are positions, ours one
        pad_token_id=PAD,
        codebook_size=shape("image_embeddings.weight")[0],
        grid_size=shape("image_row_embeddings.weight")[0],
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=hidden,
        attention_pattern="dalle",
        conv_edges="clipped",
        attention_bias=True,
        head_bias=True,
        layer_norms="sandwich",
        hidden_act="gelu_pytorch_tanh",
    )


def check_masks(stored: Stored, config: PriorTransformerConfig) -> None:
    """Raises an OSError where a mask that lies beside the weights is not ours: the second version's go on at edges."""
    prefix_length, grid_size, stop = config.prefix_length, config.grid_size, config.stream_length
    for ours, theirs in MASKS.items():
        mask = attention_mask(ours, start=0, stop=stop, prefix_length=prefix_length, grid_size=grid_size)
        name = f"transformer.{theirs}"
        if name in stored and not torch.equal(stored[name].read() != 0, mask):
            raise OSError(f"{stored.source}, taken for {TITLE} v3: {name} is another mask, as other versions have")


def read_first_stage(path: Path, grid_size: int, dtype: torch.dtype | None) -> VQGAN:
    stored = read_pickle(path)
    size = grid_size * vqgan_config(stored, None).downsample_factor
    return read_vqgan(stored, image_size=size, dtype=dtype)


def read_tokenizer(path: Path, config: PriorTransformerConfig) -> PriorTokenizer:
    """Of lower case, with an EOS. A character that it has no letter for is one token, as is a run of them."""
    with reading(path):
        vocabulary, merges = words_of(path, config.text_vocab_size)
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=SPECIAL[1], fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Strip(),
            normalizers.Replace(Regex(f"{SPACES}$"), ""),
            normalizers.Prepend("▁"),
            normalizers.Replace(Regex(SPACES), "▁"),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    backend.decoder = decoders.Metaspace()
    return PriorTokenizer(
        tokenizer_object=backend,
        pad_token=SPECIAL[PAD],
        eos_token=SPECIAL[3],
        model_max_length=config.text_length,
        split_special_tokens=True,
    )


def words_of(path: Path, size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """
    The tokens of what YouTokenToMe saves, `size` of them, with their ids, and the merges in order.

    path: numbers: how many characters and merges there are; code point and id of each character; the two ids that each
        merge joins, in order, and the one that it makes; the ids of UNK, PAD, BOS and EOS.

    Raises a ValueError for other numbers, among them tokens of more than LONGEST letters: merges double them.
    """
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has {path.stat().st_size} bytes, over {LARGEST}")
    numbers = [int(number) for number in path.read_text(encoding="ascii").split()]
    num_characters, num_merges = (*numbers, 0, 0)[:2]
    expected, count = 2 + 2 * num_characters + 3 * num_merges + 4, num_characters + num_merges + len(SPECIAL)
    if len(numbers) != expected or numbers[-4:] != [1, PAD, BOS, 3]:
        raise ValueError(f"it has {len(numbers)} numbers for {expected}, and {numbers[-4:]} last, not 1 0 2 3")
    if count != size:
        raise ValueError(f"it has {count} tokens, the prior {size}")
    words = dict(enumerate(SPECIAL))
    vocabulary = {word: token for token, word in words.items()}
    merges = []

    def add(token: int, word: str) -> None:
        if not 0 <= token < size or token in words or word in vocabulary or len(word) > LONGEST:
            raise ValueError(
                f"its token {token} of {len(word)} letters is there twice, not below {size}, or of over {LONGEST}"
            )
        words[token], vocabulary[word] = word, token

    start = 2 + 2 * num_characters
    for point, token in zip(numbers[2:start:2], numbers[3:start:2], strict=True):
        add(token, chr(point))
    for left, right, made in zip(*(numbers[start + i : -4 : 3] for i in range(3)), strict=True):
        if left not in words or right not in words:
            raise ValueError(f"it merges {left} and {right} into {made} before both are there")
        merges.append((words[left], words[right]))
        add(made, words[left] + words[right])
    return vocabulary, merges


def source_of(name: str, config: PriorTransformerConfig) -> Source:
    """Our name of a weight -> ruDALL-E's. Its tables and its head have the words first, then the pads, then codes."""
    own, _, kind = name.rpartition(".")
    words, length = config.text_vocab_size, config.prefix_length
    if name == "embeddings.bos":
        return Made(_bos, ("text_embeddings.weight", "text_pos_embeddings.weight"))
    slices = {
        "embeddings.text": ("text_embeddings", slice(0, words)),
        "embeddings.text_pad": ("text_embeddings", slice(words + 1, None)),  # the first position is BOS's
        "embeddings.text_position": ("text_pos_embeddings", slice(1, length)),
        "text_head": ("to_logits.1", slice(0, words)),
        "image_head": ("to_logits.1", slice(words + length, None)),
    }
    if own in slices:
        table, rows = slices[own]
        return Made(lambda weight: weight[rows].clone(), (f"{table}.{kind}",), computed=False)
    if own in AROUND:
        return f"{AROUND[own]}.{kind}"
    _, layer, inside = own.split(".", 2)
    return f"transformer.layers.{layer}.{INSIDE[inside]}.{kind}"


def _bos(words: Tensor, positions: Tensor) -> Tensor:
    return words[BOS] + positions[0]
