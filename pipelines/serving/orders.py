"""A checked request: the job to paint, and how its pictures are packed, whole or as server-sent events."""

import base64
import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from ..pictures import png_text
from .batching import Event, Job
from .schemas import CompletedImage, ImagesResponse, PaintedImage, PartialImage, TokenDetails, Usage

Keep = Callable[[bytes, str], str]


@dataclass(frozen=True)
class Order:
    """One request. side: of its pictures in pixels. format: png, jpeg or webp. quality: of the last two, 0 to 100.

    revised_prompt: the prompt as the model reads it. text_tokens, image_tokens: of one picture. model: its name.
    """

    job: Job
    prompt: str
    negative_prompt: str | None
    revised_prompt: str
    model: str
    side: int
    format: str
    quality: int
    as_url: bool
    text_tokens: int
    image_tokens: int

    def encode(self, event: Event) -> bytes:
        """The picture's file. A PNG says what made it, as the command line's do."""
        image, buffer = event.image, io.BytesIO()
        if image.width != self.side:
            image = image.resize((self.side, self.side), Image.Resampling.LANCZOS)
        if self.format == "png":
            image.save(buffer, "png", pnginfo=png_text(self._made_by(event.index)))
        else:
            image.save(buffer, self.format, quality=self.quality)
        return buffer.getvalue()

    def response(self, files: list[bytes], keep: Keep) -> ImagesResponse:
        """The whole answer. keep: stores a picture of a media type and returns its address."""
        pictures = []
        for file, picture in zip(files, self.job.pictures, strict=True):
            where = {"url": keep(file, f"image/{self.format}")} if self.as_url else {"b64_json": _base64(file)}
            pictures.append(PaintedImage(**where, revised_prompt=self.revised_prompt, seed=picture.seed))
        return ImagesResponse(created=int(time.time()), data=pictures, usage=self._usage(), **self._looks())

    def sse(self, event: Event, file: bytes) -> str:
        """One server-sent event, partial or the last."""
        about = {"b64_json": _base64(file), "created_at": int(time.time()), **self._looks()}
        if event.partial is not None:
            return sse(PartialImage(partial_image_index=event.partial, **about))
        seed = self.job.pictures[event.index].seed
        return sse(CompletedImage(usage=self._usage(), revised_prompt=self.revised_prompt, seed=seed, **about))

    def _looks(self) -> dict[str, Any]:
        return {"output_format": self.format, "size": f"{self.side}x{self.side}"}

    def _made_by(self, index: int) -> dict[str, Any]:
        seed, sampling = self.job.pictures[index].seed, asdict(self.job.settings)
        negative = {"negative_prompt": self.negative_prompt} if self.negative_prompt is not None else {}
        return {"prompt": self.prompt, **negative, "seed": seed, "sampling": sampling, "model": self.model}

    def _usage(self) -> Usage:
        """The text is read once, as OpenAI counts it, and each picture drawn."""
        drawn = self.image_tokens * len(self.job.pictures)
        return Usage(
            input_tokens=self.text_tokens,
            input_tokens_details=TokenDetails(text_tokens=self.text_tokens, image_tokens=0),
            output_tokens=drawn,
            total_tokens=self.text_tokens + drawn,
        )


def sse(event: PartialImage | CompletedImage) -> str:
    """A server-sent event, named by its type."""
    return f"event: {event.type}\ndata: {event.model_dump_json()}\n\n"


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode("ascii")
