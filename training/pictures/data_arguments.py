"""Which pictures a run sees: the `data` of a preset."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class DataArguments:
    """
    path: a folder of pictures, with metadata.jsonl or a .txt beside each; a file or a folder of JSON lines, CSV,
        Parquet, Arrow or WebDataset tars; a Hub id (training/pictures/sources.py); or a Python file whose class draws
        the pictures (training/pictures/generated.py).
    text_column: column of captions; None takes `text`, `caption`, `captions` or `prompt`, or writes captions from
        `name`, `keywords` and `style`, or takes a `name` without these as it is.
    train_split, validation_split: names of the splits; without a validation split 5 % of the training split, at
        least 1 picture and at most 1,000, are held out by a hash of their place, each with all of its rows.
    streaming: decode pictures when they are drawn, in workers, instead of once and into memory. shuffle_buffer: how
        many undecoded pictures a worker then holds to draw from.
    crop: "center", or "dalle", the paper's random crops in training; evaluation takes the centre in both cases.
    min_side, max_pixels: pictures with a shorter side or more pixels than these are left out before they are decoded.
    max_broken_share: a run stops as soon as more than this share of all rows cannot be used: of a split's, and where
        a part is held out of it, of both together.
    scenes: share of composed scenes among the pictures drawn, for sets of named cut-outs (the emoji).
    scene_kinds: weights of some kinds of scenes, as {small: 20, shape: 0}, instead of their own
        (training/emoji/scenes.py).
    max_pictures: take the first ones only, to try a run.
    """

    path: str = "training/data/emoji"
    text_column: str | None = None
    train_split: str = "train"
    validation_split: str = "validation"
    streaming: bool = False
    shuffle_buffer: int = 1000
    crop: Literal["center", "dalle"] = "center"
    min_side: int = 8
    max_pixels: int = 2**26
    max_broken_share: float = 0.1
    scenes: float = 0.0
    scene_kinds: dict[str, float] = field(default_factory=dict)
    max_pictures: int | None = None

    def __post_init__(self):
        if not 0 <= self.max_broken_share <= 1:
            raise ValueError(f"max_broken_share={self.max_broken_share} must be in [0, 1]")
        if self.shuffle_buffer < 1:
            raise ValueError(f"shuffle_buffer={self.shuffle_buffer} must be at least 1; 1 draws shard after shard")
        if any(weight < 0 for weight in self.scene_kinds.values()):
            raise ValueError(f"scene_kinds={self.scene_kinds} are weights: none may be below 0")
