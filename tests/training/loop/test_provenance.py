"""What did not learn together is not put together: every part says what it learned from, whatever joins them asks."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from messages import refused
from PIL import Image
from squares import COLOURS, write_preset

from dvae import DVAE
from pipelines import TextToImagePipeline
from pipelines.folder.fingerprints import weights_digest, weights_digests
from training import finish, train_dvae, train_prior, train_tokenizer
from training.loop.fingerprints import codes_digest
from training.loop.provenance import agree, check_facts, read_provenance
from training.pictures.data_arguments import DataArguments
from training.pictures.splits import data_fact, load_split

SHORT = ["--training.steps", "4", "--training.checkpoint_every", "2"]
RESUME = ["--training.resume_from", "latest"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pictures) -> Path:
    """A run of the three trainers, as short as can be."""
    folder = tmp_path_factory.mktemp("trained")
    preset = write_preset(folder / "preset.yaml", pictures, folder / "run")
    train_tokenizer.main([preset])
    train_dvae.main([preset, *SHORT])
    train_prior.main([preset, *SHORT])
    return folder


@pytest.fixture
def run(trained, tmp_path) -> tuple[Path, list[str]]:
    """A copy of it, and the arguments that go on with it."""
    copied = Path(shutil.copytree(trained / "run", tmp_path / "copied"))
    return copied, [str(trained / "preset.yaml"), "--output_dir", str(copied)]


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> str:
    """Pictures of another set: as many, of the same names and captions."""
    folder = tmp_path_factory.mktemp("others")
    with (folder / "metadata.jsonl").open("w") as metadata:
        for i in range(40):
            colour = list(COLOURS)[i % 3]
            Image.new("RGB", (24, 20), (i, 5 * i, 255 - i)).save(folder / f"{i}.png")
            metadata.write(json.dumps({"file_name": f"{i}.png", "text": f"a {colour} square"}) + "\n")
    return str(folder)


def sketch(path) -> str:
    """Of a set's files."""
    return load_split(DataArguments(path=str(path)), "train").sketch()


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_part_says_what_it_learned_from(run, pictures):
    folder, _ = run
    data = DataArguments(path=str(pictures))
    fact = data_fact(load_split(data, "train"), data)
    told = {name: read_provenance(folder / name) for name in ("tokenizer", "dvae", "prior")}
    assert [told[name]["data"] for name in told] == [fact] * 3
    assert told["prior"].keys() == {"data", "dvae", "tokenizer"}
    progress = json.loads((folder / "prior-checkpoints" / "step-0000004" / "progress.json").read_text())
    assert {name: progress[name] for name in told["prior"]} == told["prior"]


@pytest.mark.parametrize("trainer", [train_dvae, train_prior])
def test_a_run_does_not_go_on_with_another_set(run, pictures, others, trainer):
    folder, preset = run
    before = state_of(folder / "dvae")
    flags = [*preset, *SHORT, *RESUME, "--data.path", others]
    with refused(ValueError, sketch(pictures), sketch(others), "--data.path"):
        trainer.main(flags)
    assert state_of(folder / "dvae") == before, "its numbers are those of its own pictures"


def test_a_dvae_of_another_set_is_named_by_a_flag_or_not_taken(run, pictures, others, tmp_path, capsys):
    folder, preset = run
    shutil.rmtree(folder / "prior-checkpoints")
    flags = [*preset, *SHORT, "--data.path", others, "--training.codes", str(tmp_path / "codes")]
    with refused(ValueError, sketch(pictures), sketch(others), "--training.dvae", "--training.may_differ '[data]'"):
        train_prior.main(flags)
    with refused(ValueError, folder / "tokenizer", sketch(pictures), sketch(others)):
        train_prior.main([*flags, "--training.dvae", str(folder / "dvae")])
    train_prior.main([*flags, *(f"--training.{part}={folder / part}" for part in ("dvae", "tokenizer"))])
    train_prior.main([*flags, "--training.may_differ", "[data]"])
    assert capsys.readouterr().out.count("it may differ") == 2


def test_a_prior_does_not_go_on_with_a_dvae_that_was_trained_anew(run, tmp_path):
    folder, preset = run
    before = codes_digest(DVAE.from_pretrained(folder / "dvae"))
    train_dvae.main([*preset, *SHORT, "--training.seed", "7"])
    both = before, codes_digest(DVAE.from_pretrained(folder / "dvae"))
    flags = [*preset, "--training.codes", str(tmp_path / "codes"), "--training.steps", "5", *RESUME]
    with refused(ValueError, "step-0000004", *both, "--training.dvae"):
        train_prior.main(flags)
    with refused(ValueError, folder / "prior", *both):
        finish.main(preset)


def test_finish_takes_a_dvae_whose_decoder_alone_learned_on_and_one_of_half_precision(run):
    folder, preset = run
    decoder = ["--training.decoder_steps", "100%", "--training.autoencoder_steps", "0"]
    train_dvae.main([*preset, *SHORT, *decoder, "--training.init_from", str(folder / "dvae")])
    finish.main(preset)
    halves = folder.parent / "half"
    TextToImagePipeline.from_pretrained(folder / "pipeline").to(torch.float16).dvae.save_pretrained(halves)
    finish.main([*preset, "--training.dvae", str(halves)])


def test_weights_that_would_compute_something_else_do_not_go_on(run):
    """Of the same shapes: other heads; and what learned before the paper's convolutional mask went round rows."""
    folder, preset = run
    with refused(ValueError, "num_attention_heads 2", "num_attention_heads 1"):
        train_prior.main([*preset, "--training.steps", "5", *RESUME, "--model.num_attention_heads", "1"])
    progress = folder / "prior-checkpoints" / "step-0000004" / "progress.json"
    told = json.loads(progress.read_text())
    progress.write_text(json.dumps({name: told[name] for name in told if name != "model"}))
    dalle = [*preset, "--training.steps", "5", *RESUME, "--model.attention_pattern", "dalle"]
    with refused(ValueError, "conv_edges clipped", "conv_edges wrapped"):
        train_prior.main(dalle)
    train_prior.main([*dalle, "--model.conv_edges", "clipped"])


def test_parts_of_before_are_taken_and_that_is_said(run, capsys):
    folder, preset = run
    for path in [*folder.glob("*/provenance.json")]:
        path.unlink()
    progress = folder / "prior-checkpoints" / "step-0000004" / "progress.json"
    told = json.loads(progress.read_text())
    progress.write_text(json.dumps({name: told[name] for name in told if name not in ("data", "dvae")}))
    train_prior.main([*preset, "--training.steps", "5", *RESUME])
    assert capsys.readouterr().out.count("does not say which") == 4  # of two parts, and of the checkpoint


def test_a_set_is_the_same_wherever_and_whenever_it_was_copied(pictures, tmp_path):
    copied = shutil.copytree(pictures, tmp_path / "copied", copy_function=shutil.copy)
    facts = []
    for path in (pictures, copied):
        data = DataArguments(path=str(path))
        facts.append(data_fact(load_split(data, "train"), data))
    assert facts[0] == facts[1]
    Image.new("RGB", (24, 20), "pink").save(copied / "0.png")
    assert not agree(facts[0], data_fact(load_split(data, "train"), data))


def test_weights_agree_in_every_precision_that_they_come_in():
    torch.manual_seed(0)
    weights = {"a": torch.randn(500), "b": 1e-5 * torch.randn(500)}
    stored = weights_digests(weights)
    for on_disk in (torch.float32, torch.float16, torch.bfloat16):
        for loaded in (torch.float32, torch.float16, torch.bfloat16):
            if (on_disk, loaded) != (torch.bfloat16, torch.float16):  # whose small values are not those of either
                again = {name: weight.to(on_disk).to(loaded) for name, weight in weights.items()}
                assert weights_digest(again) in stored, (on_disk, loaded)
    other = {**weights, "a": weights["a"] + 1e-2}
    assert not agree(stored, weights_digests(other))
    assert weights_digest(weights, {"gain": 1}) != weights_digest(weights)


def test_facts_that_one_side_does_not_know_are_no_difference():
    check_facts("x", {"data": {"files": "a", "rows": 3}}, {"data": {"files": "a", "crop": "center"}}, [], "stop")
    with refused(ValueError, "rows 3", "rows 4", "stop"):
        check_facts("x", {"data": {"files": "a", "rows": 3}}, {"data": {"files": "a", "rows": 4}}, [], "stop")
    with refused(ValueError, 12, 34):
        check_facts("x", {"base": ["12", "56"]}, {"base": ["34"]}, [], "stop")


def test_an_adapter_is_of_its_base_alone(trained, tmp_path):
    base = trained / "run" / "pipeline"
    lora = ["--training.init_from", str(base), "--training.lora", "{rank: 2}", "--output_dir", str(tmp_path / "tuned")]
    train_prior.main([str(trained / "preset.yaml"), *SHORT, *lora])
    adapter = tmp_path / "tuned" / "adapter"
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        TextToImagePipeline.from_pretrained(base, dtype=dtype).load_adapter(adapter)
    pipeline = TextToImagePipeline.from_pretrained(base)
    trained_on = weights_digest(pipeline.prior.state_dict())
    with torch.no_grad():
        pipeline.prior.layers[0].mlp.hidden.weight.add_(1e-3)
    here = weights_digest(pipeline.prior.state_dict())
    with refused(ValueError, trained_on, here, "any_base=True"):
        pipeline.load_adapter(adapter)
    pipeline.load_adapter(adapter, any_base=True).merge_adapter()
    pipeline.save_pretrained(tmp_path / "other")
    lora[1] = str(tmp_path / "other")
    with refused(ValueError, "base", trained_on):
        train_prior.main([str(trained / "preset.yaml"), *SHORT, *lora, *RESUME])
