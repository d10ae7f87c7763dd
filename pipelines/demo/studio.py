"""What the page does, without the page: paint in steps, paint a part anew, reconstruct; pictures are kept as PNG."""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..output import TextToImagePipelineOutput
from ..pictures import save_pictures

if TYPE_CHECKING:
    from .. import TextToImagePipeline


KEPT_SECONDS = 3600


@dataclass(frozen=True)
class Kept:
    """A finished picture: its file, whose metadata says what made it, and what a user copies to paint it again."""

    path: str
    prompt: str
    seed: int

    @property
    def is_there(self) -> bool:
        return Path(self.path).is_file()


@dataclass(frozen=True)
class Progress:
    """What a painting shows at one moment: pictures that grow, how far they are, and at the end the kept ones."""

    images: list[Image.Image]
    step: int
    total: int
    seconds: float
    kept: list[Kept]


@dataclass(frozen=True)
class Reconstruction:
    """original, picture: what the model sees and what it makes of it. codes (h, w) int64. psnr: in dB."""

    original: Image.Image
    picture: Image.Image
    codes: np.ndarray
    psnr: float


class Studio:
    """
    pipeline: what paints. name: what the pictures' metadata call it.

    The files lie in a folder that goes with the studio, and each an hour after it was painted. The methods raise what
    the pipeline raises.
    """

    def __init__(self, pipeline: "TextToImagePipeline", name: str):
        self.pipeline, self.name = pipeline, name
        self._folder = tempfile.TemporaryDirectory(prefix="armchair-page-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self._paintings = 0  # that have begun and not ended
        self._work, self._closed = threading.Lock(), False  # held while the pipeline works

    @property
    def is_busy(self) -> bool:
        """Whether something is being painted."""
        return self._paintings > 0

    def paint(self, prompt: str, negative_prompt: str = "", **options: Any) -> Iterator[Progress]:
        """The pictures of a prompt while they grow, a step a row of codes; options as in the pipeline's call."""
        negative_prompt = negative_prompt.strip()
        told = {"negative_prompt": negative_prompt} if negative_prompt else {}
        return self._grow(told, prompt, negative_prompt=negative_prompt or None, **options)

    def inpaint(self, prompt: str, picture: Image.Image, mask: Image.Image, **options: Any) -> Iterator[Progress]:
        """A picture whose masked part, white, is painted anew, while it grows; with best_of, all candidates do.

        options: as in `TextToImagePipeline.inpaint`.
        """
        told = {"inpaint": "a mask drawn on the page"}
        return self._grow(told, prompt, image=picture, mask=mask, **options)

    def reconstruct(self, picture: Image.Image) -> Reconstruction:
        """A picture through its codes and back."""
        pipeline = self.pipeline
        with self._work:
            original, reconstructed = pipeline.image_processor.fit(picture), pipeline.reconstruct(picture)[0]
            codes = pipeline.encode_images(picture)[0].cpu().numpy()
        levels = np.asarray(original, dtype=float) - np.asarray(reconstructed, dtype=float)
        psnr = 10 * np.log10(255**2 / max(np.square(levels).mean(), 1e-9))
        return Reconstruction(original, reconstructed, codes, psnr)

    def _grow(self, told: dict[str, str], prompt: str, **options: Any) -> Iterator[Progress]:
        """A stream of the pipeline; told: for the metadata of the pictures that are kept of it."""
        start, stream = time.monotonic(), self.pipeline.stream(prompt, progress_bar=False, **options)
        self._paintings += 1
        try:
            while step := self._step(stream, told):
                output, kept = step
                yield Progress(output.images, output.step, output.total, time.monotonic() - start, kept)
        finally:
            self._paintings -= 1

    def _step(
        self, stream: Iterator[TextToImagePipelineOutput], told: dict[str, str]
    ) -> tuple[TextToImagePipelineOutput, list[Kept]] | None:
        """The next one of a stream, and what was kept of it; None at its end, or when the studio is closed."""
        with self._work:
            output = None if self._closed else next(stream, None)
            if output is None:
                return None
            return output, self._keep(output, told) if output.step == output.total else []

    def close(self) -> None:
        """Waits for the step that is being painted, the last one, and deletes all pictures."""
        with self._work:
            self._closed = True
            self._folder.cleanup()

    def forget_old(self) -> None:
        """Deletes the pictures of more than an hour ago."""
        for old in self.folder.glob("*.png"):
            with suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                    old.unlink()

    def _keep(self, output: TextToImagePipelineOutput, told: dict[str, str]) -> list[Kept]:
        paths = save_pictures(output, self.folder, made_by={"model": self.name, **told})
        entries = zip(paths, output.prompts, output.seeds, strict=True)
        return [Kept(str(path), prompt, seed) for path, prompt, seed in entries]
