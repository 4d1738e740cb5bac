"""What users and reviewers have found: each as they met it."""

import copy
import gc
import pickle
import re
import threading
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.sparse import csr_array
from sklearn import config_context, model_selection
from sklearn.compose import make_column_transformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import ConditionalVAE, VAETransformer, _fitting, _threads, _training
from skvae._answers import N_DRAWS_LABELS
from skvae._families import resolve_likelihoods
from skvae._frames import read_columns
from skvae._inference import normalised
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
    assert resolve_likelihoods("auto", X, read_columns(X)) == ["negative_binomial"]


@pytest.mark.parametrize("values", [RNG.integers(1950, 2000, 600), RNG.integers(1, 6, 600)])
def test_years_and_grades_are_not(values):
    X = pd.DataFrame({"value": values})
    assert resolve_likelihoods("auto", X, read_columns(X)) == ["gaussian"]


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
        ConditionalVAE(**SMALL).fit(X, condition=pd.Categorical(np.arange(60) % 30))


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
    [(pd.DataFrame({"a": [[1], [2], [3]]}), "no category: a list"),
     (pd.DataFrame({"a": [np.ones(2)] * 3}), "no category: a ndarray"),
     (pd.DataFrame(index=range(5)), r"0 feature\(s\)")],
    ids=["lists", "arrays", "no columns"],
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
    answers = model._answers
    vae, x, _ = answers._asked(X, None)
    joint = answers._log_joint(vae, x, N_DRAWS_LABELS, only_holes=True)  # as in ONNX
    shares = normalised(joint, 1).cpu().numpy().T[:, :, None]
    each = [model.posterior(X, condition=np.full(60, name)) for name in model.classes_]
    loc, scale = (np.stack(part) for part in zip(*each, strict=True))
    np.testing.assert_allclose(mean, (shares * loc).sum(0), rtol=1e-10)
    variance = (shares * (scale**2 + (loc - mean) ** 2)).sum(0)
    np.testing.assert_allclose(std, np.sqrt(variance), rtol=1e-10)
    np.testing.assert_allclose(shares[..., 0].T, model.condition_proba(X), atol=0.05)


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
    np.testing.assert_allclose(model._fitted.codec.totals.mean(), 2 * totals.mean())


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


# ------------------------------------------------------------ where a condition is


@pytest.mark.parametrize("day", [20240101, 2**53 + 1])
def test_labels_in_columns_stay_what_they_are(day):
    table = pd.DataFrame(X.astype(np.float32), columns=list("abcd"))
    table["day"] = day + np.arange(60) % 3
    model = ConditionalVAE(**SMALL, condition_columns=["day"]).fit(table)
    for rows in (model.impute(table), model.sample(condition=table["day"])):
        assert list(map(int, rows[:, 4])) == table["day"].tolist()


def test_condition_columns_belong_to_the_fit():
    table = np.column_stack([X, np.arange(60) % 3])
    model = ConditionalVAE(**SMALL, condition_columns=[4]).fit(table)
    score = model.score(table)
    model.set_params(condition_columns=[0])
    assert model.score(table) == score
    assert model.sample(condition=table[:3, 4]).shape == (3, 5)
    for going_on in (model.partial_fit, model.set_params(warm_start=True).fit):
        with pytest.raises(ValueError, match=r"condition_columns was \[4\] and is \[0\]"):
            going_on(table)
    for same in ([-1], np.array([4]), pd.Index([4])):
        model.set_params(condition_columns=same).partial_fit(table)


def test_rows_without_names_go_by_position():
    table = pd.DataFrame(X, columns=list("abcd")).assign(animal=np.arange(60) % 3)
    model = ConditionalVAE(**SMALL, condition_columns=["animal"]).fit(table)
    with pytest.warns(UserWarning, match="feature names"):
        score = model.score(table.to_numpy())
    assert score == pytest.approx(model.score(table))


@pytest.mark.parametrize(
    "y",
    [["a", 1] * 30, np.array(["a", 1] * 30, object), [("a", 0), ("b", 1)] * 30],
    ids=["list", "objects", "pairs"],
)
def test_labels_of_several_types_score(y):
    model = ConditionalVAE(**SMALL).fit(X, y)
    assert np.isfinite(model.score(X, y))


@pytest.mark.parametrize("where", ["keyword", "columns", "target"])
def test_categories_that_are_floats_are_labels(where):
    dose = pd.Series(pd.Categorical([0.0, 0.5] * 30), name="dose")
    model = ConditionalVAE(**SMALL)
    if where == "target":
        model.fit(X, dose)
    elif where == "keyword":
        model.fit(X, condition=dose)
    else:
        model.set_params(condition_columns=["dose"])
        model.fit(pd.DataFrame(X, columns=list("abcd")).assign(dose=dose))
    np.testing.assert_array_equal(model.classes_, [0, 0.5])


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_numbers_of_any_size_are_conditions(scale):
    age = RNG.normal(size=60)
    plain, scaled = (
        ConditionalVAE(**SMALL).fit(X, condition=values) for values in (age, age * scale)
    )
    given = plain.score(X, condition=age), scaled.score(X, condition=age * scale)
    assert given[0] == pytest.approx(given[1])


# --------------------------------------------------------------- columns of any kind


def test_numbers_in_any_byte_order():
    swapped = X.astype(X.dtype.newbyteorder())
    model = VAETransformer(**SMALL, likelihood="auto").fit(swapped)
    np.testing.assert_allclose(model.transform(swapped), model.transform(X))


@pytest.mark.parametrize("dtype", [">f8", ">f4", ">i4", "longdouble"])
@pytest.mark.parametrize("to_table", [np.asarray, pd.DataFrame])
def test_numbers_that_torch_has_not(dtype, to_table):
    """As instruments and files give them: in X, and in a condition that is written back."""
    numbers = 10 * X
    numbers[:, 0] = np.arange(60) % 3  # labels, if they are integers
    table = to_table(numbers.astype(dtype))
    assert VAETransformer(**SMALL).fit(table).transform(table).shape == (60, 2)
    model = ConditionalVAE(condition_columns=[0], **SMALL).fit(table)
    np.testing.assert_allclose(model.impute(table), np.asarray(table), rtol=1e-6)
    given = np.asarray(table)[:3, 0]
    np.testing.assert_allclose(np.asarray(model.sample(condition=given))[:, 0], given)


def test_sparse_columns_of_pandas():
    table = pd.DataFrame(X, columns=list("abcd"))
    sparse = table.astype({"a": pd.SparseDtype(float, np.nan)})
    model = VAETransformer(**SMALL, likelihood="auto").fit(sparse)
    np.testing.assert_allclose(model.transform(sparse), model.transform(table))


def test_indicators_do_not_hide_a_column():
    table = pd.DataFrame({"a": np.where(RNG.random(60) < 0.2, np.nan, X[:, 0]), "b": X[:, 1]})
    table["missingindicator_a"] = X[:, 2]
    imputer = VAEImputer(VAETransformer(**SMALL, likelihood="auto"), add_indicator=True)
    with pytest.raises(ValueError, match=r"'missingindicator_a'.*Rename"):
        imputer.fit(table).transform(table)


# ---------------------------------------------------------------------- in a search


def test_vaes_in_lists_are_trained_together(monkeypatch):
    """And those of a search inside of the search."""
    n_batches = []
    train = _fitting._fit_pack

    def counted(jobs, how):
        n_batches.append(len(jobs))
        return train(jobs, how)

    monkeypatch.setattr(_fitting, "_fit_pack", counted)
    y, last = np.arange(60) % 3, ("last", LogisticRegression())
    steps = [[("vae", VAETransformer(**{**SMALL, "n_components": n})), last] for n in (1, 2)]
    GridSearchCV(Pipeline(steps[0]), {"steps": steps}, cv=3).fit(X, y)
    assert (len(n_batches), sum(n_batches)) == (2, 7)  # one of all folds, and the refit

    n_batches.clear()
    inner = GridSearchCV(Pipeline(steps[0]), {"vae__n_components": [1, 2]}, cv=2)
    outer = GridSearchCV(inner, {"estimator__vae__beta": [0.5, 1.0]}, cv=3).fit(X, y)
    # Of six searches all folds, half of which have the same rows; what these fit again; and
    # the folds of the last search, and its best.
    assert n_batches == [12, 6, 4, 1]
    expected = model_selection.GridSearchCV(inner, {"estimator__vae__beta": [0.5, 1.0]}, cv=3)
    np.testing.assert_allclose(
        outer.cv_results_["mean_test_score"], expected.fit(X, y).cv_results_["mean_test_score"]
    )


def test_callbacks_hear_the_end_of_all_that_begins():
    heard = []

    class Listener:
        def setup(self, estimator, context): ...

        def on_fit_task_begin(self, *args, **kwargs):
            heard.append("begin")

        def on_fit_task_end(self, *args, **kwargs):
            heard.append("end")

        def teardown(self, estimator, context): ...

    vae = VAETransformer(**SMALL).set_callbacks(Listener())
    GridSearchCV(vae, {"n_components": [1, 2]}, cv=2).fit(X)
    assert heard
    assert heard.count("begin") == heard.count("end")


@pytest.mark.skipif(not _threads._mkl(), reason="torch without MKL")
def test_one_thread_is_one_for_products_as_well():
    """Also where the user has told torch of two, which then waited for each other."""
    before, found = torch.get_num_threads(), {}
    torch.set_num_threads(2)

    def mkl_threads():
        return re.search(r"mkl_get_max_threads\(\) : (\d+)", torch.__config__.parallel_info())[1]

    def of_another():
        found["mkl"], found["torch"] = mkl_threads(), torch.get_num_threads()

    try:
        with _threads.one_thread():
            assert mkl_threads() == "1"
            other = threading.Thread(target=of_another)
            other.start()
            other.join()
        assert mkl_threads() == "2"
        assert found == {"mkl": "2", "torch": 2}  # nobody else is told
    finally:
        torch.set_num_threads(before)


def test_rows_too_far_out_for_a_step_are_imputed():
    """The encoder puts them so far out that no change of z is seen there."""
    rng = np.random.default_rng(2)
    table = (rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6))).astype(np.float32)
    given = np.where(rng.random(table.shape) < 0.2, np.nan, table).astype(np.float32)
    model = VAETransformer(**{**SMALL, "n_components": 7, "hidden_layer_sizes": (16,)}).fit(given)
    row = table[:1].copy()
    row[0, 3] = np.nan
    for far in (1e9, 1e11, 1e12, 1e13, 1e15):
        row[0, :2] = far, -far
        assert np.isfinite(model.impute(row)).all()


def test_numbers_in_columns_leave_the_dtype():
    table = np.column_stack([RNG.random(60), X]).astype(np.float32)
    model = ConditionalVAE(**SMALL, condition_columns=[0]).fit(table)
    assert model.sample(condition=[0.1]).dtype == np.float32


# ---------------------------------------------------------- the life of a model


@pytest.mark.parametrize("options", [{}, {"init": "random"}, {"noise_variance": "shared"}])
@pytest.mark.parametrize("n_known", [1, 3])
def test_a_column_that_validation_rows_alone_know(options, n_known):
    """Was no number in the start, and so the whole model was none."""
    table = np.random.default_rng(0).normal(size=(100, 4))
    held_out = np.random.RandomState(0).permutation(100)[:10]
    table[:, 3] = np.nan
    table[held_out[:n_known], 3] = np.arange(n_known)
    model = VAETransformer(**SMALL | options).fit(table)
    assert len(model.validation_scores_) == 3
    assert np.isfinite(model.score(table))
    assert np.isfinite(model.impute(table)).all()


@pytest.mark.parametrize(
    "parameters",
    [{"batch_size": -5}, {"n_importance_samples": 0}, {"beta": -1.0}, {"learning_rate": "foo"}],
)
@pytest.mark.parametrize("estimator", [VAETransformer, ConditionalVAE])
def test_parameters_are_checked_when_a_model_goes_on(estimator, parameters):
    """A negative batch never returned."""
    model = estimator(**SMALL).partial_fit(X, ANIMALS).set_params(**parameters)
    with pytest.raises(ValueError, match=next(iter(parameters))):
        model.partial_fit(X, ANIMALS)


def test_a_constant_column_that_varies_later_is_told():
    first = np.column_stack([X, np.zeros(60)])
    later = np.column_stack([X, np.arange(60.0)])
    frame = pd.DataFrame(later, columns=list("abcde"))
    model = VAETransformer(**SMALL).partial_fit(first)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.partial_fit(first)
        tenths = np.column_stack([X, np.full(60, 0.1)])
        VAETransformer(**SMALL).partial_fit(tenths.astype(np.float32)).partial_fit(tenths)
    with pytest.warns(UserWarning, match=r"X\[:, 4\] had one value") as caught:
        model.partial_fit(later)
    assert caught[0].filename == __file__
    model = VAETransformer(**SMALL, warm_start=True).fit(frame.assign(e=0.0))
    with pytest.warns(UserWarning, match="column 'e'"):
        model.fit(frame)


@pytest.mark.parametrize("missing", [pd.NA, pd.NaT, None])
def test_all_that_is_missing_among_objects(missing):
    known = pd.DataFrame({"a": [1.0, 2.0, np.nan, 4.0] * 15, "b": RNG.normal(size=60)})
    given = known.astype({"a": object})
    given["a"] = given["a"].where(known["a"].notna(), missing)
    expected = VAETransformer(**SMALL).fit(known).transform(known)
    for table in (given, given.to_numpy()):
        model = VAETransformer(**SMALL).fit(table)
        np.testing.assert_allclose(model.transform(table), expected, rtol=1e-10, atol=1e-12)
        assert np.isfinite(np.asarray(model.impute(table), dtype=float)).all()
    completed = VAEImputer(VAETransformer(**SMALL)).fit_transform(given)
    assert np.isfinite(np.asarray(completed, dtype=float)).all()
    assert given["a"][2] is missing


def test_what_is_masked_is_missing():
    masked = np.ma.array(np.where(X > 1, -999.0, X), mask=X > 1)
    model = VAETransformer(**SMALL).fit(masked)
    np.testing.assert_array_equal(model.transform(masked), model.transform(masked.filled(np.nan)))
    assert (model.impute(masked) > -100).all()
    whole = np.ma.array(np.arange(240).reshape(60, 4), mask=X > 1)
    assert np.isfinite(VAETransformer(**SMALL).fit(whole).impute(whole)).all()
    completed = VAEImputer(VAETransformer(**SMALL), add_indicator=True).fit_transform(whole)
    assert completed.shape[1] == 4 + (X > 1).any(0).sum()


@pytest.mark.parametrize("dtype", [object, str])
def test_masked_strings_are_missing(dtype):
    mask = np.zeros((60, 2), bool)
    mask[3, 0] = True
    table = np.ma.array(np.array([["x", "p"]] * 30 + [["y", "q"]] * 30, dtype), mask=mask)
    model = VAETransformer(**SMALL, likelihood="auto").fit(table)
    assert model.impute(table)[3, 0] in ("x", "y")
    assert set(model.sample(50)[:, 0]) <= {"x", "y"}


def test_a_field_of_records():
    records = np.zeros(60, dtype=[("tag", "u1"), ("values", "f8", (4,))])
    records["values"] = X
    model = VAETransformer(**SMALL).fit(records["values"])
    np.testing.assert_array_equal(model.transform(records["values"]), model.transform(X))


def test_tables_that_no_likelihood_is_for():
    intervals = pd.DataFrame({"a": pd.interval_range(0, 4).repeat(15), "b": RNG.normal(size=60)})
    with pytest.raises(ValueError, match=r"dtype interval\[.*Drop the column"):
        VAETransformer(**SMALL, likelihood="auto").fit(intervals)
    with pytest.raises(ValueError, match=r"dense X: X.toarray\(\)"):
        VAETransformer(**SMALL).fit(csr_array(np.where(X > 1, np.nan, X)))
    with pytest.raises(ValueError, match="float64 cannot hold"):
        VAETransformer(**SMALL).fit(np.vstack([X, [[1.7e308, 0, 0, 0], [-1.7e308, 0, 0, 0]]]))
    with pytest.raises(ValueError, match=r"counts up to 1\.18e\+16"):
        VAETransformer(**SMALL, likelihood="poisson").fit(1e14 * np.arange(2 * 60).reshape(60, 2))
    with pytest.raises(TypeError, match=r"X.collect\(\)"):
        VAETransformer(**SMALL).fit(pl.DataFrame(X).lazy())


@pytest.mark.parametrize(
    ("likelihood", "words"),
    [
        ({"poisson": None, "remainder": "auto"}, "none of X"),
        ([("remainder", "auto"), ("remainder", "gaussian")], "'remainder' twice"),
    ],
)
def test_likelihoods_that_name_nothing_or_all_twice(likelihood, words):
    table = pd.DataFrame(RNG.poisson(3, (60, 2)), columns=["a", "b"])
    with pytest.raises(ValueError, match=words):
        VAETransformer(**SMALL, likelihood=likelihood).fit(table)
    chosen = {"poisson": {"a"}, "remainder": "gaussian"}
    model = VAETransformer(**SMALL, likelihood=chosen).fit(table)
    assert model.likelihoods_ == ["poisson", "gaussian"]


def test_a_fit_that_fails_at_its_end_leaves_the_model_before(monkeypatch):
    from skvae._codec import ColumnCodec

    model = VAETransformer(**SMALL).fit(X)
    before = model.transform(X)

    def fails(self, encoded):
        raise MemoryError

    model.set_params(n_components=3)
    with monkeypatch.context() as patch:
        patch.setattr(ColumnCodec, "mean_log_jacobian", fails)
        with pytest.raises(MemoryError):
            model.fit(X[:, :3])
    np.testing.assert_array_equal(model.transform(X), before)
    assert len(model.kl_per_component_) == 2


def test_where_the_condition_came_from_first_decides():
    """partial_fit with condition= made score(X, y) pass over y."""
    model = ConditionalVAE(**SMALL).fit(X, ANIMALS)
    model.partial_fit(X, condition=ANIMALS)
    assert model.score(X, ANIMALS) == model.score(X, condition=ANIMALS)
    model = ConditionalVAE(**SMALL).fit(X, condition=ANIMALS)
    model.partial_fit(X, ANIMALS)
    assert model.score(X, ANIMALS) == model.score(X)


def test_verbose_prints_what_the_history_holds(capsys):
    """The Jacobian of a lognormal is not the same for all rows."""
    model = VAETransformer(
        2, likelihood="lognormal", init="pca", max_iter=10, verbose=True, random_state=0
    ).fit(np.exp(X))
    printed = re.findall(r"validation bound (\S+) nats", capsys.readouterr().out)
    assert float(printed[-1]) == pytest.approx(model.best_validation_score_, abs=1e-3)


@pytest.mark.parametrize("method", ["partial_fit", "posterior", "score_samples"])
def test_errors_name_the_method_that_was_called(method):
    model = VAETransformer(**SMALL).fit(X)
    with config_context(array_api_dispatch=True), pytest.raises(ValueError, match=method):
        getattr(model, method)(torch.from_numpy(X))


def test_weights_in_another_dtype_are_those_of_the_last_fit():
    """They are kept from call to call, but in no file."""
    model = VAETransformer(**SMALL).fit(X.astype(np.float32))
    before = pickle.dumps(model)
    first = model.transform(X)
    assert pickle.dumps(model) == before
    np.testing.assert_allclose(first, model.transform(X.astype(np.float32)), atol=1e-5)
    for go_on in (model.partial_fit, model.fit):
        go_on(X[:30].astype(np.float32))
        now = model.transform(X)
        assert np.abs(now - first).max() > 1e-3
        np.testing.assert_allclose(now, model.transform(X.astype(np.float32)), atol=1e-5)
