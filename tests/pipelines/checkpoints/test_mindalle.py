"""minDALL-E brought in: the numbers of transformers' GPT-2 of exact GELU, which it is over two tables of tokens."""

from pathlib import Path

import pytest
import torch
import yaml
from messages import refused
from public_layouts import decoded, janus_vqvae
from tiny_mindalle import CODES, GPT, GRID, TEXT, WORDS, save_mindalle

from pipelines import TextToImagePipeline
from training.loop.pretrained import start_config

PROMPTS = ["A cat", "a cat a tea a cat a cat"]


@pytest.fixture(scope="module")
def gpt() -> GPT:
    return GPT()


@pytest.fixture(scope="module")
def folder(gpt, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mindalle") / "1.3B"
    save_mindalle(gpt, folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder) -> TextToImagePipeline:
    return TextToImagePipeline.from_pretrained(folder)


def test_text_ids_are_padded_and_of_lower_case(pipeline):
    cat, a, te = (WORDS.index(word) for word in ("cat</w>", "a</w>", "t"))
    assert pipeline.encode_prompt(PROMPTS[0]).tolist() == [[a, cat, *[0] * (TEXT - 2)]]
    assert pipeline.encode_prompt("TEA")[0, 0] == te and pipeline.encode_prompt("x").tolist() == [[1, *[0] * 11]]


@torch.no_grad()
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
    save_mindalle(gpt, tmp_path / "1.3B")
    settings = yaml.safe_load((tmp_path / "1.3B" / "config.yaml").read_text())
    settings["stage2"]["hparams"]["embed_dim"] = 34
    (tmp_path / "1.3B" / "config.yaml").write_text(yaml.safe_dump(settings))
    with refused(OSError, "minDALL-E", 34, 32):
        TextToImagePipeline.from_pretrained(tmp_path / "1.3B")
    for name in ("merges.txt", "vocab.json"):
        path = tmp_path / "1.3B" / "tokenizer" / f"bpe-16k-{name}"
        path.write_text(path.read_text()[:15])
        with refused(OSError, path):
            TextToImagePipeline.from_pretrained(tmp_path / "1.3B")
    save_mindalle(gpt, tmp_path / "cut")
    (tmp_path / "cut" / "stage2_last.ckpt").unlink()
    with refused(OSError, "minDALL-E", "stage2_last.ckpt"):
        TextToImagePipeline.from_pretrained(tmp_path / "cut")
