"""A ruDALL-E of tiny size: its network written out once more, over weights of its authors' names, saved as they do."""

from pathlib import Path

import torch
from public_layouts import as_gumbel, janus_vqvae
from torch import Tensor
from torch.nn import functional as F

TEXT, WIDTH, HEADS, CODES = 14, 32, 16, 24  # text positions with BOS's; 24 codes are the VQGAN's
BOS, EOS = 2, 3
LETTERS = "▁acet"
MERGES = [("a", "t"), ("c", "at"), ("▁", "cat"), ("▁", "a")]
WORDS = ["<PAD>", "<UNK>", "<BOS>", "<EOS>", *LETTERS, *(left + right for left, right in MERGES)]


class RuDALLE:
    def __init__(self, grid: int = 4, layers: int = 4, seed: int = 0):
        self.grid, self.layers = grid, layers
        generator = torch.Generator().manual_seed(seed)

        def table(*shape: int, scale: float = 0.3) -> Tensor:
            return torch.randn(*shape, generator=generator) * scale

        words, wide = len(WORDS) + TEXT, 4 * WIDTH
        weights = {"text_embeddings.weight": table(words, WIDTH), "image_embeddings.weight": table(CODES, WIDTH)}
        weights["text_pos_embeddings.weight"] = table(TEXT + 1, WIDTH)
        weights["image_row_embeddings.weight"] = table(grid, WIDTH)
        weights["image_col_embeddings.weight"] = table(grid, WIDTH)
        norms, matrices = ["transformer.final_layernorm", "to_logits.0"], {"to_logits.1": (words + CODES, WIDTH)}
        for i in range(layers):
            block = f"transformer.layers.{i}."
            for norm in ("input", "before_first_addition", "post_attention", "before_second_addition"):
                norms.append(f"{block}{norm}_layernorm")
            matrices[f"{block}attention.query_key_value"] = (3 * WIDTH, WIDTH)
            matrices[f"{block}attention.dense"] = (WIDTH, WIDTH)
            matrices[f"{block}mlp.dense_h_to_4h"] = (wide, WIDTH)
            matrices[f"{block}mlp.dense_4h_to_h"] = (WIDTH, wide)
        for name in norms:
            weights |= {f"{name}.weight": 1 + table(WIDTH), f"{name}.bias": table(WIDTH)}
        for name, shape in matrices.items():
            weights |= {f"{name}.weight": table(*shape), f"{name}.bias": table(shape[0])}
        self.weights = weights
        self.masks = {f"transformer.{name}_mask": self.mask(name) for name in ("row", "col", "conv")}

    def mask(self, name: str) -> Tensor:
        """Of all positions, one by one."""
        size = TEXT + self.grid**2
        mask = torch.zeros(size, size, dtype=torch.bool)
        for query in range(size):
            for key in range(query + 1):
                row, column = divmod(query - TEXT, self.grid)
                above, beside = divmod(key - TEXT, self.grid)
                near = {
                    "row": query - key <= self.grid,
                    "col": column == beside,
                    "conv": row - above <= 5 and abs(column - beside) <= 5,
                }
                mask[query, key] = key < TEXT or near[name]
        return mask

    @torch.no_grad()
    def logits(self, text_ids: Tensor, codes: Tensor) -> Tensor:
        """Of each code, (B, N, K). text_ids (B, TEXT), with BOS, 0 where there is none; codes (B, N)."""
        pads = len(WORDS) + torch.arange(TEXT)
        cells = torch.arange(codes.shape[1])
        text = self.rows("text_embeddings", torch.where(text_ids == 0, pads, text_ids))
        text = text + self.rows("text_pos_embeddings", torch.arange(TEXT))
        image = self.rows("image_embeddings", codes) + self.rows("image_row_embeddings", cells // self.grid)
        x = torch.cat([text, image + self.rows("image_col_embeddings", cells % self.grid)], dim=1)
        for i in range(self.layers):
            name = "col" if i % 4 == 1 else "conv" if i == self.layers - 1 else "row"
            mask = self.masks[f"transformer.{name}_mask"]
            x = self.block(x, f"transformer.layers.{i}.", mask)
        x = self.norm(self.norm(x, "transformer.final_layernorm"), "to_logits.0")
        return self.linear(x, "to_logits.1")[:, TEXT - 1 : -1, len(WORDS) + TEXT :]

    def block(self, x: Tensor, block: str, mask: Tensor) -> Tensor:
        heads = self.linear(self.norm(x, f"{block}input_layernorm"), f"{block}attention.query_key_value")
        query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in heads.chunk(3, dim=-1))
        scores = query @ key.mT / (WIDTH / HEADS) ** 0.5
        attended = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ value
        attended = self.linear(attended.transpose(1, 2).flatten(2), f"{block}attention.dense").clamp(-65504, 65504)
        x = x + self.norm(attended, f"{block}before_first_addition_layernorm")
        wide = self.linear(self.norm(x, f"{block}post_attention_layernorm"), f"{block}mlp.dense_h_to_4h")
        wide = 0.5 * wide * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (wide + 0.044715 * wide**3)))
        return x + self.norm(
            self.linear(wide, f"{block}mlp.dense_4h_to_h"), f"{block}before_second_addition_layernorm"
        )

    def rows(self, name: str, ids: Tensor) -> Tensor:
        return self.weights[f"{name}.weight"][ids]

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (WIDTH,), self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]


def save_rudalle(rudalle: RuDALLE, folder: Path) -> None:
    """All three of its files in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(rudalle.weights | rudalle.masks, folder / "pytorch_model_v3.bin")
    torch.save({"state_dict": as_gumbel(janus_vqvae().state_dict())}, folder / "vqgan.gumbelf8-sber.model.ckpt")
    lines = [f"{len(LETTERS)} {len(MERGES)}"]
    lines += [f"{ord(letter)} {WORDS.index(letter)}" for letter in LETTERS]
    lines += [" ".join(str(WORDS.index(word)) for word in (*pair, "".join(pair))) for pair in MERGES]
    (folder / "bpe.model").write_text("\n".join([*lines, f"1 0 {BOS} {EOS}", ""]))
