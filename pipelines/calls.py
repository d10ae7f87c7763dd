"""The arguments of a call. They stand here once, with their defaults and what they refuse.

`TextToImagePipeline.__call__` shows and explains them, and each method that paints takes them as options. Light to
import: the command line checks its own before torch is there.
"""

import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from .checks import check_count, check_prompts, check_seeds
from .drawing.settings import Region, SamplingSettings
from .habits import OF_A_CALL, check_names

if TYPE_CHECKING:
    from .drawing.loop import Callback
    from .judges.judging import Judge

OutputType = Literal["pil", "np", "pt"]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Call:
    """The arguments of `TextToImagePipeline.__call__`, which explains them; checked as far as they need no pipeline.

    Raises TypeError or ValueError when an argument cannot be used, saying what to pass instead.
    """

    prompt: str | list[str]
    _: KW_ONLY
    negative_prompt: str | list[str] | None = None
    num_images_per_prompt: int = 1
    temperature: float | list[float] | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    guidance_scale: float | None = None
    guidance_region: Region | None = None
    seed: int | list[int] | None = None
    window: int | None = None
    output_type: OutputType = "pil"
    progress_bar: bool = True
    callback: "Callback | None" = None
    best_of: int = 1
    reranker: "Judge | None" = None

    def __post_init__(self):
        prompts = check_prompts(self.prompt, allow_empty=True)
        check_count("num_images_per_prompt", self.num_images_per_prompt)
        check_count("best_of", self.best_of)
        if self.window is not None:
            check_count("window", self.window)
        if self.output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type={self.output_type!r} is unknown; pass 'pil', 'np' or 'pt'")
        SamplingSettings(**self.sampling)
        if self.best_of == 1 and self.reranker is not None:
            raise ValueError(f"reranker={self.reranker!r} has nothing to judge at best_of=1; pass best_of, such as 8")
        check_seeds(self.seed, len(prompts) * self.candidates)

    @classmethod
    def of(cls, prompt: str | list[str], **options: Any) -> Self:
        """From a prompt and options. Raises TypeError for one that no call has, saying what to pass instead."""
        cls.check_options(options)
        return cls(prompt, **options)

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        """Raises TypeError for one that no call has, saying what to pass instead."""
        check_names(options, [field.name for field in fields(cls)], OF_A_CALL)

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)

    @property
    def candidates(self) -> int:
        """Pictures that are painted of each prompt."""
        return self.num_images_per_prompt * self.best_of

    @property
    def sampling(self) -> dict[str, Any]:
        """What is given of `SamplingSettings`."""
        given = {field.name: getattr(self, field.name) for field in fields(SamplingSettings)}
        return {name: value for name, value in given.items() if value is not None}


def shows(
    arguments: Callable[Arguments, Any],
) -> Callable[[Callable[..., Result]], Callable[Concatenate[Any, Arguments], Result]]:
    """Decorates a method: help() and type checkers see the arguments of a dataclass as its own."""

    def show(method: Callable[..., Result]) -> Callable[Concatenate[Any, Arguments], Result]:
        own, shown = inspect.signature(method), inspect.signature(arguments)
        first, *_ = own.parameters.values()  # self
        method.__signature__ = own.replace(parameters=[first, *shown.parameters.values()])
        return method

    return show
