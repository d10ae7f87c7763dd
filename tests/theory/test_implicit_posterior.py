"""An implicit posterior over code grids, small enough to enumerate: 2×2 grids of 3 codes, noise of 4 values.

q(c | x) = mean over the 4 noises of Π Cat, exactly; the density ratio of `PosteriorAdversary` is held against it.
"""

import itertools
import math

import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional as F

from dvae import DVAE, DVAEConfig, ImplicitPosterior
from training.adversaries.adversary_settings import PosteriorSettings
from training.adversaries.beside_the_dvae import DVAEStep, PosteriorAdversary

GRIDS = torch.tensor(list(itertools.product(range(3), repeat=4))).view(81, 2, 2)
BATCH = 256


class FourNoises(ImplicitPosterior):
    """Noise of four values, so that its expectations are sums."""

    def draw_noise(self, batch_size, generator=None):
        return self.values[torch.randint(4, (batch_size,), generator=generator)]


def toy(seed: int, noise: float) -> tuple[DVAE, torch.Tensor]:
    """A dVAE of 4×4 pixels whose noise moves its codes together by whole nats, and a picture, BATCH times."""
    torch.manual_seed(seed)
    config = DVAEConfig(
        image_size=4, downsample_factor=2, codebook_size=3, codebook_dim=4, widths=[8, 8], posterior="implicit"
    )
    dvae = DVAE(config)
    dvae.posterior.__class__ = FourNoises
    dvae.posterior.values = torch.eye(4, dvae.posterior.noise_dim) * noise
    torch.nn.init.normal_(dvae.posterior.noise_out.weight, std=1.0)
    torch.nn.init.constant_(dvae.posterior.log_scale, -1.0)
    return dvae, torch.rand(1, 3, 4, 4).expand(BATCH, -1, -1, -1)


def log_q(dvae: DVAE, pixel_values: torch.Tensor) -> torch.Tensor:
    """ln q(c | x) of the first picture, for all 81 grids, with its gradient."""
    hidden_states = dvae.encoder(pixel_values[:1])
    given = []
    for value in dvae.posterior.values:
        log_pi = F.log_softmax(dvae.posterior.logits_given(hidden_states, value[None]), dim=1)  # (1, 3, 2, 2)
        given.append(log_pi.expand(81, -1, -1, -1).gather(1, GRIDS[:, None]).sum(dim=(1, 2, 3)))
    return torch.logsumexp(torch.stack(given), 0) - math.log(4)


def kl_to_uniform_of(log_q: torch.Tensor) -> torch.Tensor:
    return (log_q.exp() * (log_q + math.log(81))).sum()


def gradient(loss: torch.Tensor, dvae: DVAE) -> torch.Tensor:
    parameters = [*dvae.encoder.parameters(), *dvae.posterior.parameters()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "noise"), [(1, 6.0), (2, 3.0)])
def test_the_density_ratio_finds_the_kl_below_the_bound_and_its_gradient(seed, noise):
    dvae, pixel_values = toy(seed, noise)
    exact = kl_to_uniform_of(log_q(dvae, pixel_values))
    wanted = gradient(exact, dvae)
    adversary = PosteriorAdversary(dvae, PosteriorSettings(width=64, lr=2e-3, draws=16), Accelerator(cpu=True))
    steps = 1500
    for step in range(steps):
        for group in adversary.optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        adversary.learn(step, DVAEStep(pixel_values, dvae(pixel_values), {}, 1.0))
    adversary.network.eval()
    estimates, bounds = [], []
    with torch.no_grad():
        for _ in range(1500):  # 384,000 grids: a standard error below 0.2 % of the KL
            output = dvae(pixel_values)
            estimates.append(adversary.kl(output)["kl_ratio"])
            bounds.append(output.kl.mean())
    gradients = [gradient(adversary.kl(dvae(pixel_values))["surrogate"], dvae) for _ in range(200)]
    estimate, bound = torch.stack(estimates).mean().item(), torch.stack(bounds).mean().item()
    assert estimate == pytest.approx(exact.item(), rel=0.01)
    assert bound > 1.1 * exact.item(), "here the noise ties the codes together, so the closed bound is loose"
    assert F.cosine_similarity(torch.stack(gradients).mean(0), wanted, dim=0) > 0.99


def test_the_bound_exceeds_the_kl_by_the_mutual_information_of_codes_and_noise():
    dvae, pixel_values = toy(1, 6.0)
    with torch.no_grad():
        hidden_states, q = dvae.encoder(pixel_values[:1]), log_q(dvae, pixel_values)
        bound, information = 0.0, 0.0
        for value in dvae.posterior.values:
            log_pi = F.log_softmax(dvae.posterior.logits_given(hidden_states, value[None]), dim=1)
            given = log_pi.expand(81, -1, -1, -1).gather(1, GRIDS[:, None]).sum(dim=(1, 2, 3))
            bound += kl_to_uniform_of(given) / 4
            information += (given.exp() * (given - q)).sum() / 4
    torch.testing.assert_close(bound, kl_to_uniform_of(q) + information, rtol=1e-5, atol=1e-5)
    assert information > 0.1
    drawn = torch.stack([dvae(pixel_values).kl.mean().detach() for _ in range(40)])
    assert drawn.mean().item() == pytest.approx(bound.item(), abs=4 * drawn.std().item() / math.sqrt(40))
