"""What the pages write of flags can be typed as it stands."""

import re
import shlex
from argparse import Namespace
from pathlib import Path

import pytest
from processes import ROOT

from training.presets.reading import parse
from training.presets.trainers import DVAETraining, GANTraining, PriorTraining, RerankerTraining, TokenizerTraining
from training.train_scorer import ScorerTraining

TRAINERS = {"prior": PriorTraining, "dvae": DVAETraining, "reranker": RerankerTraining, "tokenizer": TokenizerTraining}
TRAINERS |= {"gan": GANTraining, "scorer": ScorerTraining}
PROGRAMS = {f"train_{section}": section for section in TRAINERS} | {"encode_dataset": "prior"}
PAGES = ["README.md", "training/README.md", "training/data/emoji/README.md", ".github/CONTRIBUTING.md"]
OWN = r"--(?:data|training|model)\.\w"


def commands(page: str) -> list[str]:
    """The lines that start a trainer."""
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if re.search(rf" -m training\.(?:{'|'.join(PROGRAMS)})\b", line)]


def spans(page: str) -> list[str]:
    """Flags in the text, with or without their values."""
    found = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    return [span for span in found if re.match(OWN, span) and "…" not in span and "KEY" not in span]


def written(kind) -> list[str]:
    return sorted({text for page in PAGES for text in kind((ROOT / page).read_text(encoding="utf-8"))})


def accepted(section: str, argv: list[str]) -> Namespace:
    preset = next((part for part in argv if part.endswith(".yaml")), "training/configs/emoji_cpu.yaml")
    return parse(section, TRAINERS[section], [str(ROOT / preset), *(part for part in argv if part != preset)])


@pytest.mark.parametrize("line", written(commands))
def test_a_command_is_one(line):
    program = re.search(r"-m training\.(\w+)", line)[1]
    argv = shlex.split(line.split(f"training.{program}")[1], comments=True)
    argv = [part for part in argv if part != "PRESET"]
    if "--dry_run" in argv:
        argv = argv[: argv.index("--dry_run")]
    accepted(PROGRAMS[program], argv)


@pytest.mark.parametrize("span", written(spans))
def test_a_flag_is_some_trainers(span, capsys):
    argv = shlex.split(span)
    for section in TRAINERS:
        try:
            accepted(section, argv if len(argv) > 1 else [*argv, "?"])
            return
        except SystemExit:
            if len(argv) == 1 and "there is no" not in capsys.readouterr().err:
                return  # it is known, and would want another value
        except ValueError as error:
            assert "has no key" in str(error)  # of another model
    pytest.fail(f"no trainer takes {span}")


def test_pages_say_some():
    assert len(written(commands)) > 5 and len(written(spans)) > 10
    assert all((ROOT / page).is_file() for page in PAGES) and Path(ROOT / "training/configs").is_dir()
