"""Curves of a run's log as a picture: every evaluation draws them."""

import json
import math
from pathlib import Path

from .run_log import HELDOUT_SPLIT

Curves = dict[str, dict[str, list[tuple[int, float]]]]
SCHEDULES = ("step", "lr", "temperature", "kl_weight", "skipped")
SPLITS = ("validation", HELDOUT_SPLIT)
COLUMNS = 3


def plot_losses(log: Path) -> Path:
    """
    NAME-log.jsonl -> NAME-log.png beside it, a panel a quantity.

    Raises an ImportError without matplotlib, a ValueError where there is nothing to draw.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('no plot of the losses: pip install "armchair[figures]"') from error
    panels = curves(read_log(log))
    if not panels:
        raise ValueError(f"{log} holds no numbers yet: train a few steps first")
    rows = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 2.8 * rows), layout="constrained")
    for i, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, COLUMNS, i + 1, title=title)
        for label, points in lines.items():
            marker = "" if len(points) > 50 else "."
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1, marker=marker)
        if len(lines) > 1:
            axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
        axes.margins(x=0.02)
    target = log.with_suffix(".png")
    figure.savefig(target, dpi=100)
    return target


def read_log(log: Path) -> list[dict[str, float]]:
    """The lines, without those past a checkpoint that the run went back to, and those that a full disk has torn."""
    rows: list[dict[str, float]] = []
    for line in log.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if not isinstance(row, dict) or "step" not in row:
            continue
        if rows and rows[-1]["step"] > row["step"]:
            rows = [earlier for earlier in rows if earlier["step"] < row["step"]]
        rows.append(row)
    return rows


def curves(rows: list[dict[str, float]]) -> Curves:
    """
    Panels by quantity, in each a line a split: `loss` and `validation_loss` share one. What a schedule sets is left
    out, and so is what never changes.
    """
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in SCHEDULES and math.isfinite(value):
                lines.setdefault(name, []).append((int(row["step"]), value))
    panels: Curves = {}
    for name, points in lines.items():
        if len({value for _, value in points}) == 1 < len(points):
            continue
        split = next((split for split in SPLITS if name.startswith(f"{split}_")), "training")
        panels.setdefault(name.removeprefix(f"{split}_"), {})[split] = points
    return panels
