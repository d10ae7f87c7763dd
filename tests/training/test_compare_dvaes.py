"""dVAEs side by side: the table and the picture that `training.compare_dvaes` makes."""

import pytest
import torch
from PIL import Image

from dvae import DVAE, DVAEConfig
from pipelines.judges.small_clip import SmallCLIP, SmallCLIPConfig
from training import compare_dvaes

SIZES = {"image_size": 16, "downsample_factor": 4, "codebook_size": 12, "codebook_dim": 6, "widths": [8, 12, 16]}


@pytest.fixture
def scorer(tiny_tokenizer, tmp_path):
    """A folder with a scorer's weights and its tokenizer."""
    torch.manual_seed(0)
    tiny_tokenizer.save_pretrained(tmp_path / "run" / "tokenizer")
    config = SmallCLIPConfig(text_vocab_size=len(tiny_tokenizer), pad_token_id=tiny_tokenizer.pad_token_id)
    SmallCLIP(config).save_pretrained(tmp_path / "run" / "scorer")
    return tmp_path / "run"


def test_a_row_a_model_and_a_picture_of_all(scorer, tmp_path, capsys):
    """The same model twice gives the same row, another one another; the sheet has the pictures and a row for each."""
    for seed, name in enumerate(("first", "other")):
        torch.manual_seed(seed)
        DVAE(DVAEConfig(**SIZES)).save_pretrained(tmp_path / name)
    models = ",".join(str(tmp_path / name) for name in ("first", "first", "other"))
    out = tmp_path / "sheet.png"
    flags = {"--models": f"[{models}]", "--scorer": str(scorer), "--scenes": "8", "--out": str(out)}
    compare_dvaes.main([part for pair in flags.items() for part in pair])
    rows = [line.split("|")[2:-1] for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {tmp_path}")]
    assert len(rows) == 3 and rows[0] == rows[1] != rows[2]
    numbers = dict(zip(compare_dvaes.COLUMNS, map(float, rows[0]), strict=True))
    assert numbers["psnr"] > 0 and numbers["frechet_distance"] > 0 and 1 <= numbers["perplexity"] <= 12
    width, height = Image.open(out).size
    assert width == 16 * 18 + 2 and height == 4 * 18 + 2  # 16 pictures a row, frames of 2 pixels
