"""The parts of a pipeline and the folder that holds them: load, save, push to the Hub."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from huggingface_hub import HfApi, ModelCard, ModelHubMixin
from PIL import Image
from transformers import PreTrainedModel

from dvae import FIRST_STAGES, DVAEImageProcessor, FirstStage
from prior_transformer import PRIORS, TOKENIZERS, PriorTokenizer, StreamPrior, TextEncoder

from ..checkpoints.readers import read_checkpoint
from ..checks import check_components, check_stream, check_text_encoder
from ..drawing.pace import forget_pace
from ..drawing.settings import SamplingSettings
from ..habits import OF_LOADING, check_names
from ..judges.small_clip import SmallCLIP
from ..quantization import Kind, quantize_prior, quantized_kind
from .adapters import has_adapter, load_adapter, merge_adapter, push_adapter, save_adapter
from .components import load_component, load_one_of, load_samples, load_text_encoder, save_component
from .locate import (
    COMPONENT_NAMES,
    INDEX_NAME,
    OPTIONAL_NAMES,
    OWN_NAMES,
    RERANKER,
    SAMPLES_NAME,
    TEXT_ENCODER,
    check_own_folder,
    check_own_repository,
    components_at,
    files_at,
    find_pipeline,
    has_component,
    known_at,
    read_index,
)
from .model_card import CARD_NAME, edited_card, note_card, write_model_card
from .whole import saved_whole

FROM_PRETRAINED = ("dtype", "revision", "token", "cache_dir", "force_download", "local_files_only")


class SavedPipeline(ModelHubMixin):
    """The trained parts of a pipeline, as one folder here or on the Hub.

    Args:
        dvae, prior, tokenizer, image_processor: the trained parts; they must fit each other. dvae is any first stage,
            a `DVAE` or a `VQGAN`.
        sampling: settings that a call uses unless told otherwise, keys as in `SamplingSettings`; saved with it. None:
            those of the pipeline whose `components` the prior is from, or else the neutral ones.
        metrics: the run's own numbers for the model card: {name: number} or {section: {name: number}}.
        recipe: how it was trained, for the model card, shaped as metrics.
        data: what it was trained on for the model card: {source: licence}.
        license: of the weights, as the Hub names licences, such as "apache-2.0"; None: the card states none.
        language: of the captions, as the Hub names languages, such as "en"; None: the card states none.
        samples: a picture for the model card.
        reranker: what `best_of` and `rank` ask beside the prior; it reads the tokenizer's ids. None: they do without.
        text_encoder: what a prior that reads features of text reads them through, from the tokenizer's ids:
            transformers' `T5EncoderModel`. None for any other prior.
        stored_dtype: whether `from_pretrained` keeps the dtype of its files unless told otherwise, as for a large
            model; else it takes float32.

    Raises:
        ValueError: when two parts do not fit, with both numbers.
    """

    def __init__(
        self,
        dvae: FirstStage,
        prior: StreamPrior,
        tokenizer: PriorTokenizer,
        image_processor: DVAEImageProcessor,
        *,
        sampling: dict[str, Any] | None = None,
        metrics: dict[str, Any] | None = None,
        recipe: dict[str, Any] | None = None,
        data: dict[str, str] | None = None,
        license: str | None = None,
        language: str | None = None,
        samples: Image.Image | None = None,
        reranker: SmallCLIP | None = None,
        text_encoder: PreTrainedModel | None = None,
        stored_dtype: bool = False,
    ):
        check_components(dvae, prior, tokenizer, image_processor, reranker)
        if isinstance(prior, StreamPrior):  # another one may read something else
            check_stream(prior, tokenizer)
            check_text_encoder(prior, text_encoder)
            if text_encoder is not None:
                prior.read_through(TextEncoder(text_encoder, tokenizer.pad_token_id))
        self.dvae = dvae
        self.prior = prior
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.reranker = reranker
        self.text_encoder = text_encoder
        own = getattr(prior, "default_sampling", {}) if sampling is None else sampling
        self.sampling = SamplingSettings(**own)
        self.metrics = metrics or {}
        self.recipe = recipe or {}
        self.data = data or {}
        self.license = license
        self.language = language
        self.samples = samples
        self.stored_dtype = stored_dtype or getattr(prior, "stored_dtype", False)
        self._hub_mixin_config = None  # model_index.json says it all: no config.json beside it

    @property
    def components(self) -> dict[str, Any]:
        """The parts by name: `TextToImagePipeline(**pipeline.components)` is another one, which paints the same.

        The prior takes along how it is sampled, and whether its dtype is kept. The card is not carried over: with
        another part it would be untrue.
        """
        self.prior.default_sampling, self.prior.stored_dtype = asdict(self.sampling), self.stored_dtype
        return self.parts

    @property
    def parts(self) -> dict[str, Any]:
        """What was trained, by name: what is saved in a subfolder each."""
        parts = {
            "dvae": self.dvae,
            "prior": self.prior,
            "tokenizer": self.tokenizer,
            "image_processor": self.image_processor,
        }
        others = {RERANKER: self.reranker, TEXT_ENCODER: self.text_encoder}
        return parts | {name: part for name, part in others.items() if part is not None}

    @property
    def quantized(self) -> Kind | None:
        """What the prior's weights were quantised to: its own state, whichever pipeline it is put into."""
        return quantized_kind(self.prior)

    @property
    def device(self) -> torch.device:
        return next(self.prior.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return self.prior.dtype

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the models to a device or dtype, as `torch.nn.Module.to` does; returns the pipeline itself."""
        for part in self.parts.values():
            if isinstance(part, torch.nn.Module):
                part.to(*args, **kwargs)
        forget_pace(self.prior)
        return self

    def quantize(self, kind: Kind) -> Self:
        """Quantise the prior's weights, in place, to "int8" or "int4" for painting alone; returns the pipeline itself.

        Needs torchao (extra `quantize`). The pictures are nearly those of the weights before.

        Raises:
            ImportError: without torchao. ValueError: when they are quantised already, do not fit the kind, or have an
            adapter.
        """
        if has_adapter(self.prior):
            raise ValueError(f"the prior has an adapter, which cannot be {kind}: call merge_adapter() first")
        if self.quantized:
            raise ValueError(f"the prior has {self.quantized} weights already; load the pipeline anew for {kind}")
        quantize_prior(self.prior, kind)
        forget_pace(self.prior)
        return self

    def compile(self, **options: Any) -> Self:
        """Compile the prior's look at its next use, for GPUs: on a CPU it gains nothing; returns the pipeline itself.

        options: those of `torch.compile`; mode="reduce-overhead" replays each pass as one CUDA graph.
        """
        self.prior.compile_step(**options)
        forget_pace(self.prior)
        return self

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None = None,
        *,
        dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **others: Any,
    ) -> Self:
        """Load a saved pipeline: the embedded one (None), a folder, or a Hub id; or a public checkpoint, which is
        known by its files.

        dtype: what the weights are turned into. Files often hold float16 to be small, while a CPU is slow and
            inexact in it: None is float32, but for a public checkpoint, and what was made of one, the stored dtype.
            On a GPU, torch.bfloat16 is a good choice.
        others: torch_dtype, an older name of dtype.

        Raises:
            OSError: when there is no such pipeline, or a part of it is missing or broken.
            TypeError: for what it does not take, with what to do instead.
        """
        dtype = to_dtype(others.pop("torch_dtype", dtype))
        check_names(others, FROM_PRETRAINED, OF_LOADING)
        folder = find_pipeline(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        if known_at(folder) is not None:
            elsewhere = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
            return cls(**read_checkpoint(folder, dtype, **elsewhere), stored_dtype=True)
        index = read_index(folder)
        if dtype is None:
            dtype = "auto" if index.get("stored_dtype") else torch.float32
        prior = load_one_of(PRIORS, folder / "prior", dtype=dtype)
        if dtype == torch.float32:
            prior.store_by_columns()
        reranker = load_component(SmallCLIP, folder / RERANKER, dtype=dtype) if index.get(RERANKER) else None
        text_encoder = load_text_encoder(folder / TEXT_ENCODER, dtype) if index.get(TEXT_ENCODER) else None
        return cls(
            dvae=load_one_of(FIRST_STAGES, folder / "dvae", dtype=dtype),
            prior=prior,
            tokenizer=load_component(
                TOKENIZERS.get(str(index.get("tokenizer")), PriorTokenizer), folder / "tokenizer"
            ),
            image_processor=load_component(DVAEImageProcessor, folder / "image_processor"),
            sampling=index.get("sampling"),
            metrics=index.get("metrics"),
            recipe=index.get("recipe"),
            data=index.get("data"),
            license=index.get("license"),
            language=index.get("language"),
            samples=load_samples(folder),
            reranker=reranker,
            text_encoder=text_encoder,
            stored_dtype=bool(index.get("stored_dtype")),
        )

    def load_adapter(self, name: str | Path, *, any_base: bool = False, **hub_options: Any) -> Self:
        """Paint with a LoRA adapter of the prior, from a folder or a Hub id; returns the pipeline itself.

        any_base: also with one that was trained on other weights of these sizes. hub_options: revision, token,
            cache_dir, force_download, local_files_only.

        Raises:
            OSError: when there is no such adapter. ValueError: when it is of another prior, one is in already, or the
            weights are quantised.
        """
        if self.quantized:
            raise ValueError(
                f"the prior has {self.quantized} weights, which take no adapter; load the pipeline anew, then "
                f"load_adapter(…), merge_adapter() and quantize({self.quantized!r})"
            )
        load_adapter(self.prior, name, any_base=any_base, **hub_options)
        forget_pace(self.prior)
        return self

    def merge_adapter(self) -> Self:
        """Add the adapter to the prior's weights: it paints the same and can be saved as any pipeline."""
        merge_adapter(self.prior)
        forget_pace(self.prior)
        return self

    def save_adapter(self, folder: str | Path) -> None:
        """The prior's adapter alone, as peft saves it."""
        save_adapter(self.prior, folder)

    def push_adapter_to_hub(self, repo_id: str, *, token: str | None = None, private: bool | None = None) -> str:
        """Upload the prior's adapter alone; returns the commit's address."""
        return push_adapter(self.prior, repo_id, token=token, private=private)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> str | None:
        """Save into a new folder, or over a saved pipeline; further arguments as `ModelHubMixin.save_pretrained` has.

        All of it takes its place at once: whoever is killed leaves the folder as it was, or with the whole pipeline.
        A card that was edited since stays.

        Raises:
            FileExistsError: when a file of another project would be lost. Others as `push_to_hub` raises them.
        """
        folder = Path(save_directory)
        check_own_folder(folder, self.parts)
        self._check_savable()
        push, repo_id = kwargs.pop("push_to_hub", False), kwargs.pop("repo_id", None)
        own = {name: kwargs[name] for name in ("config", "model_card_kwargs") if name in kwargs}
        others = [name for name in OPTIONAL_NAMES if not has_component(folder, name)]  # which are not ours, if there
        replaced = [name for name in OWN_NAMES if name not in others]
        edited, card = edited_card(folder)
        with saved_whole(folder, replaced) as partial:
            if edited is not None:
                (partial / CARD_NAME).write_bytes(edited)  # where there is one none is written
            super().save_pretrained(partial, **own)
            note_card(partial, card)
        return self.push_to_hub(repo_id or folder.name, **kwargs) if push else None

    def _save_pretrained(self, save_directory: Path) -> None:
        """Into an empty folder: a subfolder a part, model_index.json, samples.png; `save_pretrained` adds the card.

        Weights are saved as they are: `pipeline.to(torch.float16)` first makes the folder half as large.

        Raises:
            ValueError: when they are quantised. TypeError: when metrics, recipe or data hold what JSON cannot.
        """
        index = self._check_savable()
        for name, part in self.parts.items():
            save_component(part, save_directory, name)
        (save_directory / INDEX_NAME).write_text(index, "utf-8")
        if self.samples is not None:
            self.samples.save(save_directory / SAMPLES_NAME)

    def _check_savable(self) -> str:
        """The text of model_index.json; raises as `_save_pretrained` does, before anything is written."""
        if self.quantized:
            raise ValueError(
                f"this pipeline's prior has {self.quantized} weights, made for painting here; save the pipeline "
                f"before `quantize`, and quantise what you load"
            )
        if has_adapter(self.prior):
            raise ValueError("the prior has an adapter: call merge_adapter() first, or save_adapter(folder) alone")
        index = {
            "_class_name": "TextToImagePipeline",  # also of a subclass: what loads it
            **{name: type(part).__name__ for name, part in self.parts.items()},
            "sampling": asdict(self.sampling),
            "metrics": self.metrics,
            "recipe": self.recipe,
            "data": self.data,
            "license": self.license,
            "language": self.language,
            **({"stored_dtype": True} if self.stored_dtype else {}),
        }
        return json.dumps(index, indent=2, ensure_ascii=False, default=_python_number) + "\n"

    def generate_model_card(self, repo_id: str | None = None) -> ModelCard:
        """The model card, from this pipeline's own numbers; repo_id goes into its lines of use."""
        return ModelCard(write_model_card(self, self.metrics, repo_id=repo_id))

    def push_to_hub(self, repo_id: str, *, token: str | None = None, private: bool | None = None, **kwargs) -> str:
        """Upload the whole pipeline, with its card, as one commit; returns the commit's address.

        What another pipeline left in the repository's folders of parts is deleted, its samples too: shards of other
        weights would be loaded. Further arguments are those of `huggingface_hub.ModelHubMixin.push_to_hub`.

        Raises:
            ValueError: when the weights are quantised or have an adapter, TypeError: when metrics, recipe or data hold
            what JSON cannot, before a repository is made. FileExistsError: when the repository holds another model.
        """
        self._check_savable()
        repo_id = HfApi(token=token).create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id  # user/model
        branch = kwargs.get("branch")
        there = components_at(repo_id, {"token": token, "revision": branch})
        if not there:
            check_own_repository(files_at(repo_id, branch, token), repo_id)
        replaced = dict.fromkeys([*COMPONENT_NAMES, *there, *self.parts])  # an optional one that is not ours stays
        kwargs.setdefault("delete_patterns", [SAMPLES_NAME, *(f"{name}/*" for name in replaced)])
        kwargs["model_card_kwargs"] = {"repo_id": repo_id}
        return super().push_to_hub(repo_id, token=token, private=private, **kwargs)


def to_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A dtype, or its name such as "float16"; None as it is. Raises TypeError for another."""
    if dtype is None:
        return None
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise TypeError(f"dtype={dtype!r} is none of a model's weights; pass one such as torch.float16")
    return found


def _python_number(value: Any) -> Any:
    """A numpy number as Python's, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    what = f"{value!r} is a {type(value).__name__}"
    raise TypeError(f"{what}, which {INDEX_NAME} cannot hold; pass metrics, recipe and data of numbers and text")
