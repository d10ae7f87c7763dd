"""Reports on a set before money is spent on it: counts, sizes, captions, broken rows, duplicates, a contact sheet.

    python -m training.validate_data PATH [--data.min_side 64 …] [--tokenizer runs/mine/tokenizer] [--out FOLDER]

PATH is what --data.path takes. Prints the report and leaves report.json, report.txt and a contact sheet of each split
in FOLDER. The exit code is 1 where a run would stop: more than data.max_broken_share of the rows cannot be used, or
all rows are of one picture, so that none can be held out. It is 2 where there is nothing to read.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prior_transformer import load_tokenizer

from .loop.command import run_command
from .pictures.data_arguments import DataArguments
from .pictures.kinds import NoCaptions
from .pictures.report import SplitReport, contact_sheet, look_through, shared
from .pictures.splits import Split, load_split
from .presets.reading import new_parser
from .sets import KINDS


def main(argv: list[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = new_parser("validate_data", __doc__)
    parser.add_settings(DataArguments, "data")
    parser.add_argument(
        "--tokenizer", type=str | None, default=None, help="counts captions in its tokens, not in words"
    )
    parser.add_argument("--out", type=str, default="data-report", help="folder of the report")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that decode")
    if argv and not argv[0].startswith("-"):
        argv[:1] = ["--data.path", argv[0]]
    args = parser.instantiate(parser.parse_args(argv))
    data, out = args.data, Path(args.out)
    try:
        splits = {name: captioned_or_not(data, split) for split, name in names(data).items()}
        lengths_of, unit = caption_lengths(args.tokenizer)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    reports = {
        name: look_through(source, data, lengths_of, unit, name, args.num_workers) for name, source in splits.items()
    }
    write(reports, data, out)
    return int(any(report.rows == 0 or report.is_past(data.max_broken_share) for report in reports.values()))


def captioned_or_not(data: DataArguments, split: str) -> Split:
    """A set without captions is one that a dVAE learns from."""
    try:
        return load_split(data, split, KINDS)
    except NoCaptions:
        return load_split(data, split, KINDS, captions=False)


def names(data: DataArguments) -> dict[str, str]:
    return {"train": data.train_split, "validation": data.validation_split}


def caption_lengths(tokenizer: str | None) -> tuple[Callable[[list[str]], list[int]], str]:
    """Captions -> lengths, and their unit: tokens of a tokenizer, or words."""
    if tokenizer is None:
        return lambda captions: [len(text.split()) for text in captions], "words"
    loaded = load_tokenizer(tokenizer)

    def tokens(captions: list[str]) -> list[int]:
        return [len(ids) for ids in loaded(captions, verbose=False)["input_ids"]] if captions else []

    return tokens, "tokens"


def write(reports: dict[str, SplitReport], data: DataArguments, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, Any] = {name: report.numbers() for name, report in reports.items()}
    numbers["in_both_splits"] = shared(reports.values())
    (out / "report.json").write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n", "utf-8")
    text = "\n".join(line for name, report in reports.items() for line in lines(name, report, data))
    text += f"\npictures in both splits: {numbers['in_both_splits']}"
    (out / "report.txt").write_text(text + "\n", "utf-8")
    for name, report in reports.items():
        contact_sheet(report.tiles).save(out / f"contact-sheet-{name}.png")
    print(f"{text}\n{out}: report.json lists the rows; contact sheets beside it")


def lines(name: str, report: SplitReport, data: DataArguments) -> list[str]:
    """A split's part of the text."""
    numbers = report.numbers()
    past = report.is_past(data.max_broken_share)
    verdict = f"more than max_broken_share={data.max_broken_share}" if past else f"of {data.max_broken_share} allowed"
    found = [
        f"{name}: {report.rows:,} rows, {numbers['usable']:,} usable, {report.broken:,} broken "
        f"({numbers['broken_share']:.2%}, {verdict})"
    ]
    if report.rows == 0:
        return [*found, "    nothing can be held out: a run needs two pictures"]
    for reason, count in report.reasons.most_common():
        first = [where for where, other in report.broken_rows if other == reason][:3]
        found.append(f"    {count:,} {reason}: {'; '.join(first)}{'; …' if count > 3 else ''}")
    if report.rows > report.broken and not report.captions:
        found.append("    no captions: the dVAE alone learns from it")
    for key in ("shorter_side_pixels", "width_over_height", f"caption_{report.unit}"):
        quantiles = ", ".join(f"{name} {value:g}" for name, value in numbers[key].items())
        found.append(f"    {key.replace('_', ' ')}: {quantiles}")
    found.append(
        f"    duplicates: {numbers['exact_duplicates']:,} exact, {numbers['near_duplicates']:,} near; "
        f"{numbers['captions_used_twice']:,} captions of more than one picture"
    )
    return found


if __name__ == "__main__":
    run_command(main)
