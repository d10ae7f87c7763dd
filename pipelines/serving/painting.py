"""A batch of pictures through the pipeline's own steps, on the thread of the batcher."""

from dataclasses import asdict
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from ..text_to_image import TextToImagePipeline
from .batching import Event, Picture, Report


class _NobodyWaits(Exception):
    """Every picture of the batch was dropped while it was painted."""


class Painter:
    """Paints batches with one pipeline: a picture depends on its own prompt and seed, not on its batch."""

    def __init__(self, pipeline: TextToImagePipeline):
        self.pipeline = pipeline
        self.length = pipeline.prior.config.grid_size**2

    def __call__(self, batch: list[Picture], report: Report) -> None:
        """Paint pictures of equal settings and report each, its partial ones first."""
        try:
            codes = self.pipeline.generate_codes(
                self._text_ids(batch),
                seed=[picture.seed for picture in batch],
                callback=lambda i, codes: self._after_code(batch, i, codes, report),
                **asdict(batch[0].job.settings),
            )
        except _NobodyWaits:
            return
        images = self.pipeline.postprocess(self.pipeline.decode_codes(codes))
        for picture, image in zip(batch, images, strict=True):
            report(picture, Event(picture.index, image))

    def _text_ids(self, batch: list[Picture]) -> Tensor:
        return torch.cat([picture.job.text_ids for picture in batch])  # (B, T)

    def _after_code(self, batch: list[Picture], i: int, codes: Tensor, report: Report) -> None:
        """codes: (B, i + 1). Stops the loop when nobody waits; reports the partial pictures that are due."""
        if all(picture.job.dropped for picture in batch):
            raise _NobodyWaits
        due = {
            k: step for k, p in enumerate(batch) if (step := self._partial(i + 1, p.job.partial_images)) is not None
        }
        if due:
            for k, image in zip(due, self._unfinished(codes[list(due)]), strict=True):
                report(batch[k], Event(batch[k].index, image, partial=due[k]))

    def _partial(self, drawn: int, partial_images: int) -> int | None:
        """Which of its partial pictures, evenly spaced over the codes, is due after so many codes; None for none."""
        marks = [self.length * (j + 1) // (partial_images + 1) for j in range(partial_images)]
        return marks.index(drawn) if drawn in marks else None

    def _unfinished(self, codes: Tensor) -> list[Image.Image]:
        """Pictures of their first codes (B, m): what is not drawn yet is blank."""
        rest = self._blank[:, codes.shape[1] :].expand(len(codes), -1)
        side = self.pipeline.prior.config.grid_size
        codes = torch.cat([codes, rest], dim=1).unflatten(1, (side, side))  # (B, h, w)
        return self.pipeline.postprocess(self.pipeline.decode_codes(codes))

    @cached_property
    def _blank(self) -> Tensor:
        """The codes (1, h·w) of a white sheet."""
        dvae = self.pipeline.dvae
        white = torch.ones(1, 3, dvae.config.image_size, dvae.config.image_size, device=dvae.device, dtype=dvae.dtype)
        return dvae.encode(white).flatten(1)
