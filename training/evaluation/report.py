"""An evaluation's numbers for people and for programs: printed, as JSON, and as a table in Markdown."""

import json
from pathlib import Path
from typing import Any

MEANINGS = {
    "elbo": "evidence lower bound, nats a picture, dequantised pixels; higher is better",
    "log_likelihood": "of the pixels given the codes, nats a picture",
    "kl": "of the codes to the uniform prior, nats a picture",
    "style_kl": "of the style to its prior, nats a picture",
    "bits_per_dim": "the bound in bits a subpixel; lower is better",
    "psnr": "of reconstructions, dB; higher is better",
    "perplexity": "of the codes: how many are in even use",
    "codes_used": "share of the codebook that occurs",
    "validation_text_loss": "nll a text token, nats, pads counted",
    "validation_image_loss": "nll a code, nats",
    "heldout-pairs_text_loss": "nll a text token, nats, of scenes of pairs never trained together",
    "heldout-pairs_image_loss": "nll a code, nats, of scenes of pairs never trained together",
    "rfid": "Fréchet distance of reconstructions to the pictures; lower is better",
    "fid": "Fréchet distance of generated pictures to the validation split; lower is better",
    "r_precision": "generated pictures whose own caption is the nearest of 100",
    "real_r_precision": "the same of the real pictures",
    "clip_score": "100 · cosine of generated pictures and captions",
    "real_clip_score": "the same of the real pictures",
}


def report(
    numbers: dict[str, float],
    settings: dict[str, Any],
    to_json: Path | None,
    to_markdown: Path | None,
    detail: dict[str, float] | None = None,
    table: str | None = None,
) -> None:
    """
    Prints the numbers, and writes what paths are given for; settings: what was evaluated, and how. table: of its own,
    after that of the numbers. detail: what it says, for programs.
    """
    for name, value in numbers.items():
        print(f"{name:32} {value:12.5g}")
    if table is not None:
        print(f"\n{table}")
    if to_json is not None:
        write(
            to_json,
            json.dumps({"settings": settings, "numbers": numbers | (detail or {})}, indent=2, ensure_ascii=False),
        )
    if to_markdown is not None:
        write(to_markdown, markdown(numbers, settings) + (f"\n\n{table}" if table else ""))


def markdown(numbers: dict[str, float], settings: dict[str, Any]) -> str:
    """A line of settings, then a row a number with its meaning."""
    model = settings["model"] or "embedded"
    used = "".join(f", {name} {value}" for name, value in settings.items() if name not in ("model", "data") and value)
    rows = [f"| {name} | {value:.5g} | {MEANINGS.get(name, '')} |" for name, value in numbers.items()]
    return "\n".join([f"Model {model} on {settings['data']}{used}.", "", "| | | |", "| --- | ---: | --- |", *rows])


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
