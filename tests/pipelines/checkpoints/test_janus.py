"""Janus brought in: the numbers of transformers' own class, in both layouts, and what is wrong said in a line."""

import copy
import json
import pickle
import shutil

import pytest
import torch
from huggingface_hub import HfApi
from messages import holds, refused
from safetensors.torch import load_file, save_file
from tiny_janus import (
    PAD_ID,
    ROOM,
    SPECIAL,
    save_deepseek,
    save_tokenizer,
    save_transformers,
    tiny_janus,
)

from dvae.image_processing_dvae import LFS_POINTER
from pipelines import TextToImagePipeline
from pipelines.__main__ import main
from pipelines.checkpoints.janus import tokenizer_of
from pipelines.checkpoints.known import known_checkpoint
from pipelines.folder.locate import find_pipeline
from prior_transformer import LlamaPrior

PROMPTS = ["a cat", "A fat cat at a table, and an apple"]


@pytest.fixture(scope="module")
def janus():
    return tiny_janus()


@pytest.fixture(scope="module")
def folder(janus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("janus")
    save_transformers(janus, folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder) -> TextToImagePipeline:
    return TextToImagePipeline.from_pretrained(folder)


def text_of(pipeline: TextToImagePipeline, prompt: str) -> torch.Tensor:
    """As transformers has it, (1, t), without padding."""
    (ids,) = pipeline.encode_prompt(prompt)
    return ids[ids != PAD_ID][None]


@torch.no_grad()
def logits_of(janus, ids: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """transformers' own, (N, K): text (1, t), codes (1, N)."""
    text = janus.get_input_embeddings()(ids)
    embeds = torch.cat([text, janus.prepare_embeddings_for_image_generation(codes)], dim=1)
    hidden_states = janus.model.language_model(inputs_embeds=embeds).last_hidden_state
    return janus.model.generation_head(hidden_states)[0, ids.shape[1] - 1 : -1]


@torch.no_grad()
def test_logits_are_those_of_transformers(janus, pipeline):
    codes = torch.randint(0, 32, (2, 16), generator=torch.Generator().manual_seed(0))
    ids = pipeline.encode_prompt(PROMPTS)
    for captions, null in ((ids, False), (pipeline.prior.null(ids), True)):
        logits = pipeline.prior(pipeline.prior.join(captions, codes)).image_logits
        for i, prompt in enumerate(PROMPTS):
            own = text_of(pipeline, prompt)
            if null:
                own[:, 1:-1] = PAD_ID
            torch.testing.assert_close(logits[i], logits_of(janus, own, codes[i : i + 1]), atol=1e-4, rtol=0)


@torch.no_grad()
def test_greedy_codes_and_pixels_are_those_of_transformers(janus, pipeline):
    """Guided, by its own `generate`, which takes no scale 1; what it decodes has −1 for black."""
    assert pipeline.sampling.guidance_scale == 5
    output = pipeline(PROMPTS, temperature=0, seed=0, progress_bar=False, output_type="pt")
    for i, prompt in enumerate(PROMPTS):
        ids = text_of(pipeline, prompt)
        codes = janus.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_mode="image",
            do_sample=False,
            guidance_scale=5,
        )
        assert torch.equal(output.codes[i].flatten(), codes[0])
        pixels = janus.decode_image_tokens(codes)[0]
        pixels = pixels if pixels.shape[0] == 3 else pixels.permute(2, 0, 1)
        torch.testing.assert_close(output.images[i], ((pixels + 1) / 2).clamp(0, 1), atol=1e-4, rtol=0)


PRO = "{% for message in messages %}<|User|>: {{ message }}\n\n<|Assistant|>:{% endfor %}"
CARDS = {
    "Janus-1.3B": "Janus is constructed based on the DeepSeek-LLM-1.3b-base, trained on 500B text tokens.",
    "tuned": "---\nbase_model: deepseek-ai/Janus-1.3B\n---",
    "Janus-Pro": "Janus-Pro is constructed based on the DeepSeek-LLM-1.5b-base and goes beyond Janus-1.3B.",
    "another": "A fine model.",
}
PLAIN = PRO.replace("<|User|>", "User").replace("<|Assistant|>", "Assistant")
NAMELESS = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message }}<|im_end|>{% endfor %}"


@pytest.mark.parametrize(
    ("files", "plain"),
    [
        ({}, False),
        ({"README.md": CARDS["Janus-1.3B"]}, True),
        ({"README.md": CARDS["tuned"]}, True),
        ({"README.md": CARDS["Janus-Pro"]}, False),
        ({"README.md": CARDS["another"]}, False),
        ({"README.md": CARDS["Janus-1.3B"], "chat_template.jinja": PRO}, False),
        ({"README.md": CARDS["Janus-Pro"], "chat_template.jinja": PLAIN}, True),
        ({"chat_template.jinja": NAMELESS}, False),
        ({"README.md": CARDS["tuned"], "chat_template.jinja": NAMELESS}, True),
        ({"chat_template.json": json.dumps({"chat_template": PLAIN})}, True),
    ],
)
def test_a_prompt_stands_in_the_chat_that_the_checkpoint_learned(folder, tmp_path, files, plain):
    """That of Janus-Pro has tokens for its two roles; that of Janus-1.3B plain names, although it may have these."""
    for path in folder.glob("tokenizer*"):
        shutil.copy(path, tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    tokenizer = tokenizer_of(tmp_path)
    (ids,) = tokenizer.encode_captions(["a cat"])
    user, assistant = ("User", "Assistant") if plain else SPECIAL[-2:]
    text = f"{SPECIAL[0]}{user}: a cat\n\n{assistant}:{SPECIAL[4]}"
    expected = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert ids[ids != PAD_ID].tolist() == expected
    assert (SPECIAL.index("<|User|>") in expected) is not plain


def test_without_tokens_for_the_roles_their_names_are_plain(tmp_path):
    save_tokenizer(tmp_path, SPECIAL[:-2])
    tokenizer = tokenizer_of(tmp_path)
    assert tokenizer.init_kwargs["template"] == f"{SPECIAL[0]}User: {{prompt}}\n\nAssistant:{SPECIAL[4]}"


def test_only_what_painting_needs_is_there(janus, pipeline):
    """Neither its encoder of pictures to describe nor its text head; of the text's embedding the tokens that exist."""
    vocabulary = len(pipeline.tokenizer)
    assert pipeline.prior.config.text_vocab_size == vocabulary == janus.config.text_config.vocab_size - ROOM
    count = sum(weight.numel() for part in (pipeline.prior, pipeline.dvae) for weight in part.parameters())
    unused = (janus.lm_head, janus.model.vision_model, janus.model.aligner)
    left_out = sum(weight.numel() for part in unused for weight in part.parameters())
    assert count == sum(weight.numel() for weight in janus.parameters()) - left_out - ROOM * 32
    assert type(pipeline.prior) is LlamaPrior and not pipeline.prior.training and not pipeline.dvae.training


def test_both_layouts_are_one_model(tmp_path):
    janus = tiny_janus(levels=5)
    save_transformers(janus, tmp_path / "one")
    save_deepseek(janus, tmp_path / "other")
    one, other = (TextToImagePipeline.from_pretrained(tmp_path / name) for name in ("one", "other"))
    for part in ("prior", "dvae"):
        ours, theirs = (getattr(pipeline, part).state_dict() for pipeline in (one, other))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert one.prior.config.to_dict() == other.prior.config.to_dict()
    assert torch.equal(one.encode_prompt(PROMPTS), other.encode_prompt(PROMPTS))
    assert (one.image_processor.size, other.image_processor.size) == (64, 64)


def test_shards_are_read_and_the_stored_dtype_is_kept(janus, pipeline, tmp_path):
    save_transformers(copy.deepcopy(janus).to(torch.bfloat16), tmp_path / "janus", max_shard_size="500KB")
    assert len(list((tmp_path / "janus").glob("*.safetensors"))) > 1
    stored = TextToImagePipeline.from_pretrained(tmp_path / "janus")
    assert (stored.prior.dtype, stored.dvae.dtype) == (torch.bfloat16, torch.bfloat16)
    wide = TextToImagePipeline.from_pretrained(tmp_path / "janus", dtype=torch.float32)
    assert {weight.dtype for weight in wide.prior.parameters()} == {torch.float32}
    assert main(["convert", str(tmp_path / "janus"), "--out", str(tmp_path / "ours")]) == 0
    converted = TextToImagePipeline.from_pretrained(tmp_path / "ours")
    assert converted.dtype == torch.bfloat16 and converted.sampling == pipeline.sampling
    output, expected = (one(PROMPTS, seed=0, progress_bar=False, output_type="pt") for one in (converted, stored))
    assert torch.equal(output.codes, expected.codes) and torch.equal(output.images, expected.images)


def test_a_converted_folder_says_whose_weights_they_are(folder, pipeline, tmp_path, capsys):
    assert main(["convert", str(folder), "--out", str(tmp_path / "ours")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "ours")
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "DeepSeek Model License" in card and "license: other" in card and "| guidance_scale | 5 |" in card
    assert str(tmp_path) not in card and str(folder) not in card
    assert main([PROMPTS[0], "--model", str(tmp_path / "ours"), "--out", str(tmp_path / "a.png"), "--seed", "1"]) == 0
    assert main(["convert", str(tmp_path), "--out", str(tmp_path / "no")]) == 2
    assert main(["convert", str(folder), "--out", str(folder)]) == 2, "never over a checkpoint"
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and holds(errors[0], tmp_path) and holds(errors[1], folder)


def change(folder, tmp_path, **changes):
    """A copy of the checkpoint whose weights are changed: None leaves one out."""
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors") | changes
    save_file({name: weight for name, weight in weights.items() if weight is not None}, copy / "model.safetensors")
    return copy


@pytest.mark.parametrize(
    ("name", "weight", "told"),
    [
        ("model.language_model.layers.1.self_attn.k_proj.weight", None, []),
        ("model.generation_head.vision_head.weight", torch.zeros(31, 32), [31, 32]),
        ("model.language_model.norm.weight", torch.zeros(33), [33, 32]),
        ("model.vqmodel.quant_conv.bias", None, []),
        ("model.language_model.layers.0.mlp.up_proj.weight", torch.zeros(64, 31), [31]),
    ],
)
def test_a_wrong_tensor_is_named_with_both_shapes(folder, name, weight, told, tmp_path):
    changed = change(folder, tmp_path, **{name: weight})
    with refused(OSError, name.removeprefix("model.vqmodel."), "Janus", *told):
        TextToImagePipeline.from_pretrained(changed)


def test_another_pipeline_of_its_parts_keeps_the_stored_dtype_too(pipeline, tmp_path):
    TextToImagePipeline(**pipeline.components).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())["stored_dtype"] is True


def test_settings_are_known_however_they_are_indented(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "janus"}, indent="\t"))
    assert known_checkpoint(tmp_path).name == "janus"
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert known_checkpoint(tmp_path) is None


def test_what_is_not_whole_is_refused_in_a_line(folder, tmp_path):
    def copy(name: str):
        return shutil.copytree(folder, tmp_path / name)

    (copy("tokenless") / "tokenizer.json").unlink()
    save_tokenizer(copy("chatless"), [token for token in SPECIAL if token != "<begin_of_image>"])
    (copy("weightless") / "model.safetensors").unlink()
    settings = copy("odd") / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"text_config": {"hidden_size": -1}}))
    for name, content, told in (("pointer", LFS_POINTER, "git-LFS"), ("broken", b"{", "tokenizer")):
        (copy(name) / "tokenizer.json").write_bytes(content)
        with refused(OSError, tmp_path / name, told):
            TextToImagePipeline.from_pretrained(tmp_path / name)
    for name, told in (("tokenless", "tokenizer.json"), ("chatless", "<begin_of_image>"), ("weightless", "none")):
        with refused(OSError, tmp_path / name, "Janus", told):
            TextToImagePipeline.from_pretrained(tmp_path / name)
    with refused(OSError, tmp_path / "odd", "Janus"):
        TextToImagePipeline.from_pretrained(tmp_path / "odd")
    path = copy("cut") / "tokenizer.json"
    whole = path.read_text()
    for broken in (whole[: len(whole) // 2], "", "{}"):
        path.write_text(broken)
        with refused(OSError, path):
            TextToImagePipeline.from_pretrained(tmp_path / "cut")


class Runs:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_nothing_in_a_pickle_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_deepseek(tiny_janus(levels=5), tmp_path / "janus")
    (tmp_path / "janus" / "pytorch_model.bin").write_bytes(pickle.dumps({"gen_embed.weight": Runs()}))
    with refused(OSError, tmp_path / "janus"):
        TextToImagePipeline.from_pretrained(tmp_path / "janus")
    assert not (tmp_path / "ran").exists()


def test_a_repository_is_known_by_its_files(hub, folder, pipeline, tmp_path):
    api = HfApi(token="hf_anna")
    api.create_repo("anna/janus")
    api.upload_folder(repo_id="anna/janus", folder_path=str(folder))
    api.upload_file(repo_id="anna/janus", path_or_fileobj=b"would run", path_in_repo="pytorch_model.bin")
    pulled = TextToImagePipeline.from_pretrained("anna/janus", cache_dir=tmp_path)
    output, expected = (one(PROMPTS[0], seed=0, progress_bar=False) for one in (pulled, pipeline))
    assert torch.equal(output.codes, expected.codes)
    assert not list(tmp_path.glob("*/snapshots/*/*.bin")), "where there are safetensors, no pickle is fetched"
    assert find_pipeline("anna/janus", cache_dir=tmp_path, local_files_only=True).is_dir(), "and from then on offline"
    with refused(OSError, "anna/none"):
        TextToImagePipeline.from_pretrained("anna/none", cache_dir=tmp_path)
