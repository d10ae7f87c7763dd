"""The code caches of a prior's run, one a split."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate import Accelerator
from datasets import Dataset

from dvae import FirstStage

from ..loop.run_log import HELDOUT_SPLIT
from ..pictures.data_arguments import DataArguments
from ..pictures.kinds import Captioned
from ..pictures.splits import both_splits
from ..presets.trainers import PriorTraining
from .blocks import Blocks, PieceContents, ground_codes, scenes_of, whole_rows
from .cache import CodeCache
from .cached import CachedCodes, CodeSource
from .views import Contents, Views

HELDOUT_SCENES = 256


def code_caches(
    dvae: FirstStage,
    data: DataArguments,
    training: PriorTraining,
    output_dir: Path,
    kinds: Sequence[type[Captioned]] = (),
) -> dict[str, CodeCache]:
    """
    Several crops and flips are the training split's alone. HELDOUT_SPLIT, where scenes are to be cached and the set
    holds some out of training, is of these alone. With training.blocks the caches hold pieces: all of the training
    split's, the rows of the validation split.
    """
    folder, size, seed = Path(training.codes or output_dir / "codes"), dvae.config.image_size, training.seed
    train, validation = both_splits(data, kinds)
    if training.blocks:
        grid_size = dvae.config.grid_size
        pieces = {
            "train": PieceContents(train, data, size, grid_size),
            "validation": PieceContents(validation, data, size, grid_size, singles=True),
        }
        return {split: CodeCache(folder / split, dvae, part) for split, part in pieces.items()}
    views, scenes = Views(data.crop, training.crops, training.flips), training.cached_scenes
    contents = {
        "train": Contents(train, data, size, views, scenes, seed=seed),
        "validation": Contents(validation, data, size, seed=seed),
    }
    if scenes > 0 and train.kind.holds_out:
        contents[HELDOUT_SPLIT] = Contents(train, data, size, scenes=HELDOUT_SCENES, held_out=True, seed=seed)
    return {split: CodeCache(folder / split, dvae, part) for split, part in contents.items()}


def codes_of(
    caches: Mapping[str, CodeCache], dvae: FirstStage, training: PriorTraining, accelerator: Accelerator
) -> tuple[CodeSource, dict[str, Dataset]]:
    """What a prior draws from, and what it is evaluated on, by split; encoded first where it is not yet."""
    encoded = {split: cache.dataset(accelerator, training.num_workers) for split, cache in caches.items()}
    train = encoded.pop("train")
    if not training.blocks:
        return CachedCodes(train), encoded
    contents = caches["train"].contents
    assert isinstance(contents, PieceContents)  # training.blocks caches nothing else
    grounds = ground_codes(dvae, contents.composer, accelerator.device)
    blocks = Blocks(train, contents, grounds)
    held_out = scenes_of(blocks, HELDOUT_SCENES, training.seed) if contents.source.kind.holds_out else None
    encoded["validation"] = whole_rows(encoded["validation"])
    return blocks, encoded | ({HELDOUT_SPLIT: held_out} if held_out else {})
