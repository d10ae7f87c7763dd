"""An optimiser's step: its own gradients, and none where a number is not finite."""

import json

import pytest
import torch
from accelerate import Accelerator
from messages import refused
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from toy_run import toy_run

from training.loop import stepping
from training.loop.states import load_state

ENDED_GROUPS = []  # kept: a gloo group whose last reference is its own thread's joins itself and aborts the process


@pytest.mark.parametrize("kind", ["plain", "scaled"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(kind, tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0) if kind == "scaled" else None
    toy_run(tmp_path, steps=12, checkpoint_every=1, keep_checkpoints=12, broken=(4, 9, 10), scaler=scaler)

    def part(name: str, step: int):
        return load_state(tmp_path / "toy-checkpoints" / f"step-{step:07d}" / f"{name}.safetensors")

    for name in ("model", "average"):
        torch.testing.assert_close(part(name, 3), part(name, 4), rtol=0, atol=0)
        torch.testing.assert_close(part(name, 8), part(name, 10), rtol=0, atol=0)
        assert not torch.equal(part("model", 10)["linear.bias"], part("model", 11)["linear.bias"])
    assert [part("optimizer", step)["state"][0]["step"].item() for step in (3, 4, 12)] == [3, 3, 9]
    progress = json.loads((tmp_path / "toy-checkpoints" / "step-0000012" / "progress.json").read_text())
    assert progress == {"step": 12, "batch_size": 4, "skipped": 3, "processes": 1, "sharded": False}
    lines = [json.loads(line) for line in (tmp_path / "toy-log.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [0, 0, 0, 1, 1, 1, 1, 1, 2, 3, 3, 3]
    if kind == "scaled":
        assert [part("scaler", step)["scale"] for step in (3, 4, 12)] == [8.0, 4.0, 1.0]


def test_a_step_unscales_the_gradients_of_its_own_optimiser_alone():
    """Those of another, an adversary's, may wait for their last micro-batch."""
    accelerator = Accelerator(cpu=True)
    accelerator.scaler, accelerator.native_amp = torch.amp.GradScaler("cpu", init_scale=8.0), True
    accelerator.state._mixed_precision = "fp16"
    try:
        own, other = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        own_optimizer, other_optimizer = (
            accelerator.prepare_optimizer(torch.optim.SGD(linear.parameters(), lr=0.5)) for linear in (own, other)
        )
        before = own.weight.detach().clone()
        accelerator.backward(other.weight.sum())
        stepping.descend(accelerator, 3 * own.weight.sum(), own_optimizer, own.parameters())
        assert other.weight.grad.item() == 8 and torch.equal(own.weight, before - 1.5)
        before = other.weight.detach().clone()
        stepping.descend(accelerator, other.weight.sum(), other_optimizer, other.parameters(), max_grad_norm=1.0)
        torch.testing.assert_close(other.weight, before - 0.5, atol=1e-5, rtol=0)
    finally:
        accelerator.state._mixed_precision = "no"


def test_powersgd_forgets_the_error_of_a_step_that_is_not_finite():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    ENDED_GROUPS.append(torch.distributed.group.WORLD)
    try:
        accelerator, model = Accelerator(cpu=True), torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(64, 64))
        model.register_comm_hook(PowerSGDState(None, 1, start_powerSGD_iter=2), powerSGD_hook)
        accelerator._models.append(model)
        optimizer = accelerator.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
        taken = []
        for step in range(8):
            loss = model(torch.randn(4, 64)).square().mean() * (float("nan") if step == 4 else 1)
            taken.append(stepping.descend(accelerator, loss, optimizer, model.parameters())[0])
        assert taken == [step != 4 for step in range(8)]
    finally:
        torch.distributed.destroy_process_group()


def test_too_many_such_steps_in_a_row_stop_the_run_and_name_the_last_good_checkpoint(tmp_path):
    with refused(FloatingPointError, 4, 10, "max_skipped_steps=3", "step-0000005"):
        toy_run(tmp_path, steps=20, broken=(2, 7, 8, 9, 10), max_skipped_steps=3)
