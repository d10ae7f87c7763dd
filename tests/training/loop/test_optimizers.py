"""Muon and AdamW as one optimiser: who learns what, as each alone does, and the same after a checkpoint."""

import pytest
import torch
from messages import refused
from small_priors import make_batch, make_prior
from torch import nn

from training.loop.loop_training import LoopTraining
from training.loop.optimizers import MuonAndAdamW, adamw
from training.loop.states import load_state, restore, save_state

SETTINGS = LoopTraining(lr=1e-2, weight_decay=0.1)


def train(prior: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    input_ids = make_batch(prior)
    for _ in range(steps):
        prior(input_ids, labels=input_ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", ["dalle", "grid"])
def test_muon_learns_the_matrices_of_the_blocks_and_adamw_all_else(kind):
    prior = make_prior(kind)
    optimizer = MuonAndAdamW(prior, prior.layers, SETTINGS)
    matrices, heads, others = (group["params"] for group in optimizer.param_groups)
    names = {id(parameter): name for name, parameter in prior.named_parameters()}
    assert {names[id(p)] for p in matrices} == {
        f"layers.{i}.{part}.weight"
        for i in range(5)
        for part in ("attention.qkv", "attention.output", "mlp.hidden", "mlp.output")
    }
    assert {names[id(p)] for p in heads} == {"text_head.weight", "image_head.weight"}
    assert len(matrices) + len(heads) + len(others) == len(names)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.1, 0.0]


def test_both_step_as_each_of_them_alone():
    prior, by_muon, by_adamw = make_prior("grid"), make_prior("grid"), make_prior("grid")
    matrices = [p for p in by_muon.layers.parameters() if p.ndim == 2]
    muon = torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    train(prior, MuonAndAdamW(prior, prior.layers, SETTINGS), steps=1)
    train(by_muon, muon, steps=1)
    train(by_adamw, adamw(by_adamw, by_adamw.layers, SETTINGS), steps=1)
    for name, parameter in prior.named_parameters():
        alone = by_muon if name.startswith("layers") and parameter.ndim == 2 else by_adamw
        assert torch.equal(parameter, alone.get_parameter(name)), name
        assert not torch.equal(parameter, make_prior("grid").get_parameter(name)), name


def test_resumed_it_takes_the_steps_of_one_that_never_stopped(tmp_path):
    prior = make_prior("grid")
    optimizer = MuonAndAdamW(prior, prior.layers, SETTINGS)
    train(prior, optimizer, steps=3)
    weights = {name: tensor.clone() for name, tensor in prior.state_dict().items()}
    save_state(optimizer.state_dict(), tmp_path / "optimizer.safetensors")
    train(prior, optimizer, steps=4)
    resumed = make_prior("grid")
    resumed.load_state_dict(weights)
    again = MuonAndAdamW(resumed, resumed.layers, SETTINGS)
    restore(again, load_state(tmp_path / "optimizer.safetensors"))
    train(resumed, again, steps=4)
    assert all(map(torch.equal, prior.parameters(), resumed.parameters()))


def test_a_resumed_run_has_its_own_weight_decay_and_betas(tmp_path):
    prior = make_prior("grid")
    before = adamw(prior, prior.layers, SETTINGS)
    train(prior, before, steps=2)
    save_state(before.state_dict(), tmp_path / "optimizer.safetensors")
    now = adamw(prior, prior.layers, LoopTraining(lr=1e-2, weight_decay=0.3, betas=(0.8, 0.95)))
    restore(now, load_state(tmp_path / "optimizer.safetensors"))
    assert [(group["weight_decay"], group["betas"]) for group in now.param_groups] == [
        (0.3, (0.8, 0.95)),
        (0.0, (0.8, 0.95)),
    ]
    for parameter in prior.parameters():
        assert torch.equal(now.state[parameter]["exp_avg"], before.state[parameter]["exp_avg"])
        assert now.state[parameter]["step"] == 2


def test_a_checkpoint_of_the_other_optimiser_is_refused(tmp_path):
    prior = make_prior("grid")
    other = adamw(prior, prior.layers, SETTINGS)
    train(prior, other, steps=1)
    save_state(other.state_dict(), tmp_path / "optimizer.safetensors")
    with refused(ValueError, "optimizer", "--training.init_from"):
        restore(MuonAndAdamW(prior, prior.layers, SETTINGS), load_state(tmp_path / "optimizer.safetensors"))


def test_what_is_frozen_is_nobodys():
    prior = make_prior("grid")
    prior.layers.requires_grad_(False)
    optimizer = MuonAndAdamW(prior, prior.layers, SETTINGS)
    before = {name: tensor.clone() for name, tensor in prior.layers.state_dict().items()}
    train(prior, optimizer, steps=1)
    assert optimizer.param_groups[0]["params"] == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in prior.layers.state_dict().items())
