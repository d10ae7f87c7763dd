"""Presets and flags: each trainer reads its own of every preset, and a key that none knows is named."""

from pathlib import Path

import pytest
import yaml
from messages import holds, refused
from processes import ROOT

from training.adversaries.adversary_settings import PixelSettings
from training.presets.reading import parse
from training.presets.trainers import DVAETraining, PriorTraining, RerankerTraining, TokenizerTraining

CONFIGS = ["emoji_cpu.yaml", "emoji_gpu.yaml", "dalle_256.yaml"]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_preset_is_read_by_every_trainer(config):
    path = f"{ROOT}/training/configs/{config}"
    dvae = parse("dvae", DVAETraining, [path, "--training.lr", "0.5", "--model.codebook_size", "99"])
    assert dvae.training.lr == 0.5 and dvae.model["codebook_size"] == 99
    assert dvae.model["image_size"] == yaml.safe_load(Path(path).read_text())["dvae"]["model"]["image_size"]
    assert parse("prior", PriorTraining, [path]).training.steps > 0
    assert parse("tokenizer", TokenizerTraining, [path]).training.vocab_size > 256


def test_an_older_presets_key_is_read(tmp_path):
    path = tmp_path / "preset.yaml"
    path.write_text("output_dir: run\ndvae: {training: {steps: 7, pixel_adversary: {r1: 2.0, width: 8}}}\n")
    training = parse("dvae", DVAETraining, [str(path)]).training
    assert (training.steps, training.pixel_adversary) == (7, PixelSettings(r1_gamma=2.0, width=8))


@pytest.mark.parametrize(
    ("argv", "key"),
    [
        ([f"{ROOT}/training/configs/emoji_cpu.yaml", "--training.lrr", "1"], "training.lrr"),
        ([f"{ROOT}/training/configs/emoji_cpu.yaml", "--training.lr", "fast"], "training.lr"),
        ([f"{ROOT}/training/configs/nothing.yaml"], f"{ROOT}/training/configs/nothing.yaml"),
        (
            [f"{ROOT}/training/configs/emoji_cpu.yaml", "--training.pixel_adversary", "{strat: 3}"],
            "pixel_adversary.start",
        ),
    ],
)
def test_a_typo_is_an_error_that_names_the_key(argv, key, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("dvae", DVAETraining, argv)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and holds(said, key) and said.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--training.step", "--training.steps"),
        ("--data.text", "--data.text_column"),
        ("--output", "--output_dir"),
        ("--steps", "--training.steps"),
        ("--training.temperature_stesp", "--training.temperature_steps"),
    ],
)
def test_a_part_of_a_flag_is_none_and_the_nearest_is_named(flag, meant, capsys):
    for argv in ([flag, "10"], [f"{flag}=10"]):
        with pytest.raises(SystemExit) as stopped:
            parse("dvae", DVAETraining, [f"{ROOT}/training/configs/emoji_cpu.yaml", *argv])
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and holds(said, flag, meant) and said.count("\n") == 1


@pytest.mark.parametrize(
    ("section", "training_type", "flags", "parts"),
    [
        ("dvae", DVAETraining, ["--model.image_sise", "64"], ["image_sise", "image_size"]),
        ("dvae", DVAETraining, ["--model.image_size", "30"], ["image_size=30", "downsample_factor=8"]),
        ("prior", PriorTraining, ["--model.num_attention_heads", "7"], ["num_attention_heads=7", 320]),
        ("prior", PriorTraining, ["--model.model_type", "gpt"], ["model_type='gpt'", "llama_prior"]),
        ("prior", PriorTraining, ["--training.sampling", "{temprature: 1}"], ["temprature", "temperature"]),
        ("reranker", RerankerTraining, ["--model.widht", "64"], ["widht", "width"]),
        ("reranker", RerankerTraining, ["--model.width", "9"], ["width=9", 8]),
    ],
)
@pytest.mark.parametrize("then", [[], ["--print_config"]], ids=["train", "print"])
def test_a_model_that_cannot_be_is_refused_before_anything_is_read(section, training_type, flags, parts, then):
    with refused(ValueError, *parts):
        parse(section, training_type, [f"{ROOT}/training/configs/emoji_cpu.yaml", *flags, *then])


def test_a_model_of_another_section_is_checked_before_this_one_trains(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("output_dir: x\nprior: {model: {hiden_size: 64}}\n")
    with pytest.raises(SystemExit):
        parse("tokenizer", TokenizerTraining, [str(path)])
    assert holds(capsys.readouterr().err, path, "hiden_size", "hidden_size")
    path.write_text("output_dir: x\nprior: {model: {hiden_size: 64}, training: {init_from: embedded}}\n")
    assert parse("tokenizer", TokenizerTraining, [str(path)]).output_dir == "x", "it is not read"


def test_a_config_holds_what_the_help_says(tmp_path, capsys):
    (tmp_path / "own.yaml").write_text("output_dir: x\ntraining: {lr: 0.5}\nmodel: {codebook_size: 9}\n")
    args = parse("dvae", DVAETraining, ["--config", str(tmp_path / "own.yaml")])
    assert (args.output_dir, args.training.lr, args.model) == ("x", 0.5, {"codebook_size": 9})
    with pytest.raises(SystemExit):
        parse("dvae", DVAETraining, ["--help"])
    assert holds(capsys.readouterr().out, "--config", "--output_dir", "--training.lr", "--model")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("dvea: {}", "dvea"),
        ("dvae: {training: {lern_rate: 1}}", "lern_rate"),
        ("dvae: {trainin: {lr: 1}}", "training.lr"),
        ("dvae: 3", "dvae=3"),
        ("dvae: {training: [", "YAML"),
    ],
)
def test_a_wrong_key_in_a_preset_is_named(text, key, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(f"output_dir: x\n{text}\n")
    with pytest.raises(SystemExit):
        parse("dvae", DVAETraining, [str(path)])
    said = capsys.readouterr().err
    assert holds(said, key) and said.count("\n") == 1


@pytest.mark.parametrize("by", ["preset", "flag", "file", "key", "one", "escaped"])
def test_no_setting_names_a_class_to_be_made(by, tmp_path, monkeypatch):
    """Or a module to be imported, which runs it."""
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\nclass Evil: ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec, path = {"a": {"class_path": "evil.Evil"}}, tmp_path / "preset.yaml"
    path.write_text(yaml.safe_dump({"output_dir": "x", "dvae": {"model": spec} if by == "preset" else {}}))
    (tmp_path / "escaped.yaml").write_text('model: {a: {"class\\u005fpath": evil.Evil}}')
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"model": spec}))
    flags = {
        "flag": ["--model", str(spec)],
        "file": ["--config", "other.yaml"],
        "key": ["--model.a.class_path=evil.Evil"],
        "escaped": ["--config", "escaped.yaml"],
        "one": ["--config=other.yaml"],
    }
    with pytest.raises((SystemExit, ValueError)):
        parse("dvae", DVAETraining, [str(path), *flags.get(by, [])])
    assert not (tmp_path / "ran").exists()


def test_a_preset_writes_out_what_it_repeats(tmp_path, capsys):
    """Ten aliases of ten of ten … are gigabytes in an error."""
    path, lines = tmp_path / "preset.yaml", ["output_dir: x", "data:", "- &a0 [x, x]"]
    lines += [f"- &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path.write_text("\n".join(lines))
    with pytest.raises(SystemExit):
        parse("dvae", DVAETraining, [str(path)])
    assert holds(capsys.readouterr().err, path, "alias")
