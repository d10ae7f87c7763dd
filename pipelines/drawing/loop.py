"""The loop that draws image codes from a prior, one after the other, and who watches it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .decoder import Decoder
from .keys import draw_by_keys
from .sampling import filter_logits, guide
from .settings import SamplingSettings, check_settings

Callback = Callable[[int, Tensor], None]


def draw_codes(
    prior: Any,
    captions: Tensor,
    keys: Tensor,
    settings: SamplingSettings | None = None,
    *,
    other_captions: Tensor | None = None,
    fixed_codes: Tensor | None = None,
    fixed_mask: Tensor | None = None,
    posterior_logits: Tensor | None = None,
    strength: float = 1.0,
) -> Iterator[tuple[int, Tensor]]:
    """Draw the codes of B pictures, in raster order, over a static cache.

    Args:
        prior: any model of the protocol in decoder.py.
        captions: one a picture, text ids (B, T) int64 or their prefixes (B, 1 + T, D), as `Decoder` takes them.
        keys: (B, N) int64 by `draw_keys`, N = grid_size²: keys[b, i] is the chance in code i of picture b.
        settings: how to draw; None is the plain model at temperature 1.
        other_captions: those that guidance steers away from, likewise; None is the empty one.
        fixed_codes, fixed_mask: (B, N) int64 and bool, both or neither: the codes of the mask stay as given, the
            others, whatever is written there, are drawn, each seeing the codes before it and none after it.
        posterior_logits, strength: (B, N, K), what a picture says of its codes, −inf for never; they are drawn from
            posterior^(1 − strength) · prior^strength, normalised, for variations of that picture.

    Yields:
        how many codes are done in raster order, and the codes (B, N) int64, −1 where there is none yet: first
        (0, the fixed ones), then after each drawn code. The loop writes on in them: copy what is to stay.

    Raises:
        ValueError: when a shape or a fixed code does not fit the prior.
    """
    settings = settings or SamplingSettings()
    batch_size, length = len(captions), prior.config.grid_size**2
    if fixed_codes is None and fixed_mask is None:
        fixed_codes = torch.zeros(batch_size, length, dtype=torch.int64, device=captions.device)
        fixed_mask = torch.zeros_like(fixed_codes, dtype=torch.bool)
    _check(prior, captions, keys, settings, fixed_codes, fixed_mask)
    device = captions.device
    if settings.guidance_scale == 1:
        other_captions = None
    elif other_captions is None:
        other_captions = prior.null_text_ids(batch_size).to(device)
    fixed_codes, fixed_mask = fixed_codes.to(device), fixed_mask.to(device)
    posterior = None if strength == 1 else posterior_logits.float().log_softmax(dim=-1).to(device)
    return _draw(
        prior, captions, other_captions, keys.to(device), settings, fixed_codes, fixed_mask, posterior, strength
    )


@torch.inference_mode()
def _draw(
    prior: Any,
    captions: Tensor,
    other_captions: Tensor | None,
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
    decoder, first, last = Decoder(prior, captions, other_captions), to_draw[0], to_draw[-1]
    for i in range(first, last + 1):
        logits = decoder.prefill(codes[:, :i]) if i == first else decoder.step(codes[:, i - 1 : i], i - 1)
        if i not in to_draw:
            continue
        if other_captions is not None:
            logits = guide(*logits.chunk(2), scales[i])
        if posterior is not None:
            logits = (1 - strength) * posterior[:, i] + strength * logits.log_softmax(dim=-1)
        logits = filter_logits(logits, temperatures[i], settings.top_k, settings.top_p, settings.min_p)
        codes[:, i] = codes[:, i].where(fixed_mask[:, i], draw_by_keys(logits, keys[:, i]))
        yield i + 1, codes


def watch(
    draws: Iterator[tuple[int, Tensor]], total: int, progress_bar: bool, callback: Callback | None
) -> Iterator[tuple[int, Tensor]]:
    """Copies of `draw_codes`' items, as normal tensors, shown by a bar and to callback(i, codes (B, i + 1))."""
    with tqdm(total=total, unit="code", disable=not progress_bar) as bar:
        for done, codes in draws:
            bar.update(done - bar.n)
            if callback is not None and done > 0:
                callback(done - 1, codes[:, :done].clone())
            yield done, codes.clone()
        bar.update(total - bar.n)


def _check(
    prior: Any, captions: Tensor, keys: Tensor, settings: SamplingSettings, fixed_codes: Tensor, fixed_mask: Tensor
) -> None:
    """Both numbers and the remedy, before anything is computed."""
    batch_size, length, vocab_size = len(captions), prior.config.grid_size**2, prior.config.codebook_size
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
    side, size = prior.config.grid_size, prior.config.codebook_size
    if codes.dtype != torch.int64 or codes.ndim != 3 or tuple(codes.shape[1:]) != (side, side):
        raise ValueError(f"codes {codes.dtype} {tuple(codes.shape)} must be int64 (B, {side}, {side})")
    if codes.numel() and not (codes.min() >= 0 and codes.max() < size):
        raise ValueError(f"codes run from {codes.min()} to {codes.max()}; this model's are 0 to {size - 1}")
