"""What a dry run says, against the definition of each part, and against what a process takes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import broken_sets
import pytest
import torch
from messages import holds, refused
from processes import ROOT
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dvae import PatchDiscriminator, PatchDiscriminatorConfig
from training.preflight.memory import LiveBytes, Memory, Step, sharded_step, whole_step
from training.preflight.plan import (
    DryRun,
    advice,
    dvae_subject,
    plan,
    plan_or_train,
    prior_sizes,
    prior_subject,
    step_of,
)
from training.presets.reading import parse
from training.presets.trainers import DVAETraining, PriorTraining
from training.sets import KINDS

GIB = 2**30


class Block(nn.Linear):
    """What the sharding gathers one at a time."""


def two_blocks() -> nn.Module:
    return nn.Sequential(nn.Linear(100, 100, bias=False), Block(100, 100, bias=False), Block(100, 100, bias=False))


def loss_of(model: nn.Module) -> torch.Tensor:
    return model(torch.rand(50, 100)).square().sum()


def test_live_bytes_rise_and_fall_with_the_storages():
    with FakeTensorMode(), LiveBytes() as live:
        kept = torch.zeros(1000)
        view = kept.view(10, 100)[2:]
        assert live.live == 4000, "a view is no storage"
        torch.zeros(5000)
        assert live.live == 4000 and live.peak == 24000
        del kept
        assert live.live == 4000, "the view holds it"
        del view
        assert live.live == 0


def test_parts_are_what_they_are_by_definition():
    step = whole_step(two_blocks, loss_of, "no", micro_batches=1)
    weights = 4 * 30_000
    memory = step.memory
    assert (memory.weights, memory.gradients, memory.optimiser, memory.average) == (
        weights,
        weights,
        2 * weights,
        weights,
    )
    assert memory.total == 5 * weights + memory.activations
    assert step.flops == 2 * 50 * 30_000 * 3 - 2 * 50 * 10_000, "forward, both gradients, none to the pixels"
    four = whole_step(two_blocks, loss_of, "no", micro_batches=4)
    assert four.flops == 4 * step.flops
    assert memory.activations < four.memory.activations <= memory.activations + weights, "gradients wait meanwhile"


def test_shards_are_shares_and_gathered_is_what_lies_outside_and_two_blocks():
    step = sharded_step(two_blocks, loss_of, "bf16", 1, processes=8, block="Block")
    whole = whole_step(two_blocks, loss_of, "bf16", 1)
    for part in ("weights", "gradients", "optimiser", "average"):
        assert getattr(step.memory, part) == getattr(whole.memory, part) / 8
    assert step.memory.communication == 2 * 2 * (10_000 + 2 * 10_000)
    assert step.flops == whole.flops


def test_what_is_frozen_has_no_gradient_in_any_shard():
    def frozen() -> nn.Module:
        model = two_blocks()
        model[2].requires_grad_(False)
        return model

    whole = sharded_step(two_blocks, loss_of, "bf16", 1, processes=8, block="Block").memory
    part = sharded_step(frozen, loss_of, "bf16", 1, processes=8, block="Block").memory
    assert part.gradients == whole.gradients * 2 / 3 and part.weights == whole.weights


def args_of(section: str, tmp_path: Path, *flags: str):
    training_type = {"dvae": DVAETraining, "prior": PriorTraining}[section]
    preset = str(ROOT / "training" / "configs" / "emoji_cpu.yaml")
    return parse(section, training_type, [preset, "--output_dir", str(tmp_path), *flags])


def test_activation_checkpointing_and_smaller_batches_show_in_the_plan(tmp_path):
    preset = ROOT / "training" / "configs" / "emoji_cpu.yaml"

    def activations(*flags: str, gpus: int = 1) -> float:
        args = args_of("prior", tmp_path, *flags)
        return step_of(prior_subject(args, preset), args.training, "no", DryRun(gpus=gpus)).memory.activations

    whole = activations()
    assert 0.1 * whole < activations("--training.activation_checkpointing", "true") < 0.75 * whole
    assert activations(gpus=8) == pytest.approx(whole / 8, rel=0.3)


def test_adversaries_are_counted_and_the_dvaes_own_size_is_not(tmp_path):
    args = args_of("dvae", tmp_path, "--training.batch_size", "2", "--training.pixel_adversary", "{width: 8}")
    alone = args_of("dvae", tmp_path, "--training.batch_size", "2", "--training.pixel_adversary", "null")
    (with_network, without), n = (
        [step_of(dvae_subject(a.model, a.training), a.training, "no", DryRun(gpus=1)).memory for a in (args, alone)],
        sum(p.numel() for p in PatchDiscriminator(PatchDiscriminatorConfig(num_layers=2, width=8)).parameters()),
    )
    assert with_network.total == without.total + 16 * n > without.total
    page = plan("dvae", args, DryRun(gpus=1, steps=0), Path("nowhere"))
    assert page.splitlines()[0] == plan("dvae", alone, DryRun(gpus=1, steps=0), Path("nowhere")).splitlines()[0]
    assert holds(page, f"{n / 1e6:.2f}")
    assert re.search(r"\b0\.\d+ GiB\b.*\d", page.splitlines()[-1]), "decoded, of what is free here"


def test_what_is_put_together_is_encoded_beside_the_batch_and_that_shows_in_the_plan(tmp_path):
    def step(share: float) -> Step:
        args = args_of("dvae", tmp_path, "--training.batch_size", "10", "--training.assembled_share", str(share))
        return step_of(dvae_subject(args.model, args.training), args.training, "no", DryRun(gpus=1))

    alone, half = step(0), step(0.5)
    assert alone.memory.weights == half.memory.weights
    assert 1.1 < half.flops / alone.flops < 1.4 and 1.1 < half.memory.activations / alone.memory.activations < 1.4


def test_what_does_not_fit_is_said_with_what_would_help():
    training = PriorTraining(batch_size=64)
    fits = Memory(1 * GIB, 1 * GIB, 2 * GIB, 1 * GIB, 10 * GIB)
    [line] = advice(fits, training, DryRun(gpus=1, gib=80))
    assert holds(line, 80) and not holds(line, "gradient_accumulation_steps") and not holds(line, "fsdp")
    [line] = advice(fits, training, DryRun(gpus=1, gib=12))
    assert holds(line, 12, "gradient_accumulation_steps", 2)
    [line] = advice(fits, training, DryRun(gpus=1, gib=5))
    assert holds(line, "5.0", "fsdp")


def test_a_plan_is_a_page_and_trains_nothing(tmp_path):
    args = args_of("prior", tmp_path, "--training.batch_size", "8", "--data.max_pictures", "8")
    page = plan("prior", args, DryRun(gpus=2, steps=0), ROOT / "training" / "configs" / "emoji_cpu.yaml", KINDS)
    assert holds(page.splitlines()[0], "prior", "10.90") and holds(page, 2, "ddp")
    assert holds(page.splitlines()[-1], 8, 8, 0), "pictures, rows that were looked at, broken ones"
    assert list(tmp_path.iterdir()) == []
    args.data.path = broken_sets.write("folder", tmp_path / "own", count=8)
    page = plan("prior", args, DryRun(steps=0), Path("nowhere"), KINDS)
    assert any(holds(line, args.data.path, "scenes", "cached_scenes", "scene_share", 0) for line in page.splitlines())
    with refused(ValueError, "batch_size=8", 3):
        plan("prior", args, DryRun(gpus=3, steps=0), Path("nowhere"), KINDS)


def test_a_tokenizer_that_is_there_says_how_long_a_caption_is(tmp_path, tiny_tokenizer):
    """Not the preset, whose own it is to be only where none is."""
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    training, preset = PriorTraining(), ROOT / "training" / "configs" / "emoji_cpu.yaml"
    sizes = prior_sizes(training, tmp_path, preset)
    assert (sizes["text_vocab_size"], sizes["text_length"]) == (len(tiny_tokenizer), tiny_tokenizer.model_max_length)
    assert prior_sizes(PriorTraining(tokenizer=str(tmp_path / "tokenizer")), tmp_path / "none", preset) == sizes
    planned = prior_sizes(training, tmp_path / "none", preset)
    assert (
        (planned["text_vocab_size"], planned["text_length"])
        == (4096, 16)
        != (len(tiny_tokenizer), sizes["text_length"])
    )


def test_settings_are_yaml_and_a_typo_is_named():
    assert DryRun.read("{gpus: 4, engine: fsdp}") == DryRun(gpus=4, engine="fsdp") and DryRun.read("{}") == DryRun()
    with refused(ValueError, "--dry_run", "gpus", "{gpu: 4}"):
        DryRun.read("{gpu: 4}")
    with refused(ValueError, "--dry_run", "gpus", "{gpus: 4"):
        DryRun.read("{gpus: 4")
    with refused(ValueError, "engine='fsdp2'", "'ddp'", "'fsdp'"):
        DryRun(engine="fsdp2")
    with refused(ValueError, "gpus=0"):
        DryRun(gpus=0)


def test_what_training_refuses_is_not_planned(tmp_path, monkeypatch):
    flags = ["--training.init_from", "embedded", "--training.lora", "{}"]
    with refused(ValueError, "FSDP", "engine: ddp"):
        plan("prior", args_of("prior", tmp_path, *flags), DryRun(engine="fsdp", steps=0), Path("nowhere"))
    argv = ["train_prior", str(ROOT / "training" / "configs" / "emoji_cpu.yaml"), "--training.mixed_precision"]
    monkeypatch.setattr(sys, "argv", [*argv, "bfloat16", "--dry_run"])
    with refused(ValueError, "mixed_precision='bfloat16'", "no", "fp16", "bf16"):
        plan_or_train("prior", PriorTraining, print, "", KINDS)


MEASURE = """
import json, sys
from pathlib import Path
from training.presets.trainers import DVAETraining, PriorTraining
from training.presets.reading import parse
from training.preflight.plan import DryRun, dvae_subject, measure, prior_subject, step_of
section, preset, *flags = sys.argv[1:]
training_type = DVAETraining if section == "dvae" else PriorTraining
args = parse(section, training_type, [preset, "--output_dir", "/nowhere", *flags])
subject = dvae_subject(args.model, args.training) if section == "dvae" else prior_subject(args, Path(preset))
planned = step_of(subject, args.training, "no", DryRun(gpus=1)).memory.total
print(json.dumps([planned, measure(subject, args.training, "no", steps=2)[1]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("section", "batch"), [("prior", 16), ("dvae", 8)])
def test_the_plan_is_right_within_15_percent_of_what_the_small_preset_takes(section, batch):
    """In a process of its own, whose peak is the step's; a quarter of the preset's batch, to be quick."""
    preset = str(ROOT / "training" / "configs" / "emoji_cpu.yaml")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, section, preset, "--training.batch_size", str(batch)]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300).stdout
    planned, taken = json.loads(printed.splitlines()[-1])
    assert planned == pytest.approx(taken, rel=0.15)


@pytest.mark.slow
def test_the_papers_12_billion_get_a_plan_without_being_run():
    command = [sys.executable, "-m", "training.train_prior", str(ROOT / "training" / "configs" / "dalle_256.yaml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    flags = ["--dry_run", "{gpus: 256, engine: fsdp}"]
    page = subprocess.run([*command, *flags], env=environment, check=True, capture_output=True, text=True).stdout
    assert holds(page.splitlines()[0], "prior", "12,291.80") and holds(page, 80)
    assert holds(page.splitlines()[-1], "your/captioned-pictures")
