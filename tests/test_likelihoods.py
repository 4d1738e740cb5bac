"""Densities integrate (law 4): scipy is the outsider."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy import special, stats

from skvae._likelihoods import LIKELIHOODS, VARIANCE_FLOOR, Likelihood

SHAPE = (2, 3, 4, 5)  # (S, K, B, D)


def uniform(low, high, seed):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(SHAPE, generator=generator, dtype=torch.float64)


class Case(NamedTuple):
    """Decoder outputs of a family, and scipy's distribution at the same ones."""

    outputs: tuple
    scipy: object


LOC, RAW, LOGIT = uniform(-3, 3, 0), uniform(-4, 2, 1), uniform(-4, 4, 2)

CASES = {
    "gaussian": Case(
        (LOC, RAW), stats.norm(LOC.numpy(), np.sqrt(VARIANCE_FLOOR + np.exp(RAW.numpy())))
    ),
    "bernoulli": Case((LOGIT,), stats.bernoulli(special.expit(LOGIT.numpy()))),
}

each_family = pytest.mark.parametrize("name", LIKELIHOODS)


def made(name):
    return LIKELIHOODS[name].of(*CASES[name].outputs)


def is_discrete(name):
    return hasattr(CASES[name].scipy.dist, "pmf")


def grid(name):
    """Points (N, 1, ...) and the weight of each in a sum over the support."""
    law, support = CASES[name].scipy, LIKELIHOODS[name].support
    if is_discrete(name):
        low, high = max(support.low, law.ppf(0).min()), min(support.high, law.ppf(1).max())
        x = np.arange(low, high + 1).reshape(-1, 1, 1, 1, 1) * np.ones(SHAPE)
        return torch.from_numpy(x), 1.0
    # Beyond 12 standard deviations a gaussian has 1e-32 of its mass; the trapezoid rule
    # converges exponentially for a density that vanishes smoothly at both ends.
    steps = np.linspace(-12, 12, 2001).reshape(-1, 1, 1, 1, 1)
    x = np.clip(law.mean() + steps * law.std(), support.low, support.high)
    return torch.from_numpy(x), torch.from_numpy(24 / 2000 * law.std())


def test_every_family_is_tested():
    assert set(CASES) == set(LIKELIHOODS)


@each_family
def test_log_density_is_scipys(name):
    law = CASES[name].scipy
    x = law.rvs(random_state=np.random.default_rng(0)).astype(float)
    expected = (law.logpmf if is_discrete(name) else law.logpdf)(x)
    # Two float64 formulas of the same number, a few roundings apart.
    np.testing.assert_allclose(made(name).log_prob(torch.from_numpy(x)), expected, rtol=1e-11)


@each_family
def test_density_has_mass_one(name):
    x, weight = grid(name)
    mass = (made(name).log_prob(x).exp() * weight).sum(0)
    # The quadrature is exact to rounding: 2,001 terms of float64.
    np.testing.assert_allclose(mass, 1, atol=1e-11)


@each_family
def test_moments_are_scipys(name):
    # Closed forms on both sides; only rounding differs.
    np.testing.assert_allclose(made(name).mean, CASES[name].scipy.mean(), rtol=1e-12)
    np.testing.assert_allclose(made(name).variance, CASES[name].scipy.var(), rtol=1e-10)


@each_family
def test_samples_have_its_mean_and_variance(name):
    n = 20_000
    likelihood, law = made(name), CASES[name].scipy
    generator = torch.Generator().manual_seed(0)
    x = torch.stack([likelihood.sample(generator) for _ in range(n)]).numpy()
    assert x.shape == (n, *SHAPE)
    support = LIKELIHOODS[name].support
    assert ((x >= support.low) & (x <= support.high)).all()
    variance, kurtosis = law.stats(moments="vk")
    # Five standard errors: by chance one of 120 cells in ten thousand seeds; the seed is fixed.
    assert (np.abs(x.mean(0) - law.mean()) < 5 * np.sqrt(variance / n)).all()
    # Var[s^2] = (mu_4 - var^2) / n, to which 1/n is added for the degenerate fair coin,
    # whose mu_4 equals var^2.
    error = variance * np.sqrt((kurtosis + 2) / n) + variance * 25 / n
    assert (np.abs(x.var(0) - variance) < 5 * error).all()


@each_family
def test_gradient_is_that_of_finite_differences(name):
    family, law = LIKELIHOODS[name], CASES[name].scipy
    x = torch.from_numpy(law.rvs(random_state=np.random.default_rng(1)).astype(float))
    outputs = [output.clone().requires_grad_() for output in CASES[name].outputs]
    # gradcheck's own tolerances: the error of central differences at steps of 1e-6.
    assert torch.autograd.gradcheck(lambda *o: family.of(*o).log_prob(x), outputs)


@each_family
def test_gradients_by_hand_are_autograds(name):
    """Also where an output is shared by draws and rows."""
    family, law = LIKELIHOODS[name], CASES[name].scipy
    x = torch.from_numpy(law.rvs(random_state=np.random.default_rng(1)).astype(float))[0]
    weights = uniform(0, 1, 5)[..., 0]
    shared = [output[:1, :, :1] for output in CASES[name].outputs[1:]]
    for outputs in (CASES[name].outputs, (CASES[name].outputs[0], *shared)):
        ours = family.of(*outputs).gradients(outputs, x, weights)
        theirs = Likelihood.gradients(family.of(*outputs), outputs, x, weights)
        for one, other in zip(ours, theirs, strict=True):
            # A few operations in another order.
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_ceiling_of_the_variance_is_passed_over():
    """Beyond it autograd finds nothing; the gradient by hand leads back."""
    one, raw = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 99.0)
    outputs = one, raw
    p = LIKELIHOODS["gaussian"].of(*outputs)
    assert Likelihood.gradients(p, outputs, one[0], one[0])[1].item() == 0
    assert p.gradients(outputs, one[0], one[0])[1].item() == pytest.approx(-0.5)


@each_family
def test_start_is_the_inverse_of_of(name):
    family, likelihood = LIKELIHOODS[name], made(name)
    variances = [likelihood.variance] * (len(family.parameters) - 1)
    again = family.of(*family.start(likelihood.mean, *variances))
    # exp(log(.)) and its like: a few roundings.
    np.testing.assert_allclose(again.mean, likelihood.mean, rtol=1e-10)
    if variances:
        np.testing.assert_allclose(again.variance, likelihood.variance, rtol=1e-10)


@each_family
def test_start_is_finite_at_the_ends(name):
    """A column that is always at an end of the support, without variance."""
    family = LIKELIHOODS[name]
    ends = torch.tensor([end for end in family.support if np.isfinite(end)] or [0.0])
    variances = [torch.zeros_like(ends)] * (len(family.parameters) - 1)
    start = family.start(ends, *variances)
    assert all(output.isfinite().all() for output in start)
    assert family.of(*start).log_prob(ends).isfinite().all()


@each_family
def test_extreme_outputs_stay_finite(name):
    """In float32, as training is, density and gradient survive any decoder output."""
    family = LIKELIHOODS[name]
    outputs = [
        torch.tensor([-1e3, 1e3, 0.0, 0.0]).roll(2 * i).requires_grad_()
        for i in range(len(family.parameters))
    ]
    density = family.of(*outputs).log_prob(torch.full((4,), 0.5))
    gradients = torch.autograd.grad(density.sum(), outputs)
    assert density.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


@each_family
def test_sampling_uses_the_given_generator_alone(name):
    likelihood, before = made(name), torch.get_rng_state()
    one, other, third = (
        likelihood.sample(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if LIKELIHOODS[name].is_bits])
def test_a_fraction_is_scored_by_the_expected_log_density(name):
    likelihood, p = made(name), uniform(0, 1, 3)
    low, high = (torch.full(SHAPE, end, dtype=p.dtype) for end in likelihood.support)
    expected = p * likelihood.log_prob(high) + (1 - p) * likelihood.log_prob(low)
    # Linear in x by either formula; only rounding differs.
    np.testing.assert_allclose(likelihood.log_prob(p), expected, rtol=1e-12, atol=1e-13)


def test_variance_has_a_floor_and_a_gradient_near_it():
    family = LIKELIHOODS["gaussian"]
    zero = torch.zeros(1, dtype=torch.float64)
    raw = torch.tensor([-1e3], dtype=torch.float64)
    # The floor itself, but for one rounding of its logarithm.
    assert family.of(zero, raw).variance.item() == pytest.approx(VARIANCE_FLOOR, rel=1e-12)
    start = family.start(zero, zero)
    raw = start[1].requires_grad_()
    likelihood = family.of(zero, raw)
    # `start` stays a tenth above the floor, from where Adam gets away.
    assert VARIANCE_FLOOR <= likelihood.variance.item() <= 1.1001 * VARIANCE_FLOOR
    (gradient,) = torch.autograd.grad(likelihood.log_prob(zero + 1).sum(), raw)
    assert gradient.item() > 0
