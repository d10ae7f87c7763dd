"""Whether the pipeline finds the picture of a name among others' that it never saw, by each of its own scores.

    python -P tests/benchmarks/ranking.py [--pictures 25] [--model FOLDER_OR_ID]

Held-out drawings, named by at most two words: each name ranks them all, and each picture ranks all names.
"""

import argparse

import torch
from PIL import Image
from torch import Tensor

from pipelines import TextToImagePipeline
from training.pictures.in_memory import Pictures
from training.pictures.splits import load_split
from training.presets.trainers import DataArguments
from training.sets import KINDS


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or Hub id of the pipeline (default: the embedded model)")
    parser.add_argument("--pictures", type=int, default=25)
    args = parser.parse_args(argv)
    pipeline = TextToImagePipeline.from_pretrained(args.model)
    data, size = DataArguments(), pipeline.dvae.config.image_size
    pictures = Pictures(load_split(data, "validation", KINDS), data, size)
    names = [parts["things"][0]["name"] for parts in pictures.parts]
    chosen = [i for i, name in enumerate(names) if len(name.split()) <= 2][: args.pictures]
    images = [Image.fromarray(pictures.single(i)[0]) for i in chosen]
    judges = ["likelihood", "pmi"]
    if pipeline.reranker is not None:
        judges += ["reranker", "likelihood+reranker", "pmi+reranker"]
    for by in judges:
        scores = torch.stack([pipeline.rank(names[i], images, by=by).scores for i in chosen])  # (name, picture)
        report(f"a name among {len(chosen)} pictures, by {by}", scores)
        report(f"a picture among {len(chosen)} names, by {by}", scores.T)


def report(what: str, scores: Tensor) -> None:
    """scores: (asked, candidate), the own candidate on the diagonal."""
    ranks = (scores > scores.diag()[:, None]).sum(dim=1).float()
    print(f"{what:50} first {(ranks == 0).float().mean():6.1%}, mean rank {ranks.mean():5.1f} from 0")


if __name__ == "__main__":
    main()
