"""The pipeline: prompt -> text ids -> codes -> pixels -> pictures, each step a public method."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub import HfApi, ModelCard, ModelHubMixin
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from dvae import DVAE, DVAEImageProcessor
from prior_transformer import PriorTokenizer, PriorTransformer

from .checks import check_components, check_num_images, check_prompts, check_seeds
from .loading import load_component, load_samples
from .locate import INDEX_NAME, SAMPLES_NAME, find_pipeline, read_index
from .model_card import write_model_card
from .sampling import Callback, draw_keys, generate_codes
from .settings import SamplingSettings

Images = list[Image.Image] | np.ndarray | Tensor


@dataclass
class TextToImagePipelineOutput:
    """What a call returns; its entries are in one order: all pictures of the first prompt, then of the next.

    images: list of PIL images, or an array (B, H, W, 3) or tensor (B, 3, H, W) with values in [0, 1].
    codes: int64 (B, h, w). prompts, seeds: one an image; an image's own prompt and seed paint it again.
    sampling: the settings in force.
    """

    images: Images
    codes: Tensor
    prompts: list[str]
    seeds: list[int]
    sampling: SamplingSettings


class TextToImagePipeline(ModelHubMixin):
    """Paints pictures from prompts.

    Args:
        dvae, prior, tokenizer, image_processor: the trained parts; they must fit each other.
        sampling: settings that a call uses unless told otherwise, keys as in `SamplingSettings`; saved with it.
        metrics: the run's own numbers for the model card: {name: number} or {section: {name: number}}.
        data: what it was trained on for the model card: {source: licence}.
        samples: a picture for the model card.

    Raises:
        ValueError: when two parts do not fit, with both numbers.
    """

    def __init__(
        self,
        dvae: DVAE,
        prior: PriorTransformer,
        tokenizer: PriorTokenizer,
        image_processor: DVAEImageProcessor,
        *,
        sampling: dict[str, float] | None = None,
        metrics: dict[str, Any] | None = None,
        data: dict[str, str] | None = None,
        samples: Image.Image | None = None,
    ):
        check_components(dvae, prior, tokenizer, image_processor)
        self.dvae = dvae
        self.prior = prior
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.sampling = SamplingSettings(**(sampling or {}))
        self.metrics = metrics or {}
        self.data = data or {}
        self.samples = samples
        self._hub_mixin_config = None  # model_index.json says it all: no config.json beside it

    @property
    def components(self) -> dict[str, Any]:
        """The four parts by name: `TextToImagePipeline(**pipeline.components)` shares them."""
        return {
            "dvae": self.dvae,
            "prior": self.prior,
            "tokenizer": self.tokenizer,
            "image_processor": self.image_processor,
        }

    @property
    def device(self) -> torch.device:
        return self.prior.device

    @property
    def dtype(self) -> torch.dtype:
        return self.prior.dtype

    def to(self, *args: Any, **kwargs: Any) -> "TextToImagePipeline":
        """Move both models to a device or dtype, as `torch.nn.Module.to` does; returns the pipeline itself."""
        self.dvae.to(*args, **kwargs)
        self.prior.to(*args, **kwargs)
        return self

    def __call__(
        self,
        prompt: str | list[str],
        *,
        num_images_per_prompt: int = 1,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float | None = None,
        seed: int | list[int] | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        progress_bar: bool = True,
        callback: Callback | None = None,
    ) -> TextToImagePipelineOutput:
        """Paint each prompt num_images_per_prompt times.

        Args:
            prompt: one prompt or a list.
            temperature, top_k, top_p, guidance_scale: see `SamplingSettings`; None is the pipeline's own `sampling`.
                Neutral values: temperature 1, top_k 0, top_p 1, guidance_scale 1.
            seed: an int s gives the pictures of every prompt the seeds s, s + 1, …; a list has one an image; None
                draws fresh ones. The output holds them. A picture depends on its prompt and seed, not its neighbours.
            output_type: "pil", "np" (B, H, W, 3) or "pt" (B, 3, H, W).
            callback: called as callback(i, codes (B, i + 1)) after each code.

        Raises:
            TypeError, ValueError: when an argument cannot be used, saying what to pass instead.
        """
        prompts = check_prompts(prompt)
        check_num_images(num_images_per_prompt)
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type={output_type!r} is unknown; pass 'pil', 'np' or 'pt'")
        sampling = self._settings(temperature=temperature, top_k=top_k, top_p=top_p, guidance_scale=guidance_scale)
        seeds = self._seeds(seed, len(prompts), num_images_per_prompt)
        codes = self.generate_codes(
            self.encode_prompt(prompts),
            num_images_per_prompt=num_images_per_prompt,
            **asdict(sampling),
            seed=seeds,
            progress_bar=progress_bar,
            callback=callback,
        )
        images = self.postprocess(self.decode_codes(codes), output_type)
        prompts = [text for text in prompts for _ in range(num_images_per_prompt)]  # one an image
        return TextToImagePipelineOutput(images, codes, prompts, seeds, sampling)

    def encode_prompt(self, prompt: str | list[str]) -> Tensor:
        """One prompt or B -> text ids (B, T) int64 on the pipeline's device. A long prompt is cut, with a warning."""
        text_ids = self.tokenizer.encode_captions(check_prompts(prompt), text_length=self.prior.config.text_length)
        return text_ids.to(self.device)

    def generate_codes(
        self,
        text_ids: Tensor,
        *,
        num_images_per_prompt: int = 1,
        seed: int | list[int] | None = None,
        fixed_codes: Tensor | None = None,
        progress_bar: bool = False,
        callback: Callback | None = None,
        **sampling: float | None,
    ) -> Tensor:
        """Text ids (B, T) -> codes (B·n, h, w), n = num_images_per_prompt; arguments as in `__call__`.

        fixed_codes: (B·n, m) known codes of the first m positions in raster order; the rest is drawn to go with them.
        sampling: temperature, top_k, top_p, guidance_scale.
        """
        check_num_images(num_images_per_prompt)
        side = self.prior.config.grid_size
        seeds = self._seeds(seed, len(text_ids), num_images_per_prompt)
        with _evaluating(self.prior), tqdm(total=side**2, unit="code", disable=not progress_bar) as bar:

            def after_each_code(i: int, codes: Tensor) -> None:
                bar.update(i + 1 - bar.n)
                if callback is not None:
                    callback(i, codes)

            codes = generate_codes(
                self.prior,
                text_ids.to(self.device).repeat_interleave(num_images_per_prompt, dim=0),
                draw_keys(seeds, side**2),
                self._settings(**sampling),
                fixed_codes=fixed_codes,
                callback=after_each_code,
            )
        return codes.unflatten(1, (side, side))  # (B·n, h, w)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Codes (B, h, w) -> pixel values (B, 3, H, W) in [0, 1]."""
        return self.dvae.decode(codes.to(self.device))

    def postprocess(self, pixel_values: Tensor, output_type: Literal["pil", "np", "pt"] = "pil") -> Images:
        """Pixel values (B, 3, H, W) in [0, 1] -> PIL images, an array (B, H, W, 3), or the tensor in float32."""
        return self.image_processor.postprocess(pixel_values.float(), output_type=output_type)

    def _settings(self, **values: float | None) -> SamplingSettings:
        """The pipeline's settings, with those that were given in place of its own."""
        return replace(self.sampling, **{name: value for name, value in values.items() if value is not None})

    def _seeds(self, seed: int | list[int] | None, num_prompts: int, num_images_per_prompt: int) -> list[int]:
        """One seed an image."""
        check_seeds(seed, num_prompts * num_images_per_prompt)
        if seed is None:
            return [secrets.randbelow(2**32) for _ in range(num_prompts * num_images_per_prompt)]
        if isinstance(seed, list | tuple):
            return [int(value) for value in seed]
        return [int(seed) + i for _ in range(num_prompts) for i in range(num_images_per_prompt)]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> "TextToImagePipeline":
        """Load a saved pipeline: the embedded one (None), a folder, or a Hub id.

        dtype: what the weights are turned into. Files often hold float16 to be small, while a CPU is slow and
            inexact in it: float32 unless told otherwise. On a GPU, torch.bfloat16 is a good choice.

        Raises:
            OSError: when there is no such pipeline, or a part of it is missing or broken.
        """
        folder = find_pipeline(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        index = read_index(folder)
        return cls(
            dvae=load_component(DVAE, folder / "dvae", dtype=dtype),
            prior=load_component(PriorTransformer, folder / "prior", dtype=dtype),
            tokenizer=load_component(PriorTokenizer, folder / "tokenizer"),
            image_processor=load_component(DVAEImageProcessor, folder / "image_processor"),
            sampling=index.get("sampling"),
            metrics=index.get("metrics"),
            data=index.get("data"),
            samples=load_samples(folder),
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        """A subfolder a component, model_index.json, samples.png; `save_pretrained` adds the card.

        Weights are saved as they are: `pipeline.to(torch.float16)` first makes the folder half as large.
        """
        for name, component in self.components.items():
            component.save_pretrained(save_directory / name)
        index = {
            "_class_name": type(self).__name__,
            **{name: type(component).__name__ for name, component in self.components.items()},
            "sampling": asdict(self.sampling),
            "metrics": self.metrics,
            "data": self.data,
        }
        (save_directory / INDEX_NAME).write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", "utf-8")
        if self.samples is not None:
            self.samples.save(save_directory / SAMPLES_NAME)
        (save_directory / "README.md").unlink(missing_ok=True)  # the card of other weights is not this pipeline's

    def generate_model_card(self, repo_id: str | None = None) -> ModelCard:
        """The model card, from this pipeline's own numbers; repo_id goes into its lines of use."""
        return ModelCard(write_model_card(self, self.metrics, repo_id=repo_id))

    def push_to_hub(self, repo_id: str, *, token: str | None = None, private: bool | None = None, **kwargs) -> str:
        """Upload the whole pipeline, with its card, as one commit; returns the commit's address.

        Further arguments are those of `huggingface_hub.ModelHubMixin.push_to_hub`.
        """
        repo_id = HfApi(token=token).create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id  # user/model
        kwargs["model_card_kwargs"] = {"repo_id": repo_id}
        return super().push_to_hub(repo_id, token=token, private=private, **kwargs)


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """No dropout inside, and the model's own mode again after."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
