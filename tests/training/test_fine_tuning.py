"""Fine-tuning: from any pipeline or part, frozen in part, or by an adapter that is saved, shared and merged alone."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from messages import holds, refused
from PIL import Image
from safetensors.torch import load_file

from pipelines import TextToImagePipeline
from pipelines.folder.adapters import add_adapter, drop_adapter, merge_adapter
from pipelines.folder.locate import EMBEDDED
from prior_transformer import PriorTokenizer
from training import train_dvae, train_prior
from training.emoji.about import SOURCES
from training.loop.fingerprints import codes_digest, tokenizer_digest
from training.loop.pretrained import (
    LoraSettings,
    check_start,
    find_part,
    freeze,
    lora_config,
    part_of_run,
    sources_of,
)
from training.preflight.plan import DryRun, plan, prior_subject, step_of
from training.presets.reading import parse
from training.presets.trainers import PriorTraining

FLAGS = ["--training.steps", "12", "--training.batch_size", "8", "--training.lr", "1e-2", "--training.ema", "0.5"]
ONE_WEIGHT = {"--training.log_every": "1", "--training.bpe_dropout": "0", "--training.caption_dropout": "0"}
LORA = ["--training.lora", '{"rank": 4, "alpha": 8, "train": ["text"]}']


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """24 plain squares in two colours with their captions."""
    folder = tmp_path_factory.mktemp("squares")
    with (folder / "metadata.jsonl").open("w") as metadata:
        for i in range(24):
            colour = (255, 0, 10 * i) if i % 2 else (0, 255, 10 * i)
            Image.fromarray(np.full((16, 16, 3), colour, np.uint8)).save(folder / f"{i}.png")
            metadata.write(json.dumps({"file_name": f"{i}.png", "text": ["green", "red"][i % 2]}) + "\n")
    return folder


def fine_tune(tiny_folder, pictures, run: Path, *flags: str):
    flags = [*FLAGS, *[part for pair in ONE_WEIGHT.items() for part in pair], *flags]
    own = ["--output_dir", str(run), "--data.path", str(pictures), "--training.init_from", tiny_folder]
    return train_prior.main([*own, *flags])


def paint(pipeline: TextToImagePipeline):
    return pipeline("red", seed=0, num_images_per_prompt=4, output_type="pt", progress_bar=False)


def adapted(prior, seed: int = 0, **settings):
    """The prior with an adapter that changes what it paints."""
    prior = copy.deepcopy(prior)
    torch.manual_seed(seed)
    add_adapter(prior, lora_config(prior, LoraSettings(rank=2, **settings), base="anna/emoji"))
    for parameter in prior.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    return prior.eval()


def with_prior(pipeline: TextToImagePipeline, prior) -> TextToImagePipeline:
    return TextToImagePipeline(**pipeline.components | {"prior": prior})


def test_an_adapter_on_own_pictures_in_one_command(tiny_folder, tiny_pipeline, pictures, tmp_path):
    """dVAE and tokenizer are the pipeline's; the loss falls; base and adapter paint as the pipeline that is left."""
    fine_tune(tiny_folder, pictures, tmp_path, *LORA)
    lines = [json.loads(line) for line in (tmp_path / "prior-log.jsonl").read_text().splitlines()]
    curve = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(curve[-3:]) < np.mean(curve[:3])
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    left = TextToImagePipeline.from_pretrained(tmp_path / "pipeline")
    tuned = TextToImagePipeline.from_pretrained(tiny_folder).load_adapter(tmp_path / "adapter")
    input_ids = left.prior.join(left.encode_prompt("red")[:1], torch.arange(16)[None])
    logits = [pipeline.prior(input_ids).image_logits for pipeline in (left, tuned, tiny_pipeline)]
    torch.testing.assert_close(logits[0], logits[1], atol=0.02, rtol=0.02)  # half precision between them
    assert not torch.allclose(logits[1], logits[2], atol=0.02, rtol=0.02)
    assert left.prior.state_dict().keys() == tiny_pipeline.prior.state_dict().keys()
    frozen = left.prior.embeddings.image.weight
    torch.testing.assert_close(frozen, tiny_pipeline.prior.embeddings.image.weight, atol=1e-3, rtol=1e-3)
    text = left.prior.embeddings.text.weight
    assert (text - tiny_pipeline.prior.embeddings.text.weight).abs().max() > 1e-2, "trained whole, by `train`"


def test_an_adapter_with_checkpointed_activations_leaves_a_pipeline(tiny_folder, pictures, tmp_path):
    flags = ["--training.activation_checkpointing", "true", "--training.steps", "1"]
    fine_tune(tiny_folder, pictures, tmp_path, *LORA, *flags)
    TextToImagePipeline.from_pretrained(tmp_path / "pipeline")


def test_a_frozen_text_embedding_stays_and_the_rest_learns(tiny_folder, tiny_pipeline, pictures, tmp_path):
    before = tiny_pipeline.prior.state_dict()
    prior = fine_tune(tiny_folder, pictures, tmp_path, "--training.freeze", '["embeddings.text*"]')
    still = {name for name, value in prior.state_dict().items() if torch.equal(value, before[name])}
    assert still == {f"embeddings.{name}.weight" for name in ("text", "text_pad", "text_position")}


def test_a_dvae_goes_on_from_a_pipeline_with_its_encoder_frozen(tiny_folder, tiny_pipeline, pictures, tmp_path):
    flags = ["--training.init_from", tiny_folder, "--training.freeze", '["encoder*", "posterior*"]', *FLAGS]
    dvae = train_dvae.main(["--output_dir", str(tmp_path), "--data.path", str(pictures), *flags])
    pixel_values = torch.rand(2, 3, 16, 16)
    assert torch.equal(dvae.encode(pixel_values), tiny_pipeline.dvae.encode(pixel_values))
    before = tiny_pipeline.dvae.decoder.state_dict()
    assert all(not torch.equal(value, before[name]) for name, value in dvae.decoder.state_dict().items())


def test_merged_it_paints_the_same_and_is_saved_whole(any_pipeline, tmp_path):
    pipeline = with_prior(any_pipeline, adapted(any_pipeline.prior, train=["text"]))
    expected = paint(pipeline)
    assert not torch.equal(expected.codes, paint(any_pipeline).codes)
    with refused(ValueError, "merge_adapter()"):
        pipeline.save_pretrained(tmp_path)
    assert torch.equal(paint(pipeline.merge_adapter()).codes, expected.codes)
    pipeline.save_pretrained(tmp_path)
    assert torch.equal(paint(TextToImagePipeline.from_pretrained(tmp_path)).codes, expected.codes)


@pytest.mark.parametrize("take_out", [merge_adapter, drop_adapter])
def test_without_its_adapter_a_prior_can_be_trained_as_before(tiny_pipeline, take_out):
    prior = copy.deepcopy(tiny_pipeline.prior)
    prior.embeddings.image.requires_grad_(False)
    before = {name: weight.requires_grad for name, weight in prior.named_parameters()}
    tuned = adapted(prior, train=["text"])
    take_out(tuned)
    assert {name: weight.requires_grad for name, weight in tuned.named_parameters()} == before


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("embedded", "from_pretrained()"),
        ("anna/emoji", "from_pretrained('anna/emoji')"),
        ("a folder", "from_pretrained('path/to/mine')"),
        (None, "from_pretrained()"),
    ],
)
def test_an_adapters_card_names_its_base_as_a_reader_loads_it(base, told, tiny_pipeline, tmp_path):
    """And neither it nor the config says where on this machine anything lies."""
    (tmp_path / "mine").mkdir()
    tuned = with_prior(tiny_pipeline, adapted(tiny_pipeline.prior))
    base = str(tmp_path / "mine") if base == "a folder" else base
    tuned.prior.peft_config["default"].base_model_name_or_path = base
    tuned.save_adapter(tmp_path / "adapter")
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert told in card and "load_adapter('path/to/this/folder')" in card
    for name in ("README.md", "adapter_config.json"):
        assert str(tmp_path) not in (tmp_path / "adapter" / name).read_text()


def test_an_adapter_replaces_its_own_files_alone(tiny_pipeline, tmp_path):
    tuned = with_prior(tiny_pipeline, adapted(tiny_pipeline.prior))
    tuned.save_adapter(tmp_path / "adapter_red")
    (tmp_path / "adapter_notes.txt").write_text("mine")
    (tmp_path / "adapter_model.bin").write_text("of an older peft, which would be loaded")
    for _ in range(2):
        tuned.save_adapter(tmp_path)
    own = {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == own | {"adapter_red", "adapter_notes.txt"}
    assert {path.name for path in (tmp_path / "adapter_red").iterdir()} == own


def test_pushed_and_pulled_alone(hub, tiny_pipeline, tmp_path):
    tuned = with_prior(tiny_pipeline, adapted(tiny_pipeline.prior))
    address = tuned.push_adapter_to_hub("anna/adapter", token="hf_anna")
    repo = hub.store.repos["model", "anna/adapter"]
    assert address.endswith(repo.refs["main"])
    files = {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert set(repo.commits[repo.refs["main"]]) == files | {".gitattributes"}
    pulled = with_prior(tiny_pipeline, copy.deepcopy(tiny_pipeline.prior)).load_adapter(
        "anna/adapter", cache_dir=tmp_path
    )
    assert torch.equal(paint(pulled).codes, paint(tuned).codes)


def test_a_wrong_adapter_is_refused_and_leaves_the_prior_as_it_was(tiny_pipeline, tmp_path):
    prior = copy.deepcopy(tiny_pipeline.prior)
    with_prior(tiny_pipeline, adapted(prior, targets=["qkv"])).save_adapter(tmp_path)
    weights, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"r": 3}))
    pipeline = with_prior(tiny_pipeline, prior)
    with refused(ValueError, tmp_path, 4, 4):
        pipeline.load_adapter(tmp_path)
    plain = with_prior(tiny_pipeline, tiny_pipeline.prior)
    assert torch.equal(paint(pipeline).codes, paint(plain).codes)
    config.write_text(json.dumps(settings))
    pipeline.load_adapter(tmp_path)
    with refused(ValueError, "adapter"):
        pipeline.load_adapter(tmp_path)
    weights.write_bytes(weights.read_bytes()[:100])
    with refused(OSError, tmp_path, "save_adapter"):
        pipeline.load_adapter(tmp_path)
    weights.unlink()
    with refused(FileNotFoundError, tmp_path, "adapter_model.safetensors", "save_adapter"):
        pipeline.load_adapter(tmp_path)
    with refused(OSError, "nobody/nothing", "save_adapter"):
        pipeline.load_adapter("nobody/nothing", local_files_only=True)


def test_an_adapter_and_quantised_weights_exclude_each_other(tiny_pipeline, tmp_path):
    tuned = with_prior(tiny_pipeline, adapted(tiny_pipeline.prior))
    tuned.save_adapter(tmp_path)
    with refused(ValueError, "int8", "merge_adapter()"):
        tuned.quantize("int8")
    plain = with_prior(tiny_pipeline, copy.deepcopy(tiny_pipeline.prior))
    plain.prior.quantized = "int8"  # what `quantize` notes, without torchao
    with refused(ValueError, "int8", "merge_adapter()"):
        plain.load_adapter(tmp_path)


def test_a_readme_of_another_project_is_kept(tiny_pipeline, tmp_path):
    tuned = with_prior(tiny_pipeline, adapted(tiny_pipeline.prior))
    readme = tmp_path / "README.md"
    readme.write_text("mine")
    with refused(FileExistsError, readme):
        tuned.save_adapter(tmp_path)
    assert list(tmp_path.iterdir()) == [readme] and readme.read_text() == "mine"
    for _ in range(2):  # anew, and over itself
        tuned.save_adapter(tmp_path / "adapter")


def test_parts_are_found_by_clear_names(hub, tiny_pipeline, tiny_folder, tmp_path):
    tiny_pipeline.push_to_hub("anna/emoji", token="hf_anna")
    assert find_part("embedded", "prior") == str(EMBEDDED / "prior")
    assert find_part(tiny_folder, "dvae") == str(Path(tiny_folder) / "dvae")
    assert find_part(f"{tiny_folder}/dvae", "dvae") == f"{tiny_folder}/dvae"
    pulled = load_file(Path(find_part("anna/emoji", "prior")) / "model.safetensors")
    assert pulled.keys() == tiny_pipeline.prior.state_dict().keys()
    tiny_pipeline.prior.push_to_hub("anna/prior", token="hf_anna")
    assert find_part("anna/prior", "prior") == "anna/prior"
    training = PriorTraining(init_from=tiny_folder, tokenizer="embedded")
    assert part_of_run("dvae", training, tmp_path) == str(Path(tiny_folder) / "dvae")
    assert part_of_run("tokenizer", training, tmp_path) == str(EMBEDDED / "tokenizer")
    with refused(FileNotFoundError, "training.train_dvae", "--training.dvae"):
        part_of_run("dvae", PriorTraining(init_from=f"{tiny_folder}/prior"), tmp_path)
    with refused(FileNotFoundError, "no such folder", "embedded"):
        find_part("no such folder", "prior")


def test_a_prior_goes_on_with_another_weight_of_its_text(tiny_folder, pictures, tmp_path):
    """With none the loss is the codes' alone; the saved config says so."""
    flags = ["--training.text_loss_weight", "0", "--training.steps", "2"]
    prior = fine_tune(tiny_folder, pictures, tmp_path, *flags)
    lines = [json.loads(line) for line in (tmp_path / "prior-log.jsonl").read_text().splitlines()]
    losses = [(line["loss"], line["image_loss"], line["text_loss"]) for line in lines if "loss" in line]
    assert len(losses) == 2 and all(loss == pytest.approx(image, rel=1e-5) for loss, image, _ in losses)
    assert all(text > 0.1 for _, _, text in losses) and prior.config.text_loss_weight == 0
    assert TextToImagePipeline.from_pretrained(tmp_path / "pipeline").prior.config.text_loss_weight == 0
    with refused(ValueError, "text_loss_weight=0.5", "init_from", "--model.text_loss_weight"):
        PriorTraining(text_loss_weight=0.5)
    with refused(ValueError, "text_loss_weight=-1"):
        PriorTraining(text_loss_weight=-1, init_from="embedded")


def test_what_would_do_nothing_is_refused(tiny_dvae):
    with refused(ValueError, "freeze", "'encodr*'"):
        freeze(tiny_dvae, ["encodr*"])
    with refused(ValueError, "freeze=['*']"):
        freeze(copy.deepcopy(tiny_dvae), ["*"])
    with refused(ValueError, "lora", "--training.init_from"):
        PriorTraining(lora=LoraSettings())
    with refused(ValueError, "lora", "freeze=['layers*']"):
        PriorTraining(init_from="embedded", lora=LoraSettings(), freeze=["layers*"])


def test_a_pipelines_prior_learns_on_with_its_own_tokenizer_alone(
    tiny_folder, tiny_dvae, tiny_tokenizer, pictures, tmp_path, capsys
):
    named = {"dvae": tiny_folder, "tokenizer": tiny_folder}
    check_start(PriorTraining(init_from=tiny_folder, **named), tiny_dvae, tiny_tokenizer)
    check_start(PriorTraining(init_from=tiny_folder, **named), copy.deepcopy(tiny_dvae).half(), tiny_tokenizer)
    assert not capsys.readouterr().out
    check_start(PriorTraining(init_from=f"{tiny_folder}/prior"), tiny_dvae, tiny_tokenizer)
    assert capsys.readouterr().out.count("does not say which") == 2, "a part alone does not know"
    captions = ["some other words for the same number of tokens", "quite a few more of them than needed"]
    other = PriorTokenizer.train(captions, vocab_size=len(tiny_tokenizer), text_length=6)
    other.save_pretrained(tmp_path / "other")
    digests = map(tokenizer_digest, (tiny_tokenizer, other))
    with refused(ValueError, tiny_folder, *digests, "--training.tokenizer"):
        fine_tune(tiny_folder, pictures, tmp_path, "--training.tokenizer", str(tmp_path / "other"))
    dvae = copy.deepcopy(tiny_dvae)
    with torch.no_grad():
        next(dvae.encoder.parameters()).add_(1e-3)
    training = PriorTraining(init_from=tiny_folder, dvae="another")
    with refused(ValueError, codes_digest(tiny_dvae), codes_digest(dvae), "--training.may_differ '[dvae]'"):
        check_start(training, dvae, tiny_tokenizer)
    training.may_differ = ["dvae"]
    check_start(training, dvae, tiny_tokenizer)


@pytest.mark.parametrize(
    ("sampling", "parts"),
    [
        ({"guidance_scal": 2}, ["'guidance_scal'", "temperature", "top_k"]),
        ({"top_k": 33}, ["top_k=33", 32]),
        ({"top_p": 1.5}, ["top_p=1.5", 1]),
    ],
)
def test_wrong_sampling_is_refused_before_a_step(sampling, parts, tiny_folder, pictures, tmp_path):
    with refused(ValueError, *parts):
        fine_tune(tiny_folder, pictures, tmp_path, "--training.sampling", json.dumps(sampling))
    assert not (tmp_path / "codes").exists()


def test_sizes_are_those_of_the_parts(tiny_dvae, tiny_tokenizer):
    with refused(ValueError, "text_length=9", "text_length=6"):
        train_prior.build({"text_length": 9, "grid_size": 4}, PriorTraining(), tiny_dvae, tiny_tokenizer, None)


def test_a_dry_run_plans_what_a_run_starts_from(tiny_folder, tiny_pipeline, pictures, tmp_path):
    flags = ["--output_dir", str(tmp_path), "--data.path", str(pictures), "--training.init_from", tiny_folder]
    count = tiny_pipeline.prior.num_parameters()
    page = plan("prior", parse("prior", PriorTraining, flags), DryRun(steps=0), Path("none"))
    assert holds(page.splitlines()[0], "prior", f"{count / 1e6:.2f}")
    prior = copy.deepcopy(tiny_pipeline.prior)
    add_adapter(prior, lora_config(prior, LoraSettings(rank=4, alpha=8, train=["text"])))
    learns = sum(weight.numel() for weight in prior.parameters() if weight.requires_grad)
    lora = plan("prior", parse("prior", PriorTraining, [*flags, *LORA]), DryRun(steps=0), Path("none"))
    assert holds(lora.splitlines()[1], "lora", f"{learns / prior.num_parameters():.1%}")
    args = parse("prior", PriorTraining, [*flags, *LORA])
    memory = step_of(prior_subject(args, Path("none")), args.training, "no", DryRun(gpus=1)).memory
    assert memory.weights == 4 * prior.num_parameters()
    assert memory.gradients == memory.average == 4 * learns and memory.optimiser == 8 * learns


def test_the_card_names_what_it_was_made_of_and_no_folder_of_the_machine(tiny_folder, pictures, tmp_path):
    """The base's sources and its own, the set by its last name alone; and no licence, which is its owner's to say."""
    fine_tune(tiny_folder, pictures, tmp_path)
    pipeline = TextToImagePipeline.from_pretrained(tmp_path / "pipeline")
    assert pipeline.data == {"emoji-datasource-google 15.1.2": "Apache-2.0", pictures.name: "as its owner says"}
    assert pipeline.license is None
    assert str(pictures.parent) not in (tmp_path / "pipeline" / "README.md").read_text()
    assert sources_of(["embedded"]) == SOURCES and sources_of([str(EMBEDDED / "prior")]) == {}
