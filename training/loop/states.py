"""States to safetensors and back: tensors as tensors, all else as JSON in the file's header. Nothing is pickled."""

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


def save_state(state: Any, path: Path) -> None:
    """
    A nest of dicts, lists, tuples, tensors and numbers, on disk when this returns. Of a sharded tensor: this process's
    shard. Raises a TypeError for anything else, an OSError or SafetensorError where the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    tree = _pack(state, "state", tensors)
    save_file(tensors, path, metadata={"tree": json.dumps(tree)})
    sync(path)


def load_state(path: Path) -> Any:
    """What `save_state` was given, on the CPU."""
    with safe_open(path, "pt") as file:
        return _unpack(json.loads(file.metadata()["tree"]), file)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pack(node: Any, name: str, tensors: dict[str, Tensor]) -> dict:
    if isinstance(node, Tensor):
        tensors[name] = local(node.detach()).contiguous()
        return {"tensor": name}
    if isinstance(node, dict):
        return {"dict": [[key, _pack(value, f"{name}.{key}", tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return {type(node).__name__: [_pack(value, f"{name}.{i}", tensors) for i, value in enumerate(node)]}
    if node is None or isinstance(node, bool | int | float | str):
        return {"value": node}
    raise TypeError(f"{name} is a {type(node).__name__}: a checkpoint holds tensors, numbers, lists and dicts alone")


def _unpack(node: dict, file: safe_open) -> Any:
    [(kind, content)] = node.items()
    if kind == "tensor":
        return file.get_tensor(content)
    if kind == "dict":
        return {key: _unpack(value, file) for key, value in content}
    if kind == "list":
        return [_unpack(value, file) for value in content]
    if kind == "tuple":
        return tuple(_unpack(value, file) for value in content)
    return content


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a sharded tensor; another tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_sharded(module: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def restore(part: Any, state: Any) -> None:
    """Puts a loaded state into a module, an optimiser, or whatever has a `load_state_dict`."""
    if isinstance(part, nn.Module):
        copy_tensors(state, part.state_dict())
    elif isinstance(part, Optimizer):
        _restore_optimizer(part, state)
    else:
        part.load_state_dict(state)


@torch.no_grad()
def copy_tensors(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    """Copies by name, shard to shard. Raises a ValueError that names what differs."""
    if source.keys() != target.keys():
        missing, unknown = sorted(target.keys() - source.keys()), sorted(source.keys() - target.keys())
        raise ValueError(f"the checkpoint is another model's: it lacks {missing[:3]} and has {unknown[:3]}")
    for name, tensor in target.items():
        new, old = local(source[name]), local(tensor)
        if new.shape != old.shape:
            raise ValueError(f"{name} is {tuple(new.shape)} in the checkpoint and {tuple(old.shape)} in the model")
        old.copy_(new)


@torch.no_grad()
def _restore_optimizer(optimizer: Optimizer, state: dict) -> None:
    """
    Moments take the layout in memory and the sharding of their parameters: fused kernels count on the same one.

    Raises a ValueError where the groups have other numbers of parameters.
    """
    own = [len(group["params"]) for group in optimizer.param_groups]
    saved = [len(group["params"]) for group in state["param_groups"]]
    if own != saved:
        raise ValueError(
            f"the checkpoint's optimiser learns {sum(saved)} tensors in groups of {saved}, this run's {sum(own)} in "
            f"{own}: resume with freeze, lora and optimizer as they were, or start anew with --training.init_from"
        )
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def like(parameter: Tensor, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 0 or value.shape != local(parameter).shape:
            return value
        tensor = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
        local(tensor).copy_(value)
        return tensor

    moments = {i: {key: like(parameters[i], value) for key, value in of.items()} for i, of in state["state"].items()}
    of_each = zip(optimizer.param_groups, state["param_groups"], strict=True)
    groups = [{**here, "params": there["params"]} for here, there in of_each]  # weight decay and betas are this run's
    optimizer.load_state_dict({**state, "state": moments, "param_groups": groups})


def rng_state() -> dict[str, Any]:
    """Every generator of this process that a step may draw from: Python's, NumPy's, torch's on CPU and its GPU."""
    numpy = np.random.get_state(legacy=False)
    numpy["state"] = {**numpy["state"], "key": torch.from_numpy(numpy["state"]["key"].astype(np.int64))}
    return {
        "python": random.getstate(),
        "numpy": numpy,
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    key = state["numpy"]["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**state["numpy"], "state": {**state["numpy"]["state"], "key": key}})
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][0])


@contextmanager
def same_rng_after() -> Iterator[None]:
    """Whatever is drawn inside, the generators are as before: the steps after it draw what a resumed run draws."""
    state = rng_state()
    yield
    set_rng_state(state)
