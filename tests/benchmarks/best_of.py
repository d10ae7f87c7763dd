"""By how much best_of raises R-precision: the pipeline ranks, a contrastive model that it never sees judges.

    python -P tests/benchmarks/best_of.py --scorer RUN [--names 100] [--best_of 1 8 32] [--reranker FOLDER_OR_ID …]

RUN is an output_dir of `python -m training.train_scorer PRESET`, with tokenizer/ and scorer/. Each name is
painted once for each seed from 0 on; "best of n" keeps the best of the first n, as `pipeline(name, best_of=n, seed=0)`
does, and "judge" is the ceiling: the candidate that the judge itself would keep.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from pipelines import TextToImagePipeline
from pipelines.judging import find_judge, judge_codes
from pipelines.small_clip import SmallCLIP
from prior_transformer import PriorTokenizer
from training.arguments import DataArguments
from training.data import load_split
from training.scorer import r_precision
from training.train_scorer import short_names


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scorer", type=Path, required=True, help="output_dir of training.train_scorer")
    parser.add_argument("--model", help="folder or Hub id of the pipeline (default: the embedded model)")
    parser.add_argument("--names", type=int, default=100, help="how many short names to paint")
    parser.add_argument("--best_of", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--reranker", nargs="*", default=[], help="CLIPs beside the pipeline's own judges")
    parser.add_argument("--temperature", type=float, help="default: the model's own")
    args = parser.parse_args(argv)
    pipeline = TextToImagePipeline.from_pretrained(args.model)
    every = sorted(set(load_split(DataArguments(), "train").column("name")))
    judge, name_ids = load_judge(args.scorer, every)
    names, judges = short_names(every, args.names), {"pmi": "pmi", "likelihood": "likelihood"}
    if pipeline.reranker is not None:
        args.reranker += ["reranker", "likelihood+reranker"]
    judges |= {name: find_judge(pipeline, "reranker", name, names) for name in args.reranker}
    own = torch.tensor([every.index(name) for name in names])
    kept = {(by, n): [] for by in (*judges, "judge") for n in args.best_of}
    distinct = 0
    for name, place in zip(tqdm(names), own.tolist(), strict=True):
        output = pipeline(
            name,
            num_images_per_prompt=max(args.best_of),
            temperature=args.temperature,
            seed=0,
            output_type="pt",
            progress_bar=False,
        )
        codes, which = output.codes.unique(dim=0, return_inverse=True)  # at a low temperature many are the same
        distinct += len(codes)
        scores = {by: judge_codes(pipeline, [name] * len(codes), codes, who)[which] for by, who in judges.items()}
        scores["judge"] = similarity(judge, output.images, name_ids[place])
        for by, n in kept:
            kept[by, n].append(output.images[scores[by][:n].argmax()])
    print(f"{len(names)} names, of {max(args.best_of)} candidates {distinct / len(names):.1f} different on average")
    print(f"R-precision of {min(100, len(every))} names, with its standard error")
    for (by, n), pictures in kept.items():
        hits = r_precision(judge, torch.stack(pictures), own, name_ids)
        print(f"{by:20} best of {n:3} {hits.mean():6.1%} ± {hits.std() / len(hits) ** 0.5:.1%}")


def load_judge(run: Path, names: list[str]) -> tuple[SmallCLIP, Tensor]:
    """The scorer and all names' ids (M, T)."""
    tokenizer = PriorTokenizer.from_pretrained(run / "tokenizer")
    scorer = SmallCLIP.from_pretrained(run / "scorer", dtype=torch.float32)
    return scorer, tokenizer.encode_captions(names)


@torch.no_grad()
def similarity(judge: SmallCLIP, pixel_values: Tensor, name_ids: Tensor) -> Tensor:
    """Pictures (B, 3, S, S) and one name's ids (T,) -> (B,)."""
    return (judge.embed_images(pixel_values) @ judge.embed_text(name_ids[None]).T)[:, 0]


if __name__ == "__main__":
    main()
