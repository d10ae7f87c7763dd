"""ruDALL-E v3 brought in: the numbers of its network written out once more, and its masks counted one by one."""

import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from messages import refused
from public_layouts import LEVELS, SIDE, as_gumbel, decoded, janus_vqvae
from tiny_rudalle import BOS, CODES, EOS, TEXT, WORDS, RuDALLE, save_rudalle

from pipelines import TextToImagePipeline
from pipelines.checkpoints.known import RUDALLE, known_checkpoint
from pipelines.checkpoints.rudalle import read_tokenizer
from prior_transformer import PriorTransformerConfig
from training.loop.pretrained import start_config

GRID = 8  # so that the convolutional mask ends before the row does
PROMPTS = ["A cat", "  a cat\ta tea a cat a cat"]


@pytest.fixture(scope="module")
def rudalle() -> RuDALLE:
    return RuDALLE(GRID)


@pytest.fixture(scope="module")
def folder(rudalle, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rudalle") / "Malevich"
    save_rudalle(rudalle, folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder) -> TextToImagePipeline:
    return TextToImagePipeline.from_pretrained(folder)


def ids_of(*words: str) -> list[int]:
    return [WORDS.index(word) for word in words]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("A cat", ["▁a", "▁cat"]),
        ("\n cAt\t▁ ATE ", ["▁cat", "▁", "at", "e"]),
        ("axxt x", ["▁a", "<UNK>", "t", "▁", "<UNK>"]),
        ("<EOS> a", ["▁", "<UNK>", "e", "<UNK>", "▁a"]),
        ("", []),
    ],
)
def test_text_ids_are_merged_in_the_order_of_the_file(pipeline, prompt, words):
    """In lower case, between single spaces; a run without letters is one token; what ends the text and pads follow."""
    (ids,) = pipeline.tokenizer.encode_captions([prompt]).tolist()
    expected = [*ids_of(*words), EOS]
    assert ids == expected + [0] * (TEXT - 1 - len(expected))


def test_a_long_text_is_cut_and_not_ended(pipeline):
    with pytest.warns(UserWarning, match="'cat'"):
        ids = pipeline.encode_prompt("a " * (TEXT - 1) + "cat")
    assert ids.tolist() == [ids_of("▁a") * (TEXT - 1)]
    assert pipeline.encode_prompt("a " * (TEXT - 1)).tolist() == ids.tolist(), "no word of this one is lost"
    assert pipeline.tokenizer.decode_captions(pipeline.encode_prompt("A  cat")) == ["a cat"]


@pytest.mark.filterwarnings("ignore:a caption is longer")
def test_a_text_cut_before_a_letter_of_two_tokens_is_not_ended(tmp_path):
    """İ is an i and its dot, in lower case."""
    (tmp_path / "bpe.model").write_text(f"3 0\n9601 4\n{ord('i')} 5\n{0x307} 6\n1 0 2 3\n")
    tokenizer = read_tokenizer(tmp_path / "bpe.model", PriorTransformerConfig(text_vocab_size=7, text_length=4))
    assert tokenizer.encode_captions(["iiİ", "iİ", "ii"]).tolist() == [[4, 5, 5, 0], [4, 5, 5, 6], [4, 5, 5, EOS]]


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1])
def test_logits_greedy_codes_and_pixels_are_the_references(seed, tmp_path):
    rudalle = RuDALLE(GRID, seed=seed)
    save_rudalle(rudalle, tmp_path)
    pipeline = TextToImagePipeline.from_pretrained(tmp_path)
    prior, ids = pipeline.prior, pipeline.encode_prompt(PROMPTS)
    theirs = torch.nn.functional.pad(ids, (1, 0), value=BOS)
    codes = torch.randint(0, CODES, (2, GRID**2), generator=torch.Generator().manual_seed(seed))
    logits = prior(prior.join(ids, codes)).image_logits
    torch.testing.assert_close(logits, rudalle.logits(theirs, codes), atol=1e-4, rtol=0)
    for window in (1, 8):
        output = pipeline(PROMPTS, temperature=0, window=window, seed=0, progress_bar=False, output_type="pt")
        greedy = output.codes.flatten(1)
        assert torch.equal(greedy, rudalle.logits(theirs, greedy).argmax(dim=-1)), "each follows from those before it"
    vqvae = janus_vqvae()
    pixels = decoded(vqvae, as_gumbel(vqvae.state_dict())["quantize.embed.weight"][output.codes])
    assert output.images.shape[-1] == GRID * 2 ** (LEVELS - 1) == 2 * SIDE
    torch.testing.assert_close(output.images, pixels, atol=1e-4, rtol=0)
    assert pipeline.sampling.top_k == CODES and pipeline.sampling.guidance_scale == 1


@torch.no_grad()
def test_an_attention_that_overflows_float16_is_bounded(tmp_path):
    """As its authors bound it, in any dtype: normalised, an infinity would be no number."""
    rudalle = RuDALLE()
    rudalle.weights["transformer.layers.1.attention.dense.weight"] *= 5e4
    ids, codes = torch.tensor([[4, 5, 6, EOS, *[0] * (TEXT - 5)]]), torch.arange(16)[None]
    expected = rudalle.logits(torch.nn.functional.pad(ids, (1, 0), value=BOS), codes)
    save_rudalle(rudalle, tmp_path)
    for dtype, atol in ((torch.float32, 1e-4), (torch.float16, 0.1)):
        prior = TextToImagePipeline.from_pretrained(tmp_path, dtype=dtype).prior
        logits = prior(prior.join(ids, codes)).image_logits
        torch.testing.assert_close(logits.float(), expected, atol=atol, rtol=0)


def test_it_becomes_a_folder_of_ours_and_a_start(folder, pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = TextToImagePipeline.from_pretrained(tmp_path)
    assert loaded.license == "apache-2.0" and loaded.sampling.top_p == pipeline.sampling.top_p < 1
    output, expected = (one(PROMPTS, seed=1, progress_bar=False) for one in (loaded, pipeline))
    assert torch.equal(output.codes, expected.codes)
    start, config = start_config(str(folder)), loaded.prior.config
    assert (start.stream_length, start.layer_norms, start.num_hidden_layers) == (config.stream_length, "sandwich", 4)


@pytest.mark.parametrize(
    ("name", "weight", "told"),
    [
        ("transformer.layers.2.before_second_addition_layernorm.bias", None, []),
        ("transformer.layers.1.mlp.dense_4h_to_h.weight", torch.zeros(32, 127), [128, 127]),
        ("to_logits.1.bias", torch.zeros(7), [7]),
        ("text_pos_embeddings.weight", torch.tensor(1.0), []),
        ("image_col_embeddings.weight", torch.zeros(GRID - 1, 32), [GRID, GRID - 1]),
        ("text_embeddings.weight", torch.zeros(TEXT + 11, 32), [11, len(WORDS)]),
        ("transformer.conv_mask", torch.ones(TEXT + GRID**2, TEXT + GRID**2).tril(), []),
    ],
)
def test_a_wrong_tensor_is_named_with_both_shapes(rudalle, folder, tmp_path, name, weight, told):
    """Also a mask that is not ours, as the second version's, whose square goes on at the edges."""
    shutil.copytree(folder, tmp_path / "changed")
    weights = rudalle.weights | rudalle.masks | {name: weight}
    weights = {name: weight for name, weight in weights.items() if weight is not None}
    torch.save(weights, tmp_path / "changed" / "pytorch_model_v3.bin")
    names = [] if name.startswith("text_") else ["ruDALL-E", name]
    with refused(OSError, *names, *told):
        TextToImagePipeline.from_pretrained(tmp_path / "changed")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
CUT = {
    "cut": (lambda text: text[: text.rindex("1")], [24, 28]),
    "empty": (lambda text: "", [0, 6]),
    "another": (lambda text: "a b", []),
    "a pointer": (lambda text: POINTER, ["git lfs pull"]),
    "large": (lambda text: " " * (2**23 + 1), [2**23 + 1, 2**23]),
    "no code point": (lambda text: text.replace("9601", "9" * 20), []),
    "a letter for UNK": (lambda text: text.replace("97 5", "97 1"), [1]),
    "a letter twice": (lambda text: text.replace("97 5", "99 5"), [6]),
    "an id twice": (lambda text: text.replace("5 8 9", "5 8 6"), [6]),
    "an id too high": (lambda text: text.replace("4 5 12", "4 5 13"), [13]),
    "a merge too early": (lambda text: text.replace("5 8 9", "5 10 9"), [5, 10, 9]),
}


@pytest.mark.parametrize("broken", CUT)
def test_a_tokenizer_that_is_not_whole_is_refused(broken, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "cut")
    path = tmp_path / "cut" / "bpe.model"
    change, told = CUT[broken]
    path.write_text(change(path.read_text()))
    with refused(OSError, "bpe.model", *told):
        TextToImagePipeline.from_pretrained(tmp_path / "cut")


def test_tokens_that_double_without_end_are_refused(tmp_path):
    """Twenty merges of 60 bytes would make a token of a MiB, sixty one of an EiB."""
    merges = "\n".join(f"{4 + i} {4 + i} {5 + i}" for i in range(20))
    (tmp_path / "bpe.model").write_text(f"1 20\n9601 4\n{merges}\n1 0 2 3\n")
    with refused(OSError, "bpe.model", 15, 2048, 1024):
        read_tokenizer(tmp_path / "bpe.model", PriorTransformerConfig(text_vocab_size=25))


def test_a_repository_has_its_weights_and_two_others_the_rest(hub, folder, pipeline, tmp_path, monkeypatch):
    api = HfApi(token="hf_anna")
    for name, repo_id in (("bpe.model", "anna/words"), ("vqgan.gumbelf8-sber.model.ckpt", "anna/utils")):
        monkeypatch.setitem(RUDALLE.elsewhere, name, repo_id)
    for repo_id, name in (
        ("anna/malevich", "pytorch_model_v3.bin"),
        ("anna/utils", "vqgan.gumbelf8-sber.model.ckpt"),
    ):
        api.create_repo(repo_id)
        api.upload_file(repo_id=repo_id, path_or_fileobj=str(folder / name), path_in_repo=name)
    api.create_repo("anna/words")
    with refused(OSError, "anna/words", "bpe.model"):
        TextToImagePipeline.from_pretrained("anna/malevich", cache_dir=tmp_path)
    api.upload_file(repo_id="anna/words", path_or_fileobj=str(folder / "bpe.model"), path_in_repo="bpe.model")
    pulled = TextToImagePipeline.from_pretrained("anna/malevich", cache_dir=tmp_path)
    output, expected = (one(PROMPTS[0], seed=0, progress_bar=False) for one in (pulled, pipeline))
    assert torch.equal(output.codes, expected.codes)


def test_a_repository_may_hold_all_of_it(hub, folder, pipeline, tmp_path):
    api = HfApi(token="hf_anna")
    api.create_repo("anna/whole")
    api.upload_folder(repo_id="anna/whole", folder_path=str(folder))
    pulled = TextToImagePipeline.from_pretrained("anna/whole", cache_dir=tmp_path)
    output, expected = (one(PROMPTS[0], seed=0, progress_bar=False) for one in (pulled, pipeline))
    assert torch.equal(output.codes, expected.codes)


def test_a_name_alone_tells_it(tmp_path):
    (tmp_path / "pytorch_model_v3.bin").write_bytes(b"no pickle")
    known = known_checkpoint(tmp_path)
    assert known is not None and known.name == "rudalle"
    with refused(OSError, "pytorch_model_v3.bin"):
        TextToImagePipeline.from_pretrained(tmp_path)
