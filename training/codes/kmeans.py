"""Lloyd's k-means on a tensor, on whatever device it lies: what a codebook starts from."""

import torch
from torch import Tensor

from dvae.categoricals import squared_distances


def kmeans(points: Tensor, k: int, seed: int, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """
    points (N, E) -> centres (k, E) and the mean of ‖point − nearest centre‖².

    Starts from k points at random; a centre that loses all its points moves to one at random, so none stays unused.
    Raises a ValueError when there are fewer points than centres.
    """
    if len(points) < k:
        raise ValueError(f"{len(points)} latents cannot fill {k} codes: give training.kmeans_latents={k} or more")
    generator = torch.Generator().manual_seed(seed)
    points = points.float()
    centres = points[torch.randperm(len(points), generator=generator)[:k].to(points.device)]
    for _ in range(iterations):
        nearest, _ = assign(points, centres)
        counts = torch.bincount(nearest, minlength=k)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        fresh = points[torch.randint(len(points), (k,), generator=generator).to(points.device)]
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], fresh)
    _, distances = assign(points, centres)
    return centres, distances.mean()


def assign(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """points (N, E), centres (k, E) -> the nearest centre (N,) and its squared distance (N,), in chunks."""
    nearest = []
    for chunk in points.split(8192):
        distances = squared_distances(chunk[:, :, None, None], centres)[:, :, 0, 0]  # (n, k)
        nearest.append(distances.clamp_min(0).min(dim=1))
    return torch.cat([m.indices for m in nearest]), torch.cat([m.values for m in nearest])
