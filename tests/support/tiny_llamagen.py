"""A LlamaGen of tiny size in its authors' layout, with a T5 beside it, and its equation written out once more."""

from pathlib import Path

import torch
from public_layouts import SIDE, as_deepseek, janus_vqvae
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional as F
from transformers import T5Config, T5ForConditionalGeneration

WIDTH, HEADS, LAYERS, CODES, TEXT, FEATURES, GRID = 128, 2, 2, 24, 48, 24, 4
PAD_ID, EOS_ID = 0, 1
PIECES = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz\"',-", "▁a", "at", "▁cat"]


def tiny_weights(seed: int = 0) -> dict[str, Tensor]:
    """Of the prior, as its authors name them, wide enough that logits differ by whole nats."""
    torch.manual_seed(seed)
    shapes = {"cls_embedding.uncond_embedding": (TEXT, FEATURES), "tok_embeddings.weight": (CODES, WIDTH)}
    shapes |= {f"cls_embedding.cap_proj.fc{i + 1}.weight": (WIDTH, (FEATURES, WIDTH)[i]) for i in range(2)}
    shapes |= {"output.weight": (CODES, WIDTH), "norm.weight": (WIDTH,)}
    inside = {"attention.wqkv.weight": (3 * WIDTH, WIDTH), "attention.wo.weight": (WIDTH, WIDTH)}
    inside |= {f"feed_forward.{name}.weight": (192, WIDTH) for name in ("w1", "w3")}
    inside |= {"feed_forward.w2.weight": (WIDTH, 192), "attention_norm.weight": (WIDTH,), "ffn_norm.weight": (WIDTH,)}
    shapes |= {f"layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in inside.items()}
    weights = {name: torch.randn(shape) * (0.15 if len(shape) == 2 else 0.3) for name, shape in shapes.items()}
    for name in ("cls_embedding.uncond_embedding", "tok_embeddings.weight", "output.weight"):
        weights[name] *= 5
    return weights


def tiny_t5(seed: int = 0) -> T5ForConditionalGeneration:
    """With a decoder, as flan-t5 has one, that nobody needs."""
    torch.manual_seed(seed)
    sizes = {"d_model": FEATURES, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 3}
    sizes |= {"vocab_size": len(PIECES) + 3, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    return T5ForConditionalGeneration(T5Config(**sizes)).eval()


def pieces() -> Tokenizer:
    """A Unigram of letters and three longer pieces, each the likelier the longer it is."""
    vocabulary = [(piece, 0.0 if i < 3 else -10.0 + len(piece)) for i, piece in enumerate(PIECES)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in PIECES[:3]])
    return tokenizer


def save_llamagen(folder: Path, weights: dict[str, Tensor] | None = None, t5: str | None = "t5") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": tiny_weights() if weights is None else weights}, folder / f"t2i_XL_stage1_{SIDE}.pt")
    torch.save({"model": as_deepseek(janus_vqvae().state_dict())}, folder / "vq_ds16_t2i.pt")
    if t5 is not None:
        tiny_t5().save_pretrained(folder / t5)
        pieces().save(str(folder / t5 / "tokenizer.json"))


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    return gain * x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()


def logits_of(weights: dict[str, Tensor], features: Tensor, codes: Tensor) -> Tensor:
    """
    (N, K), of features (t, F) without padding and codes (N,): two neighbours of a head are a complex number, turned by
    exp(i · place / 10000^(j / P)), the row for the first P of them and the column for the others; at the text it is 0.
    """
    t, size = len(features), WIDTH // HEADS
    prefix = F.gelu(features @ weights["cls_embedding.cap_proj.fc1.weight"].T, approximate="tanh")
    prefix = prefix @ weights["cls_embedding.cap_proj.fc2.weight"].T
    x = torch.cat([prefix, weights["tok_embeddings.weight"][codes]])  # (t + N, D)
    turns = torch.zeros(len(x), size // 2, dtype=torch.complex64)
    for cell in range(len(codes)):
        for j in range(size // 2):
            place = (cell // GRID, cell % GRID)[j // (size // 4)]
            turns[t + cell, j] = torch.exp(torch.tensor(1j * place / 10_000 ** (j % (size // 4) / (size // 4))))
    for i in range(LAYERS):
        inside = {name.removeprefix(f"layers.{i}."): weight for name, weight in weights.items()}
        joint = rms_norm(x, inside["attention_norm.weight"]) @ inside["attention.wqkv.weight"].T
        attended = []
        for head in joint.view(len(x), 3, HEADS, size).unbind(dim=2):
            query, key, value = head.unbind(dim=1)
            query, key = (
                torch.view_as_real(torch.view_as_complex(part.reshape(len(x), -1, 2)) * turns).flatten(1)
                for part in (query, key)
            )
            scores = (query @ key.T / size**0.5).masked_fill(torch.ones(len(x), len(x)).triu(1).bool(), -torch.inf)
            attended.append(scores.softmax(dim=-1) @ value)
        x = x + torch.cat(attended, dim=1) @ inside["attention.wo.weight"].T
        hidden = rms_norm(x, inside["ffn_norm.weight"])
        gate, value = (hidden @ inside[f"feed_forward.{name}.weight"].T for name in ("w1", "w3"))
        x = x + (F.silu(gate) * value) @ inside["feed_forward.w2.weight"].T
    return (rms_norm(x, weights["norm.weight"]) @ weights["output.weight"].T)[t - 1 : -1]
