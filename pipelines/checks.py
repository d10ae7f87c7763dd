"""What is refused before any work is done: each message holds what was given, what is needed, and the remedy."""

from numbers import Integral, Real
from typing import Any

EXAMPLE = "pass a few words such as 'an armchair shaped like an avocado'"


def check_components(dvae: Any, prior: Any, tokenizer: Any, image_processor: Any, reranker: Any = None) -> None:
    """Raises ValueError unless the parts fit: the same codes, grid, text ids and picture size."""
    pairs = [
        ("dvae.config.codebook_size", dvae.config.codebook_size),
        ("prior.config.codebook_size", prior.config.codebook_size),
        ("dvae.config.grid_size", dvae.config.grid_size),
        ("prior.config.grid_size", prior.config.grid_size),
        ("image_processor.size", image_processor.size),
        ("dvae.config.image_size", dvae.config.image_size),
    ]
    if reranker is not None:
        pairs += [
            ("len(tokenizer)", len(tokenizer)),
            ("reranker.config.text_vocab_size", reranker.config.text_vocab_size),
            ("tokenizer.pad_token_id", tokenizer.pad_token_id),
            ("reranker.config.pad_token_id", reranker.config.pad_token_id),
        ]
    _check_equal(pairs)


def check_stream(prior: Any, tokenizer: Any) -> None:
    """Raises ValueError unless a prior whose stream begins with the tokenizer's ids fits it."""
    _check_equal(
        [
            ("len(tokenizer)", len(tokenizer)),
            ("prior.config.text_vocab_size", prior.config.text_vocab_size),
            ("tokenizer.model_max_length", tokenizer.model_max_length),
            ("prior.config.text_length", prior.config.text_length),
            ("tokenizer.pad_token_id", tokenizer.pad_token_id),
            ("prior.config.pad_token_id", prior.config.pad_token_id),
        ]
    )


def check_text_encoder(prior: Any, text_encoder: Any) -> None:
    """Raises ValueError unless there is one that fits a prior which reads features of text, and else none."""
    size = prior.config.feature_size
    if (size is None) != (text_encoder is None):
        raise ValueError(
            f"prior.config.feature_size={size} but text_encoder={type(text_encoder).__name__}: a prior that reads "
            f"features of text needs one, and no other takes one"
        )
    if text_encoder is None:
        return
    from transformers import T5EncoderModel

    if not isinstance(text_encoder, T5EncoderModel):
        raise ValueError(
            f"text_encoder is a {type(text_encoder).__name__}; pass a T5EncoderModel, which is what loads"
        )
    if prior.text_encoder not in (None, text_encoder):
        raise ValueError(
            "the prior reads text through another text_encoder, as every pipeline that has it does; load the prior "
            "anew for this one"
        )
    _check_equal([("text_encoder.config.d_model", text_encoder.config.d_model), ("prior.config.feature_size", size)])
    rows, largest = text_encoder.config.vocab_size, prior.config.text_vocab_size - 2
    if largest >= rows:
        raise ValueError(
            f"text ids up to {largest} are above the {rows} of text_encoder; pass parts that were trained together"
        )


def _check_equal(pairs: list[tuple[str, int]]) -> None:
    for (left, a), (right, b) in zip(pairs[::2], pairs[1::2], strict=True):
        if a != b:
            raise ValueError(f"{left}={a} but {right}={b}; pass parts that were trained together")


def check_prompts(prompt: str | list[str], *, allow_empty: bool = False) -> list[str]:
    """The prompts as a list. Raises TypeError or ValueError unless it is one prompt or a list of them.

    allow_empty: whether "" is a prompt, of the unconditional picture; white space alone never is.
    """
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list | tuple):
        raise TypeError(f"prompt={prompt!r} is a {type(prompt).__name__}; pass a string or a list of strings")
    if not prompts:
        raise ValueError(f"prompt={prompt!r} holds no prompt; {EXAMPLE}")
    for i, text in enumerate(prompts):
        if not isinstance(text, str):
            raise TypeError(f"prompt {i} is {text!r}, a {type(text).__name__}; pass a string or a list of strings")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(f"prompt {i} is no text in UTF-8: {text!r}; {EXAMPLE}")
        if not text.strip() and not (allow_empty and text == ""):
            raise ValueError(f"prompt {i} is empty: {text!r}; {EXAMPLE}")
    return list(prompts)


def check_negative_prompts(
    negative_prompt: str | list[str] | None, num_prompts: int, guidance_scale: float
) -> list[str] | None:
    """One a prompt, or None for the empty caption. Raises TypeError or ValueError for what guidance cannot use."""
    if negative_prompt is None:
        return None
    others = check_prompts(negative_prompt, allow_empty=True)
    if len(others) not in (1, num_prompts):
        raise ValueError(f"{len(others)} negative prompts for {num_prompts} prompts; pass one for all, or one each")
    if guidance_scale == 1:
        raise ValueError(
            f"negative_prompt={negative_prompt!r} does nothing at guidance_scale=1; pass a scale such as 3"
        )
    return others * (num_prompts // len(others))


def check_count(name: str, value: int) -> None:
    """Raises TypeError or ValueError unless it is a whole number, 1 or more."""
    if not _is_int(value):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; pass a whole number, 1 or more")
    if value < 1:
        raise ValueError(f"{name}={value} is below 1; pass 1 or more")


def check_share(name: str, value: float) -> None:
    """Raises TypeError or ValueError unless it is a number in [0, 1]."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; pass a number from 0 to 1")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} is outside [0, 1]; pass a number from 0 to 1")


def check_seeds(seed: int | list[int] | None, num_images: int) -> None:
    """Raises TypeError or ValueError unless seed is None, an int in 0 to 2^63 − 1, or a list with one an image."""
    if seed is None:
        return
    seeds = seed if isinstance(seed, list | tuple) else [seed]
    for value in seeds:
        if not _is_int(value):
            raise TypeError(
                f"seed={value!r} is a {type(value).__name__}; pass a whole number, or a list with one an image"
            )
        if not 0 <= value < 2**63:
            raise ValueError(f"seed={value} is outside 0 to 2^63 - 1; pass a whole number in this range")
    if seeds is seed and len(seeds) != num_images:
        raise ValueError(f"{len(seeds)} seeds for {num_images} images; pass one an image, or a single seed for all")


def _is_int(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
