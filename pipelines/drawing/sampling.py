"""The loop that draws image codes from a prior, and the small functions it is made of."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .decoder import Decoder
from .settings import SamplingSettings

Callback = Callable[[int, Tensor], None]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout inside, and the model's own mode again after."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def draw_keys(seeds: list[int], length: int) -> Tensor:
    """A random key for each code of each picture, (B, length) int64 on the CPU; a row depends on its seed alone."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randint(-(2**63), 2**63 - 1, (length,), generator=g) for g in generators])


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance of logits: unconditional + scale · (conditional − unconditional), arXiv 2207.12598.

    Exactly one of the two at scale 0 and 1.
    """
    return torch.lerp(unconditional, conditional, scale)


def filter_logits(
    logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """Logits (B, K) over temperature, with −inf for the codes cut off by top-k, then by top-p, then by min-p.

    Temperature 0 is its limit, the likeliest code alone. At least one code is always left.
    """
    if temperature == 0:
        return keep_top_k(logits, 1)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature  # at most 0: finite at any temperature
    if 0 < top_k < logits.shape[-1]:
        logits = keep_top_k(logits, top_k)
    if top_p < 1:
        logits = keep_top_p(logits, top_p)
    if min_p > 0:
        logits = keep_min_p(logits, min_p)
    return logits


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest logits of each row (B, K), the others −inf: exactly k are kept, also among equals."""
    values, indices = logits.topk(k, dim=-1)
    return torch.full_like(logits, -torch.inf).scatter(-1, indices, values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The nucleus of each row (B, K): the fewest codes whose probabilities sum to p or more (Holtzman et al. 2020)."""
    ordered, indices = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    cut = probabilities.cumsum(dim=-1) - probabilities >= p  # the mass of the likelier codes suffices
    cut[:, 0] = False  # the likeliest code stays, also where p itself rounds to 0
    return logits.scatter(-1, indices, ordered.masked_fill(cut, -torch.inf))


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """The codes of each row (B, K) at least p times as probable as its likeliest, arXiv 2407.01082; others −inf."""
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), -torch.inf)


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


def draw_codes(
    prior: Any,
    text_ids: Tensor,
    keys: Tensor,
    settings: SamplingSettings | None = None,
    *,
    other_text_ids: Tensor | None = None,
    fixed_codes: Tensor | None = None,
    fixed_mask: Tensor | None = None,
    posterior_logits: Tensor | None = None,
    strength: float = 1.0,
) -> Iterator[tuple[int, Tensor]]:
    """Draw the codes of B pictures, in raster order, over a static cache.

    Args:
        prior: any model of the protocol in decoding.py.
        text_ids: (B, T) int64, one caption a picture; it is read, never written.
        keys: (B, N) int64 by `draw_keys`, N = grid_size²: keys[b, i] is the chance in code i of picture b.
        settings: how to draw; None is the plain model at temperature 1.
        other_text_ids: (B, T) the captions that guidance steers away from; None is the empty one.
        fixed_codes, fixed_mask: (B, N) int64 and bool, both or neither: the codes of the mask stay as given, the
            others, whatever is written there, are drawn, each seeing the codes before it and none after it.
        posterior_logits, strength: (B, N, K), what a picture says of its codes; they are drawn from
            posterior^(1 − strength) · prior^strength, normalised, for variations of that picture.

    Yields:
        how many codes are done in raster order, and the codes (B, N) int64, −1 where there is none yet: first
        (0, the fixed ones), then after each drawn code. The loop writes on in them: copy what is to stay.

    Raises:
        ValueError: when a shape or a fixed code does not fit the prior.
    """
    settings = settings or SamplingSettings()
    batch_size, length = len(text_ids), prior.config.grid_size**2
    if fixed_codes is None and fixed_mask is None:
        fixed_codes = text_ids.new_zeros(batch_size, length)
        fixed_mask = torch.zeros_like(fixed_codes, dtype=torch.bool)
    _check(prior, text_ids, keys, settings, fixed_codes, fixed_mask)
    device = text_ids.device
    if settings.guidance_scale == 1:
        other_text_ids = None
    elif other_text_ids is None:
        other_text_ids = prior.null_text_ids(batch_size).to(device)
    fixed_codes, fixed_mask = fixed_codes.to(device), fixed_mask.to(device)
    posterior = None if strength == 1 else posterior_logits.float().log_softmax(dim=-1).to(device)
    return _draw(
        prior, text_ids, other_text_ids, keys.to(device), settings, fixed_codes, fixed_mask, posterior, strength
    )


@torch.inference_mode()
def _draw(
    prior: Any,
    text_ids: Tensor,
    other_text_ids: Tensor | None,
    keys: Tensor,
    settings: SamplingSettings,
    fixed_codes: Tensor,
    fixed_mask: Tensor,
    posterior: Tensor | None,
    strength: float,
) -> Iterator[tuple[int, Tensor]]:
    """The loop of `draw_codes`: known codes before the first drawn one are read at once, after the last one never."""
    temperatures = settings.temperatures(keys.shape[1])
    scales = settings.guidance_scales(prior.config.grid_size)
    to_draw = (~fixed_mask).any(dim=0).nonzero()[:, 0].tolist()
    codes = fixed_codes.where(fixed_mask, -1)
    yield 0, codes
    if not to_draw:
        return
    decoder, first, last = Decoder(prior, text_ids, other_text_ids), to_draw[0], to_draw[-1]
    for i in range(first, last + 1):
        logits = decoder.prefill(codes[:, :i]) if i == first else decoder.step(codes[:, i - 1 : i], i - 1)
        if i not in to_draw:
            continue
        if other_text_ids is not None:
            logits = guide(*logits.chunk(2), scales[i])
        if posterior is not None:
            logits = torch.lerp(posterior[:, i], logits.log_softmax(dim=-1), strength)
        logits = filter_logits(logits, temperatures[i], settings.top_k, settings.top_p, settings.min_p)
        codes[:, i] = codes[:, i].where(fixed_mask[:, i], sample_codes(logits, keys[:, i]))
        yield i + 1, codes


def _check(
    prior: Any, text_ids: Tensor, keys: Tensor, settings: SamplingSettings, fixed_codes: Tensor, fixed_mask: Tensor
) -> None:
    """Both numbers and the remedy, before anything is computed."""
    batch_size, length, vocab_size = len(text_ids), prior.config.grid_size**2, prior.config.image_vocab_size
    if keys.shape != (batch_size, length):
        raise ValueError(
            f"keys have shape {tuple(keys.shape)}, but {batch_size} captions of {length} codes each need "
            f"{(batch_size, length)}; pass draw_keys(seeds, {length}) with a seed for each caption"
        )
    check_settings(settings, prior)
    for name, given in {"fixed_codes": fixed_codes, "fixed_mask": fixed_mask}.items():
        shape = None if given is None else tuple(given.shape)
        if shape != (batch_size, length):
            raise ValueError(
                f"{name} has shape {shape}, but {batch_size} captions of {length} codes each need "
                f"{(batch_size, length)}; pass fixed_codes and fixed_mask, a row a picture, in raster order"
            )
    if fixed_codes.dtype != torch.int64 or fixed_mask.dtype != torch.bool:
        kinds = f"fixed_codes {fixed_codes.dtype}, fixed_mask {fixed_mask.dtype}"
        raise ValueError(f"{kinds}; pass int64 codes, a bool mask")
    known = fixed_codes[fixed_mask]
    if known.numel() and not (known.min() >= 0 and known.max() < vocab_size):
        raise ValueError(
            f"fixed_codes run from {known.min()} to {known.max()}, but this model's codes are "
            f"0 to {vocab_size - 1}; encode the picture with this pipeline's own dVAE"
        )


def check_codes(codes: Tensor, prior: Any) -> None:
    """Raises ValueError unless they are int64 (B, h, w) of the prior's grid and codes, with both numbers."""
    side, size = prior.config.grid_size, prior.config.image_vocab_size
    if codes.dtype != torch.int64 or codes.ndim != 3 or tuple(codes.shape[1:]) != (side, side):
        raise ValueError(f"codes {codes.dtype} {tuple(codes.shape)} must be int64 (B, {side}, {side})")
    if codes.numel() and not (codes.min() >= 0 and codes.max() < size):
        raise ValueError(f"codes run from {codes.min()} to {codes.max()}; this model's are 0 to {size - 1}")


def check_settings(settings: SamplingSettings, prior: Any) -> None:
    """Raises ValueError where the settings do not fit the prior's codes or grid, with both numbers."""
    vocab_size, side = prior.config.image_vocab_size, prior.config.grid_size
    if settings.top_k > vocab_size:
        raise ValueError(
            f"top_k={settings.top_k} exceeds this model's {vocab_size} codes; pass {vocab_size} at most, or 0 for all"
        )
    if settings.guidance_region is not None and max(settings.guidance_region) > side:
        raise ValueError(
            f"guidance_region={settings.guidance_region} leaves this model's grid of {side}×{side} codes; "
            f"pass a box inside (0, 0, {side}, {side})"
        )
