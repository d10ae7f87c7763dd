"""From a prompt to pictures: what a user calls.

    from pipelines import pipeline

    pipeline("an armchair shaped like an avocado").images[0]

Importing it loads nothing heavy: torch and the embedded model come with the first call.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .text_to_image import TextToImagePipeline, TextToImagePipelineOutput

__all__ = ["TextToImagePipeline", "TextToImagePipelineOutput", "pipeline"]


def pipeline(prompt: str | list[str], **kwargs: Any) -> "TextToImagePipelineOutput":
    """Paint a prompt, or a list of them, with the embedded model, which is loaded at the first call.

    The arguments are those of `TextToImagePipeline.__call__`.
    """
    return _embedded_pipeline()(prompt, **kwargs)


@cache
def _embedded_pipeline() -> "TextToImagePipeline":
    from .text_to_image import TextToImagePipeline

    return TextToImagePipeline.from_pretrained()


def __getattr__(name: str) -> Any:
    """Import torch and transformers when a class is asked for, not before: `python -m pipelines --help` is instant."""
    if name in __all__:
        from . import text_to_image

        return getattr(text_to_image, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
