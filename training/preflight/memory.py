"""How much memory and arithmetic a training step takes, by running it on tensors that have no numbers in them."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

FLOAT = 4  # bytes: weights, gradients, moments and averages are float32 under every precision


@dataclass
class Memory:
    """Bytes of one process at the fullest moment of a step, by part."""

    weights: float
    gradients: float
    optimiser: float
    average: float
    activations: float
    communication: float = 0.0

    @property
    def total(self) -> float:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass
class Step:
    """A process's step: bytes by part, and floating-point operations of all its micro-batches, there and back."""

    memory: Memory
    flops: int


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operations made and that still live, and the most that there were at once."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return outputs

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def forget(_: weakref.ref) -> None:
            del self._known[key]
            self.live -= size

        self._known[key] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


def dtype_of(precision: str) -> torch.dtype:
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)


def whole_step(
    build: Callable[[], nn.Module], loss_of: Callable[[nn.Module], Tensor], precision: str, micro_batches: int
) -> Step:
    """
    A step of `micro_batches` times `loss_of(model)` by a process that holds the whole model: one alone, or DDP's.

    The tensors are the CPU's and empty, so that operations are a CPU's, whose attention is as lean as a GPU's. What a
    kernel takes while it runs is not seen. With several micro-batches the second is the fullest: gradients are there.
    """
    with FakeTensorMode():
        model = build()
        live, flops = _run(model, loss_of, dtype_of(precision), rounds=min(micro_batches, 2))
        state, trained, frozen = _state_bytes(model), _trained(model), _frozen_bytes(model)
    activations = max(live.peak - FLOAT * trained, 0)
    memory = Memory(state, FLOAT * trained, 2 * FLOAT * trained, state - frozen, activations)
    return Step(memory, flops * micro_batches)


def sharded_step(
    build: Callable[[], nn.Module],
    loss_of: Callable[[nn.Module], Tensor],
    precision: str,
    micro_batches: int,
    processes: int,
    block: str,
) -> Step:
    """
    The same under FSDP2: weights, gradients, moments and average in shards. Gathered in the precision of the blocks,
    with a gradient each: all that is outside of blocks, and two blocks, the one that runs and the next.
    """
    dtype = dtype_of(precision)
    with FakeTensorMode():
        model = build()
        state, trained, frozen = _state_bytes(model), _trained(model), _frozen_bytes(model)
        blocks = [module for module in model.modules() if type(module).__name__ == block]
        in_block = max(sum(parameter.numel() for parameter in module.parameters()) for module in blocks)
        in_blocks = sum(parameter.numel() for module in blocks for parameter in module.parameters())
        outside = sum(parameter.numel() for parameter in model.parameters()) - in_blocks
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_drop)
        live, flops = _run(model, loss_of, None, rounds=1)
    gathered = 2 * dtype.itemsize * (outside + 2 * in_block)
    shards = [part / processes for part in (state, FLOAT * trained, 2 * FLOAT * trained, state - frozen)]
    return Step(Memory(*shards, activations=live.peak, communication=gathered), flops * micro_batches)


def _run(model: nn.Module, loss_of, autocast: torch.dtype | None, rounds: int) -> tuple[LiveBytes, int]:
    """Bytes of so many rounds, operations of one: torch's counter of these keeps what checkpointing would let go."""
    counting, live = FlopCounterMode(display=False), LiveBytes()
    for mode, times in ((live, rounds), (counting, 1)):
        with mode:
            for _ in range(times):
                with torch.autocast("cpu", autocast, enabled=autocast not in (None, torch.float32)):
                    loss = loss_of(model)
                loss.backward()
                del loss
    return live, counting.get_total_flops()


def _drop(parameter: Tensor) -> None:
    parameter.grad = None


def _trained(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _frozen_bytes(model: nn.Module) -> int:
    """Of what does not learn, which is its own average."""
    still = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    return sum(parameter.numel() * parameter.element_size() for parameter in still)


def _state_bytes(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
