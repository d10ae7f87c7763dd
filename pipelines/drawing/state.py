"""What the loop knows of the rows that it draws."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .keys import keyed_gumbel
from .settings import SamplingSettings

NOISE_BYTES = 2**28  # up to which the noise of whole pictures is drawn at once, not anew in each pass


@dataclass(frozen=True)
class State:
    """Tensors whose first dimension is that of the A rows; their values change, and rows come and go by new ones.

    codes: (A, 2 N) int64 on the prior's device: those that stand, then those that are guessed, then what is not used.
    keys, noise: (A, N) int64 and (A, N, K) float32 there, the chance in each code; K is 0 where it takes too much
        memory, and a pass draws its own.
    The rest is on the CPU, where the loop decides by it. given: (A, N) bool, codes that stay as they are.
    temperature, scale: (A, N), those of guidance. top_k, top_p, min_p: (A,).
    done, last, guessed: (A,) int64, how many codes stand, the last one to draw, the last one that is guessed.
    """

    codes: Tensor
    keys: Tensor
    noise: Tensor
    given: Tensor
    temperature: Tensor
    scale: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    done: Tensor
    last: Tensor
    guessed: Tensor

    @classmethod
    def of(cls, keys: Tensor, settings: SamplingSettings, codes: Tensor, given: Tensor, grid_size: int) -> "State":
        """keys, codes: (A, N) int64 on the prior's device. given: (A, N) bool, less than all of a row."""
        num_rows, length = keys.shape
        given = given.cpu()
        first = int(given.all(dim=0).long().cumprod(0).sum())  # what all have alike, from the first code on

        def of_each(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.full((num_rows,), value, dtype=dtype, device="cpu")

        def of_each_code(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device="cpu").repeat(num_rows, 1)

        return cls(
            codes=torch.cat([codes.where(given.to(codes.device), 0), torch.zeros_like(codes)], dim=1),
            keys=keys,
            noise=torch.empty(num_rows, length, 0, device=keys.device),
            given=given,
            temperature=of_each_code(settings.temperatures(length)),
            scale=of_each_code(settings.guidance_scales(grid_size)),
            top_k=of_each(settings.top_k, torch.int64),
            top_p=of_each(settings.top_p),
            min_p=of_each(settings.min_p),
            done=of_each(first, torch.int64),
            last=torch.where(given, -1, torch.arange(length, device="cpu")).amax(dim=1),
            guessed=of_each(first, torch.int64),
        )

    def __len__(self) -> int:
        return len(self.done)

    def join(self, other: "State") -> "State":
        parts = {field.name: [getattr(state, field.name) for state in (self, other)] for field in fields(self)}
        return State(**{name: torch.cat(pair) for name, pair in parts.items()})

    def row(self, row: int) -> "State":
        """One of them, a copy."""
        return State(**{field.name: getattr(self, field.name)[[row]] for field in fields(self)})

    def remove(self, row: int) -> "State":
        """The last row takes its place."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        if row < len(self) - 1:
            for tensor in parts.values():
                tensor[row] = tensor[-1]
        return State(**{name: tensor[:-1] for name, tensor in parts.items()})

    def settings_at(self, cells: Tensor) -> dict[str, Tensor]:
        """What `filter_logits` takes for each of the raster positions (A, W), flattened."""
        alike = {"top_k": self.top_k, "top_p": self.top_p, "min_p": self.min_p}
        settings = {name: value[:, None].expand(cells.shape).flatten() for name, value in alike.items()}
        return settings | {"temperature": self.temperature.gather(1, cells).flatten()}

    def guess(self, width: int, grid_size: int) -> Tensor:
        """The last code of each row that stands and the next ones, as guessed, (A, W) on the prior's device.

        What no pass has said anything of is guessed to be as the code above it, in the first row as the one before.
        """
        cells = self.done[:, None] - 1 + torch.arange(width, device="cpu")
        if (cells[:, -1] > self.guessed).any():
            rows_beyond = -((self.guessed[:, None] - cells).clamp(max=0) // grid_size)
            source = cells - grid_size * rows_beyond
            source = source.where(source >= 0, self.guessed[:, None])
            source = cells.where(self.given.gather(1, cells.clamp(max=self.given.shape[1] - 1)), source)
            self.codes.scatter_(1, cells.to(self.codes.device), self.codes.gather(1, source.to(self.codes.device)))
            self.guessed.copy_(torch.maximum(self.guessed, cells[:, -1]))
        return self.codes.gather(1, cells.to(self.codes.device))

    def settle(self, drawn: Tensor, *, wait: bool) -> list[int]:
        """The codes that were drawn after those of `guess`, (A, W): how many more stand now, of each row.

        They are those up to the first that is not as it was guessed, and that one; what came after it are the next
        guesses. wait: whether to be done when this returns, also where nothing is to be known.
        """
        length, width = self.keys.shape[1], drawn.shape[1]
        cells = self.done[:, None] + torch.arange(width, device="cpu")
        given = self.given.gather(1, cells.clamp(max=length - 1)).to(drawn.device)
        there = cells.to(drawn.device)
        guesses = self.codes.gather(1, there)
        drawn = guesses.where(given, drawn)
        agreed = torch.zeros(len(self), dtype=torch.int64, device="cpu")
        if width > 1 or wait:
            agreed = (drawn == guesses)[:, :-1].long().cumprod(dim=1).sum(dim=1).cpu()
        self.codes.scatter_(1, there, drawn)
        self.guessed.copy_(cells[:, -1])
        self.done.add_(agreed + 1)
        self.done.copy_(self.done.where(self.done <= self.last, length))
        return (agreed + 1).tolist()

    def noise_at(self, cells: Tensor, codebook_size: int) -> Tensor:
        """Of the raster positions (A, W), (A, W, K) on the prior's device."""
        rows, cells = torch.arange(len(self), device=self.keys.device)[:, None], cells.to(self.keys.device)
        if self.noise.shape[-1] > 0:
            return self.noise[rows, cells]
        return keyed_gumbel(self.keys[rows, cells].flatten(), codebook_size).unflatten(0, cells.shape)


def draw_noise(keys: Tensor, codebook_size: int, num_rows: int) -> Tensor:
    """The noise of whole pictures, (A, N, K), or (A, N, 0) where that of num_rows takes too much memory."""
    if num_rows * keys.shape[1] * codebook_size * 4 > NOISE_BYTES:
        return torch.empty(*keys.shape, 0, device=keys.device)
    return torch.stack([keyed_gumbel(row, codebook_size) for row in keys])
