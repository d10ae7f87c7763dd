"""Flags of three stripes with a caption each, drawn into a folder; and a run that fine-tunes a pipeline on them."""

import json
from pathlib import Path

from PIL import Image

from training import train_prior

COLOURS = {"red": (200, 20, 30), "white": (250, 250, 250), "blue": (20, 40, 160), "green": (10, 130, 60)}


def draw_flags(folder: Path) -> list[str]:
    """24 flags of three stripes, and a caption each: every order of three of four colours. Returns the captions."""
    captions = []
    with (folder / "metadata.jsonl").open("w") as metadata:
        for a in COLOURS:
            for b in COLOURS:
                for c in COLOURS:
                    if len({a, b, c}) == 3:
                        flag = Image.new("RGB", (16, 16))
                        for i, name in enumerate((a, b, c)):
                            flag.paste(COLOURS[name], (0, (0, 5, 11)[i], 16, (5, 11, 16)[i]))
                        flag.save(folder / f"{len(captions)}.png")
                        captions.append(f"a flag of {a}, {b} and {c}")
                        metadata.write(
                            json.dumps({"file_name": f"{len(captions) - 1}.png", "text": captions[-1]}) + "\n"
                        )
    return captions


def fine_tune(start: str, pictures: Path, run: Path, steps: int, **flags):
    settings = {"init_from": start, "lora": {"rank": 16}, "steps": steps, "batch_size": 24, "num_workers": 0}
    settings |= {
        "evaluate_every": steps,
        "checkpoint_every": steps,
        "log_every": 1,
        "ema": 0.9,
        "lr": 1e-2,
        "lr_end": 1e-3,
    }
    settings |= {"weight_decay": 0, "bpe_dropout": 0, "sampling": {"guidance_scale": 5}, **flags}
    argv = [part for name, value in settings.items() for part in (f"--training.{name}", json.dumps(value).strip('"'))]
    own = ["--output_dir", str(run), "--data.path", str(pictures), "--data.validation_split", "train"]
    return train_prior.main([*own, *argv])
