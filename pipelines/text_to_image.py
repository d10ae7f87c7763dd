"""The pipeline: what a user calls.

Each file below adds methods to the one under it, and knows of none above:

    text_to_image.py    TextToImagePipeline: a call, and its stream
    editing.py          EditingPipeline: what starts from given pictures, or from two prompts
    painting.py         PaintingPipeline: the steps in a row
    steps.py            PipelineSteps: each step alone
    folder/saving.py    SavedPipeline: the parts, loaded and saved
"""

from collections.abc import Iterator
from typing import Any

from .calls import Call, shows
from .checks import check_count
from .editing import EditingPipeline
from .output import TextToImagePipelineOutput
from .painting import Painting
from .steps import ImageInput

__all__ = ["TextToImagePipeline", "TextToImagePipelineOutput"]


class TextToImagePipeline(EditingPipeline):
    """Paints pictures from prompts.

    Args:
        dvae, prior, tokenizer, image_processor: the trained parts, as `from_pretrained` loads them, and more that
            `SavedPipeline` explains.
    """

    @shows(Call)
    def __call__(self, prompt: str | list[str], **options: Any) -> TextToImagePipelineOutput:
        """Paint each prompt num_images_per_prompt times.

        Args:
            prompt: one prompt or a list. "" is the empty caption: the unconditional picture.
            negative_prompt: what guidance steers away from, one for all or one a prompt. It takes the place of the
                empty caption, and needs a guidance_scale other than 1.
            num_images_per_prompt: pictures of each prompt.
            temperature, top_k, top_p, min_p, guidance_scale, guidance_region: see `SamplingSettings`. None is the
                pipeline's own `sampling`. Neutral values: temperature 1, top_k 0, top_p 1, min_p 0, guidance_scale 1.
            seed: an int s gives the pictures of every prompt the seeds s, s + 1, …. A list has one an image. None
                draws fresh ones. The output holds them. A picture depends on its prompt and seed, not its neighbours.
            window: how many codes of a picture one pass looks at, guessed ones that it finds right or draws anew. The
                picture is the same in float32, code for code. In other dtypes each width rounds otherwise, and paints
                its own. None takes in float32 what is measured to be the fastest, else 1: one code after the other.
            output_type: "pil", "np" (B, H, W, 3) or "pt" (B, 3, H, W).
            progress_bar: whether to show how many codes are drawn.
            callback: called as callback(i, codes (B, i + 1)) after each code.
            best_of: paints n candidates for each picture, seeds s, s + 1, … in a row, and keeps the best. Its seed
                paints it again without the others. A list of seeds has one a candidate.
            reranker: who judges the candidates, as in `rank`. None is "likelihood+reranker": the model itself and the
                pipeline's own reranker, where it has one. "pmi" is for pictures from elsewhere: of those drawn for one
                prompt it prefers the unlikely ones (training/LOG.md).

        Raises:
            TypeError, ValueError: when an argument cannot be used, saying what to pass instead.
            OSError: when there is no such reranker.
        """
        return self._paint(self._plan(Call.of(prompt, **options)))

    def stream(
        self,
        prompt: str | list[str],
        *,
        image: ImageInput | list[ImageInput] | None = None,
        mask: ImageInput | None = None,
        rows: int | None = None,
        strength: float | None = None,
        every: int | None = None,
        **options: Any,
    ) -> Iterator[TextToImagePipelineOutput]:
        """Paint as the call does, or as a method that starts from a picture, showing the pictures while they grow.

        Args:
            image: a picture, or one a prompt, to start from. With mask the stream is that of `inpaint`, with strength
                of `vary`, with rows or alone of `complete`. mask, rows and strength exclude one another.
            every: codes between pictures, given ones counted; None is one row of the grid.
            options: as in the call. With best_of, all candidates are shown while they grow.

        Yields:
            outputs with `.images`, light grey where nothing is given or drawn yet, `.step` and `.total`. The last is
            what the call, or the method, returns. Closing the iterator, or leaving its loop, stops the work.

        Raises:
            TypeError, ValueError: at once, when an argument cannot be used.
        """
        every = self.prior.config.grid_size if every is None else every
        check_count("every", every)
        return self._grow(self._start(prompt, image, mask, rows, strength, **options), every)

    def _start(
        self,
        prompt: Any,
        image: Any,
        mask: ImageInput | None,
        rows: int | None,
        strength: float | None,
        **options: Any,
    ) -> Painting:
        """The painting of the call without a picture, or of `inpaint`, `vary` or `complete` by what is given."""
        chosen = {"mask": mask, "rows": rows, "strength": strength}
        names = [name for name, value in chosen.items() if value is not None]
        if image is None and names:
            raise TypeError(f"{names[0]} without a picture has nothing to start from; pass image=…, too")
        if len(names) > 1:
            raise TypeError(
                f"{' and '.join(names)} exclude one another; "
                f"pass mask to inpaint, rows to complete or strength to vary"
            )
        if image is None:
            return self._plan(Call.of(prompt, **options))
        if mask is not None:
            return self._inpainting(prompt, image, mask, **options)
        if strength is not None:
            return self._variation(prompt, image, strength, **options)
        return self._completion(prompt, image, rows, **options)
