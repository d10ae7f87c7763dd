"""Weight-only int8 and int4: a prior that is read several times faster, its pictures nearly the same.

torchao chooses the integers. On a GPU its own tensors compute with them; on a CPU, where those would unpack a whole
matrix for every code, torch's kernels for packed weights do, on bfloat16 activations with float32 sums inside.
"""

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prior_transformer import StreamPrior

Kind = Literal["int8", "int4"]
GROUP_SIZE = 32  # weights of a row that share a scale in int4
BLOCK = 16  # rows that torch's int4 kernel for a CPU takes together, and weights of a row that its int8 kernel does


def quantize_prior(prior: StreamPrior, kind: Kind) -> None:
    """Quantise the projections of a prior's layers and its image head, in place; it can then paint but not be trained.

    kind: "int8", a scale a row of a matrix; "int4", a scale every 32 weights of a row.

    Raises:
        ImportError: without torchao.
        ValueError: for another kind, or rows of a matrix that groups do not fill; in int4 on a CPU also for a
            number of rows that blocks of 16 do not, and on a GPU for weights that are not bfloat16.
    """
    if kind not in ("int8", "int4"):
        raise ValueError(f"kind={kind!r} of weights is unknown; pass 'int8' or 'int4'")
    read = [(name, module) for name, module in prior.named_modules() if _is_read_in_a_step(module, name)]
    rows = {name: cast(nn.Linear, module).in_features for name, module in read}
    if kind == "int4" and (broken := [name for name, size in rows.items() if size % GROUP_SIZE]):
        raise ValueError(
            f"int4 needs rows of whole groups of {GROUP_SIZE}, but those of {broken[0]} have {rows[broken[0]]}; "
            f"pass 'int8'"
        )
    if kind == "int4" and prior.device.type == "cpu":
        counts = {name: cast(nn.Linear, module).out_features for name, module in read}
        if broken := [name for name, count in counts.items() if count % BLOCK]:
            raise ValueError(
                f"int4 on a CPU needs whole blocks of {BLOCK} rows, but {broken[0]} has {counts[broken[0]]}; "
                f"pass 'int8'"
            )
    elif kind == "int4" and prior.dtype != torch.bfloat16:
        raise ValueError(
            f"int4 on a GPU is made of bfloat16 weights, and these are {prior.dtype}; call .to(torch.bfloat16) "
            f"first, or pass 'int8'"
        )
    torchao = _torchao()
    if prior.device.type != "cpu":
        config = torchao.Int8WeightOnlyConfig() if kind == "int8" else _int4_of_a_gpu(torchao)
        torchao.quantize_(prior, config, filter_fn=_is_read_in_a_step)
    else:
        kinds = {"int8": Int8Linear, "int4": Int4Linear}
        packed = {name: kinds[kind](cast(nn.Linear, module)) for name, module in read}
        for name, module in packed.items():
            prior.set_submodule(name, module)
    prior.requires_grad_(False)
    prior.quantized = kind


def quantized_kind(prior: nn.Module) -> Kind | None:
    """What `quantize_prior` made of it; None of whole weights."""
    return getattr(prior, "quantized", None)


def _is_read_in_a_step(module: nn.Module, name: str) -> bool:
    """name: from the prior on, such as layers.0.mlp.hidden."""
    return isinstance(module, nn.Linear) and name.split(".")[0] in ("layers", "image_head")


def _torchao() -> Any:
    try:
        from torchao import quantization
    except ImportError as error:
        raise ImportError("int8 and int4 weights need torchao; pip install 'armchair[quantize]'") from error
    return quantization


def _int4_of_a_gpu(torchao: Any) -> Any:
    return torchao.Int4WeightOnlyConfig(group_size=GROUP_SIZE, int4_packing_format="tile_packed_to_4d")


class PackedLinear(nn.Module):
    """x Wᵀ + b over a packed W: (…, in) -> (…, out) in the dtype of x."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.device.type != "cpu":
            raise ValueError(
                f"weights that were quantised on a CPU stay there, and this pipeline is on {inputs.device.type}; load "
                f"it anew, move it, then quantise it"
            )
        rows = inputs.reshape(-1, self.in_features).bfloat16()
        outputs = self.multiply(rows).to(inputs.dtype).view(*inputs.shape[:-1], self.out_features)
        return outputs if self.bias is None else outputs + self.bias

    def multiply(self, rows: Tensor) -> Tensor:
        """(n, in) bfloat16 -> (n, out) bfloat16."""
        raise NotImplementedError


class Int8Linear(PackedLinear):
    """W[o, i] ≈ weight[o, i] · scale[o]. Rows end in zeros: where one ends within a block, torch's kernel reads on."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear)
        from torchao.quantization import Int8Tensor, PerRow

        quantized = Int8Tensor.from_hp(linear.weight.detach().float().contiguous(), granularity=PerRow())
        self.spare = -self.in_features % BLOCK
        self.register_buffer("weight", F.pad(quantized.qdata, (0, self.spare)))  # (out, in + spare) int8
        self.register_buffer("scale", quantized.scale.flatten().bfloat16())  # (out,)

    def multiply(self, rows: Tensor) -> Tensor:
        rows = F.pad(rows, (0, self.spare)) if self.spare else rows
        return torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scale.bfloat16())


class Int4Linear(PackedLinear):
    """W[o, i] ≈ integer[o, i] · scale[o, i // 32], the integers −8 to 7, two a byte."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear)
        from torchao.quantization import IntxUnpackedToInt8Tensor

        weight = linear.weight.detach().float().contiguous()
        quantized = IntxUnpackedToInt8Tensor.from_hp(
            weight,
            (1, GROUP_SIZE),  # pyright: ignore[reportArgumentType]  # torchao's type has a tuple of one
            torch.int4,  # pyright: ignore[reportAttributeAccessIssue]  # torch's own types leave it out
        )
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(quantized.qdata.int() + 8, 1)
        scale = quantized.scale.view(self.out_features, -1).t()  # (in / 32, out)
        self.register_buffer("weight", packed)  # (out, in / 2) uint8
        self.register_buffer("scale_and_zero", torch.stack([scale, torch.zeros_like(scale)], dim=-1).bfloat16())

    def multiply(self, rows: Tensor) -> Tensor:
        scale_and_zero = self.scale_and_zero.bfloat16()
        return torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.weight, GROUP_SIZE, scale_and_zero)
