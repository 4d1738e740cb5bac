"""X <-> the model's columns: round trips, and densities in the units of X (law 4)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from skvae import VAETransformer
from skvae._codec import ColumnCodec
from skvae._joint import named_columns
from skvae._likelihoods import LIKELIHOODS

few = settings(max_examples=30, deadline=None, derandomize=True, database=None)
CPU = torch.device("cpu")
N = 40

COLUMNS = {
    "gaussian": lambda rng: 1e3 + 10 * rng.normal(size=N),
    "student_t": lambda rng: -5 + rng.standard_t(3, size=N),
    "lognormal": lambda rng: np.exp(7 + 2 * rng.normal(size=N)),
    "poisson": lambda rng: rng.poisson(4, size=N),
    "negative_binomial": lambda rng: rng.negative_binomial(2, 0.01, size=N),
    "bernoulli": lambda rng: rng.integers(0, 2, size=N),
    "categorical": lambda rng: rng.permutation(np.arange(N) % 4),
}


def table(families, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.column_stack([COLUMNS[name](rng) for name in families]) * 1.0)


def codec_of(x, families):
    return ColumnCodec.of(x, families, [4 if name == "categorical" else 1 for name in families])


def explained(codec, encoded):
    return encoded[:, : codec.n_features]


def test_every_family_has_a_column():
    assert set(COLUMNS) == set(LIKELIHOODS)


@few
@given(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=7), st.integers(0, 99))
def test_every_family_explains_its_own_columns(families, seed):
    """Wherever they stand in X: as if there were no others."""
    x = table(families, seed)
    codec = codec_of(x, families)
    encoded = explained(codec, codec.encoded(x, torch.float64, CPU).whole())
    for name, places in named_columns(codec.likelihood):
        own = [i for i, family in enumerate(families) if family == name]
        alone = codec_of(x[:, own], [name] * len(own))
        expected = explained(alone, alone.encoded(x[:, own], torch.float64, CPU).whole())
        # Moments of several columns are summed in another order.
        torch.testing.assert_close(encoded[:, places], expected, rtol=1e-12, atol=1e-12)


@few
@given(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=7), st.integers(0, 99),
       st.sampled_from(["float32", "float64"]))  # fmt: skip
def test_decode_is_the_inverse_of_encode(families, seed, dtype):
    """Whatever stands beside what: every value is found in its own column again."""
    x = table(families, seed).to(getattr(torch, dtype))
    codec = codec_of(x, families)
    encoded = codec.encoded(x, torch.float64, CPU).whole()
    n_counts = sum(LIKELIHOODS[name].reading == "count" for name in families)
    assert encoded.shape == (N, codec.n_features + n_counts)
    again = codec.decode(explained(codec, encoded), torch.float64)
    # float32 keeps 2^-24 of a value; the logarithm of one near 1e6 some ten times that.
    close = {"float32": 1e-5, "float64": 1e-11}[dtype]
    torch.testing.assert_close(again, x.double(), rtol=close, atol=1e-9)


@few
@given(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=7), st.integers(0, 99))
def test_what_the_encoder_sees_is_standardised(families, seed):
    x = table(families, seed)
    codec = codec_of(x, families)
    seen_and_counts = codec.encoded(x, torch.float64, CPU).whole()
    seen = seen_and_counts[:, -codec.n_features :]
    readings = [LIKELIHOODS[name].reading for name in codec.families]
    n_left = sum(reading in ("standardised", "log") for reading in readings)
    n_counts = sum(reading == "count" for reading in readings)
    scaled = torch.cat((seen[:, :n_left], seen[:, len(seen[0]) - n_counts :]), 1)
    # The moments' own rounding.
    torch.testing.assert_close(scaled.mean(0), torch.zeros(n_left + n_counts).double(),
                               rtol=0, atol=1e-10)  # fmt: skip
    expected = torch.ones(n_left + n_counts).double()
    if n_counts:  # logarithms that vary less than by a factor of e stay as they are
        logs = codec.decode(explained(codec, seen_and_counts), torch.float64)
        expected[n_left:] = logs[:, codec.positions("count")].log1p().var(0, correction=0)
        expected[n_left:].clamp_(max=1)
    torch.testing.assert_close(scaled.square().mean(0), expected, rtol=1e-9, atol=0)


def test_constants_of_every_family_come_back_and_are_not_modelled():
    families = [name for name in COLUMNS if name != "categorical"]
    x = torch.ones(N, len(families), dtype=torch.float64)
    codec = codec_of(x, families)
    assert codec.n_features == 0
    encoded = codec.encoded(x, torch.float64, CPU).whole()
    assert torch.equal(codec.decode(encoded, torch.float64), x)
    assert torch.equal(codec.log_jacobian(encoded), torch.zeros(N, dtype=torch.float64))
    assert (codec.decode_variance(torch.zeros(0)) == 0).all()


def lognormal():
    """A column, its likelihood at random parameters, and scipy's law of it in the units of X."""
    x = table(["lognormal"])
    codec = codec_of(x, ["lognormal"])
    loc, raw = torch.tensor([0.3]).double(), torch.tensor([-1.0]).double()
    p = LIKELIHOODS["lognormal"].of(loc, raw)
    shift, scale = codec.shift.item(), codec.scale.item()
    law = stats.lognorm(
        scale * np.sqrt(p.variance.item()), scale=np.exp(shift + scale * loc.item())
    )
    return x, codec, p, law


def test_the_density_of_a_lognormal_is_scipys():
    x, codec, p, law = lognormal()
    y = codec.encoded(x, torch.float64, CPU).whole()
    found = p.log_prob(y).sum(1) + codec.log_jacobian(y)
    # Two float64 formulas of the same number, a few roundings apart.
    np.testing.assert_allclose(found, law.logpdf(x[:, 0]), rtol=1e-11)
    assert codec.mean_log_jacobian(y) == pytest.approx(codec.log_jacobian(y).mean().item())


def test_the_jacobian_is_that_of_finite_differences():
    """Of a row beside whatever else there is; a category has none."""
    families = ["poisson", "gaussian", "lognormal", "bernoulli", "lognormal", "student_t"]
    x = table(families)
    codec = codec_of(x, families)
    step = 1e-6
    ends = [
        codec.encoded(x * factor, torch.float64, CPU).whole() for factor in (1 + step, 1 - step)
    ]
    numbers = [f for f in codec._order if families[f] != "poisson"]
    slopes = (ends[0] - ends[1])[:, 1 : codec.n_features] / (2 * step * x[:, numbers])
    is_bit = torch.tensor([families[i] == "bernoulli" for i in numbers])
    found = codec.log_jacobian(codec.encoded(x, torch.float64, CPU).whole())
    # Relative errors of the step squared, and of rounding over the step.
    torch.testing.assert_close(found, slopes[:, ~is_bit].log().sum(1), rtol=1e-7, atol=1e-7)


def test_the_moments_of_a_lognormal_are_scipys():
    _, codec, p, law = lognormal()
    mean = codec.decode(codec.mean(p)[None], torch.float64, is_mean=True)
    # Closed forms on both sides; only rounding differs.
    assert mean.item() == pytest.approx(law.mean(), rel=1e-11)
    variance = codec.decode_variance(codec.variance(p))
    assert variance.item() == pytest.approx(law.var(), rel=1e-11)
    draws = codec.decode(p.sample(torch.Generator().manual_seed(0))[None], torch.float64)
    assert draws.item() > 0


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_scores_are_densities_in_the_units_of_X(name):
    """Of a model without components in use, in one column: the density sums to one."""
    x = table([name]).numpy()
    kwargs = {"max_iter": 2, "hidden_layer_sizes": (4,), "init": "random", "random_state": 0}
    model = VAETransformer(1, likelihood=name, **kwargs).fit(x)
    support = LIKELIHOODS[name].support
    if name == "categorical":
        grid, weight = np.arange(4.0), np.ones(4)
    elif support.is_whole or name == "bernoulli":
        grid = np.arange(0, min(support.high, 50 * x.max() + 1) + 1.0)
        weight = np.ones(len(grid))
    else:
        steps = np.linspace(-12, 12, 4001)
        centre = np.log(x) if name == "lognormal" else x
        grid = centre.mean() + centre.std() * np.sinh(steps)
        weight = centre.std() * np.cosh(steps) * (24 / 4000)
        if name == "lognormal":
            inside = np.abs(grid) < 300
            grid, weight = np.exp(grid[inside]), weight[inside] * np.exp(grid[inside])
    mass = (np.exp(model.score_samples(grid[:, None], n_draws=64)) * weight).sum()
    # The importance-weighted bound is below log p(x) by what 64 draws leave of it.
    assert mass == pytest.approx(1, abs=2e-2)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_a_lognormal(scale):
    """Law 9 for a positive column: a scale changes the score by -log of it."""
    x = table(["lognormal", "gaussian"]).numpy()
    kwargs = {"max_iter": 3, "hidden_layer_sizes": (4,), "random_state": 0, "early_stopping": False}
    likelihood = {"lognormal": [0], "remainder": "gaussian"}
    a = VAETransformer(2, likelihood=likelihood, **kwargs)
    b = VAETransformer(2, likelihood=likelihood, **kwargs)
    moved, scaled = a.fit(x).score_samples(x) - np.log(scale), x * [scale, 1]
    # The moments' own rounding.
    np.testing.assert_allclose(b.fit(scaled).score_samples(scaled), moved, atol=1e-3)
    np.testing.assert_allclose(-np.array(a.loss_curve_) - np.log(scale), -np.array(b.loss_curve_),
                               atol=1e-3)  # fmt: skip
