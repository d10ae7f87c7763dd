"""Learns the text tokens: a byte-level BPE of the captions as they are drawn in training.

    accelerate launch -m training.train_tokenizer training/configs/emoji_cpu.yaml [--training.vocab_size 4096 …]

Leaves output_dir/tokenizer. It takes one process and seconds; others that were launched beside it stop at once.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset
from tqdm import tqdm

from prior_transformer import PriorTokenizer

from .arguments import TokenizerTraining, parse
from .data import caption, caption_column, is_cutouts, load_split, row_parts
from .data_arguments import DataArguments
from .scenes import sample_scene


def main(argv: list[str] | None = None) -> None:
    args = parse("tokenizer", TokenizerTraining, argv, __doc__)
    if not PartialState().is_main_process:
        return
    captions = draw_captions(load_split(args.data, "train"), args.data, args.training)
    vocab_size, text_length = args.training.vocab_size, args.training.text_length
    tokenizer = PriorTokenizer.train(captions, vocab_size=vocab_size, text_length=text_length)
    tokenizer.save_pretrained(Path(args.output_dir) / "tokenizer")
    print(f"{len(tokenizer)} tokens, {text_length} a caption, in {Path(args.output_dir) / 'tokenizer'}")


def draw_captions(pictures: Dataset, data: DataArguments, training: TokenizerTraining) -> Iterator[str]:
    """`captions` captions: each row's in turn, and scenes in their share, where the set is one of cut-outs."""
    column = caption_column(data, pictures)
    parts = [row_parts(row, column) for row in pictures.remove_columns("image")]
    things = [part["things"][0] for part in parts] if is_cutouts(pictures) else []
    rng = random.Random(training.seed)
    for i in tqdm(range(training.captions), desc="captions", leave=False):
        composed = things and rng.random() < data.scenes
        yield caption(sample_scene(things, rng) if composed else parts[i % len(parts)], rng)


if __name__ == "__main__":
    main()
