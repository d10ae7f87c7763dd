"""Run by torchrun in test_engines.py: trains a prior by Accelerate's FSDP2 on CPU processes, else as the trainer does.

Accelerate turns FSDP on for GPUs alone, so its state is told; from there on `prepare`, the sharding plan, clipping,
checkpoints and the saved pipeline are what a GPU runs.
"""

import os
import signal
import sys

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType

from training import train_prior
from training.loop import run
from training.loop.engine import make_accelerator
from training.loop.states import is_sharded


def sharding(training) -> Accelerator:
    accelerator = make_accelerator(training)
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["PriorBlock"],
        cpu_ram_efficient_loading=False,
        reshard_after_forward=True,
    )
    accelerator.state.distributed_type = DistributedType.FSDP
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # new AcceleratorStates take it from here
    return accelerator


def main() -> None:
    told_after, *argv = sys.argv[1:]
    told_after = int(told_after)  # this step the first process is told to stop; 0 never
    train_prior.make_accelerator = sharding
    end_step = run.Run.end_step

    def interrupted(self, *args, **kwargs) -> bool:
        assert is_sharded(self.model), "nothing was sharded"
        if self.step + 1 == told_after and self.accelerator.is_main_process:
            os.kill(os.getpid(), signal.SIGTERM)
        return end_step(self, *args, **kwargs)

    run.Run.end_step = interrupted
    try:
        train_prior.main(argv)
    except SystemExit as stopped:
        assert stopped.code == 75
    else:
        assert told_after == 0, "it was told to stop and did not"
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
