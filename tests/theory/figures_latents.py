"""Draws the figures of latents: python tests/theory/figures_latents.py [gumbel_softmax] [four_points].

Needs the extra `figures`. four_points.png takes minutes of one thread; it prints what it shows.
"""

import sys
from pathlib import Path

import torch

from dvae import gumbel_softmax
from training.theory.evidence import log_evidence
from training.theory.four_points import four_points as draw_points
from training.theory.four_points import train_four_points

FOLDER = Path(__file__).parent / "figures"


def gumbel_density() -> None:
    """Densities of the first coordinate of a relaxed sample, K = 2, π = .7: from one hump to two spikes."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(11, 2.8), layout="constrained")
    logits = torch.tensor([0.7, 0.3]).log()[None, :, None, None].expand(1, -1, 1000, 400)
    for axis, temperature in zip(axes, (2.0, 1.0, 0.5, 0.1), strict=True):
        c = gumbel_softmax(logits, temperature, torch.Generator().manual_seed(0))[0, 0].flatten()
        axis.hist(c.numpy(), bins=60, range=(0, 1), density=True, color="tab:blue")
        axis.set(title=f"τ = {temperature}: mean {c.mean():.3f}, above ½ {(c > 0.5).float().mean():.3f}", yticks=[])
        axis.title.set_fontsize(9)
    figure.savefig(FOLDER / "gumbel_softmax.png", dpi=80)


def four_points() -> None:
    """Samples of q(z | x) of the four points, for the VAE and the AVB: round islands, and the plane divided."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 5), layout="constrained", sharex=True, sharey=True)
    x = draw_points(4 * 1500)
    for axis, (name, implicit) in zip(axes, {"VAE, Gaussian": False, "AVB, implicit": True}.items(), strict=True):
        model, _ = train_four_points(implicit)
        evidence = log_evidence(model, torch.eye(4)).mean().item()
        print(f"{name}: log p(x) {evidence:.4f}", flush=True)
        with torch.no_grad():
            z = model.posterior(x).z
        axis.scatter(*z.T, c=x.argmax(1), s=2, cmap="tab10", vmax=9, rasterized=True)
        axis.set(title=f"{name}: log p(x) = {evidence:.3f}", aspect="equal", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5))
    figure.savefig(FOLDER / "four_points.png", dpi=80)


FIGURES = {"gumbel_softmax": gumbel_density, "four_points": four_points}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FIGURES:
        FIGURES[name]()
