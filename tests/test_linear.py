"""The linear VAE is PPCA and factor analysis (law 2): scikit-learn is the outsider."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

from skvae._bounds import elbo, importance_weighted
from skvae._linear_start import LinearModel, _positive, linear_model
from skvae._vae import VAE, Architecture

FLOOR = 1e-6
LOADERS = {"wine": load_wine, "breast_cancer": load_breast_cancer}

each_table = pytest.mark.parametrize("data", LOADERS)
each_size = pytest.mark.parametrize("q", [2, 5])


@cache
def table(data):
    return StandardScaler().fit_transform(LOADERS[data]().data)


@cache
def pca(data, q):
    return PCA(q, svd_solver="full").fit(table(data))


@cache
def factor_analysis(data, q):
    # The default of 1,000 iterations is too few for breast_cancer. A smaller tolerance lets
    # its variances fall to 1e-6, where scikit-learn's own score_samples is off by 4e-10.
    return FactorAnalysis(q, tol=1e-2, max_iter=20_000, svd_method="lapack").fit(table(data))


def solution(name, data, q):
    """scikit-learn's mean, loadings (D, Z), and noise variance (D,)."""
    if name == "pca":
        fit = pca(data, q)
        noise = np.full(len(fit.mean_), fit.noise_variance_)
        return fit, fit.components_.T * np.sqrt(fit.explained_variance_ - noise[0]), noise
    fit = factor_analysis(data, q)
    return fit, fit.components_.T, fit.noise_variance_


def with_exact_posterior(mean, loadings, noise, coefficients=None):
    """By numpy alone: loadings rotated to a diagonal posterior covariance, as fields.

    Bishop, Pattern Recognition and Machine Learning, 2006, equations 12.66 to 12.68.
    """
    information = loadings.T @ (loadings / noise[:, None])
    loadings = loadings @ np.linalg.eigh(information)[1]
    covariance = np.linalg.inv(np.eye(loadings.shape[1]) + loadings.T @ (loadings / noise[:, None]))
    gain = covariance @ loadings.T / noise
    coefficients = np.zeros((0, len(mean))) if coefficients is None else coefficients
    scale = np.sqrt(np.diag(covariance))
    fields = coefficients, mean, loadings, noise, gain, scale
    return LinearModel(*(torch.from_numpy(field.copy()) for field in fields))


def vae_of(model, noise="feature", hidden=(8, 4), n_components=None):
    """A VAE, random but for being set to this linear model."""
    n_conditions, n_features = model.coefficients.shape
    n_components = n_components or model.loadings.shape[1]
    a = Architecture(n_features, n_components, n_conditions, hidden, noise=noise)
    generator = torch.Generator().manual_seed(0)
    return VAE(a).double().randomise(generator, torch.zeros(n_features)).linearise(model)


def terms_of(vae, x, c, n_draws=7):
    shape = (n_draws, 1, len(x), vae.architecture.n_components)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    with torch.no_grad():
        return vae.terms(x[None], c[None], noise)


def log_weights(vae, x, c):
    terms = terms_of(vae, x, c)
    return (terms.log_px - terms.log_ratio)[:, 0].numpy()


def log_density(model, X, C=None):
    """scipy's density of each row under a linear model."""
    loadings, noise = model.loadings.numpy(), model.noise_variance.numpy()
    residual = X - model.mean.numpy() - (0 if C is None else C @ model.coefficients.numpy())
    covariance = loadings @ loadings.T + np.diag(noise)
    factor = stats.Covariance.from_cholesky(np.linalg.cholesky(covariance))
    return stats.multivariate_normal(cov=factor).logpdf(residual)


def fitted(X, q, noise, C=None, seed=0, floor=FLOOR, method="factor_analysis"):
    C = X[:, :0] if C is None else C
    generator = torch.Generator().manual_seed(seed)
    tensors = torch.from_numpy(X), torch.from_numpy(C)
    return linear_model(*tensors, q, noise, method=method, floor=floor, generator=generator)


@pytest.mark.parametrize("hidden", [(), (8, 4)])
@pytest.mark.parametrize("name", ["pca", "factor_analysis"])
@each_table
@each_size
def test_set_by_hand_every_draw_is_exact(name, data, q, hidden):
    """At the exact posterior the weight is p(x) whatever z: no bound is loose."""
    fit, loadings, noise = solution(name, data, q)
    model = with_exact_posterior(fit.mean_, loadings, noise)
    x = torch.from_numpy(table(data))
    vae = vae_of(model, "shared" if name == "pca" else "feature", hidden)
    terms, expected = terms_of(vae, x, x[:, :0]), fit.score_samples(table(data))
    # Law 2. Rows score up to hundreds of nats, so this is some 1e-13 of the number.
    weights = (terms.log_px - terms.log_ratio)[:, 0].numpy()
    np.testing.assert_allclose(weights, np.tile(expected, (7, 1)), rtol=0, atol=1e-10)
    one = torch.ones(1, dtype=x.dtype)
    iwae = importance_weighted(terms, one)[0]
    np.testing.assert_allclose(iwae, expected, rtol=0, atol=1e-10)


@each_table
@each_size
def test_the_elbo_of_a_fit_is_its_log_likelihood(data, q):
    """With its KL in closed form, so only in the mean over z."""
    X = table(data)
    x, model = torch.from_numpy(X), fitted(X, q, "feature")
    vae, one = vae_of(model), torch.ones(1, dtype=x.dtype)
    gap = elbo(terms_of(vae, x, x[:, :0], 200), one)[0].numpy() - log_density(model, X)
    # 200 draws of 178 rows and more: four errors of a standard deviation of sqrt(q) nats.
    assert abs(np.mean(gap)) < 4 * np.sqrt(q / (200 * len(X)))


@each_table
@each_size
def test_ppca_is_sklearns(data, q):
    """Maximum likelihood divides by n where PCA divides by n - 1; else they are one model."""
    X, fit = table(data), pca(data, q)
    (n, d), model = X.shape, fitted(X, q, "shared")
    ratio = n / (n - 1)
    # The same eigenvalues by eigh of X'X/n and by svd of X.
    np.testing.assert_allclose(model.noise_variance * ratio, fit.noise_variance_, rtol=1e-9)
    covariance = (model.loadings @ model.loadings.T + model.noise_variance.diag()).numpy()
    np.testing.assert_allclose(covariance * ratio, fit.get_covariance(), atol=1e-9)
    # A covariance too large by this ratio costs, of the likelihood, exactly
    lost = 0.5 * d * (np.log(ratio) + 1 / ratio - 1)
    # and beyond that rounding: law 2's 1e-6 with room.
    assert log_density(model, X).mean() == pytest.approx(fit.score(X) + lost, abs=1e-9)


@each_table
@each_size
def test_factor_analysis_is_not_worse_than_sklearns(data, q):
    """And on its way to the same maximum, so not better where that has converged."""
    X = table(data)
    gain = log_density(fitted(X, q, "feature"), X).mean() - factor_analysis(data, q).score(X)
    # Both stop when an iteration gains little; a hundredth of a nat is no one's loss.
    assert abs(gain) < 0.01


@pytest.mark.parametrize("noise", ["shared", "feature", "decoder", 0.5])
@each_table
def test_the_posterior_is_exact(data, noise):
    """Each weight is the fit's own density, by scipy, wherever the variance is kept."""
    X = table(data)
    x, model = torch.from_numpy(X), fitted(X, 3, noise)
    weights = log_weights(vae_of(model, noise), x, x[:, :0])
    expected = np.tile(log_density(model, X), (7, 1))
    # Two routes through an inverse of condition number below 1e4.
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("q", [2, 5, 12, 13, 20])
def test_the_start_at_pca_has_its_components_and_the_variance_they_leave(q):
    """Up to one component fewer than columns; the posterior is exact as ever."""
    X = table("wine")
    model, q = fitted(X, q, "feature", method="pca"), min(q, 12)
    loadings, noise = model.loadings.numpy(), model.noise_variance.numpy()
    assert loadings.shape == (13, q)
    fit = PCA(q, svd_solver="full").fit(X)
    basis = np.linalg.qr(loadings)[0]
    # Two bases of one space: its cosines are 1 to rounding.
    np.testing.assert_allclose(np.linalg.svd(basis.T @ fit.components_.T)[1], 1, atol=1e-10)
    np.testing.assert_allclose((loadings**2).sum(1) + noise, X.var(0), atol=1e-10)
    precision = np.eye(q) + loadings.T @ (loadings / noise[:, None])
    np.testing.assert_allclose(np.diag(model.scale.numpy() ** -2), precision, atol=1e-8)


def test_a_given_variance_is_kept():
    X = table("wine")
    model = fitted(X, 3, 0.3)
    assert (model.noise_variance == 0.3).all()
    values = np.sort(np.linalg.eigvalsh(np.cov(X.T, bias=True)))[::-1][:3]
    # W'W = eigenvalues - variance, and W has orthogonal columns: eigh twice, rounding.
    np.testing.assert_allclose((model.loadings**2).sum(0), values - 0.3, rtol=1e-9)


def test_components_are_ordered_by_what_they_tell():
    model = fitted(table("wine"), 5, "feature")
    assert (model.scale.diff() > 0).all()
    assert (model.loadings.gather(0, model.loadings.abs().argmax(0)[None]) > 0).all()


def conditioned(kind, n=300, d=6):
    rng = np.random.default_rng(0)
    number, label = rng.normal(size=(n, 2)), np.eye(3)[rng.integers(3, size=n)]
    C = number if kind == "numbers" else np.hstack([number, label])
    W, A = rng.normal(size=(2, d)), rng.normal(size=(C.shape[1], d))
    X = C @ A + rng.normal(size=(n, 2)) @ W + 0.3 * rng.normal(size=(n, d)) + 5
    return X, C


@pytest.mark.parametrize("noise", ["shared", "feature"])
@pytest.mark.parametrize("kind", ["numbers", "labels"])
def test_conditions_are_regressed_out(kind, noise):
    X, C = conditioned(kind)
    model = fitted(X, 2, noise, C)
    expected = LinearRegression().fit(C, X).predict(C)
    prediction = C @ model.coefficients.numpy() + model.mean.numpy()
    # The ridge of 1e-8 moves the least-squares fit by so much of a unit.
    np.testing.assert_allclose(prediction, expected, atol=1e-6)
    alone = fitted(X - expected, 2, noise)
    # The same covariance but for the ridge; iterations stop within 1e-5 of each other.
    alike = log_density(alone, X - expected).mean()
    assert log_density(model, X, C).mean() == pytest.approx(alike, abs=2e-5)
    x, c = torch.from_numpy(X), torch.from_numpy(C)
    weights = log_weights(vae_of(model, noise), x, c)
    # As without a condition.
    np.testing.assert_allclose(weights, np.tile(log_density(model, X, C), (7, 1)), atol=1e-9)


def test_a_condition_that_never_changes_explains_nothing():
    """A category of which the rows to train on have none, for instance."""
    X, C = conditioned("numbers")
    without, beside = (fitted(X, 2, "feature", c) for c in (C, np.hstack([C, np.zeros((300, 1))])))
    assert (beside.coefficients[2] == 0).all()
    for ours, expected in zip(beside[1:], without[1:], strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-10)  # the same sums


def wide(n=50, d=600, q=5):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, q)) @ rng.normal(size=(q, d)) + 0.5 * rng.normal(size=(n, d)) + 3


@pytest.mark.parametrize("q", [2, 5])
def test_many_columns_come_near_the_exact_solution(q):
    """Nothing d x d, yet the eigenvalues of numpy's svd and PCA's own loadings."""
    X = wide()
    n, d = X.shape
    model, fit = fitted(X, q, "shared"), PCA(q, svd_solver="full").fit(X)
    values = np.linalg.svd(X - X.mean(0), compute_uv=False) ** 2 / n
    # PCA shares the rest among min(n, d) - q directions, maximum likelihood among d - q.
    noise = np.full(d, values[q:].sum() / (d - q))
    exact = fit.components_.T * np.sqrt(values[:q] - noise[0])
    best = log_density(with_exact_posterior(X.mean(0), exact, noise), X).mean()
    ours = log_density(model, X).mean()
    # No model is above the maximum; power iterations leave of it less than .01 nats a row.
    assert best - 0.01 < ours < best + 1e-8
    assert ours > fit.score(X)
    assert log_density(fitted(X, q, "feature"), X).mean() > ours


def test_conditions_are_regressed_out_of_many_columns():
    """All that they explain: what is left is as good as if they had been taken away before."""
    X, C = conditioned("numbers", d=600)
    model, left = fitted(X, 2, "feature", C), X - LinearRegression().fit(C, X).predict(C)
    alike = log_density(fitted(left, 2, "feature"), left).mean()
    # The same random numbers; sums of 600 columns, and the tiny ridge.
    assert log_density(model, X, C).mean() == pytest.approx(alike, abs=1e-4)


@pytest.mark.parametrize(("bound", "value"), [("_MAX_ROWS", 4), ("_MAX_NUMBERS", 4 * 600)])
def test_of_many_columns_so_many_rows_are_enough(bound, value, monkeypatch):
    """They have no more components than rows."""
    monkeypatch.setattr(f"skvae._linear_start.{bound}", value)
    model = fitted(wide(), 10, "feature")
    assert model.loadings.shape == (600, 4)
    assert all(field.isfinite().all() for field in model)


def test_many_columns_of_a_low_rank_are_exact():
    """With a spectrum that ends there is nothing for a projection to miss."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(50, 5)) @ rng.normal(size=(5, 600))
    model = fitted(X, 5, 0.1)
    values = np.linalg.svd(X - X.mean(0), compute_uv=False)[:5] ** 2 / 50
    # Only rounding: the basis spans the row space.
    found = np.sort((model.loadings.numpy() ** 2).sum(0))[::-1]
    np.testing.assert_allclose(found, values - 0.1, rtol=1e-9)


@pytest.mark.parametrize("noise", ["feature", 0.3])
@pytest.mark.parametrize(("rows", "columns", "q"), [(178, 13, 20), (6, 13, 10), (6, 400, 10)])
def test_more_components_than_the_data_have(rows, columns, q, noise):
    """The spare ones equal their prior, and the rest is the linear model."""
    X = np.tile(table("wine"), (1, 40))[:rows, :columns] if columns < 14 else wide(rows, columns)
    model = fitted(X, q, noise, floor=1e-2)
    n_used = model.loadings.shape[1]
    assert n_used == min(q, rows, columns)
    x = torch.from_numpy(X)
    vae = vae_of(model, noise, n_components=q)
    terms = terms_of(vae, x, x[:, :0])
    weights = (terms.log_px - terms.log_ratio)[:, 0].numpy()
    expected = np.tile(log_density(model, X), (7, 1))
    # Variances down to the floor of 1e-2: weights of thousands of nats, to 1e-11 of them.
    np.testing.assert_allclose(weights, expected, rtol=1e-10, atol=1e-7)
    assert (terms.kl[..., n_used:] == 0).all()


@pytest.mark.parametrize("noise", ["shared", "feature"])
def test_no_variance_falls_below_the_floor(noise):
    """A column that the loadings explain wholly (a Heywood case)."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(100, 1)), 4, axis=1)
    model = fitted(X, 2, noise, floor=1e-3)
    assert (model.noise_variance >= 1e-3).all()
    assert all(field.isfinite().all() for field in model)


def test_the_start_at_pca_leaves_every_column_some_variance():
    """A hundredth, above any floor: columns that the components explain wholly."""
    X = np.repeat(np.random.default_rng(0).normal(size=(100, 1)), 4, axis=1)
    np.testing.assert_array_equal(fitted(X, 2, "feature", method="pca").noise_variance, 1e-2)


@pytest.mark.parametrize("seed", range(4))
def test_as_many_components_as_columns_leave_the_floor(seed):
    X = np.random.default_rng(seed).normal(size=(50, 3))
    model = fitted(X, 3, "shared", floor=1e-3)
    np.testing.assert_array_equal(model.noise_variance, 1e-3)
    # W W' and the floor are the covariance.
    covariance = model.loadings @ model.loadings.T + 1e-3 * torch.eye(3).double()
    np.testing.assert_allclose(covariance, np.cov(X.T, bias=True), atol=1e-12)


@pytest.mark.parametrize("method", ["pca", "factor_analysis"])
def test_one_column_has_one_component(method):
    model = fitted(table("wine")[:, :1], 2, "feature", method=method)
    assert model.loadings.shape == (1, 1)
    assert all(field.isfinite().all() for field in model)


def test_a_column_without_variance_is_left_alone():
    X = np.column_stack([table("wine")[:, :4], np.full(178, 3.0)])
    model = fitted(X, 2, "feature", floor=1e-3)
    assert model.noise_variance[4] == 1e-3
    assert (model.loadings[4] == 0).all()
    for ours, expected in zip(model[2:4], fitted(X[:, :4], 2, "feature")[2:4], strict=True):
        np.testing.assert_allclose(ours[:4], expected, rtol=1e-6)  # as iterations converge


def test_moments_by_pairs_are_made_those_of_a_table():
    """Three columns of which each pair is all but opposite: there are no such numbers."""
    scale = torch.tensor([1.0, 1e3, 1e-3, 0.0]).double()
    correlations = torch.eye(4).double()
    correlations[:3, :3] -= 0.9 * (1 - torch.eye(3).double())
    impossible = correlations * scale * scale[:, None]
    found = _positive(impossible)
    torch.testing.assert_close(found.diagonal(), impossible.diagonal())
    ours = (found / scale / scale[:, None])[:3, :3]
    torch.testing.assert_close(ours, ours.mT)
    assert torch.linalg.eigvalsh(ours)[0] > 1e-4
    assert (found[3].abs() < 1e-300).all()  # as good as none
    # What is possible stays.
    possible = torch.eye(2).double() + 0.5
    assert torch.equal(_positive(possible), possible)


@pytest.mark.parametrize("noise", ["shared", "feature"])
@pytest.mark.parametrize("shape", [(50, 20), (50, 600)])
def test_randomness_comes_from_the_generator_alone(shape, noise):
    X, before = wide(*shape), torch.get_rng_state()
    one, other = fitted(X, 3, noise), fitted(X, 3, noise)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_start_carried_over_is_the_linear_model_itself_where_that_is_gaussian():
    """The slopes that rows show are then 1, and the shift is that of the condition."""
    x = torch.from_numpy(StandardScaler().fit_transform(load_wine().data))
    c = torch.nn.functional.one_hot(torch.from_numpy(load_wine().target)).to(x)
    generator = torch.Generator().manual_seed(0)
    linear = linear_model(x, c, 3, "feature", method="pca", floor=1e-6, generator=generator)
    one, other = (VAE(Architecture(13, 3, 3, (8,))).double() for _ in range(2))
    one.linearise(linear)
    other.linearise(linear, x)
    for name, weights in one.state_dict().items():
        # Moments of 178 rows, of numbers near 1.
        torch.testing.assert_close(other.state_dict()[name], weights, rtol=0, atol=1e-10)
