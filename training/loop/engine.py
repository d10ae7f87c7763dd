"""What carries a run: Accelerate, set up from the preset, and a model made ready for it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import DDPCommunicationHookType, DistributedType, parse_flag_from_env
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import PreTrainedModel

from .loop_training import LoopTraining
from .precision import mixed_precision

Model = TypeVar("Model", bound=PreTrainedModel)

PATIENCE = timedelta(hours=2)  # of processes that wait for one that decodes, encodes or evaluates


def join_processes() -> None:
    """Makes the process group. It comes first: whatever asks for Accelerate's state would make a less patient one."""
    PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)


def leave_processes() -> None:
    """Ends the process group, where there is one, once all are done: left to the interpreter, NCCL warns of it."""
    if torch.distributed.is_initialized():
        PartialState().wait_for_everyone()
        PartialState().destroy_process_group()


def make_accelerator(training: LoopTraining, *, find_unused_parameters: bool = False) -> Accelerator:
    """
    One process, DDP or FSDP2, as the launcher says (training/configs/accelerate/).

    find_unused_parameters: whether some parameters rest in some steps, which DDP has to be told.

    Raises a ValueError under DeepSpeed, whose state no checkpoint of ours could hold.
    """
    join_processes()
    accelerator = Accelerator(
        mixed_precision=mixed_precision(training.mixed_precision),
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=find_unused_parameters, **power_sgd(training))
        ],
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ValueError(
            "DeepSpeed's state fits no checkpoint here: launch with --config_file "
            "training/configs/accelerate/fsdp2.yaml, which shards the same, or ddp.yaml"
        )
    if accelerator.is_fsdp2 and accelerator.mixed_precision != "no":
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[accelerator.mixed_precision]
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, output_dtype=torch.float32)
        plugin = accelerator.state.fsdp_plugin
        assert plugin is not None  # of FSDP2
        plugin.mixed_precision_policy = policy
    return accelerator


@contextmanager
def same_draws(seed: int) -> Iterator[None]:
    """
    On the CPU every process draws the same, as weights are at first; after it each has its own generator back, as it
    was, so that their noise differs.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would take the GPU's generator along
        yield


def power_sgd(training: LoopTraining) -> dict:
    """
    DDP's hook that sends gradients as products of rank r, with error feedback (arXiv 1905.13727), as the paper does;
    whole ones during the warm-up. {} without a rank.
    """
    if training.powersgd_rank is None:
        return {}
    state = {
        "matrix_approximation_rank": training.powersgd_rank,
        "start_powerSGD_iter": max(training.warmup_steps, 2),
    }
    return {"comm_hook": DDPCommunicationHookType.POWER_SGD, "comm_state_option": state}


def need_whole_weights(accelerator: Accelerator, who: str) -> None:
    """Raises a ValueError under FSDP, which shards a model."""
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ValueError(
            f"{who} trains under DDP, not FSDP, which is for the prior: "
            "launch it with --config_file training/configs/accelerate/ddp.yaml"
        )


def ready(model: Model, training: LoopTraining, blocks: Iterable[nn.Module]) -> Model:
    """
    The model, in training, with what the preset asks for; before `accelerator.prepare`.

    blocks: what is compiled, each alone where they are alike: the first one's code serves all, and FSDP2 can shard
        between them.
    """
    if training.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if training.compile:
        for block in blocks:
            block.compile()
    return model.train()
