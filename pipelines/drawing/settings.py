"""How codes are drawn: a few numbers, checked once. No torch here, so that the command line can check them at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real
from typing import Any

Region = tuple[int, int, int, int]
MAX_GUIDANCE_SCALE = 1e6  # far past any use, and far from where float32 overflows


@dataclass(frozen=True)
class SamplingSettings:
    """How codes are drawn. The defaults are the paper's: temperature 1, nothing cut off, no guidance.

    temperature: logits are divided by it; 0 takes the likeliest code. A list is a schedule: its values stand at even
        distances from the first code of the grid to the last, in raster order, on straight lines in between.
    top_k: keep the k likeliest codes; 0 keeps all.
    top_p: keep the fewest codes whose probabilities reach p; 1 keeps all.
    min_p: keep the codes at least p times as probable as the likeliest; 0 keeps all.
    guidance_scale: 1 is the plain model, more follows the prompt more closely, 0 ignores it.
    guidance_region: (left, upper, right, lower), as PIL has boxes, in codes of the grid: guidance holds inside, the
        scale is 1 elsewhere. None is the whole grid.
    """

    temperature: float | tuple[float, ...] = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    guidance_scale: float = 1.0
    guidance_region: Region | None = None

    def __post_init__(self):
        for name in ("temperature", "guidance_region"):  # JSON has lists, which equal no tuple
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_temperature()
        for name, kind in {"top_k": Integral, "top_p": Real, "min_p": Real, "guidance_scale": Real}.items():
            _check_kind(name, getattr(self, name), kind)
        if self.top_k < 0:
            raise ValueError(
                f"top_k={self.top_k} is below 0; pass 0 to keep all codes, or the number of codes to keep"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is outside (0, 1]; pass 1 to keep all codes, or a share such as 0.9")
        if not 0 <= self.min_p <= 1:
            raise ValueError(
                f"min_p={self.min_p} is outside [0, 1]; pass 0 to keep all codes, or a share such as 0.05"
            )
        if not 0 <= self.guidance_scale <= MAX_GUIDANCE_SCALE:
            raise ValueError(
                f"guidance_scale={self.guidance_scale} is outside [0, {MAX_GUIDANCE_SCALE:g}]; pass 1 for none, or a "
                f"scale such as 3"
            )
        if self.guidance_region is not None:
            self._check_region()

    def temperatures(self, length: int) -> list[float]:
        """The temperature of each of `length` codes in raster order."""
        if not isinstance(self.temperature, tuple):
            return [self.temperature] * length
        return [_on_the_line(self.temperature, i / max(length - 1, 1)) for i in range(length)]

    def guidance_scales(self, grid_size: int) -> list[float]:
        """The guidance scale of each of the grid_size² codes in raster order: 1 outside the region."""
        left, upper, right, lower = self.guidance_region or (0, 0, grid_size, grid_size)
        inside = [upper <= y < lower and left <= x < right for y in range(grid_size) for x in range(grid_size)]
        return [self.guidance_scale if here else 1.0 for here in inside]

    def _check_temperature(self) -> None:
        values = self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)
        if not values:
            raise ValueError("temperature=() holds no value; pass a number, or a list such as [1.0, 0.3]")
        for value in values:
            _check_kind("temperature", value, Real)
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"temperature={value} is below 0 or not finite; pass 0 (likeliest code) or more")

    def _check_region(self) -> None:
        remedy = "pass (left, upper, right, lower) in codes, such as (0, 0, 4, 4)"
        if not isinstance(self.guidance_region, tuple) or len(self.guidance_region) != 4:
            raise TypeError(f"guidance_region={self.guidance_region!r} is no box of 4 numbers; {remedy}")
        for value in self.guidance_region:
            _check_kind("guidance_region", value, Integral)
        left, upper, right, lower = self.guidance_region
        if not (0 <= left < right and 0 <= upper < lower):
            raise ValueError(f"guidance_region={self.guidance_region} is empty or below 0; {remedy}")


def check_settings(settings: SamplingSettings, prior: Any) -> None:
    """Raises ValueError where the settings do not fit the prior's codes or grid, with both numbers."""
    vocab_size, side = prior.config.codebook_size, prior.config.grid_size
    if settings.top_k > vocab_size:
        raise ValueError(
            f"top_k={settings.top_k} exceeds this model's {vocab_size} codes; pass {vocab_size} at most, or 0 for all"
        )
    if settings.guidance_region is not None and max(settings.guidance_region) > side:
        raise ValueError(
            f"guidance_region={settings.guidance_region} leaves this model's grid of {side}×{side} codes; "
            f"pass a box inside (0, 0, {side}, {side})"
        )


def _check_kind(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = "a whole number" if kind is Integral else "a number"
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; pass {wanted}")


def _on_the_line(values: Sequence[float], place: float) -> float:
    """Linear interpolation of values at even distances, place 0 at the first and 1 at the last."""
    place = place * (len(values) - 1)
    low = min(int(place), len(values) - 2) if len(values) > 1 else 0
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])
