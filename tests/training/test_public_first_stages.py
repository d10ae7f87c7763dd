"""A prior under a first stage that is not trained here: its public files are all that a run is given."""

import json

import pytest
import torch
from accelerate import Accelerator
from messages import holds, refused
from public_layouts import SIDE, as_deepseek, janus_vqvae, openai_pair
from safetensors.torch import load_file, save_file
from squares import draw_squares, write_preset
from tiny_janus import save_deepseek, save_transformers, tiny_janus
from tiny_llamagen import save_llamagen
from tiny_mindalle import GPT, save_mindalle
from tiny_rudalle import RuDALLE, save_rudalle

from dvae import DVAE, VQGAN
from pipelines import TextToImagePipeline
from pipelines.checkpoints.first_stages import find_first_stage
from training import compare_dvaes, finish, train_dvae, train_prior, train_tokenizer
from training.evaluate import evaluate_pipeline
from training.loop.pretrained import brought_in, find_part, picture_size
from training.pictures.data_arguments import DataArguments
from training.preflight.plan import DryRun, plan
from training.presets.reading import parse
from training.presets.trainers import DVAETraining, PriorTraining


@pytest.fixture(scope="module")
def vqgan(tmp_path_factory):
    """DeepSeek's layout; its settings say the pictures' side as transformers' do."""
    folder = tmp_path_factory.mktemp("janus")
    weights = {f"gen_vision_model.{name}": weight for name, weight in as_deepseek(janus_vqvae().state_dict()).items()}
    torch.save(weights, folder / "pytorch_model.bin")
    config = {"model_type": "multi_modality", "vq_config": {"num_patches": SIDE // 4, "channel_multiplier": [1, 1, 2]}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def openai(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openai")
    for name, half in zip(("encoder", "decoder"), openai_pair(), strict=True):
        torch.save(half, folder / f"{name}.pkl")
    return folder


@pytest.fixture(scope="module")
def trained(vqgan, tmp_path_factory):
    """A prior of 4 steps over the VQGAN: its preset, the run's folder, and the flags."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "pictures").mkdir()
    preset = write_preset(folder / "preset.yaml", draw_squares(folder / "pictures"), folder / "run")
    train_tokenizer.main([preset])
    flags = [preset, "--training.dvae", str(vqgan), "--training.steps", "4"]
    train_prior.main(flags)
    return preset, folder / "run", flags


def test_a_prior_learns_on_the_codes_of_a_public_vqgan(trained, vqgan):
    _, run, _ = trained
    pipeline = TextToImagePipeline.from_pretrained(run / "pipeline")
    assert isinstance(pipeline.dvae, VQGAN) and pipeline.prior.config.codebook_size == 24
    pictures = torch.rand(2, 3, SIDE, SIDE)
    given = find_first_stage(vqgan)
    assert (pipeline.dvae.encode(pictures) == given.encode(pictures)).float().mean() > 0.8  # saved in half precision
    assert pipeline.data[vqgan.name] == "as its owner says" and pipeline.license is None
    assert not (run / "dvae").exists()


def test_it_is_put_together_again_and_evaluated_by_what_it_has(trained):
    preset, run, flags = trained
    before = (run / "pipeline" / "model_index.json").read_text()
    finish.main(flags)
    assert json.loads((run / "pipeline" / "model_index.json").read_text()) == json.loads(before)
    pipeline = TextToImagePipeline.from_pretrained(run / "pipeline")
    data = DataArguments(path=parse("prior", PriorTraining, [preset]).data.path)
    numbers = evaluate_pipeline(pipeline, data, 0, 4, torch.device("cpu"))
    assert {"psnr", "perplexity", "codes_used", "validation_image_loss"} <= numbers.keys()
    assert not {"elbo", "bits_per_dim"} & numbers.keys()
    assert not any(name.startswith("surgery") for name in numbers)


def test_its_plan_is_made_without_its_weights(trained, vqgan, tmp_path):
    _, _, flags = trained
    args = parse("prior", PriorTraining, [*flags, "--output_dir", str(tmp_path)])
    assert holds(plan("prior", args, DryRun(gpus=1, steps=0), tmp_path / "none.yaml"), "prior", "fits")
    assert picture_size(find_part(str(vqgan), "dvae")) == SIDE


def test_a_vqgan_is_not_trained_here_and_openais_dvae_is(trained, vqgan, openai):
    preset, _, _ = trained
    with refused(ValueError, str(vqgan), "armchair_vqgan", "--training.dvae"):
        train_dvae.main([preset, "--training.init_from", str(vqgan), "--training.autoencoder_steps", "0"])
    flags = [preset, "--training.init_from", str(openai), "--training.autoencoder_steps", "0"]
    training = parse("dvae", DVAETraining, flags).training
    dvae = train_dvae.build(None, training, Accelerator(cpu=True))
    assert isinstance(dvae, DVAE) and dvae.config.input_map == "shrunk"


def test_first_stages_are_compared_side_by_side(vqgan, trained, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(compare_dvaes, "load_extractor", lambda name: None)
    monkeypatch.setattr(compare_dvaes, "frechet_distance", lambda features, real, fake: 0.5)
    preset, _, _ = trained
    path = parse("prior", PriorTraining, [preset]).data.path
    compare_dvaes.main(
        ["--models", f"[{vqgan}]", "--scorer", "none", "--data.path", path, "--out", str(tmp_path / "out.png")]
    )
    assert holds(capsys.readouterr().out, str(vqgan), 0.5) and (tmp_path / "out.png").exists()


def save_rudalle_without_prior(folder):
    save_rudalle(RuDALLE(), folder)
    torch.save({}, folder / "pytorch_model_v3.bin")


def save_llamagen_without_prior(folder):
    save_llamagen(folder)
    (folder / f"t2i_XL_stage1_{SIDE}.pt").write_bytes(b"not read")


def save_mindalle_without_prior(folder):
    save_mindalle(GPT(), folder)
    (folder / "stage2_last.ckpt").unlink()


def save_janus_without_prior(folder):
    save_transformers(tiny_janus(), folder)
    keep(folder, lambda name: name.startswith("model.vqmodel."))


def save_deepseek_without_prior(folder):
    save_deepseek(tiny_janus(levels=5), folder)
    path = folder / "pytorch_model.bin"
    torch.save({name: weight for name, weight in torch.load(path).items() if name.startswith("gen_vision")}, path)


def keep(folder, wanted):
    path = folder / "model.safetensors"
    save_file({name: weight for name, weight in load_file(path).items() if wanted(name)}, path)


WHOLE = {
    "Janus by DeepSeek": (save_janus_without_prior, 16, "DeepSeek"),
    "Janus by DeepSeek, its layout": (save_deepseek_without_prior, 64, "DeepSeek"),
    "LlamaGen by Peize Sun et al.": (save_llamagen_without_prior, SIDE, "MIT"),
    "minDALL-E by Kakao Brain": (save_mindalle_without_prior, SIDE, "CC-BY-NC-SA"),
    "ruDALL-E Malevich by Sber AI": (save_rudalle_without_prior, 256, "Apache"),
}


@pytest.mark.parametrize("title", WHOLE)
def test_of_a_whole_checkpoint_the_first_stage_alone_is_read(title, trained, tmp_path, monkeypatch):
    """Its prior need not be there; nothing is converted; the card says what it is of."""
    monkeypatch.setattr("training.loop.pretrained.HF_HOME", str(tmp_path / "home"))
    save, side, licence = WHOLE[title]
    save(tmp_path / "whole")
    name = str(tmp_path / "whole")
    with refused(OSError, name):
        TextToImagePipeline.from_pretrained(name)
    dvae = find_first_stage(find_part(name, "dvae"))
    assert isinstance(dvae, VQGAN) and dvae.config.image_size == side
    (source,) = brought_in(name).items()
    assert source[0] == title.partition(",")[0] and licence in source[1]
    args = parse("prior", PriorTraining, [trained[0], "--training.dvae", name, "--output_dir", str(tmp_path / "run")])
    assert holds(plan("prior", args, DryRun(gpus=1, steps=0), tmp_path / "none.yaml"), "prior", "fits")
    assert not (tmp_path / "home").exists()
