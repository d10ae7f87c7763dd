"""The base of the configs: an unknown key is an error that names it.

This file stands in dvae/ and in prior_transformer/, word for word: each travels alone.
"""

import difflib
from dataclasses import fields
from typing import Any

from transformers import PreTrainedConfig

# What transformers itself passes or writes beside the fields.
_KNOWN_TO_TRANSFORMERS = {
    "_commit_hash",
    "_name_or_path",
    "attn_implementation",
    "auto_map",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "torch_dtype",
}


class CheckedConfig(PreTrainedConfig):
    """
    A `PreTrainedConfig` that raises a `TypeError` for a key that is neither its own nor transformers'. Older names of
    its keys are read where `attribute_map` has them.
    """

    def __post_init__(self, **kwargs: Any):
        known = {field.name for field in fields(self)}
        unknown = [key for key in kwargs if key not in known | self.attribute_map.keys() | _KNOWN_TO_TRANSFORMERS]
        if unknown:
            close = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(sorted(known))}"
            raise TypeError(f"{type(self).__name__} has no key {unknown[0]!r}{hint}")
        super().__post_init__(**kwargs)
