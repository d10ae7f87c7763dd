"""The loop that draws image codes from a prior, and the small functions it is made of."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .decoding import Decoder
from .settings import SamplingSettings

Callback = Callable[[int, Tensor], None]


def draw_keys(seeds: list[int], length: int) -> Tensor:
    """A random key for each code of each picture, (B, length) int64 on the CPU; a row depends on its seed alone."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randint(-(2**63), 2**63 - 1, (length,), generator=g) for g in generators])


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance of logits: unconditional + scale · (conditional − unconditional), arXiv 2207.12598."""
    return unconditional + scale * (conditional - unconditional)


def filter_logits(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits (B, K) over temperature, with −inf for the codes cut off by top-k, then by top-p.

    Temperature 0 is its limit, the likeliest code alone. At least one code is always left.
    """
    if temperature == 0:
        return keep_top_k(logits, 1)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature  # at most 0: finite at any temperature
    if 0 < top_k < logits.shape[-1]:
        logits = keep_top_k(logits, top_k)
    if top_p < 1:
        logits = keep_top_p(logits, top_p)
    return logits


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest logits of each row (B, K), the others −inf: exactly k are kept, also among equals."""
    values, indices = logits.topk(k, dim=-1)
    return torch.full_like(logits, -torch.inf).scatter(-1, indices, values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The nucleus of each row (B, K): the fewest codes whose probabilities sum to p or more (Holtzman et al. 2020)."""
    ordered, indices = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # mass of the likelier codes
    before[:, 0] = 0  # exactly, so that the likeliest code stays whatever the rounding
    return logits.scatter(-1, indices, ordered.masked_fill(before >= p, -torch.inf))


def sample_codes(logits: Tensor, keys: Tensor) -> Tensor:
    """One code a row, drawn from softmax(logits): logits (B, K), keys (B,) int64 -> codes (B,) int64.

    By the Gumbel-max trick, argmax(logits + Gumbel noise): a row's code depends on that row alone, and a code at −inf
    is never drawn. Not by the inverse CDF: the last bits of a logit depend on the size of the batch, and a CDF has
    K − 1 boundaries to cross by them: of 256 pictures, 5 changed with their neighbours then, and none does now.
    """
    return (logits + gumbel_noise(keys, logits.shape[-1])).argmax(dim=-1)


def gumbel_noise(keys: Tensor, size: int) -> Tensor:
    """Standard Gumbel noise −ln(−ln u) that the keys alone decide, on any device: (B,) int64 -> (B, size) float32.

    Entry k of a row is SplitMix64 (Steele, Lea & Flood 2014) at step k + 1 from its key: no noise need be stored.
    """
    steps = torch.arange(1, size + 1, device=keys.device)
    bits = keys[:, None] + _signed(0x9E3779B97F4A7C15) * steps  # (B, K), modulo 2^64
    bits = (bits ^ _shift(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shift(bits, 27)) * _signed(0x94D049BB133111EB)
    bits = bits ^ _shift(bits, 31)
    uniforms = (_shift(bits, 11).float() + 0.5) * 2**-53  # fine near 0, where the largest noise comes from
    return -torch.log(-torch.log1p(-uniforms.clamp(max=1 - 2**-24)))


def _signed(word: int) -> int:
    """An unsigned 64-bit word as the int64 of the same bits."""
    return word - 2**64 if word >= 2**63 else word


def _shift(bits: Tensor, by: int) -> Tensor:
    """Unsigned right shift of int64: zeros come in from the left."""
    return (bits >> by) & (2 ** (64 - by) - 1)


def generate_codes(
    prior: Any,
    text_ids: Tensor,
    keys: Tensor,
    settings: SamplingSettings | None = None,
    *,
    fixed_codes: Tensor | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Draw the codes of B pictures, in raster order, over a static cache.

    Args:
        prior: any model of the protocol in decoding.py.
        text_ids: (B, T) int64, one caption a picture; it is read, never written.
        keys: (B, N) int64 by `draw_keys`, N = grid_size²: keys[b, i] is the chance in code i of picture b.
        settings: how to draw; None is the plain model at temperature 1.
        fixed_codes: (B, n) known codes of the first n positions, for completion; the rest is drawn.
        callback: called as callback(i, codes (B, i + 1)) after each drawn code i.

    Returns:
        codes (B, N) int64 in [0, image_vocab_size).

    Raises:
        ValueError: when a shape or a fixed code does not fit the prior.
    """
    settings = settings or SamplingSettings()
    length = prior.config.grid_size**2
    if fixed_codes is None:
        fixed_codes = text_ids.new_zeros(len(text_ids), 0)
    _check(prior, text_ids, keys, settings, fixed_codes)
    with torch.inference_mode():
        keys = keys.to(text_ids.device)
        codes = text_ids.new_zeros(len(text_ids), length)
        first = fixed_codes.shape[1]
        codes[:, :first] = fixed_codes
        guided = settings.guidance_scale != 1
        decoder = Decoder(prior, text_ids, prior.null_text_ids(len(text_ids)).to(text_ids.device) if guided else None)
        for i in range(first, length):
            logits = decoder.prefill(codes[:, :first]) if i == first else decoder.step(codes[:, i - 1 : i], i - 1)
            if guided:
                logits = guide(*logits.chunk(2), settings.guidance_scale)
            logits = filter_logits(logits, settings.temperature, settings.top_k, settings.top_p)
            codes[:, i] = sample_codes(logits, keys[:, i])
            if callback is not None:
                callback(i, codes[:, : i + 1].clone())
    return codes.clone()  # outside inference mode: a normal tensor, of use in training as well


def _check(prior: Any, text_ids: Tensor, keys: Tensor, settings: SamplingSettings, fixed_codes: Tensor) -> None:
    """Both numbers and the remedy, before anything is computed."""
    batch_size, length, vocab_size = len(text_ids), prior.config.grid_size**2, prior.config.image_vocab_size
    if keys.shape != (batch_size, length):
        raise ValueError(
            f"keys have shape {tuple(keys.shape)}, but {batch_size} captions of {length} codes each need "
            f"{(batch_size, length)}; pass draw_keys(seeds, {length}) with a seed for each caption"
        )
    if settings.top_k > vocab_size:
        raise ValueError(
            f"top_k={settings.top_k} exceeds this model's {vocab_size} codes; pass {vocab_size} at most, or 0 for all"
        )
    if fixed_codes.dim() != 2 or len(fixed_codes) != batch_size or fixed_codes.shape[1] > length:
        raise ValueError(
            f"fixed_codes have shape {tuple(fixed_codes.shape)}, but {batch_size} captions take (batch, n) codes with "
            f"n at most {length}; pass {batch_size} rows, flattened in raster order"
        )
    if fixed_codes.numel() and not (fixed_codes.min() >= 0 and fixed_codes.max() < vocab_size):
        raise ValueError(
            f"fixed_codes run from {fixed_codes.min()} to {fixed_codes.max()}, but this model's codes are "
            f"0 to {vocab_size - 1}; encode the picture with this pipeline's own dVAE"
        )
