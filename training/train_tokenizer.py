"""Learns the text tokens: a byte-level BPE of the captions as they are drawn in training.

    python -m training.train_tokenizer training/configs/emoji_cpu.yaml [--training.vocab_size 4096 …]

Leaves output_dir/tokenizer. It takes one process and seconds; others that were launched beside it stop at once.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from accelerate import PartialState
from tqdm import tqdm

from pipelines.folder.whole import saved_whole, settled
from prior_transformer import PriorTokenizer

from .loop.command import run_command
from .loop.provenance import files_of, read_provenance, save_provenance
from .pictures.data_arguments import DataArguments
from .pictures.kinds import Parts
from .pictures.rows import BrokenRow, Tally
from .pictures.splits import Split, both_splits, data_fact, fit_scenes
from .presets.reading import parse
from .presets.trainers import TokenizerTraining
from .sets import KINDS


def main(argv: list[str] | None = None) -> None:
    args = parse("tokenizer", TokenizerTraining, argv, __doc__)
    if not PartialState().is_main_process:
        return
    folder = Path(args.output_dir) / "tokenizer"
    fit_scenes(args, KINDS)
    pictures, _ = both_splits(args.data, KINDS)
    data = data_fact(pictures, args.data)
    if args.training.keep and (settled(folder) / "tokenizer.json").exists():
        check_kept(PriorTokenizer.from_pretrained(folder), args.training, folder)
        told = files_of(read_provenance(folder)) or data["files"]
        other = "" if told == data["files"] else f", of files {told}, not of this run's, {data['files']}"
        print(f"{folder} is there already: kept{other}")
        return
    captions = draw_captions(pictures, args.data, args.training)
    vocab_size, text_length = args.training.vocab_size, args.training.text_length
    tokenizer = PriorTokenizer.train(captions, vocab_size=vocab_size, text_length=text_length)
    with saved_whole(folder, ("tokenizer*.json",)) as partial:
        tokenizer.save_pretrained(partial)
        save_provenance(partial, {"data": data})
    print(f"{len(tokenizer)} tokens, {text_length} a caption, in {folder}")


def check_kept(tokenizer: PriorTokenizer, training: TokenizerTraining, folder: Path) -> None:
    """Raises a ValueError where the tokenizer cannot be of these settings; it may have found fewer tokens."""
    if tokenizer.model_max_length != training.text_length or len(tokenizer) > training.vocab_size:
        raise ValueError(
            f"{folder} has {len(tokenizer)} tokens and text_length={tokenizer.model_max_length}, not "
            f"vocab_size={training.vocab_size} and text_length={training.text_length}: give another output_dir, or "
            "remove it and the prior's checkpoints"
        )


def draw_captions(pictures: Split, data: DataArguments, training: TokenizerTraining) -> Iterator[str]:
    """`captions` captions: each row's in turn, and scenes in their share, where the set composes them."""
    tally = Tally(pictures.whole, data.max_broken_share, quiet=True)
    parts = list(captioned(pictures, tally))
    if not parts:
        raise ValueError(
            f"{data.path} has no caption in {len(pictures)} rows: python -m training.validate_data says why"
        )
    if tally.broken:
        tqdm.write(f"{tally.broken} of {tally.seen} rows of {data.path} have no caption that can be used: {tally}")
    tally.check()
    composer = pictures.kind.composer(parts, []).weigh(data.scene_kinds) if data.scenes > 0 else None
    rng = random.Random(training.seed)
    for i in tqdm(range(training.captions), desc="captions", leave=False):
        if composer is not None and rng.random() < data.scenes:
            yield pictures.kind.caption(composer.draw_caption(rng), rng)
        else:
            yield pictures.kind.caption(parts[i % len(parts)], rng)


def captioned(pictures: Split, tally: Tally) -> Iterator[Parts]:
    """What each row's caption is written from; rows without one are left out and counted."""
    for row in pictures.rows(columns=pictures.kind.columns):
        tally.seen += 1
        try:
            yield pictures.kind.parts(row)
        except BrokenRow as broken:
            tally.count(seen=0, skipped=[(row.where, str(broken))])


if __name__ == "__main__":
    run_command(main)
