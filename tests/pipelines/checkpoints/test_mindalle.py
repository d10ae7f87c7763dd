"""minDALL-E brought in: the numbers of transformers' GPT-2 of exact GELU, which it is over two tables of tokens."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from messages import refused
from public_layouts import LEVELS, SIDE, as_taming, decoded, janus_vqvae
from transformers import GPT2Config, GPT2Model

from pipelines import TextToImagePipeline
from training.loop.pretrained import start_config

TEXT, GRID, CODES, WIDTH = 6, SIDE // 2 ** (LEVELS - 1), 24, 32
WORDS = ["[PAD]", "[UNK]", *"acet", *(f"{letter}</w>" for letter in "acet"), "at</w>", "cat</w>"]
ROOM = 3  # rows of the text's table that no token has
PROMPTS = ["A cat", "a cat a tea a cat a cat"]


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


def save(gpt: GPT, vqvae, folder: Path) -> None:
    sizes = {"embed_dim": WIDTH, "n_layers": 2, "n_heads": 2, "ctx_len_img": GRID**2, "ctx_len_txt": TEXT}
    prior = {"type": "transformer1d", "vocab_size_txt": len(WORDS) + ROOM, "vocab_size_img": CODES, "hparams": sizes}
    settings = {"stage1": {"type": "vqgan", "hparams": {"resolution": SIDE}}, "stage2": prior}
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    (folder / "tokenizer" / "bpe-16k-vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer" / "bpe-16k-merges.txt").write_text("#version: 0.2\na t</w>\nc at</w>\n")
    torch.save({"state_dict": gpt.weights()}, folder / "stage2_last.ckpt")
    torch.save({"state_dict": as_taming(vqvae.state_dict())}, folder / "stage1_last.ckpt")


@pytest.fixture(scope="module")
def gpt() -> GPT:
    return GPT()


@pytest.fixture(scope="module")
def folder(gpt, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mindalle") / "1.3B"
    save(gpt, janus_vqvae(), folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder) -> TextToImagePipeline:
    return TextToImagePipeline.from_pretrained(folder)


def test_text_ids_are_padded_and_of_lower_case(pipeline):
    cat, a, te = (WORDS.index(word) for word in ("cat</w>", "a</w>", "t"))
    assert pipeline.encode_prompt(PROMPTS[0]).tolist() == [[a, cat, 0, 0, 0, 0]]
    assert pipeline.encode_prompt("TEA")[0, 0] == te and pipeline.encode_prompt("x").tolist() == [[1, 0, 0, 0, 0, 0]]


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:a caption is longer")
def test_logits_greedy_codes_and_pixels_are_the_references(gpt, pipeline):
    ids = pipeline.encode_prompt(PROMPTS)
    codes = torch.randint(0, CODES, (2, GRID**2), generator=torch.Generator().manual_seed(0))
    logits = pipeline.prior(pipeline.prior.join(ids, codes)).image_logits
    torch.testing.assert_close(logits, gpt.logits(ids, codes), atol=1e-4, rtol=0)
    expected = torch.zeros(2, GRID**2, dtype=torch.int64)
    for i in range(GRID**2):
        expected[:, i] = gpt.logits(ids, expected)[:, i].argmax(dim=-1)
    for window in (1, 4):
        output = pipeline(PROMPTS, temperature=0, window=window, seed=0, progress_bar=False, output_type="pt")
        assert torch.equal(output.codes.flatten(1), expected)
    vqvae = janus_vqvae()
    pixels = decoded(vqvae, vqvae.quantize.embedding.weight[output.codes])
    torch.testing.assert_close(output.images, pixels, atol=1e-4, rtol=0)
    assert pipeline.sampling.top_k == CODES and pipeline.sampling.guidance_scale == 1


def test_it_becomes_a_folder_of_ours_and_a_start(folder, pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = TextToImagePipeline.from_pretrained(tmp_path)
    assert loaded.license == "cc-by-nc-sa-4.0"
    output, expected = (one(PROMPTS[0], seed=1, progress_bar=False) for one in (loaded, pipeline))
    assert torch.equal(output.codes, expected.codes)
    start, config = start_config(str(folder)), pipeline.prior.config
    assert (start.stream_length, start.hidden_size, start.bos) == (config.stream_length, config.hidden_size, False)


def test_what_is_not_whole_is_refused_in_a_line(gpt, tmp_path):
    save(gpt, janus_vqvae(), tmp_path / "1.3B")
    settings = yaml.safe_load((tmp_path / "1.3B" / "config.yaml").read_text())
    settings["stage2"]["hparams"]["embed_dim"] = 34
    (tmp_path / "1.3B" / "config.yaml").write_text(yaml.safe_dump(settings))
    with refused(OSError, "minDALL-E", 34, 32):
        TextToImagePipeline.from_pretrained(tmp_path / "1.3B")
    (tmp_path / "1.3B" / "stage2_last.ckpt").unlink()
    with refused(OSError, "minDALL-E", "stage2_last.ckpt"):
        TextToImagePipeline.from_pretrained(tmp_path / "1.3B")
