"""The chance in a picture: from its seed a key for each of its codes, from a key the noise that draws that code.

`dvae.categoricals` draws with torch's own generator; here a picture is to depend on its seed alone, on any device and
among any neighbours.
"""

import secrets

import torch
from torch import Tensor

from ..checks import check_seeds

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # what SplitMix64 adds at each step, as int64


def draw_seeds(seed: int | list[int] | None, num_prompts: int, images_per_prompt: int) -> list[int]:
    """One seed an image: s, s + 1, … for every prompt from an int s, those of a list, or fresh ones."""
    check_seeds(seed, num_prompts * images_per_prompt)
    if seed is None:
        return [secrets.randbelow(2**32) for _ in range(num_prompts * images_per_prompt)]
    if isinstance(seed, list | tuple):
        return [int(value) for value in seed]
    check_seeds(int(seed) + images_per_prompt - 1, 1)  # the last one paints its picture again, too
    return [int(seed) + i for _ in range(num_prompts) for i in range(images_per_prompt)]


def draw_keys(seeds: list[int], length: int) -> Tensor:
    """A random key for each code of each picture, (B, length) int64 on the CPU; a row depends on its seed alone.

    Key i is SplitMix64 at step i + 1 from the mixed seed: all of a seed's bits count, of which torch's generator keeps
    32.
    """
    states = split_mix(torch.tensor(seeds, dtype=torch.int64, device="cpu")[:, None])  # (B, 1)
    steps = torch.arange(1, length + 1, device="cpu")
    return split_mix(states + GOLDEN * steps)


def draw_by_keys(logits: Tensor, keys: Tensor) -> Tensor:
    """One code a row, drawn from softmax(logits): logits (B, K), keys (B,) int64 -> codes (B,) int64.

    By the Gumbel-max trick, argmax(logits + Gumbel noise): a row's code depends on that row alone, and a code at −inf
    is never drawn. Not by the inverse CDF: the last bits of a logit depend on the size of the batch, and a CDF has
    K − 1 boundaries to cross by them: of 256 pictures, 5 changed with their neighbours then, and none does now.
    """
    return (logits + keyed_gumbel(keys, logits.shape[-1])).argmax(dim=-1)


def keyed_gumbel(keys: Tensor, size: int) -> Tensor:
    """Standard Gumbel noise −ln(−ln u) that the keys alone decide, on any device: (B,) int64 -> (B, size) float32.

    Entry k of a row is SplitMix64 (Steele, Lea & Flood 2014) at step k + 1 from its key: no noise need be stored.
    """
    steps = torch.arange(1, size + 1, device=keys.device)
    bits = split_mix(keys[:, None] + GOLDEN * steps)  # (B, K), modulo 2^64
    uniforms = (_shift(bits, 11).float() + 0.5) * 2**-53  # fine near 0, where the largest noise comes from
    return -torch.log(-torch.log1p(-uniforms.clamp(max=1 - 2**-24)))


def split_mix(bits: Tensor) -> Tensor:
    """The mixing of SplitMix64, a permutation of all int64: each bit that comes out depends on each that goes in."""
    bits = (bits ^ _shift(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shift(bits, 27)) * _signed(0x94D049BB133111EB)
    return bits ^ _shift(bits, 31)


def _signed(word: int) -> int:
    """An unsigned 64-bit word as the int64 of the same bits."""
    return word - 2**64 if word >= 2**63 else word


def _shift(bits: Tensor, by: int) -> Tensor:
    """Unsigned right shift of int64: zeros come in from the left."""
    return (bits >> by) & (2 ** (64 - by) - 1)
