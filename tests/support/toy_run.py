"""A run of a few milliseconds a step, whose every draw is random: what the tests of checkpoints kill and resume."""

import hashlib
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from training.loop.checkpoints import Checkpoints
from training.loop.engine import same_draws
from training.loop.loop_training import LoopTraining
from training.loop.run import Run


class Toy(nn.Module):
    """64 → 64, and a convolution kept channels last, whose layout in memory a checkpoint must not lose."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(self.linear(x).view(-1, 4, 4, 4)).square().mean()


def toy_run(
    output_dir: Path,
    *,
    scaler: torch.amp.GradScaler | None = None,
    broken: tuple[int, ...] = (),
    before_step: dict[int, Callable[[], None]] | None = None,
    delay: float = 0.0,
    **settings,
) -> Toy:
    """
    Trains by `LoopTraining(**settings)`. broken: steps whose loss is not a number on the last process. before_step:
    what to do before the step of that number. delay: seconds of a step.
    """
    training = LoopTraining(**{"lr": 1e-2, "batch_size": 4, "log_every": 1, "checkpoint_every": 5, **settings})
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=training.gradient_accumulation_steps)
    accelerator.scaler = scaler
    set_seed(training.seed, device_specific=True)
    with same_draws(training.seed):
        toy = Toy().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(toy.parameters(), lr=training.lr, fused=True)
    local = training.local_batch_size(accelerator.num_processes)
    micro_batches = training.steps * training.gradient_accumulation_steps
    data = torch.arange(micro_batches * local * accelerator.num_processes)
    loader = torch.utils.data.DataLoader(data, local, generator=torch.Generator())  # else it draws from the global one
    model, optimizer, loader = accelerator.prepare(toy.train(), optimizer, loader)
    accelerator.native_amp = scaler is not None  # Accelerate refuses fp16 on a CPU; the scaler itself works there
    accelerator.state._mixed_precision = "no" if scaler is None else "fp16"
    run = Run("toy", training, accelerator, output_dir, model=toy, optimizer=optimizer)
    with run:
        for indices in run.batches(loader):
            (before_step or {}).get(run.step + 1, lambda: None)()
            time.sleep(delay)
            with accelerator.accumulate(model):
                noise = torch.randn(len(indices), 64) * random.random() + np.random.rand()
                loss = model(torch.sin(indices[:, None] + noise))
                if run.step + 1 in broken and accelerator.is_last_process:
                    loss = loss * float("nan")
                run.descend(loss)
            run.end_step({"loss": loss})
    accelerator.state._mixed_precision = "no"
    return toy


def digest(toy: Toy) -> str:
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in toy.parameters())).hexdigest()


def two_processes(folder: Path) -> None:
    """
    Under torchrun: the weights of a run left alone, and of one that is told to stop on the last process alone;
    then which checkpoint is missing where the last one does not see the first one's folder.
    """
    last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
    settings = {"steps": 20, "broken": (3, 12)}
    whole = toy_run(folder / "whole", **settings)
    code = None
    try:
        toy_run(folder / "stopped", before_step={8: lambda: last and os.kill(os.getpid(), signal.SIGINT)}, **settings)
    except SystemExit as stopped:
        code = stopped.code
    resumed = toy_run(folder / "stopped", resume_from="latest", **settings)
    found = {"code": code, "whole": digest(whole), "resumed": digest(resumed)}
    os.chdir(folder if last else folder / "stopped")  # as where nodes do not share their folder
    try:
        Checkpoints(Path("toy-checkpoints"), 2, Accelerator(cpu=True), {}, sharded=False).find("latest")
    except FileNotFoundError as error:
        found["missing"] = re.search(r"toy-checkpoints/step-\d+", str(error))[0]
    (folder / f"found-{os.environ['RANK']}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    two_processes(Path(sys.argv[1]))
