"""What users and reviewers have found: each as they met it."""

import copy
import gc
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn import model_selection
from sklearn.compose import make_column_transformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import ConditionalVAE, VAETransformer, _training
from skvae._base import N_DRAWS_LABELS
from skvae._families import families_of
from skvae._frames import read_columns
from skvae._linear_start import _positive
from skvae.impute import VAEImputer
from skvae.model_selection import GridSearchCV

# Three epochs are not to be the end of anything.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2)) @ RNG.normal(size=(2, 4)) + 0.3 * RNG.normal(size=(60, 4))
ANIMALS = np.array(["ant", "bee", "cow"])[np.arange(60) % 3]
SMALL = {"n_components": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
DATES = pd.to_datetime(["2020-01-01", "2020-01-02"] * 30)


# ------------------------------------------------------- what columns are taken for


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_taken_for_counts(seed):
    """Their variance is their mean but for chance, which decided before."""
    X = pd.DataFrame({"visits": np.random.default_rng(seed).poisson(2, 600)})
    assert families_of("auto", X, read_columns(X)) == ["negative_binomial"]


@pytest.mark.parametrize("values", [RNG.integers(1950, 2000, 600), RNG.integers(1, 6, 600)])
def test_years_and_grades_are_not(values):
    X = pd.DataFrame({"value": values})
    assert families_of("auto", X, read_columns(X)) == ["gaussian"]


def test_what_auto_found_is_told():
    X = pd.DataFrame({"n": RNG.poisson(4, 60), "x": RNG.normal(size=60), "animal": ANIMALS})
    model = VAETransformer(**SMALL, likelihood="auto").fit(X)
    assert model.likelihoods_ == ["negative_binomial", "gaussian", "categorical"]
    model = ConditionalVAE(**SMALL, condition_columns=[0]).fit(X[["n", "x"]])
    assert model.likelihoods_ == ["gaussian"]


def test_numbers_that_are_taken_for_labels():
    ages = RNG.integers(20, 80, len(X))
    with pytest.warns(UserWarning, match="'age' has .* different numbers in 60 rows"):
        ConditionalVAE(**SMALL).fit(X, condition=pd.DataFrame({"age": ages}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        ConditionalVAE(**SMALL).fit(X, condition=ages.astype(float))
        ConditionalVAE(**SMALL).fit(X, np.arange(60) % 20)


def test_one_condition_for_all_samples():
    model = ConditionalVAE(**SMALL).fit(X, ANIMALS)
    drawn = model.sample(5, condition=["bee"], random_state=1)
    np.testing.assert_array_equal(drawn, model.sample(condition=["bee"] * 5, random_state=1))


# -------------------------------------------------------------------- going on


@pytest.mark.parametrize("how", ["partial_fit", "warm_start"])
def test_what_goes_on_does_not_learn_its_noise(how):
    """With the noise of the last call again the bound is none, and the ELBO falls without end."""
    params = {"n_components": 2, "hidden_layer_sizes": (32,), "random_state": 0}
    whole = VAETransformer(**params, max_iter=300, early_stopping=False).fit(X)
    parts = VAETransformer(**params, max_iter=1, early_stopping=False, warm_start=True)
    for _ in range(300):
        parts = parts.fit(X) if how == "warm_start" else parts.partial_fit(X)
    assert parts.elbo(X)[0].mean() > whole.elbo(X)[0].mean() - 0.5


def test_going_on_keeps_what_auto_was():
    table = pd.DataFrame({"x": X[:, 0], "n": np.arange(60) % 20})
    model = VAETransformer(likelihood={"student_t": ["x"], "remainder": "auto"}, **SMALL)
    model.partial_fit(table).partial_fit(table[5:10])  # a few counts vary less than counts do


@pytest.mark.parametrize(
    ("before", "after"),
    [("gaussian", "auto"), ("auto", "gaussian"), ("gaussian", {"student_t": [0, 1, 2, 3]})],
)
def test_going_on_with_another_likelihood(before, after):
    model = VAETransformer(likelihood=before, **SMALL).partial_fit(X)
    with pytest.raises(ValueError, match="likelihood was"):
        model.set_params(likelihood=after).partial_fit(X)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("of", ["transformer", "conditional"])
def test_a_fit_that_fails_leaves_the_model(of, method):
    table = pd.DataFrame(X, columns=list("abcd"))
    model = VAETransformer(**SMALL) if of == "transformer" else ConditionalVAE(**SMALL)
    model.fit(table, ANIMALS)
    before = model.transform(table)
    with pytest.raises(ValueError, match=r"feature names|infinity"):
        getattr(model, method)(table[list("dcb")].assign(d=np.inf), ANIMALS)
    assert list(model.feature_names_in_) == list("abcd")
    np.testing.assert_array_equal(copy.deepcopy(model).transform(table), before)


# ---------------------------------------------------------------------- tables


def test_completed_rows_keep_their_index():
    table = pd.DataFrame({"a": X[:, 0], "k": ["p", "q"] * 30}).sample(frac=1, random_state=0)
    table.iloc[3, 0] = np.nan
    imputer = VAEImputer(VAETransformer(likelihood="auto", **SMALL))
    completed = imputer.fit_transform(table)
    pd.testing.assert_series_equal(completed["a"].drop(table.index[3]), table["a"].dropna())
    assert imputer.estimator_.sample_missing(table)[0].index.equals(table.index)
    beside = make_column_transformer((imputer, ["k"]), (StandardScaler(), ["a"]))
    assert beside.set_output(transform="pandas").fit_transform(table[:50]).shape == (50, 2)
    features = imputer.estimator_.set_output(transform="pandas").transform(table)
    assert imputer.estimator_.inverse_transform(features).index.equals(table.index)


@pytest.mark.parametrize("dtype", ["int64", "Int64"])
def test_large_integers_stay_what_they_are(dtype):
    times = pd.date_range("2024", periods=60, freq="37min").as_unit("ns").astype("int64")
    table = pd.DataFrame({"k": ANIMALS, "t": pd.Series(times + np.arange(60), dtype=dtype)})
    table.loc[0, "k"] = None
    if dtype == "Int64":
        table.loc[1, "t"] = pd.NA
    model = VAETransformer(likelihood="auto", **SMALL).fit(table)
    (drawn,) = model.sample_missing(table)
    assert (drawn["t"] == table["t"]).drop(1).all()


def test_counts_that_are_strings():
    X = pd.DataFrame({"count": RNG.poisson(5, 60), "size": RNG.normal(size=60)})
    likelihood = {"poisson": ["count"], "gaussian": ["size"]}
    model = VAETransformer(**SMALL, likelihood=likelihood).fit(X)
    rows = X.astype(object).head(3)
    rows.iloc[0, 0], rows.iloc[1, 0], rows.iloc[2, 0] = "3.0", None, 2.0
    [drawn] = model.sample_missing(rows, 1)
    assert drawn["count"].tolist()[::2] == [3, 2]


def test_new_categories_that_are_numbers_are_filled():
    table = pd.DataFrame({"h": np.array([10, 20, 40])[np.arange(60) % 3], "x": X[:, 0]})
    likelihood = {"categorical": ["h"], "remainder": "auto"}
    model = VAETransformer(likelihood=likelihood, handle_unknown="missing", **SMALL).fit(table)
    table.loc[0, "h"] = 41
    assert model.impute(table)["h"].isin([10, 20, 40]).all()


def test_dates_are_categories_if_named():
    table = pd.DataFrame({"d": DATES.as_unit("ns"), "x": X[:, 0]})
    likelihood = {"categorical": ["d"], "remainder": "auto"}
    model = VAETransformer(likelihood=likelihood, **SMALL).fit(table)
    assert model.sample(5)["d"].isin(DATES).all()


def test_a_category_that_is_a_date_may_be_missing():
    table = pd.DataFrame({"x": X[:, 0], "d": pd.Categorical(DATES.where(np.arange(60) != 4))})
    model = VAETransformer(likelihood="auto", **SMALL).fit(table)
    assert model.impute(table)["d"].notna().all()


def test_rows_too_far_out_are_no_ones_else_concern():
    rows = X[:3].astype(np.float32)
    model = VAETransformer(**SMALL).fit(X.astype(np.float32))
    labelled = ConditionalVAE(**SMALL).fit(X.astype(np.float32), ANIMALS)
    expected = model.impute(np.where(np.eye(3, 4) > 0, np.nan, rows).astype(np.float32))
    rows[np.eye(3, 4) > 0] = np.nan
    rows[1, 3] = 1e20
    completed = model.impute(rows)
    np.testing.assert_allclose(completed[[0, 2]], expected[[0, 2]], rtol=1e-5)
    assert np.isfinite(completed).all()
    assert np.isfinite(model.sample_missing(rows)).all()
    assert np.isfinite(labelled.transform(rows)).all()
    scores = model.score_samples(rows)
    assert np.isfinite(scores[[0, 2]]).all()
    assert scores[1] == -np.inf


def test_strings_of_numpy():
    strings = ANIMALS.astype(np.dtypes.StringDType())[:, None].repeat(2, 1)
    sample = VAETransformer(likelihood="auto", **SMALL).fit(strings).sample(3)
    assert set(sample.ravel()) <= set(ANIMALS)


@pytest.mark.parametrize(
    ("table", "words"),
    [(pd.DataFrame({"a": [[1], [2], [3]]}), "no category"),
     (pd.DataFrame(index=range(5)), r"0 feature\(s\)")],
    ids=["lists", "no columns"],
)  # fmt: skip
def test_tables_that_cannot_be(table, words):
    with pytest.raises(ValueError, match=words):
        VAETransformer(likelihood="auto", **SMALL).fit(table)


@pytest.mark.filterwarnings("error")
def test_constant_columns_alone_are_no_failure():
    VAETransformer(2).fit(np.ones((60, 3)))


# ------------------------------------------------------------------ conditions


def test_a_label_that_is_no_time():
    with pytest.raises(ValueError, match="missing"):
        ConditionalVAE(**SMALL).fit(X, condition=DATES.where(np.arange(60) != 4))


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_dates_are_labels_in_any_unit(unit):
    model = ConditionalVAE(**SMALL).fit(X, condition=DATES.as_unit(unit))
    expected = model.sample(condition=DATES[:1])
    for same in (DATES[:1].as_unit("ns"), [DATES[0]], np.array(["2020-01-01"], "datetime64[D]")):
        np.testing.assert_array_equal(model.sample(condition=same), expected)


def test_a_date_is_no_number():
    model = ConditionalVAE(**SMALL).fit(X, condition=X[:, 0])
    with pytest.raises(ValueError, match="column of numbers"):
        model.sample(condition=DATES[:1])


def test_a_target_of_several_columns_scores():
    target = pd.DataFrame({"p": ANIMALS, "q": np.arange(60) % 2})
    model = ConditionalVAE(**SMALL).fit(X, target)
    assert model.score(X, target[["q", "p"]]) == model.score(X, target)
    assert np.isfinite(model_selection.cross_val_score(model, X, target, cv=2)).all()


@pytest.mark.parametrize(("columns", "words"), [(["0"], "not a column"), ([], "empty list")])
def test_condition_columns_that_name_none(columns, words):
    table = pd.DataFrame(np.c_[np.arange(60) % 2, X])
    with pytest.raises(ValueError, match=words):
        ConditionalVAE(condition_columns=columns, **SMALL).fit(table, ANIMALS)


def test_a_condition_without_rows():
    with pytest.raises(ValueError, match="no rows"):
        ConditionalVAE(**SMALL).fit(X, ANIMALS).sample(condition=ANIMALS[:0])


def test_labels_integrated_out_are_a_mixture():
    """One at a time gives what all at once would."""
    model = ConditionalVAE(**SMALL).fit(X, ANIMALS)
    mean, std = model.posterior(X)
    shares = model.condition_proba(X, n_draws=N_DRAWS_LABELS).T[:, :, None]
    each = [model.posterior(X, condition=np.full(60, name)) for name in model.classes_]
    loc, scale = (np.stack(part) for part in zip(*each, strict=True))
    np.testing.assert_allclose(mean, (shares * loc).sum(0), rtol=1e-10)
    variance = (shares * (scale**2 + (loc - mean) ** 2)).sum(0)
    np.testing.assert_allclose(std, np.sqrt(variance), rtol=1e-10)


# -------------------------------------------------------------------- numerics


def test_a_start_with_holes_is_a_model():
    """Pairwise moments have negative eigenvalues here; factor analysis took them for precision."""
    rng = np.random.default_rng(0)
    full = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 40)) + 0.5 * rng.normal(size=(400, 40))
    holed = np.where(rng.random(full.shape) < 0.3, np.nan, full)
    linear = VAETransformer(8, hidden_layer_sizes=(), random_state=0).fit(holed)
    independent = -0.5 * np.log(2 * np.pi * np.e * np.nanvar(holed, 0)).sum() * 0.7
    assert linear.score(holed) > independent


def test_the_nearest_covariance():
    indefinite = torch.tensor([[4.0, 3.9, -3.9], [3.9, 4.0, 3.9], [-3.9, 3.9, 4.0]]).double()
    found = _positive(indefinite)
    assert torch.linalg.eigvalsh(found).min() > 0
    torch.testing.assert_close(found.diagonal(), indefinite.diagonal())
    fine = torch.eye(3).double() + 0.5
    assert _positive(fine) is fine


def test_exposures_have_the_mean_total():
    totals = np.random.default_rng(0).lognormal(3, 1.5, 5000).round() + 1
    counts = np.stack([totals, totals], 1)
    model = VAETransformer(likelihood="poisson", exposure="total", **SMALL).fit(counts)
    np.testing.assert_allclose(model._fitted.columns.totals.mean(), 2 * totals.mean())


@pytest.mark.parametrize("likelihood", ["gaussian", "poisson"])
def test_autocast_and_default_device_change_nothing(likelihood):
    rows = np.abs(X).round().astype(np.float32)
    rows[0, 0] = np.nan

    def answers():
        model = VAETransformer(likelihood=likelihood, **SMALL).fit(rows)
        return model.transform(rows), model.score_samples(rows), model.sample(3)

    expected = answers()
    with torch.autocast("cpu", torch.bfloat16):
        inside = answers()
    with torch.device("meta"):
        elsewhere = answers()
    for found in (inside, elsewhere):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------------- memory


def test_a_batch_that_is_over_leaves_no_memory(monkeypatch):
    """Without the help of the garbage collector."""
    alive, init = [], _training._Group.__init__

    def counted(self, *args):
        alive.append(sum(type(one) is _training._Group for one in gc.get_objects()))
        init(self, *args)

    monkeypatch.setattr(_training._Group, "__init__", counted)
    gc.collect()
    gc.disable()
    try:
        VAETransformer(**SMALL, n_init=3, init="random").fit(X)
        VAETransformer(**SMALL).fit(X)
    finally:
        gc.enable()
    assert max(alive) <= 1  # itself


# -------------------------------------------------------------------- searches


def test_columns_of_other_names_in_a_search():
    """Equal numbers are trained once; the names are those of each candidate."""
    table = pd.DataFrame(X, columns=list("abcd"))
    scaled = make_column_transformer((StandardScaler(), ["a", "b"]), remainder="passthrough")
    pipeline = make_pipeline(scaled.set_output(transform="pandas"), VAETransformer(**SMALL))
    grid = {"columntransformer__verbose_feature_names_out": [True, False]}
    scores = [
        search(pipeline, grid, cv=2).fit(table).cv_results_["mean_test_score"]
        for search in (GridSearchCV, model_selection.GridSearchCV)
    ]
    assert np.isfinite(scores[0]).all()
    np.testing.assert_allclose(*scores, rtol=1e-6)


# -------------------------------------------------------------------- pictures


def test_reconstructions_of_sparse_rows():
    pytest.importorskip("matplotlib").use("Agg")
    from skvae.plotting import ReconstructionDisplay

    counts = np.abs(X).round()
    model = VAETransformer(likelihood="poisson", **SMALL).fit(counts)
    display = ReconstructionDisplay.from_estimator(model, csr_array(counts))
    np.testing.assert_array_equal(display.X, counts[: len(display.X)])
