"""A call's pictures drawn together, code after code as far as each of them is, and who watches it."""

from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .prior import Prior
from .rows import Rows
from .settings import SamplingSettings, check_settings

Callback = Callable[[int, Tensor], None]


class Drawn(NamedTuple):
    """How many codes of every picture are done in raster order; the codes (B, N) int64, −1 where there is none yet;
    and how many looks of the prior it took."""

    done: int
    codes: Tensor
    passes: int


class Each(NamedTuple):
    """What `Rows.add` takes, of every picture."""

    captions: Tensor
    other_captions: Tensor | None
    keys: Tensor
    codes: Tensor
    given: Tensor
    posterior: Tensor | None


def draw_codes(
    prior: Prior,
    captions: Tensor,
    keys: Tensor,
    settings: SamplingSettings | None = None,
    *,
    other_captions: Tensor | None = None,
    fixed_codes: Tensor | None = None,
    fixed_mask: Tensor | None = None,
    posterior_logits: Tensor | None = None,
    strength: float = 1.0,
    window: int | None = None,
) -> Iterator[Drawn]:
    """Draw the codes of B pictures, each in raster order.

    Args:
        prior: any model that has what prior.py says.
        captions: one a picture, (B, …), in a form that the prior reads: text ids as a rule.
        keys: (B, N) int64 by `draw_keys`, N = grid_size²: keys[b, i] is the chance in code i of picture b.
        settings: how to draw; None is the plain model at temperature 1.
        other_captions: those that guidance steers away from, in the same form; None is the prior's `null`.
        fixed_codes, fixed_mask: (B, N) int64 and bool, both or neither: the codes of the mask stay as given, the
            others, whatever is written there, are drawn, each seeing the codes before it and none after it.
        posterior_logits, strength: (B, N, K), what a picture says of its codes, −inf for never; they are drawn from
            posterior^(1 − strength) · prior^strength, normalised, for variations of that picture.
        window: how many codes of a picture one pass looks at; the pictures are the same. 1 draws one after the other.
            None takes what is measured to be the fastest, and 1 of a prior that is not in float32, whose roundings
            differ by the width of a look.

    Yields:
        first the fixed codes, then the codes so far after each drawn one, several of which may come from one pass.

    Raises:
        ValueError: when a shape or a fixed code does not fit the prior.
    """
    settings = settings or SamplingSettings()
    batch_size, length, device = len(captions), prior.config.grid_size**2, captions.device
    if fixed_codes is None and fixed_mask is None:
        fixed_codes = torch.zeros(batch_size, length, dtype=torch.int64, device=device)
        fixed_mask = torch.zeros_like(fixed_codes, dtype=torch.bool)
    fixed_codes, fixed_mask = _checked(prior, captions, keys, settings, fixed_codes, fixed_mask)
    if strength != 1 and posterior_logits is None:
        raise ValueError(f"strength={strength} mixes with posterior_logits, and there are none; pass them, or 1")
    if settings.guidance_scale == 1:
        other_captions = None
    elif other_captions is None:
        other_captions = prior.null(captions)
    mixed = None if posterior_logits is None or strength == 1 else posterior_logits.float().log_softmax(dim=-1)
    each = Each(
        captions=captions,
        other_captions=other_captions,
        keys=keys.to(device),
        codes=fixed_codes.to(device),
        given=fixed_mask.to(device),
        posterior=None if mixed is None else mixed.to(device),
    )
    return _draw(Rows(prior, window), each, settings, strength)


@torch.inference_mode()
def _draw(rows: Rows, each: Each, settings: SamplingSettings, strength: float) -> Iterator[Drawn]:
    given = each.given
    cells = torch.arange(given.shape[1], device=given.device)
    codes, done = each.codes.where(given, -1), 0
    yield Drawn(done, codes.clone(), rows.passes)
    drawn, busy = (~given).any(dim=0).tolist(), (~given).any(dim=1).nonzero()[:, 0]
    if len(busy) == 0:
        return
    names = rows.add(
        settings=settings,
        strength=strength,
        captions=each.captions[busy],
        other_captions=None if each.other_captions is None else each.other_captions[busy],
        keys=each.keys[busy],
        codes=each.codes[busy],
        given=given[busy],
        posterior=None if each.posterior is None else each.posterior[busy],
    )
    pictures = dict(zip(names, busy.tolist(), strict=True))
    stand = dict.fromkeys(names, 0)  # of those that are done the last word
    while True:
        progress = rows.collect()
        codes[[pictures[name] for name in progress.names]] = progress.codes
        stand |= zip(progress.names, progress.done, strict=True)
        for i in range(done, min(stand.values())):
            if drawn[i]:
                yield Drawn(i + 1, codes.where(given | (cells <= i), -1), rows.passes)
        done = min(stand.values())
        if len(rows) == 0:
            return
        rows.step()


def watch(
    draws: Iterator[Drawn], total: int, progress_bar: bool, callback: Callback | None
) -> Generator[Drawn, None, None]:
    """Copies of `draw_codes`' items, as normal tensors, shown by a bar and to callback(i, codes (B, i + 1))."""
    with tqdm(total=total, unit="code", disable=not progress_bar) as bar:
        for done, codes, passes in draws:
            bar.update(done - bar.n)
            if callback is not None and done > 0:
                callback(done - 1, codes[:, :done].clone())
            yield Drawn(done, codes.clone(), passes)
        bar.update(total - bar.n)


def _checked(
    prior: Prior,
    captions: Tensor,
    keys: Tensor,
    settings: SamplingSettings,
    fixed_codes: Tensor | None,
    fixed_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """fixed_codes and fixed_mask, or both numbers and the remedy, before anything is computed."""
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
    assert fixed_codes is not None and fixed_mask is not None  # of that shape both
    if fixed_codes.dtype != torch.int64 or fixed_mask.dtype != torch.bool:
        kinds = f"fixed_codes {fixed_codes.dtype}, fixed_mask {fixed_mask.dtype}"
        raise ValueError(f"{kinds}; pass int64 codes, a bool mask")
    known = fixed_codes[fixed_mask]
    if known.numel() and not (known.min() >= 0 and known.max() < vocab_size):
        raise ValueError(
            f"fixed_codes run from {known.min()} to {known.max()}, but this model's codes are "
            f"0 to {vocab_size - 1}; encode the picture with this pipeline's own dVAE"
        )
    return fixed_codes, fixed_mask


def check_codes(codes: Tensor, prior: Prior) -> None:
    """Raises ValueError unless they are int64 (B, h, w) of the prior's grid and codes, with both numbers."""
    side, size = prior.config.grid_size, prior.config.codebook_size
    if codes.dtype != torch.int64 or codes.ndim != 3 or tuple(codes.shape[1:]) != (side, side):
        raise ValueError(f"codes {codes.dtype} {tuple(codes.shape)} must be int64 (B, {side}, {side})")
    if codes.numel() and not (codes.min() >= 0 and codes.max() < size):
        raise ValueError(f"codes run from {codes.min()} to {codes.max()}; this model's are 0 to {size - 1}")
