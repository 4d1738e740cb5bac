"""Missing cells are data: densities, means and draws given what is observed."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import stats
from sklearn import config_context, model_selection
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch.nn import functional

from skvae import ConditionalVAE, VAETransformer, _fitting, impute
from skvae._answers import fixed_normals
from skvae._bounds import ELBO
from skvae._gradient import Gradient
from skvae._inference import expected, scores
from skvae._likelihoods import VARIANCE_FLOOR
from skvae._linear_start import _regression, linear_model
from skvae._vae import VAE, Architecture
from skvae.impute import VAEImputer
from skvae.model_selection import GridSearchCV

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"n_components": 2, "hidden_layer_sizes": (16,), "max_iter": 30, "random_state": 0}
RNG = np.random.default_rng(0)
D = 6
X = RNG.normal(size=(300, 2)) @ RNG.normal(size=(2, D)) + 0.5 * RNG.normal(size=(300, D))
X = 3 + X * np.array([1, 10, 0.1, 1, 1, 1])
HOLES = RNG.random(X.shape) < 0.3
HOLES[0], HOLES[1] = False, True  # a row that is complete, and one of which nothing is known
GIVEN = np.where(HOLES, np.nan, X)


@pytest.fixture(scope="module", params=["with holes", "complete"])
def linear(request):
    """Factor analysis, whose conditionals are known, and its mean and covariance.

    Fitted on complete rows its encoder takes missing cells for means.
    """
    model = VAETransformer(2, hidden_layer_sizes=(), random_state=0)
    model.fit(GIVEN if request.param == "with holes" else X)
    vae = model.to_torch().double().cpu()
    codec = model._fitted.codec
    scale = codec.scale.cpu().numpy()
    loadings = vae.decoder.linear.weight[0, :, 0].detach().numpy().T * scale[:, None]
    mean = vae.decoder.linear.bias[0, 0].detach().numpy() * scale + codec.shift.cpu().numpy()
    return model, mean, loadings @ loadings.T + np.diag(model.noise_variance_)


def conditional(row, mean, covariance):
    """Mean and covariance of the missing cells given the others."""
    there, missing = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
    gain = np.linalg.solve(covariance[np.ix_(there, there)], covariance[there][:, missing]).T
    return (
        mean[missing] + gain @ (row[there] - mean[there]),
        covariance[np.ix_(missing, missing)] - gain @ covariance[np.ix_(there, missing)],
    )


def test_the_score_is_the_density_of_what_is_observed(linear):
    model, mean, covariance = linear
    scores = model.score_samples(GIVEN, n_draws=512)
    assert np.isnan(GIVEN[1]).all()
    for row, score in zip(GIVEN[1:], scores[1:], strict=True):
        there = ~np.isnan(row)
        expected = (
            stats.multivariate_normal(mean[there], covariance[np.ix_(there, there)]).logpdf(
                row[there]
            )
            if there.any()
            else 0.0
        )
        # Half of the draws are from the posterior itself, up to derivatives by differences.
        assert score == pytest.approx(expected, abs=0.02)


def test_imputed_is_the_conditional_mean(linear):
    model, mean, covariance = linear
    completed = model.impute(GIVEN)
    np.testing.assert_array_equal(completed[~HOLES], GIVEN[~HOLES])
    for row, done in zip(GIVEN[:40], completed[:40], strict=True):
        expected, spread = conditional(row, mean, covariance)
        error = (done[np.isnan(row)] - expected) / np.sqrt(np.diag(spread))
        assert np.abs(error).max(initial=0) < 0.05  # standard deviations, by 512 draws


def test_features_of_holes_that_fit_has_not_seen():
    """The encoder would take them for means: of a linear model the posterior is known."""
    model = VAETransformer(2, hidden_layer_sizes=(), random_state=0).fit(X)
    scale = model._fitted.codec.scale.cpu().numpy()
    vae = model.to_torch().double().cpu()
    loadings = vae.decoder.linear.weight[0, :, 0].detach().numpy().T
    mean = vae.decoder.linear.bias[0, 0].detach().numpy()
    rows = (GIVEN - model._fitted.codec.shift.cpu().numpy()) / scale - mean
    found = model.posterior(GIVEN)
    np.testing.assert_array_equal(found.mean, model.transform(GIVEN))
    for i in np.flatnonzero(HOLES.any(1)):
        there = ~HOLES[i]
        weighed = loadings[there].T / (model.noise_variance_ / scale**2)[there]
        covariance = np.linalg.inv(np.eye(2) + weighed @ loadings[there])
        np.testing.assert_allclose(
            found.mean[i], covariance @ weighed @ rows[i, there], rtol=0, atol=1e-4
        )
        np.testing.assert_allclose(found.std[i], np.sqrt(np.diag(covariance)), rtol=1e-4)


def test_a_missing_cell_of_rows_with_little_noise():
    """The encoder takes it for the mean, and is sure of it: where z is drawn from decides."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(8, 3))
    rows = rng.normal(size=(600, 3)) @ loadings.T + 0.1 * rng.normal(size=(600, 8))
    model = VAETransformer(3, random_state=0).fit(rows[:500])
    given, cells = rows[500:].copy(), (np.arange(100), np.arange(100) % 8)
    given[cells] = np.nan
    mean, covariance = np.zeros(8), loadings @ loadings.T + 0.01 * np.eye(8)
    expected = [conditional(row, mean, covariance)[0].item() for row in given]
    density = []
    for row in given:
        there = ~np.isnan(row)
        of_row = stats.multivariate_normal(mean[there], covariance[np.ix_(there, there)])
        density.append(of_row.logpdf(row[there]))
    assert np.abs(model.score_samples(given) - density).mean() < 0.3
    error = np.square(model.impute(given)[cells] - rows[500:][cells]).mean()
    least = np.square(expected - rows[500:][cells]).mean()
    assert error < 1.2 * least
    # Half of the 128 draws are about the mode, and hardly any other counts.
    assert (model.effective_sample_size(given) > 60).all()


def test_draws_have_the_conditional_moments(linear):
    model, mean, covariance = linear
    row = GIVEN[[2]]
    draws = np.concatenate(
        model.sample_missing(np.repeat(row, 4000, 0), n_draws=1024, random_state=0)
    )
    missing = np.isnan(row[0])
    assert missing.any()
    expected, spread = conditional(row[0], mean, covariance)
    np.testing.assert_array_equal(draws[:, ~missing], np.repeat(row[:, ~missing], 4000, 0))
    deviation = np.sqrt(np.diag(spread))
    # 4,000 draws: standard errors of .016 deviations of the mean, of .011 of the deviation.
    assert np.abs((draws[:, missing].mean(0) - expected) / deviation).max() < 0.1
    np.testing.assert_allclose(draws[:, missing].std(0), deviation, rtol=0.1)


@pytest.mark.parametrize("given", [X, GIVEN], ids=["complete", "with holes"])
@pytest.mark.parametrize("likelihood", ["gaussian", "student_t"])
def test_units(given, likelihood):
    """Each observed cell of a scaled column owes the logarithm of the scale."""
    a, b = np.array([10.0, 0.1, 2, 1, 5, 1]), 7.0
    plain, scaled = (
        VAETransformer(likelihood=likelihood, **SMALL).fit(table)
        for table in (given, given * a + b)
    )
    owed = ((~np.isnan(GIVEN)) * np.log(a)).sum(1)
    np.testing.assert_allclose(
        scaled.score_samples(GIVEN * a + b), plain.score_samples(GIVEN) - owed, atol=1e-2
    )
    np.testing.assert_allclose(scaled.transform(GIVEN * a + b), plain.transform(GIVEN), atol=1e-3)
    np.testing.assert_allclose(scaled.impute(GIVEN * a + b), plain.impute(GIVEN) * a + b, rtol=1e-3)


def test_validation_scores_are_in_the_units_of_x():
    """The best of them is the elbo of the rows kept apart, whichever their cells."""
    model = VAETransformer(**{**SMALL, "early_stopping": False}).fit(GIVEN)
    # What a training step saw a moment earlier, by other draws.
    assert -model.loss_curve_[-1] == pytest.approx(model.elbo(GIVEN).elbo.mean(), abs=0.3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_depends_on_itself_alone(dtype):
    model = VAETransformer(**SMALL).fit(GIVEN)
    table = GIVEN.astype(dtype)
    tolerance = {np.float32: 1e-4, np.float64: 1e-10}[dtype]
    for name in ("transform", "score_samples", "impute"):
        whole = getattr(model, name)(table)
        single = np.concatenate([getattr(model, name)(table[[i]]) for i in range(5)])
        assert whole.dtype == dtype
        np.testing.assert_allclose(single, whole[:5], rtol=tolerance, atol=tolerance)
        complete = getattr(model, name)(table[[0]])  # no holes: no other column of the model
        np.testing.assert_allclose(complete, whole[[0]], rtol=tolerance, atol=tolerance)


def folded():
    """x = (|z|, z) with little noise, a row of which the first is there, and its log density.

    The encoder says N(0, 1) to all.
    """
    model = VAE(Architecture(2, 1, 0, (2,), activation="relu", sees_mask=True)).double()
    with torch.no_grad():
        model.decoder.linear.weight.view(-1)[1] = 1
        model.decoder.hidden[0].weight.copy_(torch.tensor([[[1.0, -1.0]]]))
        model.decoder.head.weight.view(2, 2)[:, 0] = 1
        model.dispersion.fill_(np.log(0.01))
    row = torch.tensor([[1.2, 0, 1, 0]]).double()
    z = np.linspace(-6, 6, 100_001)
    density = stats.norm.pdf(z) * stats.norm.pdf(1.2, np.abs(z), np.sqrt(0.01 + VARIANCE_FLOOR))
    return model, row, np.log(density.sum() * (z[1] - z[0]))


def test_what_is_observed_may_have_two_modes():
    """z is one of two."""
    model, row, log_density = folded()
    noise = fixed_normals(512, 1)
    mean, found = expected(model, row, row[:, :0], noise, lambda p: p.mean)
    assert abs(mean[0, 1]) < 0.2  # not 1.2 or -1.2
    assert found.item() == scores(model, row, row[:, :0], noise).log_likelihood.item()
    assert found.item() == pytest.approx(log_density, abs=0.1)


def test_how_long_others_take_is_no_row_s_concern():
    """The mode about which z is drawn takes some rows more steps than others."""
    digits = load_digits().data[:300] + 0.5 * RNG.normal(size=(300, 64))
    model = VAETransformer(8, max_iter=20, random_state=0).fit(digits)
    given = np.where(RNG.random(digits.shape) < 0.4, np.nan, digits)[:40]
    single = np.concatenate([model.score_samples(row[None]) for row in given])
    np.testing.assert_allclose(single, model.score_samples(given), rtol=0, atol=1e-6)


def test_the_gradient_is_autograds():
    """With a mask, of several families, in every parameter."""
    parts = (("poisson", (1, 1)), ("gaussian", (1, 1, 1)), ("categorical", (3, 2)))
    a = Architecture(10, 2, 0, (5,), likelihood=parts, sees_mask=True)
    generator = torch.Generator().manual_seed(0)
    model = VAE(a, 2).double()
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator).double()
        parameter.grad = torch.zeros_like(parameter)
    kinds = torch.randint(0, 2, (2, 7, 2), generator=generator)
    one_hot = [functional.one_hot(kinds[..., i], size) for i, size in enumerate((3, 2))]
    numbers = torch.randint(0, 2, (2, 7, 5), generator=generator)
    x = torch.cat([numbers, *one_hot, numbers[..., :2]], -1).double()
    there = (torch.rand(2, 7, 7, generator=generator) < 0.6).double()
    mask = torch.cat(
        [there[..., :5], *(there[..., [i]].expand(-1, -1, n) for i, n in ((5, 3), (6, 2)))], -1
    )
    x = torch.cat((x * torch.cat((mask, mask[..., :2]), -1), mask), -1)
    c, noise = x[..., :0], torch.randn(3, 2, 7, 2, generator=generator).double()
    Gradient(model, ELBO, torch.ones(2).double()).fill(x, c, noise)
    by_hand = [parameter.grad.clone() for parameter in model.parameters()]
    bound = ELBO.value(model.terms(x, c, noise), torch.ones(2).double()).mean(1).sum()
    by_autograd = torch.autograd.grad(bound, list(model.parameters()))
    for one, other in zip(by_hand, by_autograd, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_the_encoder_tells_a_missing_cell_from_a_mean():
    """Both are 0 to it but for the mask; and of what is missing it is less sure."""
    model = VAETransformer(2, random_state=0).fit(GIVEN)
    at_mean = np.where(HOLES, np.nanmean(GIVEN, 0), GIVEN)
    rows = HOLES.any(1)
    missing, known = (model.posterior(table[rows]).std for table in (GIVEN, at_mean))
    assert (missing != known).any(1).all()
    assert missing.mean() > 1.05 * known.mean()


@pytest.mark.parametrize("n_conditions", [0, 1])
def test_moments_of_the_start_are_over_what_is_there(n_conditions):
    """Means over the cells of a column, products over the rows that have both."""
    x = torch.from_numpy(np.hstack([np.where(HOLES, 0, X), ~HOLES]))
    c = torch.from_numpy(RNG.normal(size=(len(X), n_conditions)))
    coefficients, mean, covariance = _regression(x, c, lambda rows: rows.chunk(2, 1))
    table = np.column_stack([c, GIVEN])
    centred = table - np.nanmean(table, 0)
    products = np.nanmean(centred[:, :, None] * centred[:, None], 0)
    cc, cx = products[:n_conditions, :n_conditions], products[:n_conditions, n_conditions:]
    np.testing.assert_allclose(coefficients, np.linalg.solve(cc, cx), rtol=1e-6)  # the tiny ridge
    expected = np.nanmean(table, 0)
    np.testing.assert_allclose(
        mean, expected[n_conditions:] - expected[:n_conditions] @ coefficients.numpy(), rtol=1e-10
    )
    left = products[n_conditions:, n_conditions:] - cx.T @ coefficients.numpy()
    np.testing.assert_allclose(covariance, left, rtol=1e-6, atol=1e-12)


def test_pairs_that_contradict_each_other_leave_a_covariance():
    """Each two of three columns are opposite where both are there; a fourth is met by none."""
    value = torch.randn(60, generator=torch.Generator().manual_seed(0)).double()
    there = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1]]).double()
    signs = torch.tensor([[1, -1, 0, 0], [0, 1, -1, 0], [-1, 0, 1, 0], [0, 0, 0, 1]]).double()
    x = torch.cat((value[:, None] * signs.repeat(15, 1), there.repeat(15, 1)), 1)
    covariance = _regression(x, x[:, :0], lambda rows: rows.chunk(2, 1))[2]
    assert torch.linalg.eigvalsh(covariance)[0] > 0
    assert (covariance[3, :3] == 0).all()


@pytest.mark.parametrize("n_conditions", [0, 1])
def test_where_columns_lie_does_not_matter_to_a_start_of_many(n_conditions, monkeypatch):
    """A missing cell is one at the mean, given the condition."""
    monkeypatch.setattr("skvae._linear_start._MAX_COVARIANCE", 3)
    c = torch.from_numpy(np.random.default_rng(0).normal(size=(len(X), n_conditions)))

    def start(shift):
        x = torch.from_numpy(np.hstack([np.where(HOLES, 0, X + shift), ~HOLES]))
        return linear_model(
            x, c, 2, "feature", method="factor_analysis", floor=1e-6,
            generator=torch.Generator().manual_seed(0), read=lambda rows: rows.chunk(2, 1),
        )  # fmt: skip

    here, there = start(0), start(100)
    np.testing.assert_allclose(there.mean, here.mean + 100, rtol=1e-10)
    for shifted, plain in zip(there[2:], here[2:], strict=True):
        np.testing.assert_allclose(shifted, plain, atol=1e-8)  # digits that the shift takes


def test_what_is_learned_is_of_use():
    """Better than column means, than draws, and than a model of independent columns."""

    def error(completed):
        return np.mean(((completed - X) / X.std(0))[HOLES] ** 2)

    model = VAETransformer(2, random_state=0).fit(GIVEN)
    means = error(SimpleImputer().fit_transform(GIVEN))
    assert error(model.impute(GIVEN)) < 0.6 * means
    (drawn,) = model.sample_missing(GIVEN)
    assert error(model.impute(GIVEN)) < error(drawn) < 1.5 * means


def test_a_model_of_complete_rows_takes_holes_too():
    model = VAETransformer(2, random_state=0).fit(X)
    completed = model.impute(GIVEN)
    assert np.isfinite(completed).all()
    means = np.where(HOLES, X.mean(0), X)
    scale = X.std(0)
    assert (((completed - X) / scale) ** 2).sum() < 0.7 * (((means - X) / scale) ** 2).sum()


def test_partial_fit_takes_holes_at_any_time():
    model = VAETransformer(**SMALL)
    for rows in (slice(0, 100), slice(100, 200), slice(200, 300)):
        model.partial_fit(X[rows] if rows.start == 100 else GIVEN[rows])
    assert np.isfinite(model.score(GIVEN))
    later = VAETransformer(**SMALL).partial_fit(X[:150]).partial_fit(GIVEN[150:])
    assert np.isfinite(later.score(GIVEN))


def test_a_constant_column_with_holes():
    table = np.column_stack([GIVEN, np.where(HOLES[:, 0], np.nan, 5.0)])
    completed = VAETransformer(**SMALL).fit(table).impute(table)
    np.testing.assert_array_equal(completed[:, -1], 5.0)


def test_more_columns_than_a_covariance_is_made_of(monkeypatch):
    from skvae import _linear_start

    monkeypatch.setattr(_linear_start, "_MAX_COVARIANCE", 3)
    completed = VAETransformer(**SMALL).fit(GIVEN).impute(GIVEN)
    assert np.isfinite(completed).all()


# ------------------------------------------------------------------------------ tables


def frame(library=pd):
    rng = np.random.default_rng(1)
    group = rng.integers(0, 3, size=200)
    city = np.array(["Bern", "Oslo", "Rome"], dtype=object)[group]
    age = 20.0 + 15 * group + rng.normal(size=200)
    visits = rng.poisson(1 + 4 * group).astype(float)
    income = np.exp(group + 0.2 * rng.normal(size=200))
    holes = rng.random((200, 4)) < 0.25
    holes[:, 0] &= ~holes[:, 1:].all(1)
    columns = {
        "city": [None if h else c for c, h in zip(city, holes[:, 0], strict=True)],
        "age": [None if h else c for c, h in zip(age, holes[:, 1], strict=True)],
        "visits": [None if h else c for c, h in zip(visits, holes[:, 2], strict=True)],
        "income": [None if h else c for c, h in zip(income, holes[:, 3], strict=True)],
    }
    return library.DataFrame(columns), city, holes


LIKELIHOOD = {
    "categorical": ["city"], "gaussian": ["age"], "poisson": ["visits"], "lognormal": ["income"],
}  # fmt: skip


@pytest.fixture(scope="module", params=[pd, pl], ids=["pandas", "polars"])
def of_table(request):
    """A model of every family, and the library whose table it was fitted on."""
    table = frame(request.param)[0]
    return VAETransformer(2, likelihood=LIKELIHOOD, random_state=0).fit(table), request.param


def test_tables(of_table):
    model, library = of_table
    table, city, holes = frame(library)
    completed = model.impute(table)
    assert list(completed.columns) == list(table.columns)
    likeliest = np.array(completed["city"].to_list(), dtype=object)
    assert (likeliest[~holes[:, 0]] == city[~holes[:, 0]]).all()
    assert (likeliest[holes[:, 0]] == city[holes[:, 0]]).mean() > 0.8
    income = np.array(completed["income"].to_list(), dtype=float)
    assert (income > 0).all()
    (drawn,) = model.sample_missing(table, random_state=0)
    visits = np.array(drawn["visits"].to_list(), dtype=float)
    np.testing.assert_array_equal(visits, np.rint(visits))
    assert np.isfinite(model.score(table))
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.transform(table), model.transform(table))


def test_a_missing_cell_has_no_density(of_table):
    """The score of a table is that of its columns that are there, whatever their family."""
    model, library = of_table
    names = model.feature_names_in_.tolist()
    rows = {name: [None] * 3 for name in names}
    nothing = (
        pd.DataFrame(rows, dtype=object)
        if library is pd
        else pl.DataFrame(
            rows,
            schema=dict(zip(names, [pl.String, pl.Float64, pl.Float64, pl.Float64], strict=True)),
        )
    )
    # log 1 = 0; the encoder has hardly seen such rows, and makes the bound a little short.
    np.testing.assert_allclose(model.score_samples(nothing, n_draws=4096), 0, atol=0.3)
    two = nothing.assign(age=30.0) if library is pd else nothing.with_columns(age=pl.lit(30.0))
    marginal = model.sample(20_000, random_state=0)["age"].to_numpy()
    density = stats.gaussian_kde(marginal)(30.0)
    assert model.score_samples(two, n_draws=4096)[0] == pytest.approx(np.log(density)[0], abs=0.2)


@pytest.mark.parametrize("condition", ["given", "integrated out", "in columns"])
def test_conditional(condition):
    y = np.arange(300) % 2
    table = GIVEN + 5 * y[:, None]
    if condition == "in columns":
        table = np.column_stack([table, y])
        model = ConditionalVAE(condition_columns=[D], **SMALL).fit(table)
    else:
        model = ConditionalVAE(**SMALL).fit(table, y)
    given = {"condition": y} if condition == "given" else {}
    completed = model.impute(table, **given)
    assert completed.shape == table.shape
    there = ~np.isnan(table)
    np.testing.assert_array_equal(completed[there], table[there])
    copies = model.sample_missing(table, n_imputations=2, n_draws=64, random_state=0, **given)
    assert len(copies) == 2
    assert np.isfinite(copies).all()
    assert (copies[0] != copies[1]).any()
    if condition != "in columns":
        # Of the row of which nothing is known the label tells the level.
        low = model.impute(table[[1]], condition=[0]).mean()
        assert model.impute(table[[1]], condition=[1]).mean() > low + 3


# ------------------------------------------------------------------------------ errors


def test_a_column_of_which_nothing_is_known():
    table = GIVEN.copy()
    table[:, 2] = np.nan
    with pytest.raises(ValueError, match=r"X\[:, 2\] is missing in every row"):
        VAETransformer(**SMALL).fit(table)
    named = pd.DataFrame(table, columns=list("abcdef"))
    with pytest.raises(ValueError, match=r"column 'c'.* is missing in every row"):
        VAETransformer(**SMALL).fit(named)
    with pytest.raises(ValueError, match=r"column 'c'.* is missing in every row"):
        VAETransformer(likelihood="auto", **SMALL).fit(named)


def test_values_outside_of_a_support_beside_holes():
    table = np.where(HOLES, np.nan, RNG.poisson(3, size=X.shape) * 1.0)
    assert np.isfinite(VAETransformer(likelihood="poisson", **SMALL).fit(table).score(table))
    table[0, 1] = 1.5
    with pytest.raises(ValueError, match=r"X\[0, 1\] is 1.5"):
        VAETransformer(likelihood="poisson", **SMALL).fit(table)


# ---------------------------------------------------------------------------- VAEImputer

IMPUTER = VAEImputer(VAETransformer(**SMALL), random_state=0)


def test_imputer_completes_as_its_model_does():
    imputer = VAEImputer(VAETransformer(**SMALL), random_state=0).fit(GIVEN)
    expected = VAETransformer(**SMALL).fit(GIVEN).impute(GIVEN)
    np.testing.assert_array_equal(imputer.transform(GIVEN), expected)
    drawn = VAEImputer(VAETransformer(**SMALL), sample_posterior=True, random_state=0).fit(GIVEN)
    again = drawn.transform(GIVEN)
    assert (again[HOLES] != expected[HOLES]).all()
    np.testing.assert_array_equal(again, drawn.transform(GIVEN))


def test_imputer_default_serves():
    def error(imputer):
        return np.mean(((imputer.fit_transform(GIVEN) - X) / X.std(0))[HOLES] ** 2)

    assert error(VAEImputer(random_state=0)) < 0.6 * error(SimpleImputer())


@pytest.mark.parametrize("kind", ["pandas", "polars", "objects"])
def test_imputer_default_takes_categories(kind, monkeypatch):
    """Of strings there is no mean: "auto" then, and else the likelihood of numbers."""
    # The likelihood is chosen before the training, and cells are completed after any.
    monkeypatch.setattr(impute, "_DEFAULT", clone(impute._DEFAULT).set_params(max_iter=5))
    table = frame(pl if kind == "polars" else pd)[0]
    rows = table.to_numpy().astype(object) if kind == "objects" else table
    imputer = VAEImputer(random_state=0, n_draws=32).fit(rows)
    assert imputer.estimator_.likelihood == "auto"
    completed = np.asarray(imputer.transform(rows), dtype=object)
    assert not pd.isna(completed).any()
    assert set(completed[:, 0]) == {"Bern", "Oslo", "Rome"}
    numbers = rows[:, 1:] if kind == "objects" else rows[["age", "visits", "income"]]
    assert VAEImputer(random_state=0).fit(numbers).estimator_.likelihood == "gaussian"


def test_indicator_and_names():
    table = pd.DataFrame(np.where(HOLES & (np.arange(D) != 3), np.nan, X), columns=list("abcdef"))
    imputer = VAEImputer(VAETransformer(**SMALL), add_indicator=True).set_output(transform="pandas")
    completed = imputer.fit_transform(table)
    added = [f"missingindicator_{name}" for name in "abcef"]
    assert list(completed.columns) == [*"abcdef", *added]
    np.testing.assert_array_equal(completed[added], table[list("abcef")].isna())
    plain = VAEImputer(VAETransformer(**SMALL), add_indicator=True).fit(table.to_numpy())
    assert plain.transform(table.to_numpy()).shape == (300, 11)
    assert list(plain.get_feature_names_out())[-1] == "missingindicator_x5"


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_indicators_where_scikit_learn_gives_dataframes(library):
    """Its own indicator of missing cells does so, too."""
    table, *_ = frame(pl if library == "polars" else pd)
    model = VAETransformer(likelihood=LIKELIHOOD, **SMALL)
    for rows, estimator in ((table, model), (GIVEN, VAETransformer(**SMALL))):
        imputer = VAEImputer(estimator, add_indicator=True)
        expected = clone(imputer).set_output(transform=library).fit_transform(rows)
        with config_context(transform_output=library):
            completed = imputer.fit_transform(rows)
        assert list(completed.columns) == list(expected.columns)
        assert completed.equals(expected)


@pytest.mark.parametrize(
    "cells", [["a", None], np.array(["a", None], object), pd.Series(["a", None])]
)
def test_imputer_of_a_single_column_of_strings_without_a_table(cells):
    with pytest.raises(ValueError, match=r"2D array|2-dimensional|string to float"):
        VAEImputer().fit(cells)


@pytest.mark.parametrize("estimator", [None, VAETransformer(**SMALL)], ids=["default", "plain"])
def test_imputer_of_rows_that_are_not_there_yet(estimator):
    with pytest.raises(TypeError, match=r"LazyFrame.*collect"):
        VAEImputer(estimator).fit(pl.LazyFrame({"a": [1.0, None, 2.0]}))


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_imputer_of_tables(library):
    table, *_ = frame(library)
    model = VAETransformer(2, likelihood=LIKELIHOOD, max_iter=20, random_state=0)
    completed = VAEImputer(model, add_indicator=True).fit_transform(table)
    assert list(completed.columns) == [
        *table.columns, *(f"missingindicator_{name}" for name in table.columns)
    ]  # fmt: skip
    assert completed["city"].to_list().count(None) == 0


def test_imputer_refuses_a_condition_that_transform_could_not_do_without(monkeypatch):
    y = X[:, 0] + 0.5
    monkeypatch.setattr(_fitting, "_train", None)  # it is not come to that
    with pytest.raises(ValueError, match=r"labels.*condition_columns"):
        VAEImputer(ConditionalVAE(**SMALL)).fit(GIVEN, y)


def test_in_a_pipeline_and_a_search():
    y = X[:, 0] > X[:, 0].mean()
    pipe = make_pipeline(IMPUTER, LogisticRegression())
    grid = {"vaeimputer__estimator__n_components": [1, 2]}
    ours = GridSearchCV(pipe, grid, cv=3).fit(GIVEN, y)
    theirs = model_selection.GridSearchCV(pipe, grid, cv=3).fit(GIVEN, y)
    np.testing.assert_allclose(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], atol=0.02
    )
    assert ours.training_time_ > 0
