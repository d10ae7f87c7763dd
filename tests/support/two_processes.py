"""Run by torchrun in test_training.py: trains, and writes a fingerprint of each process's weights, adversaries too."""

import hashlib
import importlib
import json
import sys
from pathlib import Path

import torch

from training.loop.engine import PATIENCE, leave_processes


def main() -> None:
    trainer, report, *argv = sys.argv[1:]
    module = importlib.import_module(f"training.{trainer}")
    trained = []
    if trainer == "train_dvae":
        build = module.build_adversaries

        def recording(*args):
            adversaries = build(*args)
            trained.extend(adversary.network for adversary in adversaries)
            return adversaries

        module.build_adversaries = recording
    trained.append(module.main(argv))
    group = torch.distributed.distributed_c10d._get_default_group()
    assert group._get_backend(torch.device("cpu")).options._timeout == PATIENCE
    weights = b"".join(p.detach().numpy().tobytes() for model in trained for p in model.parameters())
    digests = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(digests, hashlib.sha256(weights).hexdigest())
    if torch.distributed.get_rank() == 0:
        Path(report).write_text(json.dumps(digests))
    leave_processes()
    assert not torch.distributed.is_initialized()


if __name__ == "__main__":
    main()
