"""Lloyd's k-means on a tensor, on whatever device it lies: what a codebook starts from."""

import torch
from torch import Tensor


def kmeans(points: Tensor, k: int, seed: int, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """
    points (N, E) -> centres (k, E) and the mean of ‖point − nearest centre‖².

    Starts from k points at random; a centre that loses all its points moves to one at random, so none stays unused.
    Raises a ValueError when there are fewer points than centres.
    """
    if len(points) < k:
        raise ValueError(f"{len(points)} latents cannot fill {k} codes: raise training.kmeans_latents above {k}")
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
    shift = centres.mean(0)  # what all share would cost the squares their digits
    nearest = [chunk_distances(chunk - shift, centres - shift).min(dim=1) for chunk in points.split(8192)]
    return torch.cat([m.indices for m in nearest]), torch.cat([m.values for m in nearest])


def chunk_distances(chunk: Tensor, centres: Tensor) -> Tensor:
    squared = chunk.pow(2).sum(1, keepdim=True) - 2 * chunk @ centres.T + centres.pow(2).sum(1)
    return squared.clamp_min(0)
