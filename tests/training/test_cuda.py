"""On a GPU: the pictures, the curves and the saved weights that a CPU gives. Skipped where there is none."""

import copy
import json

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from drawing import generate_codes
from squares import write_preset

from pipelines import TextToImagePipeline
from pipelines.drawing.keys import draw_keys
from pipelines.drawing.settings import SamplingSettings
from training import encode_dataset, train_dvae, train_prior, train_tokenizer
from training.loop.states import load_state

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
PICTURES = 64
SETTINGS = (SamplingSettings(), SamplingSettings(guidance_scale=3.0, top_k=7))


@pytest.fixture
def on_gpu(tiny_prior):
    return copy.deepcopy(tiny_prior).to("cuda")


@pytest.fixture
def text_ids(tiny_prior) -> torch.Tensor:
    config = tiny_prior.config
    generator = torch.Generator().manual_seed(0)
    return torch.randint(config.text_vocab_size, (PICTURES, config.text_length), generator=generator)


def agreement(codes: torch.Tensor, expected: torch.Tensor) -> float:
    """The share of pictures with all the same codes: a draw that hangs on the last bits of logits changes a few."""
    return (codes.cpu() == expected.cpu()).flatten(1).all(1).float().mean().item()


@torch.inference_mode()
@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "guided"])
def test_a_gpu_draws_the_codes_that_a_cpu_draws(tiny_prior, on_gpu, text_ids, settings):
    keys = draw_keys(list(range(PICTURES)), 16)
    expected = generate_codes(tiny_prior, text_ids, keys, settings)
    codes = generate_codes(on_gpu, text_ids.cuda(), keys.cuda(), settings)
    assert codes.device.type == "cuda"
    assert agreement(codes, expected) >= 0.95
    alone = [generate_codes(on_gpu, text_ids[i : i + 1].cuda(), keys[i : i + 1].cuda(), settings) for i in range(8)]
    assert agreement(torch.cat(alone), codes[:8]) >= 7 / 8, "neighbours in a batch do not matter"


@torch.inference_mode()
@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "guided"])
def test_a_step_in_one_cuda_graph_draws_the_eager_codes(on_gpu, text_ids, settings):
    keys = draw_keys(list(range(PICTURES)), 16).cuda()
    compiled = copy.deepcopy(on_gpu)
    compiled.compile_step(mode="reduce-overhead")
    for count in (PICTURES, 1, PICTURES):  # the second time from the graphs that are there
        expected = generate_codes(on_gpu, text_ids[:count].cuda(), keys[:count], settings)
        codes = generate_codes(compiled, text_ids[:count].cuda(), keys[:count], settings)
        assert agreement(codes, expected) >= 0.95


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_pipeline_on_a_gpu_paints(tiny_folder, dtype):
    pipeline = TextToImagePipeline.from_pretrained(tiny_folder, dtype=dtype).to("cuda")
    painted = pipeline(["a red apple", "two cats"], num_images_per_prompt=8, seed=0, progress_bar=False)
    assert len(painted.images) == 16 and painted.images[0].size == (16, 16)
    if dtype == torch.float32:
        expected = TextToImagePipeline.from_pretrained(tiny_folder)(
            ["a red apple", "two cats"], num_images_per_prompt=8, seed=0, progress_bar=False
        )
        assert agreement(painted.codes, expected.codes) >= 15 / 16


@pytest.fixture
def preset(pictures, tmp_path) -> str:
    AcceleratorState._reset_state(reset_partial_state=True)  # whatever the CPU's tests left
    path = write_preset(tmp_path / "preset.yaml", pictures, tmp_path / "run")
    train_tokenizer.main([path])
    train_dvae.main([path, "--training.mixed_precision", "bf16"])
    assert PartialState().device.type == "cuda"
    AcceleratorState._reset_state(reset_partial_state=True)
    return path


def curve(folder) -> list[float]:
    lines = [json.loads(line) for line in (folder / "prior-log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture
def parts(preset, tmp_path) -> list[str]:
    """What runs of the prior share, each with an output_dir of its own."""
    found = {name: tmp_path / "run" / name for name in ("dvae", "tokenizer")} | {"codes": tmp_path / "codes"}
    return [preset, *[f"--training.{name}={path}" for name, path in found.items()]]


def test_the_prior_learns_in_each_precision_compiled_or_not(parts, tmp_path):
    parts += ["--training.num_workers", "2"]
    encode_dataset.main(parts)
    curves = {}
    for name, flags in {
        "float32": [],
        "bf16": ["--training.mixed_precision", "bf16"],
        "fp16": ["--training.mixed_precision", "fp16"],
        "compiled": ["--training.compile", "true"],
        "again": ["--training.activation_checkpointing", "true"],
    }.items():
        AcceleratorState._reset_state(reset_partial_state=True)
        train_prior.main([*parts, "--output_dir", str(tmp_path / name), "--model.dropout", "0", *flags])
        curves[name] = torch.tensor(curve(tmp_path / name))
    assert curves["float32"][-5:].mean() < 0.9 * curves["float32"][:5].mean()
    for name, tolerance in {"bf16": 0.03, "fp16": 0.03, "compiled": 1e-3, "again": 1e-3}.items():
        assert (curves[name] / curves["float32"] - 1).abs().max() < tolerance, name
    [state] = (tmp_path / "fp16" / "prior-checkpoints").glob("*40/scaler.safetensors")
    assert load_state(state)["scale"] > 0


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(parts, tmp_path):
    run = [*parts, "--output_dir", str(tmp_path / "prior")]
    train_prior.main(run)
    train_prior.main([*run, "--training.resume_from", str(tmp_path / "prior" / "prior-checkpoints" / "step-0000020")])
    losses = torch.tensor(curve(tmp_path / "prior"))
    assert len(losses) == 60
    torch.testing.assert_close(losses[40:], losses[20:40], rtol=1e-3, atol=0)
