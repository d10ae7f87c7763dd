"""A CLIP judges pictures: a tiny one, saved as transformers saves it, and loaded by its folder."""

import shutil

import pytest
import torch
from messages import refused
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

from pipelines.judges.clip import CLIPJudge

COLOURS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A CLIP of one layer each, whose tokenizer knows letters."""
    letters = [f"{letter}{end}" for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    vocab = {token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=8)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config={**sizes, **ids, "vocab_size": len(vocab), "max_position_embeddings": 8},
            vision_config={**sizes, "image_size": 16, "patch_size": 8},
            projection_dim=8,
        )
    )
    size = {"height": 16, "width": 16}
    path = tmp_path_factory.mktemp("clip")
    model.save_pretrained(path)
    CLIPProcessor(CLIPImageProcessor(size=size, crop_size=size), tokenizer).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.new("RGB", (20, 20), colour) for colour in COLOURS]


def test_scores_are_those_of_the_models_own_logits(folder, pictures):
    """logits_per_image is the cosine times the scale, of each picture with each text; a pair sees no other."""
    reranker = CLIPJudge.from_pretrained(folder)
    scores = reranker(COLOURS, pictures)
    inputs = reranker.processor(text=COLOURS, images=pictures, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        logits = reranker.model(**inputs).logits_per_image / reranker.model.logit_scale.exp()
    torch.testing.assert_close(scores, logits.diag())
    torch.testing.assert_close(reranker(COLOURS * 30, pictures * 30), scores.repeat(30))
    for i in range(3):
        torch.testing.assert_close(reranker(COLOURS[i : i + 1], pictures[i : i + 1]), scores[i : i + 1])


def test_the_pipeline_ranks_and_paints_by_it(tiny_pipeline, folder, pictures):
    reranker = CLIPJudge.from_pretrained(folder)
    ranking = tiny_pipeline.rank("green", pictures, by=folder)
    assert ranking.order == ranking.scores.argsort(descending=True).tolist()
    candidates = tiny_pipeline("a red apple", num_images_per_prompt=4, seed=2, progress_bar=False)
    scores = reranker(["a red apple"] * 4, candidates.images)
    for judge in (folder, reranker):
        best = tiny_pipeline("a red apple", best_of=4, reranker=judge, seed=2, progress_bar=False)
        assert best.seeds == [2 + int(scores.argmax())]
        torch.testing.assert_close(best.scores, scores.max()[None])


def test_a_clip_judges_where_the_pipeline_is(tiny_pipeline, folder, monkeypatch):
    monkeypatch.setattr(type(tiny_pipeline), "device", torch.device("meta"))
    assert tiny_pipeline.find_judge("by", folder, ["green"]).model.device.type == "meta"


def test_a_long_prompt_is_cut(folder, pictures):
    assert CLIPJudge.from_pretrained(folder)(["a very long prompt of many letters"], pictures[:1]).isfinite().all()


def test_a_model_of_words_alone_is_refused_before_anything_is_drawn(tiny_pipeline, folder, tmp_path, monkeypatch):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    shutil.copytree(folder, tmp_path / "words")
    CLIPTextModel(CLIPTextConfig(**sizes, vocab_size=54, projection_dim=8)).save_pretrained(tmp_path / "words")
    monkeypatch.setattr(tiny_pipeline.prior, "read", None)
    with refused(OSError, tmp_path / "words", "CLIPTextModel"):
        tiny_pipeline("green", best_of=2, reranker=str(tmp_path / "words"), progress_bar=False)


def test_what_is_no_clip_is_refused(tiny_pipeline, tiny_folder, pictures, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("/no/such/folder", "nobody/none", tiny_folder):
        with refused(OSError, repr(name), "CLIP", "'likelihood'"):
            tiny_pipeline.rank("a cat", pictures, by=name)
        with refused(OSError, repr(name), "CLIP"):
            tiny_pipeline("a cat", best_of=2, reranker=name, callback=lambda i, codes: pytest.fail("a code was drawn"))
