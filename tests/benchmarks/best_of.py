"""By how much best_of raises R-precision: the pipeline ranks, a contrastive model that it never sees judges.

    python -P tests/benchmarks/best_of.py --scorer RUN [--names 100] [--pairs 100] [--grounds 100] [--best_of 1 8 32] …

RUN is an output_dir of `python -m training.train_scorer PRESET`, with tokenizer/ and scorer/. Each name, and each pair
of things that training never put together, is painted once for each seed from 0 on; "best of n" keeps the best of the
first n, as `pipeline(prompt, best_of=n, seed=0)` does, and "judge" is the ceiling for names: the candidate that the
judge itself would keep. Of a pair each thing is cut out and judged alone. Of names on a coloured background it counts
those that stay empty.
"""

import argparse
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from pipelines import TextToImagePipeline
from pipelines.judges.judging import PictureJudge
from pipelines.judges.small_clip import SmallCLIP
from prior_transformer import PriorTokenizer
from training.emoji.pair_scores import cut_things, heldout_pairs
from training.emoji.scenes import GROUNDS
from training.evaluation.scorer import r_precision, ranks
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures
from training.pictures.splits import load_split
from training.sets import KINDS
from training.train_scorer import short_names

Judges = dict[str, str | PictureJudge]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scorer", type=Path, required=True, help="output_dir of training.train_scorer")
    parser.add_argument("--model", help="folder or Hub id of the pipeline (default: the embedded model)")
    parser.add_argument("--names", type=int, default=100, help="how many short names to paint")
    parser.add_argument("--pairs", type=int, default=100, help="how many held-out pairs to paint")
    parser.add_argument("--grounds", type=int, default=100, help="how many names to paint on a coloured background")
    parser.add_argument("--best_of", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--reranker", nargs="*", default=[], help="CLIPs beside the pipeline's own judges")
    parser.add_argument("--temperature", type=float, help="default: the model's own")
    args = parser.parse_args(argv)
    pipeline = TextToImagePipeline.from_pretrained(args.model)
    train = load_split(DataArguments(), "train", KINDS)
    every = sorted(set(train.column("name")))
    scorer, name_ids = load_scorer(args.scorer, every)
    names, own_judges = short_names(every, args.names), ["pmi", "likelihood"]
    if pipeline.reranker is not None:
        own_judges += ["reranker", "likelihood+reranker"]
    judges = {name: pipeline.find_judge("reranker", name, names) for name in (*own_judges, *args.reranker)}

    places = [every.index(name) for name in names]
    kept = best(pipeline, names, judges, args, lambda i, images: similarity(scorer, images, name_ids[places[i]]))
    report("names", kept, scorer, torch.tensor(places), name_ids)
    if args.pairs:
        pictures = Pictures(train, DataArguments(), pipeline.dvae.config.image_size)
        pairs = heldout_pairs(pictures.laid_out, args.pairs)
        kept = best(pipeline, pairs.prompts, judges, args)
        cut = {key: cut_things(images, pairs.vertical) for key, images in kept.items()}
        both = torch.tensor([every.index(name) for pair in pairs.names for name in pair])
        report("things of pairs", cut, scorer, both, name_ids)
    if args.grounds:
        prompts = [f"{name} on a {colour} background" for name, colour in zip(names, cycle(GROUNDS), strict=False)]
        kept = best(pipeline, prompts[: args.grounds], judges, args)
        report_empty(kept)


def best(
    pipeline: TextToImagePipeline,
    prompts: list[str],
    judges: Judges,
    args: argparse.Namespace,
    ceiling: Callable[[int, Tensor], Tensor] | None = None,
) -> dict[tuple[str, int], Tensor]:
    """{(judge, n): the pictures (P, 3, S, S) that it keeps of n}. ceiling(i, images): a scorer of prompt i."""
    kept = {(by, n): [] for by in (*judges, *(["judge"] if ceiling else [])) for n in args.best_of}
    distinct, most = 0, max(args.best_of)
    for i, prompt in enumerate(tqdm(prompts)):
        options = {"num_images_per_prompt": most, "temperature": args.temperature, "seed": 0, "progress_bar": False}
        output = pipeline(prompt, output_type="pt", **options)
        codes, which = output.codes.unique(dim=0, return_inverse=True)  # at a low temperature many are the same
        distinct += len(codes)
        scores = {by: pipeline.judge_codes([prompt] * len(codes), codes, who)[which] for by, who in judges.items()}
        if ceiling:
            scores["judge"] = ceiling(i, output.images)
        for by, n in kept:
            kept[by, n].append(output.images[scores[by][:n].argmax()])
    print(f"{len(prompts)} prompts, of {most} candidates {distinct / len(prompts):.1f} different on average")
    return {key: torch.stack(pictures) for key, pictures in kept.items()}


def report(what: str, kept: dict[tuple[str, int], Tensor], scorer: SmallCLIP, own: Tensor, name_ids: Tensor) -> None:
    print(f"{what}: R-precision of {min(100, len(name_ids))} with its standard error, first five of {len(name_ids)}")
    for (by, n), pictures in kept.items():
        hits = r_precision(scorer, pictures, own, name_ids)
        first = (ranks(scorer, pictures, own, name_ids) < 5).float().mean()
        print(f"{by:20} best of {n:3} {hits.mean():6.1%} ± {hits.std() / len(hits) ** 0.5:.1%} {first:6.1%}")


def report_empty(kept: dict[tuple[str, int], Tensor]) -> None:
    print("coloured backgrounds left empty: each channel's standard deviation below 0.02 on average")
    for (by, n), pictures in kept.items():
        empty = pictures.flatten(2).std(dim=2).mean(dim=1) < 0.02
        print(f"{by:20} best of {n:3} {empty.float().mean():6.1%}")


def load_scorer(run: Path, names: list[str]) -> tuple[SmallCLIP, Tensor]:
    """The scorer and all names' ids (M, T)."""
    tokenizer = PriorTokenizer.from_pretrained(run / "tokenizer")
    return SmallCLIP.from_pretrained(run / "scorer", dtype=torch.float32), tokenizer.encode_captions(names)


@torch.no_grad()
def similarity(scorer: SmallCLIP, pixel_values: Tensor, name_ids: Tensor) -> Tensor:
    """Pictures (B, 3, S, S) and one name's ids (T,) -> (B,)."""
    return scorer.score(pixel_values, name_ids.expand(len(pixel_values), -1))


if __name__ == "__main__":
    main()
