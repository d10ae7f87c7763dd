"""The code caches of a prior's run, one a split."""

from collections.abc import Sequence
from pathlib import Path

from dvae import DVAE

from ..loop.run_log import HELDOUT_SPLIT
from ..pictures.data_arguments import DataArguments
from ..pictures.kinds import Captioned
from ..pictures.splits import load_split
from ..presets.trainers import PriorTraining
from .cache import CodeCache
from .views import Contents, Views

HELDOUT_SCENES = 256


def code_caches(
    dvae: DVAE,
    data: DataArguments,
    training: PriorTraining,
    output_dir: Path,
    kinds: Sequence[type[Captioned]] = (),
) -> dict[str, CodeCache]:
    """
    Several crops and flips are the training split's alone. HELDOUT_SPLIT, where scenes are asked for, holds scenes
    alone, of what the set holds out of training.
    """
    folder, size, seed = Path(training.codes or output_dir / "codes"), dvae.config.image_size, training.seed
    train, validation = load_split(data, "train", kinds), load_split(data, "validation", kinds)
    views, scenes = Views(data.crop, training.crops, training.flips), training.cached_scenes
    contents = {
        "train": Contents(train, data, size, views, scenes, seed=seed),
        "validation": Contents(validation, data, size, seed=seed),
    }
    if scenes > 0:
        contents[HELDOUT_SPLIT] = Contents(train, data, size, scenes=HELDOUT_SCENES, held_out=True, seed=seed)
    return {split: CodeCache(folder / split, dvae, part) for split, part in contents.items()}
