"""The model card of a saved pipeline, written from what the pipeline knows of itself and the run's own numbers."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCardData

from .locate import INDEX_NAME, read_index

CARD_NAME = "README.md"
TAGS = ["armchair", "autoregressive", "dall-e", "discrete-vae", "text-to-image"]

TEMPLATE = """\
---
{front_matter}
---

# {title}

Paints {size}×{size} pictures from short texts, as DALL·E does ([arXiv 2102.12092](https://arxiv.org/abs/2102.12092)).
A discrete VAE ({dvae_parameters} parameters) turns a picture into {side}×{side} codes out of {codebook_size} and back.
A transformer ({prior_parameters} parameters) continues {text_length} text tokens with {codes} codes, one by one.
{samples}
## Use

```python
from pipelines import TextToImagePipeline

pipeline = TextToImagePipeline.from_pretrained({name})
image = pipeline("an armchair shaped like an avocado", seed=0).images[0]
image.save("armchair.png")
```

{alone}A call draws with these settings unless told otherwise:

{sampling}

## Results

{metrics}

## Recipe

{order}{architecture}

{recipe}

## Data and licences

The code is under Apache-2.0, the weights {license}, what they learned from under the licences of its sources.

{data}

## Limits

- It paints {size}×{size} pixels and reads {text_length} tokens of {text}; more is cut, with a warning.
- It knows what its training data shows and names, with the data's gaps and biases, and little else.
- Counting, writing, and several things with properties of their own in one picture often fail. Draw a few and choose.
- It has no filter for prompts or pictures.
"""


ORDER = """\
First the dVAE learned the pictures alone, then the prior their captions and codes as one stream.

"""
ALONE = """\
The parts load without this package too:
`transformers.AutoModel.from_pretrained("{repo_id}", subfolder="dvae", trust_remote_code=True)`, `"prior"` likewise.

"""


def edited_card(folder: Path) -> tuple[bytes | None, str | None]:
    """What a user made of the card that was saved there, and that one's fingerprint; None, None of one as it was."""
    try:
        saved = read_index(folder).get("card")
        card = (folder / CARD_NAME).read_bytes()
    except OSError:  # no pipeline, or no card
        return None, None
    return (card, saved) if saved is not None and _digest(card) != saved else (None, None)


def note_card(folder: Path, saved: str | None = None) -> None:
    """The index keeps the card's fingerprint, or `saved`, another's, by which an edit is seen."""
    index = json.loads((folder / INDEX_NAME).read_text("utf-8"))
    index["card"] = saved or _digest((folder / CARD_NAME).read_bytes())
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _digest(card: bytes) -> str:
    return hashlib.sha256(card.replace(b"\r\n", b"\n")).hexdigest()[:16]


def write_model_card(pipeline: Any, metrics: dict[str, Any] | None = None, *, repo_id: str | None = None) -> str:
    """The text of README.md: YAML front matter, use, the run's numbers, recipe, data and licences, limits.

    Args:
        pipeline: a TextToImagePipeline.
        metrics: {name: number} or {section: {name: number}}; None is the pipeline's own.
        repo_id: the Hub id in the lines of use; without it they load this folder.
    """
    config = pipeline.dvae.config
    card_data = ModelCardData(
        library_name="armchair",
        license=pipeline.license,
        pipeline_tag="text-to-image",
        tags=TAGS,
        language=pipeline.language,
    )
    return TEMPLATE.format(
        front_matter=card_data.to_yaml(),
        title=repo_id.split("/")[-1] if repo_id else "A text-to-image model by armchair",
        name=f'"{repo_id}"' if repo_id else '"path/to/this/folder"',
        alone=ALONE.format(repo_id=repo_id) if repo_id else "",
        size=config.image_size,
        side=config.grid_size,
        codes=pipeline.prior.config.image_length,
        codebook_size=f"{config.codebook_size:,}",
        text_length=pipeline.prior.config.text_length,
        dvae_parameters=_count(pipeline.dvae),
        prior_parameters=_count(pipeline.prior),
        license=_license(pipeline.license),
        samples="" if pipeline.samples is None else "\n![Pictures it painted](samples.png)\n",
        sampling=_table("setting", "value", asdict(pipeline.sampling)),
        metrics=_tables("measure", pipeline.metrics if metrics is None else metrics),
        text=pipeline.tokenizer.reads,
        order=ORDER if pipeline.recipe else "",
        architecture=_table("part", "architecture", _architecture(pipeline)),
        recipe=_tables("setting", pipeline.recipe),
        data=_table("source", "licence", pipeline.data) if pipeline.data else "Not recorded with this pipeline.",
    )


def _license(name: str | None) -> str:
    """As the Hub names it, to whom "other" is none of those that it knows."""
    if name == "other":
        return "under that of their source below"
    return f"under {name}" if name else "under a licence that is not recorded here"


def _architecture(pipeline: Any) -> dict[str, str]:
    parts = {"dVAE": pipeline.dvae.config.summary, "prior": pipeline.prior.config.summary}
    if pipeline.reranker is not None:
        parts["reranker"] = f"contrastive, {_count(pipeline.reranker)} parameters; best_of and rank ask it"
    if (encoder := pipeline.text_encoder) is not None:
        parts["text encoder"] = f"{type(encoder).__name__} of {_count(encoder)} parameters, frozen"
    return parts


def _tables(left: str, values: dict[str, Any]) -> str:
    """What has no section first, then a table a section."""
    if not values:
        return "Not recorded with this pipeline."
    plain = {name: value for name, value in values.items() if not isinstance(value, dict)}
    tables = [_table(left, "value", plain)] if plain else []
    for section, entries in values.items():
        if isinstance(entries, dict):
            tables.append(f"**{_cell(section)}**\n\n{_table(left, 'value', entries)}")
    return "\n\n".join(tables)


def _table(left: str, right: str, rows: dict[str, Any]) -> str:
    lines = [f"| {left} | {right} |", "| --- | --- |"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _count(model: Any) -> str:
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{count / 1e6:.1f} million" if count >= 1e6 else f"{count:,}"
