"""Pictures of any requests through the pipeline's own steps, a pass at a time, on the thread of the batcher."""

import torch
from PIL import Image
from torch import Tensor

from ..drawing.keys import draw_keys
from ..drawing.rows import Resting, Rows
from ..drawing.settings import SamplingSettings
from ..running import evaluating
from ..steps import PipelineSteps
from .batching import Event, Report, WorkItem


class Worker:
    """Paints with one pipeline, whatever pictures it is given for a pass.

    A picture depends on its own prompt and seed, to the last bit: the codes are drawn together, where what the others
    do to a logit's rounding is no more than noise that decides nothing, and then each picture is decoded alone.
    Decoding 8 of 64 px alone took 3 % longer than decoding them at once.
    """

    def __init__(self, pipeline: PipelineSteps):
        self.pipeline = pipeline
        self.side = pipeline.prior.config.grid_size
        self.forget()

    def forget(self) -> None:
        """Nothing is begun."""
        self.rows = Rows(self.pipeline.prior)
        self._painted: dict[int, WorkItem] = {}  # by the name of its row
        self._resting: dict[WorkItem, Resting] = {}
        self._seen: dict[WorkItem, int] = {}  # how many codes of it stood when its partial pictures were last reported

    def step(self, pictures: list[WorkItem], report: Report) -> list[WorkItem]:
        """Some codes more of these pictures; reports them as they are finished, their partial ones before."""
        with evaluating(self.pipeline.prior):
            self._rest(set(pictures))
            self._begin([picture for picture in pictures if picture not in self._painted.values()])
            finished = self._report(report)
            if len(self.rows):
                self.rows.step()
                finished += self._report(report)
        return finished

    def _rest(self, going_on: set[WorkItem]) -> None:
        """Those that are not to go on are kept as far as they are, unless nobody waits for them."""
        for name, picture in list(self._painted.items()):
            if picture not in going_on:
                resting = self.rows.take(name)
                del self._painted[name]
                self._resting[picture] = resting
        for picture in [picture for picture in self._resting if picture.job.dropped]:
            del self._resting[picture]
            self._seen.pop(picture, None)

    def _begin(self, pictures: list[WorkItem]) -> None:
        """Those that rested go on; the others begin, those of equal settings together."""
        fresh: dict[SamplingSettings, list[WorkItem]] = {}
        for picture in pictures:
            if picture in self._resting:
                self._painted[self.rows.put(self._resting.pop(picture))] = picture
            else:
                fresh.setdefault(picture.job.settings, []).append(picture)
        for settings, some in fresh.items():
            self._painted |= zip(self._add(settings, some), some, strict=True)

    def _add(self, settings: SamplingSettings, pictures: list[WorkItem]) -> list[int]:
        captions = torch.cat([picture.job.text_ids for picture in pictures])  # (n, T)
        others = torch.cat([picture.job.negative_ids for picture in pictures])
        keys = draw_keys([picture.seed for picture in pictures], self.side**2).to(captions.device)
        return self.rows.add(
            captions,
            keys,
            settings,
            codes=torch.zeros_like(keys),
            given=torch.zeros_like(keys, dtype=torch.bool),
            other_captions=None if settings.guidance_scale == 1 else others,
        )

    def _report(self, report: Report) -> list[WorkItem]:
        """What is new of each picture; those that are finished."""
        finished = []
        for name, done, codes in zip(*self.rows.collect(), strict=True):
            picture = self._painted[name]
            for index, mark in enumerate(self._marks(picture.job.partial_images)):
                if self._seen.get(picture, 0) < mark <= done:
                    report(picture, Event(picture.index, self._unfinished(codes[None, :mark]), index))
            self._seen[picture] = done
            if done == self.side**2:
                codes = codes.view(1, self.side, self.side).clone()
                report(picture, Event(picture.index, self._image(self.pipeline.decode_codes(codes))))
                finished.append(picture)
                del self._painted[name], self._seen[picture]
        return finished

    def _marks(self, partial_images: int) -> list[int]:
        """After how many codes each of the partial pictures is due, evenly spaced."""
        return [self.side**2 * (j + 1) // (partial_images + 1) for j in range(partial_images)]

    def _unfinished(self, codes: Tensor) -> Image.Image:
        """The picture of its first codes (1, m), as the pipeline's own `stream` shows it."""
        done = codes.shape[1]
        codes = torch.nn.functional.pad(codes, (0, self.side**2 - done), value=-1)
        return self._image(self.pipeline.decode_unfinished(codes.unflatten(1, (self.side, self.side)), done))

    def _image(self, pixel_values: Tensor) -> Image.Image:
        return self.pipeline.postprocess(pixel_values)[0]
