"""Densities integrate (law 4): scipy is the outsider."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy import special, stats

from skvae._likelihoods import (
    DEGREES_RANGE,
    LIKELIHOODS,
    OVERDISPERSION_FLOOR,
    VARIANCE_FLOOR,
    Likelihood,
    NegativeBinomial,
    drawn_gamma,
)

SHAPE = (2, 3, 4, 5)  # (S, K, B, D)


def uniform(low, high, seed):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(SHAPE, generator=generator, dtype=torch.float64)


class Case(NamedTuple):
    """Decoder outputs of a family, and scipy's distribution at the same ones."""

    outputs: tuple
    scipy: object


class OneOf:
    """scipy's multinomial of one trial; in a column alone it is a bernoulli."""

    dist = stats.bernoulli

    def __init__(self, p):
        self._p, column = p, stats.bernoulli(p)
        self.mean, self.var, self.stats = column.mean, column.var, column.stats

    def rvs(self, random_state):
        rows = [random_state.multinomial(1, p) for p in self._p.reshape(-1, SHAPE[-1])]
        return np.reshape(rows, SHAPE)

    def logpmf(self, x):
        pairs = zip(x.reshape(-1, SHAPE[-1]), self._p.reshape(-1, SHAPE[-1]), strict=True)
        return np.reshape([stats.multinomial.logpmf(row, 1, p) for row, p in pairs], SHAPE[:-1])

    def values(self):
        return np.eye(SHAPE[-1]).reshape(-1, 1, 1, 1, SHAPE[-1]) * np.ones(SHAPE)


LOC, RAW, LOGIT = uniform(-3, 3, 0), uniform(-4, 2, 1), uniform(-4, 4, 2)
LOG_RATE, LOG_DEGREES = uniform(-2, 3, 3), uniform(1.5, 4, 4)
VARIANCE = VARIANCE_FLOOR + np.exp(RAW.numpy())
NORMAL = stats.norm(LOC.numpy(), np.sqrt(VARIANCE))
R = 1 / (OVERDISPERSION_FLOOR + np.exp(RAW.numpy()))

CASES = {
    "gaussian": Case((LOC, RAW), NORMAL),
    "bernoulli": Case((LOGIT,), stats.bernoulli(special.expit(LOGIT.numpy()))),
    "categorical": Case((LOGIT,), OneOf(special.softmax(LOGIT.numpy(), -1))),
    "poisson": Case((LOG_RATE,), stats.poisson(np.exp(LOG_RATE.numpy()))),
    "negative_binomial": Case((LOG_RATE, RAW), stats.nbinom(R, R / (R + np.exp(LOG_RATE.numpy())))),
    "student_t": Case(
        (LOC, RAW, LOG_DEGREES),
        stats.t(DEGREES_RANGE[0] + np.exp(LOG_DEGREES.numpy()), LOC.numpy(), np.sqrt(VARIANCE)),
    ),
    "lognormal": Case((LOC, RAW), NORMAL),  # of the logarithm; test_columns.py has its own units
}

each_family = pytest.mark.parametrize("name", LIKELIHOODS)


def made(name):
    return LIKELIHOODS[name].of(*CASES[name].outputs)


def density(name, x, likelihood=None):
    """Log density of every cell; of a categorical, of every variable."""
    log_prob = (likelihood or made(name)).log_prob(x)
    return log_prob.sum(-1) if name == "categorical" else log_prob


def is_discrete(name):
    return hasattr(CASES[name].scipy.dist, "pmf")


def grid(name):
    """Points (N, 1, ...) and the weight of each in a sum over the support."""
    law, support = CASES[name].scipy, LIKELIHOODS[name].support
    if name == "categorical":
        return torch.from_numpy(law.values()), 1.0
    if is_discrete(name):
        # What lies beyond has less mass than rounding.
        high = min(support.high, law.isf(1e-14).max())
        x = np.arange(support.low, high + 1).reshape(-1, 1, 1, 1, 1) * np.ones(SHAPE)
        return torch.from_numpy(x), 1.0
    # Equal steps of arsinh x reach out to 8e4 standard deviations, beyond which Student's t of
    # six degrees of freedom has 1e-25 of its mass; the trapezoid rule converges
    # exponentially for a smooth function that vanishes at both ends.
    steps = np.linspace(-12, 12, 2001).reshape(-1, 1, 1, 1, 1)
    x, weight = law.mean() + np.sinh(steps) * law.std(), np.cosh(steps) * law.std()
    return torch.from_numpy(x), torch.from_numpy(24 / 2000 * weight)


def test_every_family_is_tested():
    assert set(CASES) == set(LIKELIHOODS)


@each_family
def test_log_density_is_scipys(name):
    law = CASES[name].scipy
    x = law.rvs(random_state=np.random.default_rng(0)).astype(float)
    expected = (law.logpmf if is_discrete(name) else law.logpdf)(x)
    # Two float64 formulas of the same number, a few roundings apart.
    found = density(name, torch.from_numpy(x))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("mean", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_large_counts_keep_their_digits(name, mean):
    shape = (2000,)
    outputs = [torch.full(shape, float(np.log(mean)), dtype=torch.float32)]
    rate = outputs[0].double().exp().numpy()
    law = stats.poisson(rate)
    if name == "negative_binomial":
        raw = torch.linspace(np.log(1e-4), np.log(1e2), len(rate), dtype=torch.float32)
        outputs.append(raw)
        r = 1 / (OVERDISPERSION_FLOOR + raw.double().exp().numpy())
        law = stats.nbinom(r, r / (r + rate))
    x = law.rvs(random_state=np.random.default_rng(0)).clip(max=2**24).astype(np.float32)
    x[:3] = [0, 2.0**40, 1]  # far-out counts as well
    in_single = LIKELIHOODS[name].of(*outputs).log_prob(torch.from_numpy(x))
    in_double = (
        LIKELIHOODS[name]
        .of(*(output.double() for output in outputs))
        .log_prob(torch.from_numpy(x).double())
    )
    # A rounding of what is left where x log x has been left out: up to 1e-7 of x - mean, of a
    # thousand where the mean is a million. The logarithms of factorials alone are 1e7.
    np.testing.assert_allclose(in_single.double(), in_double, rtol=1e-6, atol=1e-3)


@each_family
def test_density_has_mass_one(name):
    x, weight = grid(name)
    mass = (density(name, x).exp() * weight).sum(0)
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
    law, generator = CASES[name].scipy, torch.Generator().manual_seed(0)
    likelihood = LIKELIHOODS[name].of(*(o.expand(n, *SHAPE) for o in CASES[name].outputs))
    x = likelihood.sample(generator).numpy()
    assert x.shape == (n, *SHAPE)
    in_units_of_X = np.exp(x) if LIKELIHOODS[name].reading == "log" else x
    assert not LIKELIHOODS[name].support.outside(torch.from_numpy(in_units_of_X)).any()
    if name == "categorical":
        assert (x.sum(-1) == 1).all()
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
    of_rows = uniform(0, 1, 5)[..., :1]
    shared = [output[:1, :, :1] for output in CASES[name].outputs[1:]]
    missing = x.new_tensor(range(x.shape[-1])) % 2  # every other one; a category as a whole
    of_cells = of_rows * (torch.ones_like(missing) if name == "categorical" else missing)
    every = (CASES[name].outputs, (CASES[name].outputs[0], *shared))
    for outputs, weights in itertools.product(every, (of_rows, of_cells)):
        ours = family.of(*outputs).gradients(outputs, x, weights)
        theirs = Likelihood.gradients(family.of(*outputs), outputs, x, weights)
        for one, other in zip(ours, theirs, strict=True):
            # A few operations in another order.
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mean", [1.0, 5.0, 50.0])
@pytest.mark.parametrize("overdispersion", [1e-1, 1e-3, 2e-4])
def test_gradient_of_nearly_poisson_counts_keeps_its_digits(mean, overdispersion):
    """digamma(x + r) and digamma(r) all but cancel; float32 had the wrong sign."""
    x = torch.from_numpy(np.random.default_rng(0).poisson(mean, 100_000).astype(float))

    def gradient(dtype):
        raw = torch.full((len(x),), math.log(overdispersion - 1e-4), dtype=dtype)
        outputs = torch.full_like(raw, math.log(mean)), raw
        likelihood = NegativeBinomial.of(*outputs)
        return likelihood.gradients(outputs, x.to(dtype), raw.new_ones(1))[1].double().mean().item()

    assert gradient(torch.float32) == pytest.approx(gradient(torch.float64), rel=0.1, abs=1e-8)


def test_gradient_of_counts_that_vary_much_keeps_its_digits():
    """In the mean, in float32: where that is far above r, r / (r + mean) is no digit beside 1."""
    x, outputs = torch.tensor([0.0, 1e8, 3e9]), (torch.tensor([18.0] * 3), torch.tensor([5.0] * 3))

    def gradient(dtype):
        cast = [output.to(dtype) for output in outputs]
        ones = torch.ones(3, dtype=dtype)
        return NegativeBinomial.of(*cast).gradients(cast, x.to(dtype), ones)[0]

    # Roundings of exp(18 + 5).
    np.testing.assert_allclose(gradient(torch.float32), gradient(torch.float64), rtol=1e-5)


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
    again = family.of(*family.start(likelihood.mean, likelihood.variance))
    # exp(log(.)) and its like: a few roundings.
    np.testing.assert_allclose(again.mean, likelihood.mean, rtol=1e-10)
    if len(family.parameters) > 1:
        np.testing.assert_allclose(again.variance, likelihood.variance, rtol=1e-10)


@each_family
def test_start_is_finite_at_the_ends(name):
    """A column that is always at an end of the support, without variance."""
    family = LIKELIHOODS[name]
    low, high, *_ = family.support
    ends = torch.tensor([end for end in (low, high) if np.isfinite(end)] or [0.0])
    start = family.start(ends, torch.zeros_like(ends))
    assert all(output.isfinite().all() for output in start)
    assert family.of(*start).log_prob(ends).isfinite().all()
    assert family.slope(ends).isfinite().all()


def test_a_start_is_not_overdispersed_beyond_measure():
    """A count that is nearly always 0 varies by far more than its mean squared."""
    mean, variance = torch.tensor([1e-2]), torch.tensor([10.0])
    start = NegativeBinomial.of(*NegativeBinomial.start(mean, variance))
    # Roundings of float32.
    torch.testing.assert_close(start.variance, mean + 100 * mean.square())


@each_family
def test_extreme_outputs_stay_finite(name):
    """In float32, as training is, density, gradient and curvature survive any decoder output."""
    family = LIKELIHOODS[name]
    outputs = [
        torch.tensor([-1e3, 1e3, 0.0, 0.0]).roll(2 * i).requires_grad_()
        for i in range(len(family.parameters))
    ]
    x = torch.full((4,), 0.5)
    density = family.of(*outputs).log_prob(x)
    by_autograd = torch.autograd.grad(density.sum(), outputs)
    leaves = [output.detach() for output in outputs]
    by_hand = family.of(*leaves).gradients(leaves, x, torch.ones(()))
    p = family.of(*leaves)
    of_mean = p.slopes_of_mean(leaves, [torch.ones(4)])
    assert density.isfinite().all()
    assert (of_mean * p.information * of_mean).isfinite().all()
    assert all(gradient.isfinite().all() for gradient in (*by_autograd, *by_hand))


@each_family
def test_slope_is_that_of_the_start(name):
    """Of the first output over the mean, by central differences."""
    family, likelihood, step = LIKELIHOODS[name], made(name), 1e-6
    mean = likelihood.mean.clamp(min=1e-2) if family.reading != "standardised" else likelihood.mean
    ends = [family.start(mean + sign * step, likelihood.variance)[0] for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    # Relative errors of (step / mean)^2, and of rounding over the step.
    np.testing.assert_allclose(family.slope(mean), slope, rtol=1e-6)


@each_family
def test_information_is_the_mean_square_of_the_slope_of_the_log_density(name):
    """Fisher's, along a direction of the first outputs, by quadrature."""
    outputs, direction, (x, weight) = CASES[name].outputs, uniform(-1, 1, 5), grid(name)
    leaves = [output.expand(x.shape).clone().requires_grad_() for output in outputs]
    log_prob = LIKELIHOODS[name].of(*leaves).log_prob(x)
    slope = torch.autograd.grad(log_prob.sum(), leaves[0])[0] * direction
    p = made(name)
    found = p.slopes_of_mean(outputs, [direction]).square() * p.information
    if name == "categorical":  # of all its columns together
        slope, found = slope.sum(-1), found.sum(-1)
    expected = (density(name, x).exp() * slope.square() * weight).sum(0)
    # What lies beyond the grid has 1e-14 of the mass, and squares of up to a thousand.
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@each_family
def test_slopes_of_the_mean_are_autograds(name):
    """In two components on which the first output, and no other, depends."""
    first, *rest = (output[:1] for output in CASES[name].outputs)
    slopes = uniform(-3, 3, 5)

    def mean(first):
        return LIKELIHOODS[name].of(first, *rest).mean

    found = LIKELIHOODS[name].of(first, *rest).slopes_of_mean([first, *rest], [slopes])
    for slope, ours in zip(slopes, found, strict=True):
        _, theirs = torch.autograd.functional.jvp(mean, first, slope[None])
        torch.testing.assert_close(ours, theirs[0], rtol=1e-10, atol=1e-12)


@each_family
def test_float32_knows_the_curvature_too(name):
    """Of outputs at which a mean or a variance has no digits left: bits that are all but sure."""
    first, *rest = CASES[name].outputs
    first = 7 * first

    def curvature(dtype):
        outputs = [output[:1].to(dtype) for output in (first, *rest)]
        p = LIKELIHOODS[name].of(*outputs)
        return p.slopes_of_mean(outputs, [torch.ones_like(outputs[0])]).square() * p.information

    # A category that is all but sure has a variance of one rounding.
    atol = 1e-6 if name == "categorical" else 0
    np.testing.assert_allclose(
        curvature(torch.float32), curvature(torch.float64), rtol=1e-4, atol=atol
    )


@pytest.mark.parametrize("shape", [0.05, 0.7, 1.0, 3.0, 200.0])
def test_gamma_draws_are_scipys(shape):
    n = 20_000
    draws = drawn_gamma(
        torch.full((n,), shape, dtype=torch.float64), torch.Generator().manual_seed(0)
    )
    # By chance one of a thousand seeds; the seed is fixed.
    assert stats.kstest(draws.numpy(), stats.gamma(shape).cdf).pvalue > 1e-3


def test_a_gamma_of_a_shape_that_is_no_number_is_none():
    """As a decoder's outputs may be, of rows far out: others are drawn all the same."""
    shape = torch.tensor([math.nan, math.inf, 1.0, 0.1])
    draws = drawn_gamma(shape, torch.Generator().manual_seed(0))
    assert draws.isfinite().tolist() == [False, False, True, True]


def test_variables_of_a_categorical_do_not_see_each_other():
    """Several side by side are each as alone."""
    sizes, logits = (3, 1, 2), uniform(-4, 4, 6)[..., [0, 1, 2, 3, 4, 0]]
    joined = LIKELIHOODS["categorical"].sized(sizes).of(logits)
    alone = [LIKELIHOODS["categorical"].of(part) for part in logits.split(sizes, -1)]
    for attribute in ("mean", "variance"):
        expected = torch.cat([getattr(one, attribute) for one in alone], -1)
        # The same formula in another order.
        torch.testing.assert_close(getattr(joined, attribute), expected, rtol=1e-12, atol=1e-14)
    x = joined.sample(torch.Generator().manual_seed(0))
    parts = x.split(sizes, -1)
    assert all((part.sum(-1) == 1).all() for part in parts)
    expected = torch.cat([p.log_prob(part) for p, part in zip(alone, parts, strict=True)], -1)
    torch.testing.assert_close(joined.log_prob(x), expected, rtol=1e-12, atol=1e-14)


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
    low, high, *_ = (torch.full(SHAPE, end, dtype=p.dtype) for end in likelihood.support)
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
