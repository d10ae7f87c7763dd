"""What a part learned from: kept beside its weights and in its checkpoints, compared wherever parts meet.

    dvae/provenance.json        {"data": {"files": "3f0c…", "rows": 950, …}}
    prior/provenance.json       {"data": …, "dvae": ["91ab…", …], "tokenizer": "77e0…"}

A fact is a digest; or some of which one has to agree, such as those of weights in every precision that they may have
been stored in; or settings and digests by name, of which all that both sides tell have to. What was saved before facts
were kept has none: that is said, and let pass.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from .run_log import save_numbers

FILE = "provenance.json"
Fact = str | list[str] | dict[str, Any]
GIVE = {
    "data": "give that one by --data.path and its settings",
    "dvae": "give that one by --training.dvae",
    "tokenizer": "give that one by --training.tokenizer",
    "text_encoder": "give that one by --training.init_from",
    "base": "give that one by --training.init_from",
    "model": "give that one by --model",
}
TRAINED_BY = {"dropout", "initializer_range", "text_loss_weight", "image_loss_weight"}
SHAPES = {"text_vocab_size", "codebook_size", "text_length", "grid_size", "hidden_size", "intermediate_size"}
SHAPES |= {"num_hidden_layers"}


def save_provenance(folder: Path, facts: dict[str, Fact]) -> None:
    save_numbers(folder / FILE, facts)


def read_provenance(folder: str | Path) -> dict[str, Fact]:
    """{} where the folder has none, or is none."""
    path = Path(folder) / FILE
    return json.loads(path.read_text()) if path.is_file() else {}


def files_of(told: dict[str, Fact]) -> str | None:
    """The digest of the files that a part learned from; None where it does not say."""
    data = told.get("data")
    return data["files"] if isinstance(data, dict) else None


def model_fact(config: PreTrainedConfig) -> dict[str, Any]:
    """What a prior computes with weights of its shapes, as its config has it."""
    every = {field.name for field in fields(config)} - {field.name for field in fields(PreTrainedConfig)}
    return {name: getattr(config, name) for name in sorted(every - TRAINED_BY - SHAPES)}


def agree(left: Fact, right: Fact) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return bool(set(left) & set(right))
    if isinstance(left, dict) and isinstance(right, dict):
        return all(left[name] == right[name] for name in left.keys() & right.keys())
    return left == right


def check_facts(
    who: str,
    told: dict[str, Fact],
    here: dict[str, Fact],
    may_differ: Sequence[str],
    remedy: str,
    *,
    say: Callable[[str], None] = print,
) -> None:
    """
    Raises a ValueError, with both fingerprints and what to do, where one of the facts of this run is another than what
    `who` learned with, unless it may differ. A fact that it does not tell is said.
    """
    for name, fact in here.items():
        if name not in told:
            say(f"{who} does not say which {name} it learned with: it is taken to be this run's")
        elif not agree(told[name], fact):
            there, own = _shown(told[name], fact), _shown(fact, told[name])
            what = f"{who} learned with the {name} {there}, and this run has {own}"
            if name not in may_differ:
                raise ValueError(f"{what}: {GIVE[name]}, or {remedy}{_or_say(name)}")
            say(f"{what}: it may differ")


def _or_say(name: str) -> str:
    return "" if name in ("text_encoder", "base", "model") else f"; --training.may_differ '[{name}]' takes it as it is"


def _shown(fact: Fact, other: Fact) -> str:
    """A digest, the first of some, or those of the settings that the other has otherwise."""
    if isinstance(fact, dict) and isinstance(other, dict):
        return ", ".join(f"{key} {value}" for key, value in fact.items() if other.get(key) != value)
    return fact[0] if isinstance(fact, list) else str(fact)
