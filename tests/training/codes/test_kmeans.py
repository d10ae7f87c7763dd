"""k-means: it finds clusters, keeps its digits, and refuses fewer points than centres."""

import pytest
import torch
from messages import refused

from training.codes.kmeans import assign, kmeans


def test_kmeans_finds_separate_clusters_and_their_spread():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (centres[:, None] + 0.1 * torch.randn(3, 500, 2, generator=generator)).flatten(0, 1)
    found, mean_distance = min((kmeans(points, 3, seed=seed) for seed in range(5)), key=lambda result: result[1])
    torch.testing.assert_close(torch.cdist(centres, found).min(1).values, torch.zeros(3), atol=0.03, rtol=0)
    assert mean_distance.item() == pytest.approx(2 * 0.1**2, rel=0.1)


def test_kmeans_keeps_its_digits_far_from_the_origin():
    generator = torch.Generator().manual_seed(0)
    points = 3 * torch.randn(6, 8, generator=generator).repeat(100, 1) + 0.3 * torch.randn(600, 8, generator=generator)
    found, mean_distance = kmeans(points + 1000, 20, seed=0)
    exact = torch.cdist((points + 1000).double(), found.double()).square().min(1)
    assert mean_distance.item() == pytest.approx(exact.values.mean().item(), rel=1e-3)
    assert (assign(points + 1000, found)[0] == exact.indices).float().mean().item() > 0.99


def test_kmeans_refuses_fewer_points_than_centres():
    with refused(ValueError, 5, 8, "training.kmeans_latents"):
        kmeans(torch.randn(5, 2), 8, seed=0)
