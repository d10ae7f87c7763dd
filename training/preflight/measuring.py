"""What a dry run plans, and its memory and time in a few real steps on noise, on this machine."""

import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..loop.averaging import Average
from .memory import dtype_of


@dataclass
class Subject:
    """
    What is planned: how to build it, its loss on `batch` pictures of noise, and the tokens of a picture. networks:
    parameters of the adversaries' networks that learn beside it. image_size: of pictures that it learns from itself.
    has_encoder: whether it reads text through one that is no part of it.
    """

    name: str
    build: Callable[[], PreTrainedModel]
    loss: Callable[[Any, int], Tensor]
    tokens: int
    block: str | None = None
    networks: int = 0
    image_size: int | None = None
    has_encoder: bool = False


def measure(subject: Subject, training, precision: str, steps: int) -> tuple[float, float]:
    """`steps` real steps on noise -> seconds of the last one, bytes of memory that they took at most."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = _start_counting(device)
    model = subject.build()
    model.to(device)  # pyright: ignore[reportArgumentType]  # transformers' own types take it for a function
    optimizer, average = torch.optim.AdamW(model.parameters(), fused=True), Average(model, training.ema)
    batch, parts = training.local_batch_size(1), training.gradient_accumulation_steps
    for _ in range(steps):
        start = time.perf_counter()
        for _ in range(parts):
            with torch.autocast(device.type, dtype_of(precision), enabled=precision != "no"):
                loss = subject.loss(model, batch)
            loss.backward()
            loss = loss.item()  # waits for the device
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
    return time.perf_counter() - start, _most_since(device) - before


def _start_counting(device: torch.device) -> int:
    """
    Bytes in use now. Of a CPU the peak is the process's: glibc is told to hand freed blocks of 128 KiB and more back
    at once, as otherwise its heap holds up to half as much again.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if os.name == "posix" and sys.platform == "linux":
        ctypes.CDLL(None).mallopt(-3, 131072)  # M_MMAP_THRESHOLD
    return psutil.Process().memory_info().rss


def _most_since(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # the program's own peak; ru_maxrss starts at that of the process which started it
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
