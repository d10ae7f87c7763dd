"""LlamaPrior and Muon by the same trainer, named in a preset alone: one curve whatever carries the run."""

import json

import pytest
import torch
from processes import run_processes
from trained import FLAGS

from pipelines import TextToImagePipeline
from prior_transformer import LlamaPrior, load_prior
from training import train_prior
from training.loop.pretrained import LoraSettings
from training.preflight.plan import DryRun, plan
from training.presets.reading import parse
from training.presets.trainers import PriorTraining

LLAMA = ["--model.model_type", "llama_prior", "--model.num_key_value_heads", "1"]
MUON = ["--training.optimizer", "muon"]


def test_a_preset_names_them_and_the_pipeline_paints(trained):
    curve = trained.one_process("named", *LLAMA, *MUON, "--training.steps", "20")
    assert sum(curve[-5:]) < sum(curve[:5])
    pipeline = TextToImagePipeline.from_pretrained(trained.folder / "named" / "pipeline")
    assert isinstance(pipeline.prior, LlamaPrior) and pipeline.prior.config.num_key_value_heads == 1
    assert pipeline.recipe["prior"]["optimizer"] == "muon"
    assert pipeline("a red square", seed=0, progress_bar=False).images[0].size == (16, 16)


@pytest.mark.parametrize("kind", [LLAMA, MUON], ids=["llama", "muon"])
def test_a_resumed_run_equals_one_that_never_stopped(trained, kind, request):
    name = f"whole-{request.node.callspec.id}"
    flags = [*kind, "--training.checkpoint_every", "5"]
    whole = trained.one_process(name, *flags)
    weights = trained.weights(name)
    checkpoint = trained.folder / name / "prior-checkpoints" / "step-0000005"
    again = trained.one_process(f"{name}-again", *flags, "--training.resume_from", str(checkpoint))
    assert again == whole[5:]
    assert all(torch.equal(tensor, weights[key]) for key, tensor in trained.weights(f"{name}-again").items())


def test_an_adapter_with_the_settings_that_fit_both_priors(trained):
    trained.one_process("base", *LLAMA)
    base = trained.folder / "base"
    flags = ["--training.init_from", str(base / "pipeline"), "--training.lora", '{"rank": 2}', "--training.lr", "0.1"]
    train_prior.main([trained.preset, "--output_dir", str(trained.folder / "tuned"), *FLAGS[2:], *flags])
    config = json.loads((trained.folder / "tuned" / "adapter" / "adapter_config.json").read_text())
    assert all(target in config["target_modules"] for target in LoraSettings().targets)
    left = TextToImagePipeline.from_pretrained(trained.folder / "tuned" / "pipeline").prior
    tuned = TextToImagePipeline.from_pretrained(base / "pipeline").load_adapter(trained.folder / "tuned" / "adapter")
    before = load_prior(base / "prior")
    input_ids = left.join(left.null_text_ids(1), torch.arange(16)[None])
    logits = [prior(input_ids).image_logits for prior in (left, tuned.prior, before)]
    torch.testing.assert_close(logits[0], logits[1], atol=0.02, rtol=0.02)  # half precision between them
    assert (logits[0] - logits[2]).abs().max() > 0.1


def test_a_dry_run_plans_them(trained):
    args = parse("prior", PriorTraining, [trained.preset, *trained.output_dir("none"), *LLAMA, *MUON])
    page = plan("prior", args, DryRun(steps=0), trained.folder / "preset.yaml")
    assert "muon: the blocks' matrices have one moment" in page
    sharded = plan("prior", args, DryRun(steps=0, gpus=2, engine="fsdp"), trained.folder / "preset.yaml")
    assert "2 GPUs, fsdp" in sharded


@pytest.mark.slow
def test_compiled_blocks_give_the_same_curve(trained):
    flags = [*LLAMA, *MUON]
    whole = trained.one_process("eager", *flags)
    assert trained.one_process("compiled", *flags, "--training.compile", "true") == pytest.approx(whole, rel=1e-4)


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one_and_equal_weights(trained):
    flags = [*FLAGS, *LLAMA, *MUON]
    whole = trained.one_process("alone", *LLAMA, *MUON)
    digests = trained.folder / "llama-digests.json"
    run_processes("two_processes.py", "train_prior", str(digests), trained.preset, *trained.output_dir("two"), *flags)
    assert trained.curve("two") == pytest.approx(whole, rel=1e-4)
    assert len(set(json.loads(digests.read_text()))) == 1


@pytest.mark.slow
def test_a_sharded_run_gives_the_same_curve_stopped_and_resumed(trained):
    """Muon makes the matrices whole for its products, so FSDP2's shards take the steps of one process."""
    whole = trained.one_process("unsharded", *LLAMA, *MUON)
    arguments = [trained.preset, *trained.output_dir("sharded"), *FLAGS, *LLAMA, *MUON]
    run_processes("sharded_prior.py", "3", *arguments)
    run_processes("sharded_prior.py", "0", *arguments, "--training.resume_from", "latest")
    assert trained.curve("sharded") == pytest.approx(whole, rel=1e-4)
