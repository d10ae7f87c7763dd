"""The precision that a loop computes in."""

import warnings

import torch
from accelerate import PartialState


def mixed_precision(wanted: str) -> str:
    """
    `wanted`, one of Accelerate's "no", "fp16", "bf16"; but "no" for bf16 on a CPU without the instructions for it,
    with a warning: there it is emulated, and a matrix product takes up to eighty times as long as in float32.
    """
    if wanted == "bf16" and str(PartialState().device) == "cpu" and not cpu_computes_bf16():
        warnings.warn("this CPU has no bf16 instructions: training in float32 instead of bf16", stacklevel=2)
        return "no"
    return wanted


def cpu_computes_bf16() -> bool:
    """Whether oneDNN, which computes torch's convolutions and matrix products on a CPU, has bf16 kernels for it."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
