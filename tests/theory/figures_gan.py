"""Draws the GAN's figures: python tests/theory/figures_gan.py [mode_collapse] [jsd_against_kl] (extra `figures`).

mode_collapse.png takes two minutes of one thread; it prints what it shows.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from training.adversaries.gan import GANSettings
from training.theory.divergences import DIVERGENCES, GaussianMixture, fit_gaussian
from training.theory.ring import covered_modes, ring_centres, sample_mixture, train_ring_gan

FOLDER = Path(__file__).parent / "figures"
CENTRES = ring_centres(8, 2.0)


class InputNoise(nn.Module):
    """The discriminator sees x + N(0, 0.2²), real and fake (arXiv 1701.04862, section 3)."""

    def __init__(self, discriminator: nn.Module):
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x: Tensor) -> Tensor:
        return self.discriminator(x + 0.2 * torch.randn_like(x))


def spectral(discriminator: nn.Module) -> nn.Module:
    """Every linear layer divided by its largest singular value (arXiv 1802.05957)."""
    for layer in discriminator:
        if isinstance(layer, nn.Linear):
            spectral_norm(layer)
    return discriminator


GAMES = {
    "non-saturating, no remedy": (GANSettings(), None),
    "minimax, no remedy": (GANSettings(objective="minimax"), None),
    "R1, γ = 10": (GANSettings(r1_gamma=10.0), None),
    "unrolled, 5 steps": (GANSettings(unrolled_steps=5), None),
    "R1, γ = 1": (GANSettings(r1_gamma=1.0), None),
    "spectral norm": (GANSettings(), spectral),
    "input noise, σ = 0.2": (GANSettings(), InputNoise),
}


def mode_collapse(seed: int = 0) -> None:
    """Samples after 3,000 steps under each remedy, and how many of the eight modes have 1 % of them."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(11, 6), layout="constrained", sharex=True, sharey=True)
    rng = torch.Generator().manual_seed(seed)
    panels = {"the data": sample_mixture(CENTRES, 0.1, 10_000, rng)}
    for name, (settings, wrap) in GAMES.items():
        panels[name] = train_ring_gan(settings, seed=seed, wrap=wrap)
        print(f"{name}: {covered_modes(panels[name], CENTRES)} of 8 modes", flush=True)
    for axis, (name, samples) in zip(axes.flat, panels.items(), strict=True):
        axis.scatter(*CENTRES.T, s=260, facecolors="none", edgecolors="0.75")
        axis.scatter(*samples[:1000].T, s=2, color="tab:blue", rasterized=True)
        axis.set(title=f"{name}: {covered_modes(samples, CENTRES)} of 8", aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
    figure.savefig(FOLDER / "mode_collapse.png", dpi=70)


def jsd_against_kl() -> None:
    """The Gaussian nearest to a mixture in forward KL, reverse KL and JSD: the JSD covers once, and seeks once."""
    from matplotlib import pyplot

    mixtures = {
        "½, ½ at ±2, σ = 0.5": ((0.5, -2.0, 0.5), (0.5, 2.0, 0.5)),
        "0.7 at −2, 0.3 at +2, σ = 0.6": ((0.7, -2.0, 0.6), (0.3, 2.0, 0.6)),
    }
    x = torch.linspace(-6, 6, 601, dtype=torch.float64)
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
    for axis, (name, components) in zip(axes, mixtures.items(), strict=True):
        data = GaussianMixture(*torch.tensor(components, dtype=torch.float64).T)
        axis.fill_between(x, data.log_prob(x).exp(), color="0.88", label="the data")
        for divergence, style in zip(DIVERGENCES, ({"lw": 4, "alpha": 0.4}, {"ls": "--"}, {"ls": "-."}), strict=True):
            fit = fit_gaussian(data, divergence)
            best = GaussianMixture.single(*torch.tensor([fit.mean, fit.scale], dtype=torch.float64))
            label = f"{divergence}: N({fit.mean:z.2f}, {fit.scale:.2f}²), {fit.divergence:.3f} nats"
            axis.plot(x, best.log_prob(x).exp(), label=label, **style)
        axis.set(title=name, ylim=(0, 0.95))
        axis.legend(loc="upper right", fontsize=8)
    figure.savefig(FOLDER / "jsd_against_kl.png", dpi=80)


FIGURES = {"mode_collapse": mode_collapse, "jsd_against_kl": jsd_against_kl}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FIGURES:
        FIGURES[name]()
