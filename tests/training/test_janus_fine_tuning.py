"""A Janus learns pictures of one's own: an adapter alone, from a public checkpoint to a folder that paints them."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_janus import save_transformers, tiny_janus

from pipelines import TextToImagePipeline
from training import train_prior
from training.loop.pretrained import find_part, pipeline_folder, start_config
from training.preflight.plan import DryRun, plan
from training.presets.reading import parse
from training.presets.trainers import PriorTraining

COLOURS = {"red": (200, 20, 30), "white": (250, 250, 250), "blue": (20, 40, 160), "green": (10, 130, 60)}


def draw_flags(folder: Path) -> list[str]:
    """24 flags of three stripes, and a caption each: every order of three of four colours. Returns the captions."""
    captions = []
    with (folder / "metadata.jsonl").open("w") as metadata:
        for a in COLOURS:
            for b in COLOURS:
                for c in COLOURS:
                    if len({a, b, c}) == 3:
                        flag = Image.new("RGB", (16, 16))
                        for i, name in enumerate((a, b, c)):
                            flag.paste(COLOURS[name], (0, (0, 5, 11)[i], 16, (5, 11, 16)[i]))
                        flag.save(folder / f"{len(captions)}.png")
                        captions.append(f"a flag of {a}, {b} and {c}")
                        metadata.write(
                            json.dumps({"file_name": f"{len(captions) - 1}.png", "text": captions[-1]}) + "\n"
                        )
    return captions


@pytest.fixture
def janus(tmp_path, monkeypatch) -> str:
    monkeypatch.setattr("training.loop.pretrained.HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("pipelines.checkpoints.janus.TEXT_LENGTH", 48)
    save_transformers(tiny_janus(), tmp_path / "janus")
    return str(tmp_path / "janus")


def fine_tune(janus: str, pictures: Path, run: Path, steps: int, **flags):
    settings = {"init_from": janus, "lora": {"rank": 16}, "steps": steps, "batch_size": 24, "num_workers": 0}
    settings |= {
        "evaluate_every": steps,
        "checkpoint_every": steps,
        "log_every": 1,
        "ema": 0.9,
        "lr": 1e-2,
        "lr_end": 1e-3,
    }
    settings |= {"weight_decay": 0, "bpe_dropout": 0, "sampling": {"guidance_scale": 5}, **flags}
    argv = [part for name, value in settings.items() for part in (f"--training.{name}", json.dumps(value).strip('"'))]
    own = ["--output_dir", str(run), "--data.path", str(pictures), "--data.validation_split", "train"]
    return train_prior.main([*own, *argv])


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
