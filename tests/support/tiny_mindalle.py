"""A minDALL-E of tiny size: transformers' GPT-2 of exact GELU over two tables of tokens, saved as its authors do."""

import json
from pathlib import Path

import torch
import yaml
from public_layouts import LEVELS, SIDE, as_taming, janus_vqvae
from transformers import GPT2Config, GPT2Model

TEXT, GRID, CODES, WIDTH = 12, SIDE // 2 ** (LEVELS - 1), 24, 32
WORDS = ["[PAD]", "[UNK]", *"acet", *(f"{letter}</w>" for letter in "acet"), "at</w>", "cat</w>"]
ROOM = 3  # rows of the text's table that no token has


class GPT:
    """GPT-2 over tokens of two kinds, and two heads."""

    def __init__(self):
        torch.manual_seed(0)
        sizes = {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": TEXT + GRID**2, "vocab_size": 1}
        self.trunk = GPT2Model(GPT2Config(**sizes, activation_function="gelu", initializer_range=0.3)).eval()
        for name, weight in self.trunk.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight, std=0.1)
        words = len(WORDS) + ROOM
        shapes = {"tok_emb_txt": words, "tok_emb_img": CODES, "head_txt": words, "head_img": CODES}
        self.tables = {name: torch.randn(rows, WIDTH) * 0.5 for name, rows in shapes.items()}

    @torch.no_grad()
    def logits(self, text_ids: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Of each code, (B, N, K)."""
        embeds = torch.cat([self.tables["tok_emb_txt"][text_ids], self.tables["tok_emb_img"][codes]], dim=1)
        hidden_states = self.trunk(inputs_embeds=embeds).last_hidden_state
        return hidden_states[:, TEXT - 1 : -1] @ self.tables["head_img"].T

    def weights(self) -> dict[str, torch.Tensor]:
        """As minDALL-E names them: a matrix of GPT-2 is the transpose, and its q, k and v are one."""
        named = {f"{name}.weight": table for name, table in self.tables.items()}
        positions = self.trunk.wpe.weight.detach()
        named |= {"pos_emb_txt.weight": positions[:TEXT].clone(), "pos_emb_img.weight": positions[TEXT:].clone()}
        names = {"ln_1": "ln1", "ln_2": "ln2", "attn.c_proj": "attn.proj", "mlp.c_fc": "mlp.0", "mlp.c_proj": "mlp.2"}
        for i, block in enumerate(self.trunk.h):
            for name, weight in block.state_dict().items():
                module, _, kind = name.rpartition(".")
                weight = weight.T.contiguous() if weight.ndim == 2 else weight
                if module == "attn.c_attn":
                    for part, matrix in zip(("query", "key", "value"), weight.chunk(3), strict=True):
                        named[f"blocks.{i}.attn.{part}.{kind}"] = matrix.clone()
                else:
                    named[f"blocks.{i}.{names[module]}.{kind}"] = weight
        return named | {f"ln_f.{kind}": weight for kind, weight in self.trunk.ln_f.state_dict().items()}


def save_mindalle(gpt: GPT, folder: Path) -> None:
    sizes = {"embed_dim": WIDTH, "n_layers": 2, "n_heads": 2, "ctx_len_img": GRID**2, "ctx_len_txt": TEXT}
    prior = {"type": "transformer1d", "vocab_size_txt": len(WORDS) + ROOM, "vocab_size_img": CODES, "hparams": sizes}
    settings = {"stage1": {"type": "vqgan", "hparams": {"resolution": SIDE}}, "stage2": prior}
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    (folder / "tokenizer" / "bpe-16k-vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer" / "bpe-16k-merges.txt").write_text("#version: 0.2\na t</w>\nc at</w>\n")
    torch.save({"state_dict": gpt.weights()}, folder / "stage2_last.ckpt")
    torch.save({"state_dict": as_taming(janus_vqvae().state_dict())}, folder / "stage1_last.ckpt")
