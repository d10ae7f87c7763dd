"""The bodies of requests and answers, as OpenAI's image API has them; what is more here says so."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from ..drawing.settings import MAX_GUIDANCE_SCALE
from .limits import ServerSettings

SIZE = r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"
Format = Literal["png", "jpeg", "webp"]


class ImagesRequest(BaseModel):
    """What to paint. Null is the default everywhere. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str
    model: str | None = Field(None, description="the id that /v1/models lists, or nothing")
    n: int | None = 1
    size: str | None = Field("auto", pattern=SIZE, description="auto: as the model paints; WxH, square: resized")
    response_format: Literal["b64_json", "url"] | None = "b64_json"
    output_format: Format | None = "png"
    output_compression: int | None = Field(100, ge=0, le=100, description="quality of jpeg and webp")
    stream: bool | None = Field(False, description="server-sent events; n must be 1, response_format b64_json")
    partial_images: int | None = Field(0, ge=0, le=3, description="with stream: unfinished pictures before the last")

    # more than OpenAI's
    negative_prompt: str | None = None
    seed: int | None = Field(None, ge=0, lt=2**63, description="the same seed paints the same picture; null: any")
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False, description="null: the model's own, so below")
    top_k: int | None = None
    top_p: float | None = Field(None, gt=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    guidance_scale: float | None = Field(None, ge=0, le=MAX_GUIDANCE_SCALE)

    # OpenAI's, taken so that its clients run as they are; there is one background, quality and style here
    background: Literal["auto", "opaque"] | None = None
    quality: Literal["auto", "low", "medium", "high", "standard", "hd"] | None = None
    style: Literal["vivid", "natural"] | None = None
    moderation: Literal["auto", "low"] | None = None
    user: str | None = None
    safety_identifier: str | None = None


def images_request(settings: ServerSettings, codebook_size: int) -> type[ImagesRequest]:
    """The request with this server's limits in its schema. codebook_size: how many codes the model has."""
    words = {"min_length": 1, "max_length": settings.max_prompt, "pattern": r"\S"}
    prompt = Field(**words, examples=["an armchair shaped like an avocado"])
    negative_prompt = Field(None, **words, description="what guidance steers away from")
    n = Field(1, ge=1, le=settings.max_n, description="pictures; the i-th, from 0, has seed + i")
    top_k = Field(None, ge=0, le=codebook_size)
    return create_model(
        "ImagesRequest",
        __base__=ImagesRequest,
        __doc__=ImagesRequest.__doc__,
        prompt=(str, prompt),
        negative_prompt=(str | None, negative_prompt),
        n=(int | None, n),
        top_k=(int | None, top_k),
    )


class TokenDetails(BaseModel):
    text_tokens: int
    image_tokens: int


class Usage(BaseModel):
    """Text tokens that the model reads, and codes that it draws, over all pictures."""

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int
    total_tokens: int


class PaintedImage(BaseModel):
    """revised_prompt: the prompt as the model reads it, lower case and cut. seed: paints it again; not OpenAI's."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str
    seed: int


class ImagesResponse(BaseModel):
    created: int
    data: list[PaintedImage]
    background: Literal["opaque"] = "opaque"
    output_format: Format
    size: str
    usage: Usage


class PartialImage(BaseModel):
    """A server-sent event: the picture so far."""

    type: Literal["image_generation.partial_image"] = "image_generation.partial_image"
    b64_json: str
    partial_image_index: int
    created_at: int
    output_format: Format
    size: str
    background: Literal["opaque"] = "opaque"
    quality: Literal["auto"] = "auto"


class CompletedImage(BaseModel):
    """The last server-sent event: the picture. revised_prompt, seed: as in `PaintedImage`, not OpenAI's."""

    type: Literal["image_generation.completed"] = "image_generation.completed"
    b64_json: str
    usage: Usage
    revised_prompt: str
    seed: int
    created_at: int
    output_format: Format
    size: str
    background: Literal["opaque"] = "opaque"
    quality: Literal["auto"] = "auto"


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "armchair"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    waiting: int = Field(description="pictures in the queue")


class ErrorDetails(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    error: ErrorDetails
