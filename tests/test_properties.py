"""Laws 5, 6, 7 and 9 over shapes, dtypes and units that users bring."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import cross_val_score

from skvae import ConditionalVAE, VAETransformer
from skvae._codec import ColumnCodec

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

few = settings(max_examples=8, deadline=None, derandomize=True, database=None)
SMALL = {"n_components": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}


def table(n=60, d=5, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 2))
    return np.tanh(z @ rng.normal(size=(2, d))) + 0.3 * rng.normal(size=(n, d))


X = table()
Y = np.arange(60) % 2


def check_outputs(model, x):
    """Shapes, finite values, and the dtype of X."""
    n, d = x.shape
    z = model.transform(x)
    answers = {(n, model.n_components): z, (n, d): model.inverse_transform(z)}
    for shape, answer in answers.items():
        assert answer.shape == shape
    rows = [*answers.values(), model.sample(3), model.score_samples(x), *model.posterior(x),
            *model.elbo(x), model.kl_per_component_, model.noise_variance_]  # fmt: skip
    for answer in rows:
        assert answer.dtype == x.dtype
        assert np.isfinite(answer).all()
    assert model.sample(3).shape == (3, d)
    assert isinstance(model.score(x), float)


@few
@given(
    st.sampled_from(["float32", "float64"]), st.integers(2, 40), st.integers(1, 6),
    st.integers(1, 8), st.sampled_from([1, 7, 32, 500]), st.sampled_from([1e-12, 1.0, 1e12]),
    st.integers(0, 99),
)  # fmt: skip
def test_shapes_dtypes_and_scales(dtype, n, d, q, batch, scale, seed):
    """Any sizes and scales: finite answers in the dtype of X."""
    x = (table(n, d, seed) * scale).astype(dtype)
    model = VAETransformer(**{**SMALL, "n_components": q}, batch_size=batch).fit(x)
    check_outputs(model, x)


@pytest.mark.parametrize(
    ("n", "d", "kwargs"),
    [(2, 3, {}), (2, 1, {}), (30, 1, {}), (20, 2000, {}), (33, 3, {"batch_size": 32}),
     (33, 3, {"batch_size": 8, "early_stopping": False}), (10, 3, {"batch_size": 10_000}),
     (30, 2, {"n_components": 9}), (30, 3, {"noise_variance": "decoder"})],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes_that_break_others(n, d, kwargs, dtype):
    x = table(n, d).astype(dtype)
    check_outputs(VAETransformer(**{**SMALL, **kwargs}).fit(x), x)


def test_duplicated_rows():
    x = np.repeat(X[:2], 20, axis=0)
    model = VAETransformer(**SMALL).fit(x)
    check_outputs(model, x)
    assert len(np.unique(model.transform(x), axis=0)) == 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.3, -1e-12])
def test_a_constant_column_is_reproduced_and_adds_nothing(dtype, value):
    """Exactly its constant, 0 nats, variance 0; the other columns do not notice."""
    x = X.astype(dtype)
    with_constant = np.insert(x, 2, value, axis=1).astype(dtype)
    a, b = VAETransformer(**SMALL).fit(x), VAETransformer(**SMALL).fit(with_constant)
    constant = np.dtype(dtype).type(value)
    assert (b.sample(5)[:, 2] == constant).all()
    assert (b.inverse_transform(b.transform(with_constant))[:, 2] == constant).all()
    assert b.noise_variance_[2] == 0
    np.testing.assert_array_equal(a.score_samples(x), b.score_samples(with_constant))
    np.testing.assert_array_equal(a.transform(x), b.transform(with_constant))


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_all_columns_constant(likelihood):
    x = np.tile([0.0, 1.0, 0.5], (30, 1))
    model = VAETransformer(likelihood=likelihood, **SMALL).fit(x)
    np.testing.assert_array_equal(model.sample(4), x[:4])
    np.testing.assert_array_equal(model.inverse_transform(model.transform(x)), x)
    # An encoder without inputs still has a bias; what it costs is at most its few steps.
    np.testing.assert_allclose(model.score_samples(x), 0, atol=1e-3)


# --------------------------------------------------------------------------------- law 5


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_row_depends_on_itself_alone(dtype, tolerance, conditional):
    """Law 5: subset, order and company change rounding only (tolerances of DESIGN.md)."""
    x = X.astype(dtype)
    sizes = {**SMALL, "hidden_layer_sizes": (32, 32)}
    model = (ConditionalVAE if conditional else VAETransformer)(**sizes).fit(x, Y)
    order = np.random.default_rng(0).permutation(60)
    big = np.tile(x, (9, 1))
    for f in (model.transform, model.score_samples, lambda x, model=model: model.elbo(x).elbo,
              model.effective_sample_size):  # fmt: skip
        whole = f(x)
        near = {"rtol": tolerance, "atol": tolerance}
        np.testing.assert_allclose(f(x[order]), whole[order], **near)
        np.testing.assert_allclose(f(x[7:8]), whole[7:8], **near)
        np.testing.assert_allclose(f(big)[-60:], whole, **near)
        np.testing.assert_allclose(f(np.asfortranarray(x)[::-1])[::-1], whole, **near)
        np.testing.assert_array_equal(f(x), whole)


# --------------------------------------------------------------------------------- law 6

BASE = {**SMALL, "init": "random", "max_iter": 12, "batch_size": 16, "learning_rate_init": 1e-2}
KNOBS = {
    "n_components": 3, "likelihood": "bernoulli", "noise_variance": "shared", "beta": 4.0,
    "n_importance_samples": 4, "hidden_layer_sizes": (9,), "activation": "tanh", "dropout": 0.3,
    "alpha": 1.0, "learning_rate": "cosine", "learning_rate_init": 1e-3, "batch_size": 8,
    "max_iter": 2, "early_stopping": False, "validation_fraction": 0.4, "n_iter_no_change": 1,
    "tol": 100.0, "n_init": 6, "init": "factor_analysis", "random_state": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", KNOBS)
@pytest.mark.parametrize("estimator", [VAETransformer, ConditionalVAE])
def test_every_knob_acts(name, estimator):
    """Law 6: another value, another model."""
    x = (X - X.min(0)) / np.ptp(X, 0)
    # Early stopping may keep the same early weights under any schedule: not here.
    stops = name in ("n_init", "tol", "n_iter_no_change", "early_stopping", "validation_fraction")
    base = {**BASE, "n_iter_no_change": 3, "early_stopping": stops}
    a = estimator(**base).fit(x, Y)
    b = estimator(**{**base, name: KNOBS[name]}).fit(x, Y)
    if name in ("tol", "n_iter_no_change"):
        assert b.n_iter_ < a.n_iter_
        return
    # Far beyond float32 rounding of a score.
    assert np.abs(a.score_samples(x) - b.score_samples(x)).max() > 1e-4


@pytest.mark.parametrize("noise", ["feature", "shared", "decoder", 1.0, 0.1])
def test_noise_variance_modes(noise):
    x = X * [1, 10, 100, 1, 1]
    model = VAETransformer(**BASE, noise_variance=noise).fit(x)
    standardised = model.noise_variance_ / x.var(0)
    if isinstance(noise, float):
        # float32 weights hold the number to 1e-6, the floor of 1e-6 is added to it.
        np.testing.assert_allclose(standardised, noise, rtol=2e-5)
    elif noise == "shared":
        np.testing.assert_allclose(standardised, standardised[0], rtol=1e-5)
    else:
        assert np.ptp(standardised) > 1e-3


def test_directions_of_the_knobs():
    """What the docs promise of beta, alpha, tol, patience, n_init and max_iter."""

    def fit(**kwargs):
        return VAETransformer(**{**BASE, "init": "both", **kwargs}).fit(X)

    kl = [fit(beta=beta, max_iter=60).kl_per_component_.sum() for beta in (0.1, 1.0, 4.0)]
    assert kl[0] > kl[1] > kl[2]

    def norm(model):
        return sum(p.square().sum().item() for p in model.to_torch().parameters() if p.ndim > 2)

    kept = {"early_stopping": False, "max_iter": 30}
    assert norm(fit(alpha=5.0, **kept)) < norm(fit(**kept))
    assert fit(tol=1e3, n_iter_no_change=4).n_iter_ == 4
    assert fit(max_iter=5).n_iter_ == 5
    one, six = fit(init="random"), fit(init="random", n_init=6)
    # The same first start is among the six; together is alone to float32 rounding.
    assert six.best_validation_score_ >= one.best_validation_score_ - 1e-4


def test_learning_rate_schedules_differ():
    kwargs = {**BASE, "n_iter_no_change": 2, "early_stopping": False, "learning_rate_init": 0.1}
    curves = [
        VAETransformer(**kwargs, learning_rate=schedule).fit(X).loss_curve_
        for schedule in ("adaptive", "cosine", "constant")
    ]
    assert curves[0] != curves[1] != curves[2] != curves[0]


# --------------------------------------------------------------------------------- law 7


def global_state():
    name, keys, position, *rest = np.random.get_state()  # noqa: NPY002
    return (
        name, keys.tobytes(), position, *rest, torch.get_rng_state().numpy().tobytes(),
        torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision(),
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip


def results(model):
    curve = np.array(model.loss_curve_)
    return [model.transform(X), model.score_samples(X), model.sample(5), curve]


@pytest.mark.parametrize("estimator", [VAETransformer, ConditionalVAE])
def test_seeds_decide(estimator):
    """Law 7: the same bits whatever the global generators hold, and these untouched."""
    first = results(estimator(**SMALL, dropout=0.1).fit(X, Y))
    np.random.rand(3)  # noqa: NPY002
    torch.rand(3)
    before = global_state()
    model = estimator(**SMALL, dropout=0.1).fit(X, Y)
    second = results(model)
    model.partial_fit(X, Y)
    model.inverse_transform(model.transform(X))
    assert global_state() == before
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_are_put_back(n_threads):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(n_threads)
        VAETransformer(**SMALL).fit(X).transform(X)
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(threads)


def test_without_a_seed_numpys_global_generator_decides():
    def fit(seed):
        np.random.seed(seed)  # noqa: NPY002
        return VAETransformer(**{**SMALL, "random_state": None}).fit(X).transform(X)

    np.testing.assert_array_equal(fit(0), fit(0))
    assert (fit(0) != fit(1)).any()


@pytest.mark.parametrize("estimator", [VAETransformer, ConditionalVAE])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, "float64"])
def test_torch_modes_of_the_caller(estimator, mode):
    """Grad mode, inference mode and default dtype are the caller's and change nothing."""
    expected = results(estimator(**SMALL).fit(X, Y))
    if mode == "float64":
        torch.set_default_dtype(torch.float64)
        try:
            model = estimator(**SMALL).fit(X, Y)
            found = results(model)
        finally:
            torch.set_default_dtype(torch.float32)
    else:
        with mode():
            model = estimator(**SMALL).fit(X, Y)
            found = results(model)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)
    model.partial_fit(X, Y)  # and goes on outside


# --------------------------------------------------------------------------------- law 9


@pytest.mark.parametrize(
    ("scale", "shift", "tolerance"),
    # The moments' own rounding; at 1e9 + 1e6 X a cell keeps 1e9 * 1.1e-16 / 1e6 = 1e-13.
    [(1e-12, 0.0, 1e-4), (1e12, 0.0, 1e-4), (-3.0, 5.0, None), (1e6, 1e9, 1e-4)],
)
def test_units(scale, shift, tolerance):
    """Law 9: features the same, score shifts by -sum log|a|."""
    a = VAETransformer(**SMALL, init="factor_analysis").fit(X)
    b = VAETransformer(**SMALL, init="factor_analysis").fit(X * scale + shift)
    x = X * scale + shift
    if tolerance is None:  # a mirrored column meets other random weights: finite, that is all
        assert np.isfinite(b.score(x))
        return
    np.testing.assert_allclose(b.transform(x), a.transform(X), atol=tolerance)
    moved = a.score_samples(X) - X.shape[1] * np.log(abs(scale))
    np.testing.assert_allclose(b.score_samples(x), moved, atol=10 * tolerance)


def test_units_of_float32():
    """Float32 X with an offset trains as well as what is left of it after rounding."""
    x = (X * 1e-2 + 1.0).astype(np.float32)
    a = VAETransformer(**SMALL).fit(x)
    b = VAETransformer(**SMALL).fit(x.astype(np.float64))
    np.testing.assert_allclose(a.transform(x), b.transform(x.astype(np.float64)), atol=1e-4)
    assert a.score(x) == pytest.approx(b.score(x.astype(np.float64)), abs=1e-4)


@pytest.mark.parametrize(
    ("scale", "shift"),
    [(1.0, 0.0), (1e-3, 3.0), (1.0, 1e4), (1e6, -1e9), (1e-30, 0.0), (1e30, 1e30), (1e6, 3.0)],
)
def test_float32_is_standardised_as_in_float64(shift, scale):
    """Whatever the units."""
    x = torch.from_numpy((X * scale + shift).astype(np.float32))
    codec = ColumnCodec.of(x, ["gaussian"] * 5)
    device = torch.device("cpu")
    found = codec.encoded(x, torch.float32, device).whole()
    exact = codec.encoded(x.double(), torch.float64, device).whole()
    # Four roundings of values up to about 4.
    assert (found - exact).abs().max() < 4 * 4 * 2**-24


def test_the_number_of_jobs_decides_nothing():
    """Law 7: worker processes find the same bits as this one."""
    model = VAETransformer(n_components=2, hidden_layer_sizes=(8,), max_iter=5, random_state=0)
    X = np.random.default_rng(0).normal(size=(60, 4))
    scores = [cross_val_score(model, X, cv=2, n_jobs=n_jobs) for n_jobs in (1, 2)]
    np.testing.assert_array_equal(*scores)
