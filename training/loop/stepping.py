"""An optimiser's step that a loss or gradient which is not finite cannot spoil, on any number of processes alike."""

import math
from collections.abc import Iterable
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer


def set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def agreed(accelerator: Accelerator, *flags: Tensor | bool) -> list[bool]:
    """Each flag, true where it is on any process: one small all-reduce, and one wait for the device."""
    numbers = torch.stack([torch.as_tensor(flag, dtype=torch.float32, device=accelerator.device) for flag in flags])
    counts = cast(Tensor, accelerator.reduce(numbers, "sum"))
    return [count > 0 for count in counts.tolist()]


def descend(
    accelerator: Accelerator,
    loss: Tensor,
    optimizer: Optimizer,
    parameters: Iterable[nn.Parameter],
    max_grad_norm: float | None = None,
    stopping: bool = False,
) -> tuple[bool, bool]:
    """
    Backward, and after the last micro-batch a clipped step -> (whether it was taken, whether any process is stopping).

    A loss or a gradient that is not finite, on any process, leaves weights and moments of all as they are. With fp16
    that includes an overflow, after which the loss scale falls. Before the last micro-batch: (True, False).
    """
    accelerator.backward(loss)
    if not accelerator.sync_gradients:
        return True, False
    norm = _clip(accelerator, optimizer, parameters, math.inf if max_grad_norm is None else max_grad_norm)
    broken = ~(torch.isfinite(loss.detach()) & torch.isfinite(norm))
    broken, stopping = agreed(accelerator, broken, stopping)
    if not broken:
        optimizer.step()
    else:
        forget_errors(accelerator._models)
        if accelerator.scaler is not None:
            accelerator.scaler.update()
    optimizer.zero_grad()
    return not broken, stopping


def minimise(loss: Tensor, optimizer: Optimizer) -> None:
    """Backward, and a step: of a loop without a run. No gradient is left."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def forget_errors(models: Iterable[nn.Module]) -> None:
    """PowerSGD adds to a step's gradients what it left out of the last one's: not finite, where those were not."""
    for model in models:
        for _, state in model._comm_hooks if isinstance(model, DistributedDataParallel) else ():
            if isinstance(state, PowerSGDState):
                for memory in (state.error_dict, state.p_memory_dict, state.q_memory_dict):
                    memory.clear()


def _clip(accelerator: Accelerator, optimizer: Optimizer, parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """
    Unscales and clips -> the norm before. Accelerate's own way, which FSDP needs, unscales all optimisers' gradients:
    an adversary's too, while its last micro-batch is still to come.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        norm = accelerator.clip_grad_norm_(parameters, most)
        assert norm is not None  # they are a prepared model's
        return norm.full_tensor() if isinstance(norm, DTensor) else norm
    accelerator.unscale_gradients(optimizer)
    return nn.utils.clip_grad_norm_(parameters, most)
