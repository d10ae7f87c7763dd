"""LlamaGen brought in: the numbers of its equation, written out in complex numbers over transformers' own T5."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from messages import refused
from public_layouts import SIDE, as_deepseek, decoded, janus_vqvae
from safetensors.torch import save_file
from tiny_llamagen import (
    CODES,
    EOS_ID,
    GRID,
    PAD_ID,
    PIECES,
    TEXT,
    logits_of,
    save_llamagen,
    tiny_t5,
    tiny_weights,
)
from tokenizers import normalizers
from transformers import T5EncoderModel, UMT5Config, UMT5EncoderModel

from dvae.image_processing_dvae import LFS_POINTER
from pipelines import TextToImagePipeline
from pipelines.__main__ import main
from pipelines.checkpoints import llamagen
from pipelines.checkpoints.first_stages import find_first_stage_config
from pipelines.checkpoints.known import KNOWN, LLAMAGEN, known_checkpoint, t5_of
from prior_transformer import EncoderTokenizer

PRIOR, VQ = f"t2i_XL_stage1_{SIDE}.pt", "vq_ds16_t2i.pt"
PROMPTS = ["a cat", "A fat cat, at a"]
N = GRID**2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llamagen")
    save_llamagen(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder) -> TextToImagePipeline:
    return TextToImagePipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def references(pipeline):
    """Of each prompt, and of its null row, a function of codes (N,) to logits (N, K)."""
    weights, t5 = tiny_weights(), tiny_t5()
    found = []
    for ids in pipeline.encode_prompt(PROMPTS):
        own = ids[ids != PAD_ID]
        with torch.no_grad():
            features = t5.encoder(input_ids=own[None]).last_hidden_state[0]
        null = weights["cls_embedding.uncond_embedding"][-len(own) :]
        found.append([lambda codes, text=text: logits_of(weights, text, codes) for text in (features, null)])
    return found


def test_prompts_are_cleaned_and_padded_on_the_left(pipeline):
    tokenizer, cat, at = pipeline.tokenizer, PIECES.index("▁cat"), PIECES.index("at")
    assert type(tokenizer) is EncoderTokenizer and tokenizer.model_max_length == TEXT
    ids = pipeline.encode_prompt(["Cat a cat", "  cat\n", "“at” – ‘at’"])
    assert ids[1].tolist() == [PAD_ID] * (TEXT - 2) + [cat, EOS_ID]
    assert ids[0].tolist() == [PAD_ID] * (TEXT - 4) + [cat, PIECES.index("▁a"), cat, EOS_ID]
    assert tokenizer.decode_captions(ids) == ["cat a cat", "cat", "\"at\" - 'at'"]
    assert (ids[2] == at).sum() == 2
    assert (pipeline.encode_prompt("cat</s><pad>") == EOS_ID).sum() == 1, "a special token's name is text"
    with refused(ValueError, "bpe_dropout=0.1", 0, "Unigram"):
        tokenizer.encode_captions(["cat"], bpe_dropout=0.1)


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("A <person> and <b>Bo</b>", "a person and bo"),
        ("a (red) [cat] {of} a/b\\c | #9 ~ *stars* © @someone", "a red cat of a b c stars"),
        ("one -- two — three", "one - two - three"),
        ("wait... what . now", "wait what now"),
        ("''a'' “b”", '"a" "b"'),
        ("cat,dog at 1,000.5 m.far", "cat, dog at 1,000.5 m. far"),
    ],
)
def test_prompts_lose_what_its_authors_take_out(prompt, cleaned):
    assert normalizers.Sequence(llamagen.CLEANED).normalize_str(prompt) == cleaned


def test_a_long_prompt_loses_its_end_and_an_empty_one_is_no_text(pipeline):
    with pytest.warns(UserWarning, match=r"'y z'"):
        (ids,) = pipeline.encode_prompt(" ".join("abcdefghijklmnopqrstuvwxyz"))
    assert ids[-1] == EOS_ID and (ids != PAD_ID).all()
    null = len(PIECES)
    assert pipeline.encode_prompt("").tolist() == [[null] * TEXT] and len(pipeline.tokenizer) == null + 1
    assert pipeline.tokenizer.decode_captions(pipeline.encode_prompt("")) == [""]
    ids = pipeline.encode_prompt(PROMPTS)
    assert torch.equal(pipeline.prior.null(ids) == null, ids != PAD_ID)


@torch.no_grad()
def test_logits_are_those_of_the_equation(pipeline, references):
    codes = torch.randint(0, CODES, (2, N), generator=torch.Generator().manual_seed(0))
    ids = pipeline.encode_prompt(PROMPTS)
    for kind, captions in enumerate((ids, pipeline.prior.null(ids))):
        logits = pipeline.prior(pipeline.prior.join(captions, codes)).image_logits
        for i in range(2):
            torch.testing.assert_close(logits[i], references[i][kind](codes[i]), atol=1e-4, rtol=0)
    assert logits.std(dim=-1).mean() > 1


@torch.no_grad()
@pytest.mark.parametrize("scale", [1, 7.5])
def test_greedy_codes_and_pixels_are_those_of_the_equation(pipeline, references, scale):
    assert pipeline.sampling.guidance_scale == 7.5
    options = {"temperature": 0, "guidance_scale": scale, "seed": 0, "progress_bar": False, "output_type": "pt"}
    output = pipeline(PROMPTS, **options)
    for i, (own, null) in enumerate(references):
        codes = torch.zeros(N, dtype=torch.int64)
        for cell in range(N):
            one, other = own(codes)[cell], null(codes)[cell]
            codes[cell] = (other + scale * (one - other)).argmax()
        assert torch.equal(output.codes[i].flatten(), codes)
    vqvae = janus_vqvae()
    entries = torch.nn.functional.normalize(vqvae.quantize.embedding.weight, dim=-1)[output.codes]
    torch.testing.assert_close(output.images, decoded(vqvae, entries), atol=1e-4, rtol=0)


def test_the_likeliest_codes_are_as_many_as_its_authors_take(folder, pipeline, monkeypatch):
    assert pipeline.sampling.top_k == CODES < llamagen.TOP_K == 1000
    monkeypatch.setattr(llamagen, "TOP_K", 7)
    assert TextToImagePipeline.from_pretrained(folder).sampling.top_k == 7


def test_it_becomes_a_folder_of_ours_that_keeps_the_stored_dtype(folder, pipeline, tmp_path, capsys):
    half = {name: weight.bfloat16() for name, weight in tiny_weights().items()}
    shutil.copytree(folder, tmp_path / "half")
    torch.save({"model": half}, tmp_path / "half" / PRIOR)
    assert main(["convert", str(tmp_path / "half"), "--out", str(tmp_path / "ours")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "ours")
    loaded = TextToImagePipeline.from_pretrained(tmp_path / "ours")
    assert (loaded.dtype, loaded.text_encoder.dtype) == (torch.bfloat16, torch.float32)
    assert loaded.sampling == pipeline.sampling and loaded.license == "mit"
    stored = TextToImagePipeline.from_pretrained(tmp_path / "half")
    output, expected = (one(PROMPTS, seed=0, progress_bar=False, output_type="pt") for one in (loaded, stored))
    assert torch.equal(output.codes, expected.codes) and torch.equal(output.images, expected.images)
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "license: mit" in card and "Apache 2.0" in card and "T5EncoderModel" in card and str(tmp_path) not in card
    wide = TextToImagePipeline.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert {part.dtype for part in (wide.prior, wide.dvae, wide.text_encoder)} == {torch.float32}
    pipeline.save_pretrained(tmp_path / "ours")
    again = TextToImagePipeline(**TextToImagePipeline.from_pretrained(tmp_path / "ours").components)
    output, expected = (one(PROMPTS, seed=1, progress_bar=False) for one in (again, pipeline))
    assert torch.equal(output.codes, expected.codes)


@pytest.fixture
def tiny_is_known(monkeypatch):
    """On the Hub, where a LlamaGen's prior is asked for by its name, which has the side of its pictures."""
    weights = ("t2i_of_another_size.pt", f"{Path(PRIOR).stem}.safetensors", PRIOR)
    known = [replace(known, weights=weights) if known is LLAMAGEN else known for known in KNOWN]
    monkeypatch.setattr("pipelines.checkpoints.known.KNOWN", known)


def push(repo_id: str, folder: Path, **options) -> None:
    api = HfApi(token="hf_anna")
    api.create_repo(repo_id)
    api.upload_folder(repo_id=repo_id, folder_path=str(folder), **options)


def test_a_foreign_folder_of_its_encoders_name_is_kept(pipeline, tiny_pipeline, tmp_path):
    tiny_pipeline.save_pretrained(tmp_path)
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "notes.txt").write_text("mine")
    with refused(FileExistsError, tmp_path / "text_encoder"):
        pipeline.save_pretrained(tmp_path)
    assert (tmp_path / "text_encoder" / "notes.txt").read_text() == "mine"


def test_a_repository_with_its_t5_has_all_of_it(hub, folder, pipeline, tmp_path, monkeypatch, tiny_is_known):
    """Its tensors as safetensors alone, its text encoder two folders deep, among what it is not made of."""
    shutil.copytree(folder, tmp_path / "own")
    torch.save({}, tmp_path / "own" / "vq_ds16_c2i.pt")
    save_file(tiny_weights(), (tmp_path / "own" / PRIOR).with_suffix(".safetensors"))
    codes = as_deepseek(janus_vqvae().state_dict())
    save_file(
        {name: weight.contiguous() for name, weight in codes.items()}, tmp_path / "own" / "vq_ds16_t2i.safetensors"
    )
    for name in (PRIOR, VQ):
        (tmp_path / "own" / name).unlink()
    (tmp_path / "own" / "t5-ckpt").mkdir()
    (tmp_path / "own" / "t5").rename(tmp_path / "own" / "t5-ckpt" / "flan-t5-xl")
    (tmp_path / "own" / "other").mkdir()
    save_file({"weight": torch.zeros(1)}, tmp_path / "own" / "other" / "model.safetensors")
    monkeypatch.setattr("pipelines.checkpoints.llamagen.T5", "anna/none")
    push("anna/llamagen", tmp_path / "own")
    pulled = TextToImagePipeline.from_pretrained("anna/llamagen", cache_dir=tmp_path / "cache")
    output, expected = (one(PROMPTS[0], seed=0, progress_bar=False) for one in (pulled, pipeline))
    assert torch.equal(output.codes, expected.codes)
    fetched = {path.name for path in (tmp_path / "cache").rglob("snapshots/*/*")}
    assert "t5-ckpt" in fetched and not fetched & {"other", "vq_ds16_c2i.pt"}


def test_a_repository_is_known_by_its_files_and_t5_has_its_own(
    hub, folder, pipeline, tmp_path, monkeypatch, tiny_is_known
):
    push("anna/llamagen", folder, ignore_patterns=["t5/*"])
    push("anna/t5", folder / "t5")
    monkeypatch.setattr("pipelines.checkpoints.llamagen.T5", "anna/t5")
    with pytest.warns(UserWarning, match="anna/t5"):
        pulled = TextToImagePipeline.from_pretrained("anna/llamagen", cache_dir=tmp_path)
    output, expected = (one(PROMPTS[0], seed=0, progress_bar=False) for one in (pulled, pipeline))
    assert torch.equal(output.codes, expected.codes)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        TextToImagePipeline.from_pretrained("anna/llamagen", cache_dir=tmp_path)
    pulled.push_to_hub("anna/ours", token="hf_anna")
    pulled = TextToImagePipeline.from_pretrained("anna/ours", cache_dir=tmp_path)
    assert torch.equal(pulled(PROMPTS[0], seed=0, progress_bar=False).codes, expected.codes)


@pytest.mark.parametrize(
    ("name", "weight", "told"),
    [
        ("layers.1.attention.wo.weight", None, []),
        ("layers.1.attention.wqkv.weight", torch.zeros(380, 128), [380]),
        ("layers.0.feed_forward.w3.weight", torch.zeros(192, 127), [127]),
        ("norm.weight", torch.zeros(129), [129, 128]),
        ("output.weight", torch.zeros(CODES, 3200), [3200, 2048, 64]),
        ("output.weight", torch.zeros(24), [24]),
        ("cls_embedding.uncond_embedding", None, []),
    ],
)
def test_a_wrong_tensor_is_named_with_both_shapes(folder, name, weight, told, tmp_path):
    shutil.copytree(folder, tmp_path / "changed")
    weights = tiny_weights() | {name: weight}
    weights = {key: value for key, value in weights.items() if value is not None}
    torch.save({"model": weights}, tmp_path / "changed" / PRIOR)
    with refused(OSError, name, "LlamaGen", *told):
        TextToImagePipeline.from_pretrained(tmp_path / "changed")


def test_what_is_not_whole_is_refused_in_a_line(folder, tmp_path):
    def copy(name: str):
        return shutil.copytree(folder, tmp_path / name)

    (copy("codeless") / VQ).unlink()
    (copy("foreign") / VQ).rename(tmp_path / "foreign" / "vq_ds16_c2i.pt")
    (copy("priorless") / PRIOR).unlink()
    (copy("wordless") / "t5" / "tokenizer.json").unlink()
    (copy("sideless") / PRIOR).rename(tmp_path / "sideless" / "t2i_XL.pt")
    missing = {"codeless": VQ, "foreign": VQ, "priorless": "t2i_XL_stage1_256.pt", "wordless": "tokenizer.json"}
    for name, told in (missing | {"sideless": "t2i_XL.pt"}).items():
        with refused(OSError, tmp_path / name, "LlamaGen", told):
            TextToImagePipeline.from_pretrained(tmp_path / name)
    for name in ("tokenizer.json", "model.safetensors"):
        for kind, content in (("pointer", LFS_POINTER), ("broken", b"{")):
            path = copy(f"{kind} {name}") / "t5" / name
            path.write_bytes(content)
            with refused(OSError, path.parent, "git-LFS" if kind == "pointer" else ""):
                TextToImagePipeline.from_pretrained(path.parents[1])
    shutil.rmtree(copy("textless") / "t5")
    with refused(OSError, "google/flan-t5-xl"):
        TextToImagePipeline.from_pretrained(tmp_path / "textless", cache_dir=tmp_path / "empty", local_files_only=True)
    narrow = tiny_t5().config
    narrow.d_model = 16
    type(tiny_t5())(narrow).save_pretrained(copy("narrow") / "t5")
    with refused(ValueError, 16, 24):
        TextToImagePipeline.from_pretrained(tmp_path / "narrow")
    assert main(["convert", str(tmp_path / "codeless"), "--out", str(tmp_path / "no")]) == 2


def test_parts_that_do_not_belong_together_are_refused(pipeline, tiny_pipeline):
    parts = pipeline.parts
    with refused(ValueError, "feature_size=24", "text_encoder"):
        TextToImagePipeline(**{name: part for name, part in parts.items() if name != "text_encoder"})
    with refused(ValueError, "feature_size=None", "T5EncoderModel"):
        TextToImagePipeline(**tiny_pipeline.parts, text_encoder=pipeline.text_encoder)
    config = pipeline.text_encoder.config
    with refused(ValueError, "UMT5EncoderModel", "T5EncoderModel"):
        TextToImagePipeline(**parts | {"text_encoder": UMT5EncoderModel(UMT5Config(**config.to_dict()))})
    with refused(ValueError, "text_encoder"):
        TextToImagePipeline(**parts | {"text_encoder": T5EncoderModel(config)})
    assert pipeline.prior.text_encoder is pipeline.text_encoder


def test_its_first_stage_is_its_own_and_of_its_side(folder, tmp_path):
    """A folder is asked for as a whole; a file alone paints what it learned first, whatever lies beside it."""
    shutil.copytree(folder, tmp_path / "both")
    (tmp_path / "both" / "vq_ds16_c2i.pt").write_bytes(b"not read")
    torch.save({"model": {}}, tmp_path / "both" / "t2i_XL_stage2_512.pt")
    for where in (folder, tmp_path / "both"):
        assert find_first_stage_config(where).image_size == SIDE
        assert find_first_stage_config(where / VQ).image_size == 256
    (tmp_path / "both" / PRIOR).unlink()
    assert find_first_stage_config(tmp_path / "both").image_size == 512
    (tmp_path / "both" / "vq_ds16_c2i.pt").unlink()
    (tmp_path / "both" / VQ).rename(tmp_path / "both" / "last.ckpt")
    assert find_first_stage_config(tmp_path / "both").image_size == 256


def test_the_t5_that_has_its_tokenizer_is_taken(folder, pipeline, tmp_path):
    shutil.copytree(folder, tmp_path / "own")
    pipeline.save_pretrained(tmp_path / "own" / "converted")
    (tmp_path / "own" / "t5-ckpt").mkdir()
    (tmp_path / "own" / "t5").rename(tmp_path / "own" / "t5-ckpt" / "flan-t5-xl")
    assert t5_of(tmp_path / "own") == tmp_path / "own" / "t5-ckpt" / "flan-t5-xl"
    assert t5_of(folder) == folder / "t5" and t5_of(folder / "t5") is None


def test_tensors_as_safetensors_come_first_and_what_is_another_model_is_left(folder, pipeline, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    for name in (PRIOR, "vq_ds16_c2i.pt", "t2i_XL_stage2_32.pt"):
        (tmp_path / "other" / name).write_bytes(b"not read")
    save_file(tiny_weights(), (tmp_path / "other" / PRIOR).with_suffix(".safetensors"))
    assert known_checkpoint(tmp_path / "other").name == "llamagen"
    loaded = TextToImagePipeline.from_pretrained(tmp_path / "other").prior.state_dict()
    expected = pipeline.prior.state_dict()
    assert loaded.keys() == expected.keys() and all(torch.equal(loaded[name], expected[name]) for name in loaded)
    assert not any("encoder" in name for name in loaded)
