"""Fingerprints of weights: two models of one fingerprint compute the same, wherever they lie."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

# What a float32 weight becomes on its way through a folder and `from_pretrained`.
ROUNDINGS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda weight: weight,
    lambda weight: weight.to(torch.float16),
    lambda weight: weight.to(torch.bfloat16),
    lambda weight: weight.to(torch.float16).to(torch.bfloat16),
)


def weights_digest(weights: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None) -> str:
    """Of the values by name, whatever their dtype and layout, and of settings as JSON holds them: 16 digits."""
    return _digest(weights, settings, ROUNDINGS[0])


def weights_digests(weights: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None) -> list[str]:
    """`weights_digest`, and those of the same weights stored or loaded in half precision, each once."""
    return list(dict.fromkeys(_digest(weights, settings, rounding) for rounding in ROUNDINGS))


def _digest(
    weights: Mapping[str, Tensor], settings: Mapping[str, Any] | None, rounding: Callable[[Tensor], Tensor]
) -> str:
    digest = hashlib.blake2b(json.dumps(dict(settings or {}), sort_keys=True).encode(), digest_size=8)
    for name, weight in sorted(weights.items()):
        digest.update(name.encode())
        values = weight.detach().cpu()
        values = rounding(values.float()).float() if values.is_floating_point() else values
        digest.update(values.reshape(-1).numpy().data)
    return digest.hexdigest()
