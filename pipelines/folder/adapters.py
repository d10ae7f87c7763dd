"""LoRA adapters of a prior, by peft: put in, saved alone, loaded, pushed, and merged into the weights.

An adapter's folder is peft's: adapter_config.json and adapter_model.safetensors, never a pickle.
"""

import copy
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from prior_transformer import StreamPrior

from .fingerprints import weights_digests
from .locate import EMBEDDED, public_name
from .whole import saved_whole, settled

if TYPE_CHECKING:
    from peft import LoraConfig
    from typing_extensions import TypeIs

    class Adapted(PreTrainedModel):
        """A model while an adapter is in."""

        peft_config: dict[str, LoraConfig]
        adapter_base: list[str]  # fingerprints of the weights that the adapter stands on
        trained_without_adapter: set[str]  # names of those that took gradients before


CONFIG_NAME, WEIGHTS_NAME, CARD_NAME = "adapter_config.json", "adapter_model.safetensors", "README.md"
ADAPTER = "default"
BASE = "base"  # in the metadata of the weights: the fingerprints of those that they were trained on
REMEDY = "pass a folder that save_adapter or training.train_prior wrote, or a Hub id such as 'user/adapter'"
CARD = """---
library_name: peft
tags: [armchair, lora, text-to-image]
---

A LoRA adapter of an armchair prior. It needs the pipeline that it was trained on:

```python
from pipelines import TextToImagePipeline

pipeline = TextToImagePipeline.from_pretrained({base})
pipeline.load_adapter({name!r})
```
"""


def has_adapter(model: nn.Module) -> "TypeIs[Adapted]":
    return getattr(model, "peft_config", None) is not None


def add_adapter(model: nn.Module, config: "LoraConfig") -> "Adapted":
    """Puts a fresh adapter into the model, which computes as before; all else is frozen while it is in. Returns it."""
    if has_adapter(model):
        raise ValueError("the model has an adapter already: merge it first")
    adapted = cast("Adapted", model)
    adapted.adapter_base = weights_digests(_computes_with(model))
    adapted.trained_without_adapter = {name for name, weight in model.named_parameters() if weight.requires_grad}
    _peft().inject_adapter_in_model(config, adapted, ADAPTER)
    return adapted


def _computes_with(model: nn.Module) -> dict[str, Tensor]:
    """Its weights, and those of the text encoder that a prior reads through."""
    encoder = model.text_encoder if isinstance(model, StreamPrior) else None
    return model.state_dict() | ({} if encoder is None else encoder.state_dict(prefix="text_encoder."))


def save_adapter(model: nn.Module, folder: str | Path, name: str | None = None) -> None:
    """
    The adapter alone into a folder, with a card that says how to load it; `name` is what the card loads it by.

    Raises a ValueError without an adapter, a FileExistsError when a README of another project would be lost.
    """
    peft, folder = _peft(), Path(folder)
    if not has_adapter(model):
        raise ValueError("the model has no adapter to save; load_adapter puts one in")
    if (folder / CARD_NAME).exists() and not (folder / CONFIG_NAME).exists():
        raise FileExistsError(
            f"{str(folder / CARD_NAME)!r} is no adapter's and would be lost; pass a folder of its own"
        )
    config = copy.copy(model.peft_config[ADAPTER])
    config.base_model_name_or_path = base = public_name(config.base_model_name_or_path)
    weights = peft.get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    weights = {key: tensor.contiguous() for key, tensor in weights.items()}
    card = CARD.format(base=loaded_by(base), name=name or "path/to/this/folder")
    with saved_whole(folder, (CONFIG_NAME, WEIGHTS_NAME, "adapter_model.bin")) as partial:
        config.save_pretrained(str(partial))
        save_file(weights, partial / WEIGHTS_NAME, {"format": "pt", BASE: " ".join(model.adapter_base)})
        (partial / CARD_NAME).write_text(card, encoding="utf-8")


def loaded_by(base: str) -> str:
    """The argument of `from_pretrained`: none for the embedded pipeline, a Hub id, or a folder that a reader has."""
    if base == EMBEDDED.name:
        return ""
    return repr(base if "/" in base else f"path/to/{base}")


def load_adapter(model: nn.Module, name: str | Path, *, any_base: bool = False, **hub_options: Any) -> None:
    """
    Puts a saved adapter into the model.

    name: a folder, or a Hub id. any_base: also one that was trained on other weights. hub_options: revision, token,
        cache_dir, …, as huggingface_hub knows them.

    Raises an OSError when there is no adapter or it is broken, a ValueError when it does not fit the model, was
    trained on other weights, or the model has one already. Warns of one that does not say on which.
    """
    peft, folder = _peft(), _find(name, hub_options)
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        if type(config) is not peft.LoraConfig:
            raise ValueError(f"it is a {type(config).__name__}, not a LoraConfig")
        config.init_lora_weights = True  # the saved ones follow
        weights = load_file(folder / WEIGHTS_NAME)
        with safe_open(folder / WEIGHTS_NAME, "pt") as file:
            trained_on = (file.metadata() or {}).get(BASE, "").split()
    except (ValueError, TypeError, SafetensorError) as error:
        raise OSError(f"{str(folder)!r} holds no adapter that can be read ({error}); {REMEDY}") from error
    config.inference_mode = True
    model = add_adapter(model, config)
    own = peft.get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    wrong = sorted(own.keys() ^ weights.keys())
    wrong += [key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape]
    if wrong:
        drop_adapter(model)
        raise ValueError(
            f"the adapter in {str(folder)!r} is of another model: {len(wrong)} of its {len(weights)} weights do not "
            f"fit, {wrong[0]} first; load the pipeline that it was trained on"
        )
    here, found = model.adapter_base[0], str(folder)
    if not trained_on:
        warnings.warn(f"the adapter in {found!r} does not say which weights it was trained on", stacklevel=3)
    elif here not in trained_on and not any_base:
        drop_adapter(model)
        raise ValueError(
            f"the adapter in {found!r} was trained on a prior of fingerprint {trained_on[0]}, not on this one's, "
            f"{here}: load the pipeline that it was trained on, or pass any_base=True to try it on another"
        )
    peft.set_peft_model_state_dict(model, weights, adapter_name=ADAPTER)
    model.to(model.device)  # pyright: ignore[reportArgumentType]  # transformers' own types take it for a function


def merge_adapter(model: nn.Module) -> None:
    """Adds the adapter to the weights: a plain model again, which paints the same and needs no peft."""
    if not has_adapter(model):
        raise ValueError("the model has no adapter to merge; load_adapter puts one in")
    _take_out(model, merge=True)


def drop_adapter(model: "Adapted") -> None:
    """Takes the adapter out: the model as it was before."""
    _take_out(model, merge=False)


def _take_out(model: "Adapted", merge: bool) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    model.disable_input_require_grads()  # hooks of activation checkpointing, on modules that go
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            if merge:
                module.merge(safe_merge=True)
            model.set_submodule(name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            trained = module.modules_to_save[ADAPTER]
            model.set_submodule(name, trained if merge else module.original_module)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in model.trained_without_adapter)
    del model.peft_config, model.trained_without_adapter, model.adapter_base


def push_adapter(model: nn.Module, repo_id: str, token: str | None = None, private: bool | None = None) -> str:
    """Uploads the adapter alone, in one commit; returns the commit's address."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(model, folder, name=repo_id)
        repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id  # user/adapter
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload adapter"))


def _find(name: str | Path, hub_options: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download

    folder = settled(name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(str(name), allow_patterns=[CONFIG_NAME, WEIGHTS_NAME], **hub_options))
        except (OSError, ValueError) as error:  # unknown, gated, offline; or no id at all
            reason = str(error).splitlines()[0]
            raise OSError(f"no adapter at {str(name)!r} ({reason}); {REMEDY}") from error
    missing = [part for part in (CONFIG_NAME, WEIGHTS_NAME) if not (folder / part).is_file()]
    if missing:
        raise FileNotFoundError(f"{str(name)!r} is no adapter, it has no {missing[0]}; {REMEDY}")
    return folder


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError('LoRA adapters need peft: pip install "armchair[lora]"') from error
    return peft
