"""Shared by the Hub's own client over its own protocol, with a server on loopback: what was pushed is pulled."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from hub_server import Hub
from huggingface_hub import HfApi, ModelCard
from messages import refused
from PIL import Image
from processes import ROOT
from saved_files import FILES

from dvae import DVAE, DVAEImageProcessor
from pipelines import TextToImagePipeline
from prior_transformer import PriorTokenizer, PriorTransformer

ANNA, BERT = "hf_anna", "hf_bert"  # tokens
PARTS = {"dvae": DVAE, "prior": PriorTransformer, "tokenizer": PriorTokenizer, "image_processor": DVAEImageProcessor}
STRANGER = ROOT / "tests/support/hub_stranger.py"


def run(hub: Hub, home: Path, *arguments: str, without_us: bool = False) -> str:
    """Python in a process of its own that knows the Hub by its environment alone; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    if not without_us:
        environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def paint(pipeline: TextToImagePipeline, **options):
    return pipeline(["an armchair", "a red apple"], seed=0, output_type="pt", progress_bar=False, **options)


def assert_same_pictures(pipeline: TextToImagePipeline, expected: TextToImagePipeline) -> None:
    output, wanted = paint(pipeline), paint(expected)
    assert torch.equal(output.codes, wanted.codes)
    assert torch.equal(output.images, wanted.images)


def test_what_is_pushed_is_what_is_pulled(hub, tiny_pipeline, tmp_path):
    told = {name: getattr(tiny_pipeline, name) for name in ("metrics", "recipe", "data", "license")}
    sampling, samples = asdict(tiny_pipeline.sampling), Image.new("RGB", (32, 16), "green")
    pushed = TextToImagePipeline(**tiny_pipeline.components, **told, sampling=sampling, samples=samples)
    address = pushed.push_to_hub("anna/emoji", token=ANNA)
    repo = hub.store.repos["model", "anna/emoji"]
    assert address.endswith(repo.refs["main"])
    assert set(repo.commits[repo.refs["main"]]) == FILES | {".gitattributes", "samples.png"}
    assert len(repo.commits) == 2  # made, and the whole pipeline in one
    assert len(hub.asked("PUT", "/lfs/upload/")) == 3  # the weights of both models and the picture
    pickle = {"path_or_fileobj": b"would run", "path_in_repo": "prior/pytorch_model.bin"}
    HfApi(token=ANNA).upload_file(repo_id="anna/emoji", **pickle)
    pulled = TextToImagePipeline.from_pretrained("anna/emoji", cache_dir=tmp_path)
    assert_same_pictures(pulled, tiny_pipeline)
    assert pulled.sampling == pushed.sampling
    assert {name: getattr(pulled, name) for name in told} == told
    assert pulled.samples.tobytes() == samples.tobytes()
    assert {path.suffix for path in tmp_path.glob("*/snapshots/*/*/*")} == {".json", ".safetensors"}  # nothing to run
    card = ModelCard.load("anna/emoji").content
    assert 'from_pretrained("anna/emoji")' in card
    assert "](samples.png)" in card and "| 21.5 |" in card and "Apache-2.0" in card


def test_a_name_alone_is_a_repo_of_ones_own(hub, tiny_pipeline, tmp_path):
    tiny_pipeline.save_pretrained(tmp_path / "emoji", push_to_hub=True, token=ANNA)
    assert ("model", "anna/emoji") in hub.store.repos


def test_the_command_line_of_a_fresh_process_paints_the_same(hub, tiny_pipeline, tmp_path):
    tiny_pipeline.push_to_hub("anna/emoji", token=ANNA)
    run(hub, tmp_path, "-m", "pipelines", "a red apple", "--model", "anna/emoji", "--seed", "7", "--out", "apple.png")
    expected = tiny_pipeline("a red apple", seed=7, progress_bar=False).images[0]
    with Image.open(tmp_path / "apple.png") as picture:
        assert picture.tobytes() == expected.tobytes()
        assert picture.text["model"] == "anna/emoji"


def test_a_revision_is_pinned_by_hash_and_by_tag(hub, tiny_pipeline, tmp_path):
    first = tiny_pipeline.push_to_hub("anna/emoji", token=ANNA).split("/")[-1]
    HfApi(token=ANNA).create_tag("anna/emoji", tag="v1", revision=first)
    other = TextToImagePipeline(**copy.deepcopy(tiny_pipeline.components), sampling={"temperature": 0.5})
    with torch.no_grad():
        other.dvae.posterior.codebook.weight.mul_(-1)
    other.push_to_hub("anna/emoji", token=ANNA)
    assert not torch.equal(paint(other).images, paint(tiny_pipeline).images)
    assert_same_pictures(TextToImagePipeline.from_pretrained("anna/emoji", cache_dir=tmp_path), other)
    for revision in (first, "v1"):
        pinned = TextToImagePipeline.from_pretrained("anna/emoji", revision=revision, cache_dir=tmp_path)
        assert_same_pictures(pinned, tiny_pipeline)
    uploads = len(hub.asked("PUT", "/lfs/upload/"))
    assert uploads == 3  # both models, then the one that had changed
    HfApi(token=ANNA).create_branch("anna/emoji", branch="next", revision=first)
    other.push_to_hub("anna/emoji", token=ANNA, branch="next", commit_message="Try this")
    assert_same_pictures(TextToImagePipeline.from_pretrained("anna/emoji", revision="next", cache_dir=tmp_path), other)
    with refused(OSError, "'anna/emoji'", "revision", "'v9'"):
        TextToImagePipeline.from_pretrained("anna/emoji", revision="v9", cache_dir=tmp_path)


def test_a_private_pipeline_is_its_owners(hub, tiny_pipeline, tmp_path):
    tiny_pipeline.push_to_hub("anna/secret", token=ANNA, private=True)
    assert hub.store.repos["model", "anna/secret"].private
    for token in (False, BERT):
        with refused(OSError, "'anna/secret'", "token") as error:
            TextToImagePipeline.from_pretrained("anna/secret", token=token, cache_dir=tmp_path)
        assert "\n" not in str(error.value)
    with refused(OSError, 403):
        tiny_pipeline.push_to_hub("anna/other", token=BERT)
    pulled = TextToImagePipeline.from_pretrained("anna/secret", token=ANNA, cache_dir=tmp_path)
    assert_same_pictures(pulled, tiny_pipeline)


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub, tiny_pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1_000)  # bytes, written one by one
    tiny_pipeline.push_to_hub("anna/emoji", token=ANNA)
    hub.cut_after = 5_500
    pulled = TextToImagePipeline.from_pretrained("anna/emoji", cache_dir=tmp_path)
    assert ("bytes=5000-", 206) in hub.asked("GET", "/lfs/objects/")
    assert_same_pictures(pulled, tiny_pipeline)


def test_a_download_that_failed_fetches_what_is_missing(hub, tiny_pipeline, tmp_path):
    tiny_pipeline.push_to_hub("anna/emoji", token=ANNA)
    hub.down = r"/resolve/\w+/prior/model\.safetensors"
    with refused(OSError, "'anna/emoji'"):
        TextToImagePipeline.from_pretrained("anna/emoji", cache_dir=tmp_path)
    hub.down = None
    assert_same_pictures(TextToImagePipeline.from_pretrained("anna/emoji", cache_dir=tmp_path), tiny_pipeline)
    assert len(hub.asked("GET", "/lfs/objects/")) == 2
    files = [path for method, path, _, _ in hub.requests if method == "GET" and "/resolve/" in path]
    assert len(files) == len(set(files))  # none twice


def test_what_is_no_pipeline_of_ours_is_refused_before_its_weights_come(hub, tmp_path):
    api = HfApi(token=ANNA)
    api.create_repo("anna/other")
    files = {"model_index.json": b'{"_class_name": "StableDiffusionPipeline"}', "config.json": b"{}"}
    for name, content in (files | {"text_encoder/model.safetensors": b"large", "prior/config.json": b"{}"}).items():
        api.upload_file(repo_id="anna/other", path_or_fileobj=content, path_in_repo=name)
    with refused(OSError, "StableDiffusionPipeline", "TextToImagePipeline"):
        TextToImagePipeline.from_pretrained("anna/other", cache_dir=tmp_path)
    assert {path.name for path in tmp_path.glob("*/snapshots/*/*")} == {"model_index.json", "config.json"}


def test_weights_in_parts(hub, tiny_pipeline, tmp_path):
    hub.store.part_size = 10_000
    tiny_pipeline.push_to_hub("anna/emoji", token=ANNA)
    sizes = [len(content) for content in hub.store.objects.values()]
    assert len(hub.asked("PUT", r"\?part=")) == sum(-(-size // 10_000) for size in sizes) > len(sizes) == 2
    assert len(hub.asked("POST", "/lfs/complete/")) == 2
    assert_same_pictures(TextToImagePipeline.from_pretrained("anna/emoji", cache_dir=tmp_path), tiny_pipeline)


def test_a_push_leaves_nothing_of_the_pipeline_before_it(hub, tiny_pipeline, tmp_path):
    """Neither its samples nor, where there are shards now, its weights in one file, which would be loaded."""
    other = copy.deepcopy(tiny_pipeline)
    torch.nn.init.zeros_(other.prior.image_head.weight)
    other.samples = Image.new("RGB", (32, 16), "green")
    other.push_to_hub("anna/emoji", token=ANNA)
    foreign = {"notes.md", "text_encoder/notes.md"}
    for name in foreign:
        HfApi(token=ANNA).upload_file(repo_id="anna/emoji", path_or_fileobj=b"mine", path_in_repo=name)
    shards = tmp_path / "shards"
    tiny_pipeline.prior.save_pretrained(shards, max_shard_size="10KB")
    repo = hub.store.repos["model", "anna/emoji"]
    HfApi(token=ANNA).upload_folder(repo_id="anna/emoji", folder_path=shards, path_in_repo="prior")
    tiny_pipeline.push_to_hub("anna/emoji", token=ANNA)
    assert set(repo.commits[repo.refs["main"]]) == FILES | {".gitattributes"} | foreign
    pulled = TextToImagePipeline.from_pretrained("anna/emoji", cache_dir=tmp_path / "cache")
    assert pulled.samples is None
    assert_same_pictures(pulled, tiny_pipeline)


def test_a_repository_of_another_model_is_not_pushed_over(hub, tiny_pipeline):
    """A new one with a README that was written for it is."""
    api = HfApi(token=ANNA)
    for repo_id, name in (("anna/other", "tokenizer/vocab.json"), ("anna/new", "README.md")):
        api.create_repo(repo_id)
        api.upload_file(repo_id=repo_id, path_or_fileobj=b"mine", path_in_repo=name)
    with refused(FileExistsError, "anna/other", "tokenizer"):
        tiny_pipeline.push_to_hub("anna/other", token=ANNA)
    assert set(api.list_repo_files("anna/other")) == {".gitattributes", "tokenizer/vocab.json"}
    tiny_pipeline.push_to_hub("anna/new", token=ANNA)
    assert set(api.list_repo_files("anna/new")) == FILES | {".gitattributes"}


def test_what_a_save_leaves_on_its_way_is_not_fetched(hub, tiny_pipeline, tmp_path):
    """Nor obeyed: it says what to remove."""
    tiny_pipeline.push_to_hub("anna/emoji", token=ANNA)
    (tmp_path / "photos").mkdir()
    gone = json.dumps([str(tmp_path / "photos")]).encode()
    for place in (".ready/.gone.json", "prior/.ready/.gone.json"):
        HfApi(token=ANNA).upload_file(repo_id="anna/emoji", path_or_fileobj=gone, path_in_repo=place)
    assert_same_pictures(
        TextToImagePipeline.from_pretrained("anna/emoji", cache_dir=tmp_path / "cache"), tiny_pipeline
    )
    assert (tmp_path / "photos").is_dir() and not list((tmp_path / "cache").rglob(".gone.json"))


def test_what_cannot_be_saved_makes_no_repository(hub, tiny_pipeline):
    pipeline = copy.deepcopy(tiny_pipeline)
    pipeline.prior.quantized = "int8"
    with refused(ValueError, "int8", "quantize"):
        pipeline.push_to_hub("anna/never", token=ANNA)
    pipeline = TextToImagePipeline(**tiny_pipeline.components, metrics={"loss": {1, 2}})
    with refused(TypeError, "set", "model_index.json"):
        pipeline.push_to_hub("anna/never", token=ANNA)
    assert ("model", "anna/never") not in hub.store.repos


def test_each_part_is_pushed_and_pulled_alone(hub, tiny_pipeline, tmp_path):
    """By transformers' own calls."""
    for name, part in tiny_pipeline.parts.items():
        part.push_to_hub(f"anna/{name}", token=ANNA)
        repo = hub.store.repos["model", f"anna/{name}"]
        files = {path.removeprefix(f"{name}/") for path in FILES if path.startswith(f"{name}/")}
        assert set(repo.commits[repo.refs["main"]]) == files | {".gitattributes", "README.md"}
    pulled = {name: kind.from_pretrained(f"anna/{name}", cache_dir=tmp_path) for name, kind in PARTS.items()}
    assert_same_pictures(TextToImagePipeline(**pulled, sampling={"guidance_scale": 2.0, "top_k": 20}), tiny_pipeline)


def test_transformers_alone_paints_with_the_parts(hub, any_pipeline, tmp_path):
    """In a process where this project cannot be imported, nor what it needs at most: by trust_remote_code=True."""
    any_pipeline.push_to_hub("anna/emoji", token=ANNA)
    any_pipeline.dvae.push_to_hub("anna/dvae", token=ANNA)
    told = json.loads(run(hub, tmp_path, "-I", str(STRANGER), "anna/emoji", "anna/dvae", without_us=True))
    assert told["refused"] == ["dvae", "pipelines", "prior_transformer", "training", "zuko"]
    expected = paint(any_pipeline, temperature=0.0, guidance_scale=1.0)
    assert told["codes"] == expected.codes.tolist()
    assert np.array_equal(np.load(tmp_path / "pixels.npy"), expected.images.numpy())
    assert np.array_equal(np.load(tmp_path / "pixels_alone.npy"), expected.images.numpy())
