"""A user's own pictures, coloured squares with captions, and a preset of parts that learn them in seconds."""

import json
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from dvae import DVAE

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
DVAE_SIZES = {"image_size": 16, "downsample_factor": 4, "codebook_size": 16, "codebook_dim": 8, "widths": [8, 12, 16]}
LOOP = {"batch_size": 8, "lr": 2e-3, "log_every": 1, "evaluate_every": 100, "checkpoint_every": 20}


def draw_squares(folder: Path) -> Path:
    """40 squares on white, their colour as caption."""
    with (folder / "metadata.jsonl").open("w") as metadata:
        for i in range(40):
            colour = list(COLOURS)[i % 3]
            picture = np.full((20, 24, 3), 255, np.uint8)
            picture[4 : 16 - i % 4, 6:18] = COLOURS[colour]
            Image.fromarray(picture).save(folder / f"{i}.png")
            metadata.write(json.dumps({"file_name": f"{i}.png", "text": f"a {colour} square"}) + "\n")
    return folder


def write_preset(path: Path, pictures: Path, output_dir: Path) -> str:
    codes = {"posterior": "gumbel_codebook", "min_log_scale": -2.5}
    schedule = {
        "autoencoder_steps": "25%",
        "temperature_steps": "50%",
        "kl_steps": "25%",
        "kmeans_latents": 512,
        "decoder_steps": "12.5%",
    }
    prior = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sections = {
        "output_dir": str(output_dir),
        "data": {"path": str(pictures)},
        "tokenizer": {"vocab_size": 280, "text_length": 6, "captions": 100},
        "dvae": {"model": {**DVAE_SIZES, **codes}, "training": {**LOOP, **schedule, "steps": 40}},
        "prior": {"model": prior, "training": {**LOOP, "bpe_dropout": 0.0, "steps": 40}},
    }
    path.write_text(yaml.safe_dump(sections))
    return str(path)


def tiny_dvae() -> DVAE:
    torch.manual_seed(0)
    return DVAE(DVAE.config_class(**DVAE_SIZES))
