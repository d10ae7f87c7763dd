"""What the loop knows of a prior, and nothing else: whatever has this can be painted with."""

from typing import Any, Protocol, Self

import torch
from torch import Tensor


class Cache(Protocol):
    """What a prior has read and looked at, a row a stream; how long each is, and what is padding, it knows itself."""

    def expand(self, rows: Tensor) -> Self:
        """One of its own whose row i goes on from this one's row rows[i], (R,) int64."""
        ...

    def put(self, slots: Tensor, other: Self, rows: Tensor) -> None:
        """Row slots[i] becomes rows[i] of another one, or of itself; both (n,) int64."""
        ...


class Prior(Protocol):
    """config has grid_size and codebook_size: a picture is N = grid_size² of K codes in raster order."""

    config: Any

    def read(self, captions: Tensor) -> tuple[Tensor, Cache]:
        """Captions (P, …), such as text ids -> hidden states (P, D), and a cache that has read them."""
        ...

    def null(self, captions: Tensor) -> Tensor:
        """The captions that guidance steers away from unless told otherwise, one for each (P, …)."""
        ...

    def image_logits(self, hidden_states: Tensor) -> Tensor:
        """(P, D) of `read` -> logits (P, K) of the first code."""
        ...

    def look(self, codes: Tensor, places: Tensor, cache: Any) -> Tensor:
        """W codes of each of the cache's first R rows, (R, W) int64 -> logits (R, W, K) of the codes that follow each.

        Row r's are at raster positions places[r] to places[r] + W − 1, int64 (R,) on the CPU, and are written into the
        cache over what was there; it has all before them. The last code of the grid and those past its end predict
        nothing, and any code may stand there. cache: of this prior's own `read`, or what is made of one.
        """
        ...


def rounds_alike(prior: Prior) -> bool:
    """
    Whether looks of every width give logits whose differences are of the last bits of float32, which the chance in a
    code hardly ever meets: of float32 weights, multiplied in float32. Of bfloat16 or TF32 they decide codes.
    """
    stored = prior.state_dict().values() if isinstance(prior, torch.nn.Module) else ()
    weights = [weight for weight in stored if weight.is_floating_point()]
    device = weights[0].device.type if weights else "cpu"
    in_full = torch.get_float32_matmul_precision() == "highest" and not torch.is_autocast_enabled(device)
    exact = in_full and all(weight.dtype == torch.float32 for weight in weights)
    return exact and not getattr(prior, "quantized", None)
