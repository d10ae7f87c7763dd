"""A LlamaGen learns pictures of one's own: its text encoder stays as it is, and comes along."""

import shutil
from pathlib import Path

import pytest
import torch
from flags import draw_flags, fine_tune
from messages import refused
from tiny_llamagen import save_llamagen, tiny_t5

from pipelines import TextToImagePipeline
from pipelines.folder.adapters import add_adapter
from training import finish
from training.loop.averaging import Average
from training.loop.pretrained import (
    LoraSettings,
    brought_in,
    find_part,
    lora_config,
    pipeline_folder,
    start_config,
)
from training.preflight.plan import DryRun, plan
from training.presets.reading import parse
from training.presets.trainers import PriorTraining


@pytest.fixture
def llamagen(tmp_path, monkeypatch) -> str:
    monkeypatch.setattr("training.loop.pretrained.HF_HOME", str(tmp_path / "home"))
    save_llamagen(tmp_path / "llamagen")
    return str(tmp_path / "llamagen")


def test_one_command_from_a_checkpoint_to_an_adapter_and_a_pipeline(llamagen, tmp_path):
    pictures, run = tmp_path / "flags", tmp_path / "run"
    pictures.mkdir()
    captions = draw_flags(pictures)
    fine_tune(llamagen, pictures, run, steps=2, caption_dropout=0.5)
    tuned = TextToImagePipeline.from_pretrained(llamagen).load_adapter(run / "adapter")
    left = TextToImagePipeline.from_pretrained(run / "pipeline")
    codes = torch.zeros(1, 16, dtype=torch.int64)
    ids = tuned.encode_prompt(captions[0])
    assert torch.equal(ids, left.encode_prompt(captions[0]))
    logits = [one.prior(one.prior.join(ids, codes)).image_logits for one in (tuned, left)]
    torch.testing.assert_close(*logits, atol=0.02, rtol=0)  # half precision between them
    kept, encoder = left.text_encoder.encoder.state_dict(), tiny_t5().encoder.state_dict()
    assert all(torch.equal(kept[name], weight.half().float()) for name, weight in encoder.items())
    assert left.data.keys() >= {"LlamaGen by Peize Sun et al.", "flan-t5 by Google, its text encoder"}
    shutil.rmtree(run / "pipeline")
    flags = ["--output_dir", str(run), "--data.path", str(pictures), "--training.init_from", llamagen]
    finish.main(flags)
    again = TextToImagePipeline.from_pretrained(run / "pipeline")
    assert torch.equal(again.prior(again.prior.join(ids, codes)).image_logits, logits[1])
    tiny_t5(seed=1).save_pretrained(Path(llamagen) / "t5")
    with refused(ValueError, "text_encoder", str(run / "prior")):
        finish.main(flags)
    with refused(ValueError, "text_encoder", "step-0000002"):
        fine_tune(llamagen, pictures, run, steps=3, caption_dropout=0.5, resume_from="latest")
    with refused(ValueError, "any_base=True"):
        TextToImagePipeline.from_pretrained(llamagen).load_adapter(run / "adapter")
    with refused(ValueError, "bpe_dropout=0.1", 0):
        fine_tune(llamagen, pictures, tmp_path / "other", 2, bpe_dropout=0.1)
    with refused(ValueError, "feature_size=24", str(run / "prior")):
        fine_tune(str(run / "prior"), pictures, tmp_path / "other", 2, dvae=llamagen, tokenizer=llamagen)


def test_what_learns_beside_the_adapter_is_there(llamagen):
    prior = TextToImagePipeline.from_pretrained(llamagen).prior
    with refused(ValueError, "'text'", "embeddings.text_projection"):
        lora_config(prior, LoraSettings(train=["text"]))
    add_adapter(prior, lora_config(prior, LoraSettings(train=["text_projection"])))
    assert any("text_projection" in name for name, weight in prior.named_parameters() if weight.requires_grad)


def test_an_average_reads_through_the_same_encoder(llamagen):
    """It is large and never changes: no evaluation has it twice."""
    prior = TextToImagePipeline.from_pretrained(llamagen, dtype=torch.float32).prior
    average = Average(prior, 0.9).module()
    assert average.text_encoder is prior.text_encoder and average is not prior
    ids = prior.join(torch.ones(1, prior.config.text_length, dtype=torch.int64), torch.zeros(1, 16, dtype=torch.int64))
    assert torch.equal(average(ids).image_logits, prior(ids).image_logits)


def test_its_plan_says_that_the_encoder_comes_on_top(llamagen, tmp_path):
    assert start_config(llamagen).feature_size == 24
    flags = ["--output_dir", str(tmp_path), "--data.path", str(tmp_path), "--training.init_from", llamagen]
    args = parse("prior", PriorTraining, [*flags, "--training.lora", "{rank: 4}"])
    page = plan("prior", args, DryRun(gpus=1, gib=16, steps=1), Path("none"))
    assert "fits 16 GiB" in page and "text encoder" in page and "measured here" in page
    with refused(ValueError, "engine", "ddp"):
        plan("prior", parse("prior", PriorTraining, flags), DryRun(engine="fsdp"), Path("none"))


def test_its_vqgan_is_read_where_it_lies(llamagen, tmp_path, monkeypatch):
    """As a first stage for another prior: without its own, and no text encoder is asked for."""
    shutil.rmtree(Path(llamagen) / "t5")
    monkeypatch.setattr("training.loop.pretrained.TextToImagePipeline", None)
    assert find_part(llamagen, "dvae") == llamagen and brought_in(llamagen) == {"LlamaGen by Peize Sun et al.": "MIT"}
    for path in Path(llamagen).glob("t2i_*"):
        path.unlink()
    assert find_part(llamagen, "dvae") == llamagen and brought_in(llamagen) == {"LlamaGen by Peize Sun et al.": "MIT"}


def test_another_t5_makes_another_conversion(llamagen):
    folder = pipeline_folder(llamagen)
    assert pipeline_folder(llamagen) == folder and (folder / "text_encoder").is_dir()
    (Path(llamagen) / "run").mkdir()
    (Path(llamagen) / "run" / "metrics.json").write_text("{}")
    assert pipeline_folder(llamagen) == folder, "a run's own numbers are no part of it"
    tiny_t5(seed=1).save_pretrained(Path(llamagen) / "t5")
    assert pipeline_folder(llamagen) != folder
