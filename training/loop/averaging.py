"""The exponential moving average of a model's weights: what is evaluated and saved."""

import copy
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from prior_transformer import StreamPrior

from .states import copy_tensors, is_sharded, local


class Average:
    """
    ema ← decay · ema + (1 − decay) · weights, in float32; the first update copies. Buffers are copied always. What
    does not learn is its own average: in float32 it lies in memory once.

    It is made after Accelerate prepared the model, so that its tensors lie where the model's lie: of a sharded model
    each process averages its shards. torch's `AveragedModel` is a copy of the module, which FSDP2 refuses to make, and
    has no way back to the model.
    """

    def __init__(self, model: PreTrainedModel, decay: float):
        self.model, self.decay, self.updates = model, decay, 0
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        self.tensors = {
            name: (tensor.float() if tensor.is_floating_point() else tensor).detach()
            for name, tensor in model.state_dict().items()
        }
        self.tensors |= {name: tensor.clone() for name, tensor in self.tensors.items() if name not in frozen}

    @torch.no_grad()
    def update(self) -> None:
        if self.updates == 0:
            self.restart()
        else:
            parameters = dict(self.model.named_parameters())
            averages = [local(self.tensors[name]) for name in parameters]
            weights = [local(parameter.detach()).float() for parameter in parameters.values()]
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]  # torch's own optimisers use it
                averages, weights, 1 - self.decay
            )
            for name, buffer in self.model.named_buffers():
                if name in self.tensors:
                    self.tensors[name].copy_(buffer)
        self.updates += 1

    def restart(self) -> None:
        """The average becomes the weights as they are."""
        copy_tensors(self.model.state_dict(), self.tensors)

    def copy_to_model(self) -> None:
        """The weights become their average."""
        copy_tensors(self.tensors, self.model.state_dict())

    def copy_buffers_to_model(self) -> None:
        """Buffers become what they were at the last update."""
        for name, buffer in self.model.named_buffers():
            if name in self.tensors:
                buffer.copy_(self.tensors[name])

    @torch.no_grad()
    def module(self) -> PreTrainedModel | None:
        """
        A model of its own with the averaged weights, in float32; a text encoder, which is large and never changes, is
        the same. Of a sharded model it is put together on the CPU of the first process, and None on others, which have
        to call this too.
        """
        if not is_sharded(self.model):
            parts = [part for part in self.model.modules() if isinstance(part, StreamPrior)]
            shared = {id(part.text_encoder): part.text_encoder for part in parts}
            module = extract_model_from_parallel(copy.deepcopy(self.model, shared), keep_fp32_wrapper=False).float()
            copy_tensors(self.tensors, module.state_dict())
            return module.requires_grad_(False).eval()
        first = torch.distributed.get_rank() == 0
        whole = {}
        for name, tensor in self.tensors.items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if first:
                whole[name] = full.cpu()
        if not first:
            return None
        with torch.device("meta"):
            module = type(self.model)(copy.deepcopy(self.model.config))
        module.load_state_dict(whole, assign=True)
        return module.requires_grad_(False).eval()

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "tensors": self.tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        copy_tensors(state["tensors"], self.tensors)
