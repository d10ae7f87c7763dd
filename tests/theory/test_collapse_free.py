"""Posteriors whose codes are all in reach: IBQ's gradients, FSQ's lattice, LFQ's entropies without a table."""

import itertools
import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from messages import refused
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dvae import DVAE, DVAEConfig, FSQPosterior, IBQPosterior, LFQPosterior
from dvae.lattice_posteriors import bit_entropy, entropy_of_logit
from dvae.posteriors import entropy_penalty

SIZES = {"image_size": 8, "downsample_factor": 2, "widths": [8, 8]}


def features(places: int = 6) -> torch.Tensor:
    return 2 * torch.randn(2, 5, 3, places, generator=torch.Generator().manual_seed(1))


def made(kind, codebook_size: int, codebook_dim: int, **settings):
    torch.manual_seed(0)
    return kind(5, codebook_size, codebook_dim, **settings).double()


@pytest.mark.parametrize(
    ("kind", "levels", "dim"), [(FSQPosterior, n, 3) for n in (2, 3, 4, 5, 8)] + [(LFQPosterior, 2, 6)]
)
def test_every_code_of_a_lattice_is_a_point_and_comes_back_as_itself(kind, levels, dim):
    posterior = made(kind, levels**dim, dim)
    codes = torch.arange(levels**dim).view(1, 1, -1)
    points = posterior.embed(codes)
    assert len(points[0, :, 0].T.unique(dim=0)) == levels**dim
    steps = torch.arange(levels) - levels // 2
    values = steps / (levels // 2) if kind is FSQPosterior else torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(points.unique(), values.double())
    inside = points * (levels // 2) if kind is FSQPosterior else points  # as logits have them
    assert torch.equal(posterior.codes_of(inside), codes)


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 8])
def test_fsq_rounds_what_a_tanh_bounds_to_every_level_and_no_other(levels):
    posterior = made(FSQPosterior, levels, 1)
    with torch.no_grad():
        posterior.head.weight.zero_()[0, 0] = 1
        posterior.head.bias.zero_()
    x = torch.zeros(1, 5, 1, 1001, dtype=torch.float64)
    x[0, 0, 0] = torch.linspace(-20, 20, 1001)
    digits = posterior.encode(x).flatten()
    assert torch.equal(digits.unique(), torch.arange(levels)) and (digits.diff() >= 0).all()
    assert posterior.encode(torch.zeros(1, 5, 1, 1, dtype=torch.float64)).item() == levels // 2, "the middle, at z = 0"


def test_fsq_of_many_levels_has_no_code_that_is_none():
    """Past 1,000 the half step around them is more than one."""
    posterior = made(FSQPosterior, 2048, 1)
    with torch.no_grad():
        posterior.head.weight.fill_(1)
    x = torch.tensor([-20.0, 20.0]).double().expand(1, 5, 1, 2)
    assert posterior.encode(x).flatten().tolist() == [0, 2047]


def test_fsq_takes_the_gradient_of_what_it_rounds():
    """dL/dz of latents = round(f(z)) / ⌊L/2⌋ is w · f′(z) / ⌊L/2⌋, f′ = half · (1 − tanh²)."""
    posterior, x = made(FSQPosterior, 5**2, 2), features().double().requires_grad_()
    z = posterior.head(x).detach()
    output = posterior(x, 1.0)
    weights = torch.randn_like(output.latents)
    (gradient,) = torch.autograd.grad((weights * output.latents).sum(), x)
    slope = 4 * 1.001 / 2 * (1 - torch.tanh(z) ** 2) / 2
    expected = torch.einsum("behw,edij->bdhw", weights * slope, posterior.head.weight)
    torch.testing.assert_close(gradient, expected)
    assert torch.equal(output.latents, posterior.embed(output.codes)) and output.auxiliary_loss == 0


def test_lfqs_entropies_are_those_of_the_whole_table_of_codes():
    """H(q) to the bit of q ∝ exp(−‖z − c‖²) over all 2⁴ points; the sum over bits of the mean's is above H(E q)."""
    posterior, x = made(LFQPosterior, 2**4, 4), features().double() / 4
    z = posterior.head(x)
    points = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64)
    distances = (z[:, None] - points[None, :, :, None, None]).square().sum(2)
    q = (-distances).softmax(1)  # (B, 16, h, w)
    each = -(q * q.log()).sum(1)
    torch.testing.assert_close(entropy_of_logit(4 * z).sum(1), each)
    mean = q.mean((0, 2, 3))
    joint, by_bits = -(mean * mean.log()).sum(), bit_entropy(torch.sigmoid(4 * z).mean((0, 2, 3))).sum()
    assert joint <= by_bits <= 4 * math.log(2)
    commitment = (z - z.sign()).square().mean()
    expected = 0.25 * commitment + 0.1 * (each.mean() - by_bits)
    torch.testing.assert_close(posterior(x, 1.0).auxiliary_loss, expected)


def test_lfqs_entropies_have_a_gradient_however_sure_a_bit_is():
    logits = torch.tensor([-1e4, -30.0, 0.0, 30.0, 1e4], requires_grad=True)
    (gradient,) = torch.autograd.grad(entropy_of_logit(logits).sum(), logits)
    torch.testing.assert_close(gradient, torch.zeros(5), atol=1e-6, rtol=0)
    probabilities = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    assert torch.autograd.grad(bit_entropy(probabilities).sum(), probabilities)[0].isfinite().all()


class Largest(TorchDispatchMode):
    """The elements of the largest tensor that anything makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        sizes = [part.numel() for part in tree_leaves(out) if isinstance(part, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


@pytest.mark.parametrize(("posterior", "size", "dim"), [("lfq", 2**18, 18), ("fsq", 8**6, 6)])
def test_a_lattice_of_a_quarter_of_a_million_codes_has_no_tensor_of_as_many(posterior, size, dim):
    torch.manual_seed(0)
    dvae = DVAE(DVAEConfig(**SIZES, codebook_size=size, codebook_dim=dim, posterior=posterior)).train()
    pixels = torch.rand(2, 3, 8, 8)
    with Largest() as largest:
        output = dvae(pixels)
        output.maps.square().mean().backward()
        bound, argmax = dvae.elbo(pixels), dvae.decode_argmax(pixels)
        dvae.decode(dvae.encode(pixels))
    assert 0 < largest.elements < 10_000
    assert output.codes.max() > 2**8 and torch.equal(bound.codes, dvae.encode(pixels))
    for kl in (output.kl, bound.kl, argmax.kl):
        torch.testing.assert_close(kl, torch.full((2,), 16 * math.log(size)))


def test_ibqs_gradient_reaches_every_entry_by_the_softmax_of_all():
    """That of w · (hard e + (soft − sg soft) sg e), hard of the largest z · e_k, soft their softmax."""
    posterior, x = made(IBQPosterior, 12, 4), features().double()
    with torch.no_grad():
        posterior.codebook.weight.normal_()
    output = posterior(x, 1.0)
    weights = torch.randn_like(output.latents)
    entries = posterior.codebook.weight
    found = torch.autograd.grad((weights * output.latents).sum(), (entries, posterior.head.weight))
    z = posterior.head(x).movedim(1, -1)
    logits = z @ entries.T
    hard = torch.nn.functional.one_hot(logits.argmax(-1), 12).double()
    w = weights.movedim(1, -1)
    value = (w * (hard @ entries)).sum() + (w * (logits.softmax(-1) @ entries.detach())).sum()
    expected = torch.autograd.grad(value, (entries, posterior.head.weight))
    torch.testing.assert_close(found, expected)
    assert (found[0].abs().sum(1) > 0).all() and len(output.codes.unique()) < 12
    assert torch.equal(output.latents, posterior.embed(output.codes))


def test_ibqs_loss_is_three_distances_of_one_value_and_two_entropies():
    posterior, x = made(IBQPosterior, 12, 4, commitment=0.25), features().double()
    output = posterior(x, 1.0)
    distance = (posterior.embed(output.codes) - posterior.head(x)).square().mean()
    q = (output.logits / 0.01).softmax(1)
    entropies = torch.special.entr(q).sum(1).mean() - torch.special.entr(q.mean((0, 2, 3))).sum()
    torch.testing.assert_close(output.auxiliary_loss, 2.25 * distance + 0.05 * entropies)


def test_the_entropy_penalty_is_least_where_each_is_sure_and_all_are_as_frequent():
    """0 where all are alike, unsure or sure; −log K where they share the codes out."""
    unsure, alike = torch.zeros(6, 3), 100 * torch.eye(3)[[1] * 6]
    torch.testing.assert_close(entropy_penalty(unsure), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy_penalty(alike), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy_penalty(100 * torch.eye(3)), torch.tensor(-math.log(3)))
    logits = (1e4 * torch.randn(5, 7, generator=torch.Generator().manual_seed(0))).requires_grad_()
    assert torch.autograd.grad(entropy_penalty(logits), logits)[0].isfinite().all()


def test_ibq_starts_as_unsure_as_can_be():
    torch.manual_seed(0)
    dvae = DVAE(DVAEConfig(**SIZES, codebook_size=64, codebook_dim=4, posterior="ibq"))
    logits = dvae.posterior.logits(dvae.encoder(torch.rand(2, 3, 8, 8)))
    q = logits.softmax(1)
    assert -(q * q.log()).sum(1).mean() > 0.95 * math.log(64)


@pytest.mark.parametrize(
    ("sizes", "numbers"),
    [
        ({"posterior": "fsq", "codebook_size": 1000, "codebook_dim": 4}, [1000, "6^4", 1296]),
        ({"posterior": "lfq", "codebook_size": 1000, "codebook_dim": 10}, [1000, "2^10", 1024]),
        ({"posterior": "lfq", "codebook_size": 81, "codebook_dim": 4}, [81, "2^4", 16]),
    ],
)
def test_numbers_of_codes_that_no_lattice_has_are_refused(sizes, numbers):
    with refused(StrictDataclassError, *numbers):
        DVAEConfig(**SIZES, **sizes)
