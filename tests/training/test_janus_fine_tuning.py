"""A Janus learns pictures of one's own: an adapter alone, from a public checkpoint to a folder that paints them."""

import json
from pathlib import Path

import pytest
import torch
from flags import draw_flags, fine_tune
from PIL import Image
from tiny_janus import save_transformers, tiny_janus

from pipelines import TextToImagePipeline
from training.loop.pretrained import find_part, pipeline_folder, start_config
from training.preflight.plan import DryRun, plan
from training.presets.reading import parse
from training.presets.trainers import PriorTraining


@pytest.fixture
def janus(tmp_path, monkeypatch) -> str:
    monkeypatch.setattr("training.loop.pretrained.HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("pipelines.checkpoints.janus.TEXT_LENGTH", 48)
    save_transformers(tiny_janus(), tmp_path / "janus")
    return str(tmp_path / "janus")


def test_one_command_from_a_checkpoint_to_an_adapter(hub, janus, tmp_path):
    """Pushed and pulled it loads alone, on the checkpoint itself, and paints as the pipeline that is left."""
    pictures = tmp_path / "flags"
    pictures.mkdir()
    captions = draw_flags(pictures)
    fine_tune(janus, pictures, tmp_path / "run", steps=3, caption_dropout=0.5)
    lines = [json.loads(line) for line in (tmp_path / "run" / "prior-log.jsonl").read_text().splitlines()]
    assert not any("text_loss" in name for line in lines for name in line)
    assert sum("image_loss" in line for line in lines) == 3
    tuned = TextToImagePipeline.from_pretrained(janus).load_adapter(tmp_path / "run" / "adapter")
    tuned.push_adapter_to_hub("anna/flags", token="hf_anna")
    tuned = TextToImagePipeline.from_pretrained(janus).load_adapter("anna/flags", cache_dir=tmp_path / "cache")
    left = TextToImagePipeline.from_pretrained(tmp_path / "run" / "pipeline")
    codes = torch.zeros(1, 16, dtype=torch.int64)
    logits = [one.prior(one.prior.join(one.encode_prompt(captions[0]), codes)).image_logits for one in (tuned, left)]
    torch.testing.assert_close(*logits, atol=0.2, rtol=0.05)  # half precision between them
    assert left.sampling.guidance_scale == 5 and "Janus by DeepSeek" in left.data
    assert 'from_pretrained("path/to/janus")'.replace('"', "'") in (tmp_path / "run/adapter/README.md").read_text()


def test_a_start_is_converted_once_and_planned_without_its_weights(janus, tmp_path):
    folder = pipeline_folder(janus)
    written = (folder / "prior" / "model.safetensors").stat().st_mtime_ns
    assert find_part(janus, "prior") == str(folder / "prior") and pipeline_folder(janus) == folder
    (Path(janus) / "notes.md").write_text("a note")
    assert pipeline_folder(janus) == folder, "what nobody reads changes nothing"
    assert (folder / "prior" / "model.safetensors").stat().st_mtime_ns == written
    (Path(janus) / "tokenizer").mkdir()
    (Path(janus) / "tokenizer" / "more.json").write_text("{}")
    assert pipeline_folder(janus) != folder
    (Path(janus) / "model.safetensors").unlink()
    assert start_config(janus).hidden_size == 32
    flags = ["--output_dir", str(tmp_path), "--data.path", str(tmp_path), "--training.init_from", janus]
    args = parse("prior", PriorTraining, [*flags, "--training.lora", "{rank: 4}"])
    page = plan("prior", args, DryRun(gpus=1, gib=16, steps=0), Path("none"))
    assert "fits 16 GiB" in page and "lora" in page


@pytest.mark.slow
@pytest.mark.seeds(1)
def test_it_paints_flags_that_it_saw(janus, tmp_path, seed, record_property):
    """Half of the 24 code for code, greedily; untrained it paints none."""
    pictures = tmp_path / "flags"
    pictures.mkdir()
    captions = draw_flags(pictures)
    fine_tune(janus, pictures, tmp_path / "run", steps=600, seed=seed)
    tuned = TextToImagePipeline.from_pretrained(janus).load_adapter(tmp_path / "run" / "adapter")
    images = [Image.open(pictures / f"{i}.png").convert("RGB") for i in range(24)]
    expected = tuned.encode_images(images)
    output = tuned(captions, temperature=0, guidance_scale=1, progress_bar=False, seed=0)
    right = (output.codes == expected).float().mean(dim=(1, 2))
    record_property("flags", (right == 1).sum().item())
    record_property("codes", right.mean().item())
    assert (right == 1).sum() >= 12 and right.mean() > 0.75
