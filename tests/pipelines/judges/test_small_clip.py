"""The pipeline's own reranker: what it computes, what it adds to the judgement, and that it travels along."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from messages import refused
from PIL import Image
from transformers import AutoModel

from pipelines import TextToImagePipeline
from pipelines.judges.judging import NATS_A_COSINE
from pipelines.judges.small_clip import SmallCLIP, SmallCLIPConfig

PROMPTS = ["an armchair", "a red apple", "two cats"]


def small_clip(tokenizer, seed: int = 0) -> SmallCLIP:
    """Random, with moments of its own in its batch norms and a scale of its own."""
    torch.manual_seed(seed)
    config = SmallCLIPConfig(
        text_vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, projection_dim=12, width=8
    )
    model = SmallCLIP(config).train()
    model.image_features(torch.rand(64, 3, 16, 16))
    torch.nn.init.constant_(model.logit_scale, 2.0)
    return model.eval()


@pytest.fixture(scope="module")
def reranked(tiny_pipeline, tiny_tokenizer) -> TextToImagePipeline:
    parts = copy.deepcopy(tiny_pipeline.components) | {"reranker": small_clip(tiny_tokenizer)}
    return TextToImagePipeline(
        **parts, sampling={"guidance_scale": 2.0, "top_k": 20}, recipe={"reranker": {"steps": 5}}
    )


def test_a_text_is_the_bag_of_its_tokens_and_a_picture_sees_no_other(tiny_tokenizer):
    model = small_clip(tiny_tokenizer)
    ids = tiny_tokenizer.encode_captions(PROMPTS)
    embeddings, pictures = model.embed_text(ids), torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(model.embed_text(ids.flip(1)), embeddings)
    for i in range(3):
        words = ids[i][ids[i] != tiny_tokenizer.pad_token_id]
        bag = torch.nn.functional.embedding(words, model.text.weight).sum(0).relu()
        torch.testing.assert_close(embeddings[i], torch.nn.functional.normalize(model.text_projection(bag), dim=0))
        torch.testing.assert_close(model.embed_images(pictures[[i]])[0], model.embed_images(pictures)[i])
    output = model(pictures, ids)
    cosines = output.image_embeds @ embeddings.T
    torch.testing.assert_close(output.logits_per_image, torch.tensor(2.0).exp() * cosines)
    torch.testing.assert_close(model.score(pictures, ids), cosines.diag())
    torch.testing.assert_close(output.image_embeds.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ({"width": 12}, ["width=12", 8]),
        ({"projection_dim": 0}, ["projection_dim=0", 1]),
        ({"image_size": 0}, ["image_size=0", 1]),
        ({"pad_token_id": 9, "text_vocab_size": 9}, ["pad_token_id=9", "text_vocab_size=9"]),
    ],
)
def test_sizes_are_checked(sizes, parts):
    with refused(StrictDataclassError, *parts):
        SmallCLIPConfig(**sizes)


def test_pictures_of_another_size_than_it_learned_from_are_resized(tiny_tokenizer):
    model = small_clip(tiny_tokenizer)
    small = torch.rand(3, 3, 16, 16)
    large = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
    as_they_come = model.embed_images(small), model.embed_images(large)
    model.config.image_size = 16
    assert torch.equal(model.embed_images(small), as_they_come[0])
    to_small = torch.nn.functional.interpolate(large, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(model.embed_images(large), model.embed_images(to_small))
    assert (model.embed_images(large) - as_they_come[0]).norm() < (as_they_come[1] - as_they_come[0]).norm()


def test_terms_add_up(reranked):
    codes = torch.randint(32, (3, 4, 4), generator=torch.Generator().manual_seed(0))
    own = reranked.score("a red apple", codes)
    ids = reranked.encode_prompt("a red apple").expand(3, -1)
    cosines = NATS_A_COSINE * reranked.reranker.score(reranked.decode_codes(codes), ids)
    for by, scores in {
        "reranker": cosines,
        "likelihood+reranker": own.log_likelihood + cosines,
        "pmi+reranker": own.pmi + cosines,
        "pmi+likelihood": own.pmi + own.log_likelihood,
    }.items():
        ranking = reranked.rank("a red apple", codes, by=by)
        torch.testing.assert_close(ranking.scores, scores)
        assert ranking.order == scores.argsort(descending=True).tolist()
    torch.testing.assert_close(reranked.rank("a red apple", codes).scores, cosines)
    assert not reranked.reranker.training


def test_it_sees_a_given_picture_as_it_is(reranked):
    """And not what its codes decode to."""
    images = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    ids = reranked.encode_prompt("a red apple").expand(3, -1)
    expected = reranked.reranker.score(reranked.preprocess(images), ids)
    scores = reranked.rank("a red apple", images, by="reranker").scores
    torch.testing.assert_close(scores, NATS_A_COSINE * expected)
    decoded = reranked.reranker.score(reranked.decode_codes(reranked.encode_images(images)), ids)
    assert not torch.allclose(expected, decoded)


def test_best_of_asks_it_and_the_model_unless_told_otherwise(reranked, tiny_pipeline):
    options = {"seed": 3, "progress_bar": False}
    candidates = reranked("a red apple", num_images_per_prompt=6, **options)
    own = reranked.score("a red apple", candidates.codes).log_likelihood
    ids = reranked.encode_prompt("a red apple").expand(6, -1)
    cosines = NATS_A_COSINE * reranked.reranker.score(reranked.decode_codes(candidates.codes), ids)
    for judge, scores in ((None, own + cosines), ("reranker", cosines), ("likelihood", own)):
        best = reranked("a red apple", best_of=6, reranker=judge, **options)
        assert best.seeds == [3 + int(scores.argmax())]
        torch.testing.assert_close(best.scores, scores.max()[None])
    without = tiny_pipeline("a red apple", best_of=6, **options)
    assert without.seeds == reranked("a red apple", best_of=6, reranker="likelihood", **options).seeds
    empty = {judge: reranked("", best_of=6, reranker=judge, **options) for judge in (None, "likelihood")}
    assert torch.equal(empty[None].scores, empty["likelihood"].scores), "the empty prompt asks it for nothing"


def test_where_there_is_none_it_cannot_be_asked(tiny_pipeline):
    for judge in ("reranker", "likelihood+reranker"):
        with refused(ValueError, f"reranker={judge!r}", "'likelihood'"):
            tiny_pipeline(
                "a cat", best_of=2, reranker=judge, callback=lambda i, codes: pytest.fail("a code was drawn")
            )
    with refused(OSError, "'likelihood+rereanker'", "CLIP"):
        tiny_pipeline("a cat", best_of=2, reranker="likelihood+rereanker")


def test_it_is_saved_loaded_and_told_of(reranked, tiny_pipeline, tmp_path):
    half = TextToImagePipeline(**copy.deepcopy(reranked.components)).to(torch.float16)
    assert half.reranker.dtype == torch.float16
    half.save_pretrained(tmp_path)
    loaded = TextToImagePipeline.from_pretrained(tmp_path)
    assert loaded.reranker.dtype == torch.float32
    pictures, ids = torch.rand(3, 3, 16, 16), reranked.encode_prompt(PROMPTS)
    scores = [pipeline.reranker.score(pictures, ids) for pipeline in (loaded, reranked)]
    torch.testing.assert_close(*scores, atol=0.02, rtol=1e-2)  # half precision lies between
    assert "\n| reranker |" in (tmp_path / "README.md").read_text()
    (tmp_path / "reranker" / "model.safetensors").rename(tmp_path / "weights")
    with refused(OSError, str(tmp_path / "reranker"), "SmallCLIP"):
        TextToImagePipeline.from_pretrained(tmp_path)
    (tmp_path / "weights").rename(tmp_path / "reranker" / "model.safetensors")
    tiny_pipeline.save_pretrained(tmp_path)  # over it
    assert TextToImagePipeline.from_pretrained(tmp_path).reranker is None
    assert not (tmp_path / "reranker").exists()
    (tmp_path / "reranker").mkdir()
    (tmp_path / "reranker" / "notes.md").write_text("mine")
    tiny_pipeline.save_pretrained(tmp_path)
    assert (tmp_path / "reranker" / "notes.md").read_text() == "mine", "no part of the pipeline that was there"


def test_one_that_reads_other_ids_is_refused(tiny_pipeline):
    other = SmallCLIP(SmallCLIPConfig(text_vocab_size=7))
    with refused(ValueError, f"len(tokenizer)={len(tiny_pipeline.tokenizer)}", "text_vocab_size=7"):
        TextToImagePipeline(**tiny_pipeline.components, reranker=other)


def test_pushed_and_pulled_and_pushed_over(hub, reranked, tiny_pipeline, tmp_path):
    reranked.push_to_hub("anna/emoji", token="hf_anna")
    pulled = TextToImagePipeline.from_pretrained("anna/emoji", cache_dir=tmp_path)
    options = {"best_of": 4, "seed": 0, "progress_bar": False}
    painted, expected = pulled("two cats", **options), reranked("two cats", **options)
    assert torch.equal(painted.codes, expected.codes)
    assert painted.scores.item() == pytest.approx(expected.scores.item(), abs=1e-3)  # weights read lie otherwise
    alone = AutoModel.from_pretrained("anna/emoji", subfolder="reranker", trust_remote_code=True, cache_dir=tmp_path)
    assert type(alone).__module__.startswith("transformers_modules.")
    pictures, ids = torch.rand(2, 3, 16, 16), reranked.encode_prompt(["two cats", "an armchair"])
    assert torch.equal(alone.eval().score(pictures, ids), reranked.reranker.score(pictures, ids))
    tiny_pipeline.push_to_hub("anna/emoji", token="hf_anna")
    repo = hub.store.repos["model", "anna/emoji"]
    assert not any(path.startswith("reranker/") for path in repo.commits[repo.refs["main"]])
