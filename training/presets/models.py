"""What the `model:` of a preset's section is of, checked before anything trains."""

from collections.abc import Callable
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from dvae import DVAEConfig, GANGeneratorConfig, PatchDiscriminatorConfig
from pipelines.judges.small_clip import SmallCLIPConfig
from prior_transformer import LlamaPriorConfig, PriorTransformerConfig, prior_config

# by section, the configs whose keys its `model` holds, and where in it
MODELS: dict[str, dict[type, str]] = {
    "dvae": {DVAEConfig: "model"},
    "prior": {PriorTransformerConfig: "model", LlamaPriorConfig: "model"},
    "reranker": {SmallCLIPConfig: "model"},
    "gan": {GANGeneratorConfig: "model.generator", PatchDiscriminatorConfig: "model.discriminator"},
}
TAKEN_FROM_PARTS = {"text_vocab_size", "text_length", "pad_token_id", "codebook_size", "grid_size"}  # not from `model`


def reranker_config(model: dict[str, Any], **sizes: Any) -> SmallCLIPConfig:
    """sizes: the tokenizer's and the pictures'. Raises a ValueError for a key of `model` that it has not."""
    if unknown := set(model) - {"projection_dim", "width"}:
        raise ValueError(f"model has no key {min(unknown)!r}: a reranker's holds projection_dim and width")
    return SmallCLIPConfig(**model, **sizes)


def gan_configs(model: dict[str, Any]) -> tuple[GANGeneratorConfig, PatchDiscriminatorConfig]:
    """Of the preset's `model: {generator: …, discriminator: …}`. Raises a ValueError where the two do not fit."""
    if unknown := set(model) - {"generator", "discriminator"}:
        raise ValueError(f"model has no key {min(unknown)!r}: it holds generator and discriminator")
    generator = GANGeneratorConfig(**model.get("generator", {}))
    discriminator = PatchDiscriminatorConfig(**model.get("discriminator", {}))
    if generator.image_size < discriminator.smallest_image:
        raise ValueError(
            f"image_size={generator.image_size} is too small for num_layers={discriminator.num_layers}, "
            f"which needs {discriminator.smallest_image}: take fewer layers"
        )
    return generator, discriminator


CHECKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "dvae": lambda model: DVAEConfig(**model),
    "prior": prior_config,
    "reranker": reranker_config,
    "gan": gan_configs,
}


def check_model(section: str, model: dict[str, Any] | None) -> None:
    """Raises a ValueError that names what cannot be in the `model` of a section."""
    if section not in CHECKS:
        return
    try:
        CHECKS[section](dict(model or {}))
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ValueError(f"{section}.model: {error.__cause__ or error}") from error
