"""A batch of pictures through the pipeline's own steps, on the thread of the batcher."""

from dataclasses import asdict

import torch
from PIL import Image
from torch import Tensor

from ..steps import PipelineSteps
from .batching import Event, Report, WorkItem


class _NobodyWaits(Exception):
    """Every picture of the batch was dropped while it was painted."""


class Worker:
    """Paints batches with one pipeline.

    A picture depends on its own prompt and seed, to the last bit: the codes are drawn together, where what the batch
    does to a logit's rounding is no more than noise that decides nothing, and then each picture is decoded alone.
    Decoding 8 of 64 px alone took 3 % longer than decoding them at once.
    """

    def __init__(self, pipeline: PipelineSteps):
        self.pipeline = pipeline
        self.side = pipeline.prior.config.grid_size

    def __call__(self, batch: list[WorkItem], report: Report) -> None:
        """Paint pictures of equal settings and report each, its partial ones first."""
        try:
            codes = self.pipeline.generate_codes(
                torch.cat([picture.job.text_ids for picture in batch]),  # (B, T)
                negative_text_ids=torch.cat([picture.job.negative_ids for picture in batch]),
                seed=[picture.seed for picture in batch],
                callback=lambda i, codes: self._after_code(batch, codes, report),
                **asdict(batch[0].job.settings),
            )
        except _NobodyWaits:
            return
        for picture, own in zip(batch, codes, strict=True):
            report(picture, Event(picture.index, self._image(self.pipeline.decode_codes(own[None]))))

    def _after_code(self, batch: list[WorkItem], codes: Tensor, report: Report) -> None:
        """codes: (B, m), the first m. Stops the loop when nobody waits; reports the partial pictures that are due."""
        if all(picture.job.dropped for picture in batch):
            raise _NobodyWaits
        for picture, own in zip(batch, codes, strict=True):
            partial = self._partial(len(own), picture.job.partial_images)
            if partial is not None:
                report(picture, Event(picture.index, self._unfinished(own[None]), partial))

    def _partial(self, drawn: int, partial_images: int) -> int | None:
        """Which of its partial pictures, evenly spaced over the codes, is due after so many codes; None for none."""
        marks = [self.side**2 * (j + 1) // (partial_images + 1) for j in range(partial_images)]
        return marks.index(drawn) if drawn in marks else None

    def _unfinished(self, codes: Tensor) -> Image.Image:
        """The picture of its first codes (1, m), as the pipeline's own `stream` shows it."""
        done = codes.shape[1]
        codes = torch.nn.functional.pad(codes, (0, self.side**2 - done), value=-1)
        return self._image(self.pipeline.decode_unfinished(codes.unflatten(1, (self.side, self.side)), done))

    def _image(self, pixel_values: Tensor) -> Image.Image:
        return self.pipeline.postprocess(pixel_values)[0]
