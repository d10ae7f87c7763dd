"""How codes are drawn: four numbers, checked once. No torch here, so that the command line can check them at once."""

from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real


@dataclass(frozen=True)
class SamplingSettings:
    """How codes are drawn. The defaults are the paper's: temperature 1, nothing cut off, no guidance.

    temperature: logits are divided by it; 0 takes the likeliest code.
    top_k: keep the k likeliest codes; 0 keeps all.
    top_p: keep the fewest codes whose probabilities reach p; 1 keeps all.
    guidance_scale: 1 is the plain model, more follows the prompt more closely, 0 ignores it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance_scale: float = 1.0

    def __post_init__(self):
        for name, kind in {"temperature": Real, "top_k": Integral, "top_p": Real, "guidance_scale": Real}.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                wanted = "a whole number" if kind is Integral else "a number"
                raise TypeError(f"{name}={value!r} is a {type(value).__name__}; pass {wanted}")
        if not (isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(
                f"temperature={self.temperature} is below 0 or not finite; pass 0 (likeliest code) or more"
            )
        if self.top_k < 0:
            raise ValueError(
                f"top_k={self.top_k} is below 0; pass 0 to keep all codes, or the number of codes to keep"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is outside (0, 1]; pass 1 to keep all codes, or a share such as 0.9")
        if not (isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise ValueError(
                f"guidance_scale={self.guidance_scale} is below 0 or not finite; pass 1 for none, or a scale such as 3"
            )
