"""Bad input: an error names the value, the place, the rule and the remedy."""

import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from skvae import ConditionalVAE, VAETransformer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"n_components": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
N, D = 40, 4
X = np.random.default_rng(0).normal(size=(N, D)) @ np.random.default_rng(1).normal(size=(D, D))
Y = np.array(["ant", "bee"])[np.arange(N) % 2]
NUMBERS = np.linspace(0.0, 1.0, N)


@pytest.fixture(scope="module")
def vae():
    return VAETransformer(**SMALL).fit(X)


@pytest.fixture(scope="module")
def cvae():
    return ConditionalVAE(**SMALL).fit(X, condition=Y)


@pytest.fixture(scope="module")
def number_vae():
    return ConditionalVAE(**SMALL).fit(X, condition=NUMBERS)


def says(words, call, *args, error=ValueError, **kwargs):
    """The call fails, and its message holds every one of the words."""
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"


def with_value(value, row=3, column=2):
    bad = X.copy()
    bad[row, column] = value
    return bad


# ------------------------------------------------------------------------------------ X


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("method", ["fit", "partial_fit", "fit_transform"])
def test_infinity_is_refused_in_fit(value, method):
    """Infinities are an error of X; NaN is a cell that is missing."""
    says(["X", "infinity"], getattr(VAETransformer(**SMALL), method), with_value(value))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize(
    "method",
    ["transform", "posterior", "score_samples", "score", "elbo", "effective_sample_size",
     "marginal_kl"],
)  # fmt: skip
def test_infinity_is_refused_later(vae, cvae, value, method):
    """The same rule in every method that takes X, with and without a condition."""
    says(["X", "infinity"], getattr(vae, method), with_value(value))
    says(["X", "infinity"], getattr(cvae, method), with_value(value))


@pytest.mark.parametrize("method", ["transform", "posterior", "score_samples", "score", "elbo"])
@pytest.mark.parametrize("width", [D - 1, D + 1])
def test_wrong_width(vae, cvae, method, width):
    """The message tells both widths."""
    wide = np.zeros((5, width))
    says([f"{width} features", f"expecting {D} features"], getattr(vae, method), wide)
    says([f"{width} features", f"expecting {D} features"], getattr(cvae, method), wide)


def test_wrong_width_of_a_later_partial_fit(vae):
    model = VAETransformer(**SMALL).partial_fit(X)
    says(["3 features", "4 features"], model.partial_fit, X[:, :3])


@pytest.mark.parametrize("width", [1, 3])
def test_wrong_width_of_components(vae, cvae, width):
    """Z is counted against n_components."""
    words = [f"Z has {width} columns", "n_components=2"]
    says(words, vae.inverse_transform, np.zeros((5, width)))
    says(words, cvae.inverse_transform, np.zeros((5, width)))


def test_nan_in_components(vae):
    says(["Z", "NaN"], vae.inverse_transform, np.full((2, 2), np.nan))


@pytest.mark.parametrize("value", [1.5, -0.25])
@pytest.mark.parametrize("estimator", [VAETransformer, ConditionalVAE])
def test_outside_the_support_of_bernoulli(estimator, value):
    """Row, column, value, rule and remedy, in fit and after."""
    bits = (X > 0).astype(float)
    bad = bits.copy()
    bad[7, 1] = value
    words = ["bernoulli", "[0, 1]", "X[7, 1]", f"{value:g}", "MinMaxScaler", "gaussian"]
    model = estimator(likelihood="bernoulli", **SMALL)
    says(words, model.fit, bad, Y)
    model.fit(bits, Y)
    for method in ("transform", "score_samples", "elbo"):
        says(words, getattr(model, method), bad)
    says(words, estimator(likelihood="bernoulli", **SMALL).partial_fit, bad, Y)


def test_outside_of_a_support_by_a_rounding():
    """MinMaxScaler leaves its range so: the message must not say that 1 is not in [0, 1]."""
    bits = (X > 0).astype(float)
    bits[7, 1] = np.nextafter(1.0, 2.0)
    model = VAETransformer(likelihood="bernoulli", **SMALL)
    says(["X[7, 1]", "is 1.0000000000000002.", "clip=True"], model.fit, bits)
    single = bits.astype(np.float32)
    single[7, 1] = np.nextafter(np.float32(1), np.float32(2))
    says(["is 1.00000011"], model.fit, single)
    counts = VAETransformer(likelihood="poisson", **SMALL)
    says(["is 1.0000000000000002."], counts.fit, bits)


def test_outside_the_support_beside_condition_columns():
    """The column that the message names is the user's, condition columns counted."""
    table = np.column_stack([np.arange(N) % 2, (X > 0).astype(float)])
    table[7, 2] = 3.0
    model = ConditionalVAE(likelihood="bernoulli", condition_columns=[0], **SMALL)
    says(["X[7, 2]", "3"], model.fit, table)


@pytest.mark.parametrize("estimator", [VAETransformer, ConditionalVAE])
def test_one_row_and_no_rows(estimator):
    """Two rows at least, in fit; one is enough afterwards, none is not."""
    model = estimator(**SMALL)
    says(["1 sample", "minimum of 2"], model.fit, X[:1], Y[:1])
    says(["0 sample"], model.fit, X[:0], Y[:0])
    says(["0 feature"], model.fit, X[:, :0], Y)
    model.fit(X, Y)
    says(["0 sample", "minimum of 1"], model.transform, X[:0])
    says(["0 sample", "minimum of 1"], model.score_samples, X[:0])
    assert model.transform(X[:1]).shape == (1, 2)


def test_one_row_and_no_rows_with_condition_columns():
    table = np.column_stack([X, np.arange(N) % 2])
    model = ConditionalVAE(condition_columns=[D], **SMALL)
    says(["1 sample", "minimum of 2"], model.fit, table[:1])
    says(["X", "0"], model.fit, table[:0])


@pytest.mark.parametrize("estimator", [VAETransformer, ConditionalVAE])
def test_x_of_the_wrong_kind(estimator):
    """Strings and flat arrays are refused by name."""
    model = estimator(**SMALL)
    says(["could not convert string to float"], model.fit, [["a", "b"], ["c", "d"]], Y[:2])
    says(["2D array"], model.fit, X[:, 0], Y)
    says(["dim 3"], model.fit, X[:, :, None], Y)
    says(["omplex"], model.fit, X + 1j, Y)


@pytest.mark.parametrize("kind", ["list", "array", "pandas", "polars"])
def test_strings_where_numbers_are_due(kind):
    """Place, value, rule and the likelihood to use; a string that is a number is one."""
    rows = [[float(i), "1.5", None if i == 0 else "red"] for i in range(5)]
    if kind in ("pandas", "polars"):
        columns = zip(["age", "size", "colour"], map(list, zip(*rows, strict=True)), strict=True)
        table = pytest.importorskip(kind).DataFrame(dict(columns))
        words = ["X[1, 2] (column 'colour') is 'red'", "{'categorical': ['colour'], 'remainder': "]
    else:
        table = np.array(rows, dtype=object) if kind == "array" else rows
        words = ["X[1, 2] is 'red'", "{'categorical': [2], 'remainder': "]
    words += ["could not convert string to float", "likelihood='gaussian'", "likelihood='auto'"]
    says(words, VAETransformer(**SMALL).fit, table)
    # The column that is named is the user's, those of the condition counted.
    says(words, ConditionalVAE(condition_columns=[0], **SMALL).fit, table)


@pytest.mark.parametrize("likelihood", ["gaussian", "auto"])
def test_a_string_is_no_table(likelihood):
    says(["string to float", "'abc'"], VAETransformer(likelihood=likelihood, **SMALL).fit, "abc")


def test_strings_after_a_fit_of_numbers(vae):
    later = X.astype(object)
    later[3, 1] = "three"
    says(["X[3, 1] is 'three'", "likelihood='auto'"], vae.transform, later)


@pytest.mark.parametrize(
    "method", ["transform", "posterior", "score_samples", "elbo", "marginal_kl",
               "effective_sample_size", "inverse_transform", "sample"],
)  # fmt: skip
def test_not_fitted(method):
    args = (3,) if method == "sample" else (X,)
    for estimator in (VAETransformer, ConditionalVAE):
        says(["not fitted"], getattr(estimator(), method), *args, error=NotFittedError)
    says(["not fitted"], VAETransformer().to_torch, error=NotFittedError)
    says(["not fitted"], ConditionalVAE().condition_proba, X, error=NotFittedError)


# ------------------------------------------------------------------------- the condition


@pytest.mark.parametrize("method", ["transform", "score_samples", "elbo", "posterior"])
def test_unknown_category(cvae, method):
    """Value, row, known categories and remedy."""
    other = np.array(Y, dtype=object)
    other[5] = "cow"
    words = ["'cow'", "row 5", "'ant'", "'bee'", "fit again"]
    says(words, getattr(cvae, method), X, condition=other)


def test_unknown_category_without_x(cvae):
    words = ["'cow'", "row 1", "'ant'", "'bee'"]
    says(words, cvae.sample, condition=["ant", "cow"])
    says(words, cvae.inverse_transform, np.zeros((2, 2)), condition=["ant", "cow"])


def test_unknown_category_in_a_later_fit():
    model = ConditionalVAE(**SMALL).partial_fit(X, Y)
    says(["'cow'", "row 0"], model.partial_fit, X, np.full(N, "cow"))


@pytest.mark.parametrize("missing", [np.nan, np.inf, None])
def test_missing_number_in_the_condition(number_vae, missing):
    """A number that is not there is an error that names its row and what to do."""
    bad = NUMBERS.astype(object) if missing is None else NUMBERS.copy()
    bad[4] = missing
    words = ["condition", "row 4", "drop these rows"]
    says(words, ConditionalVAE(**SMALL).fit, X, condition=bad)
    says(words, number_vae.transform, X, condition=bad)
    says(words, number_vae.score_samples, X, condition=list(bad))


@pytest.mark.parametrize("missing", [None, np.nan, float("inf")])
@pytest.mark.parametrize("place", ["list", "array"])
def test_missing_value_among_objects(missing, place):
    """Whether the column is of floats or of objects makes no difference."""
    table = [[float(v), *row] for v, row in zip(NUMBERS, X.tolist(), strict=True)]
    table[4][0] = missing
    table = table if place == "list" else np.array(table, dtype=object)
    model = ConditionalVAE(condition_columns=[0], **SMALL)
    says(["row 4", "missing"], model.fit, table)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_missing_label(missing):
    bad = Y.astype(object)
    bad[4] = missing
    says(["row 4", "missing", "category of its own"], ConditionalVAE(**SMALL).fit, X, condition=bad)


def test_missing_label_of_pandas():
    pd = pytest.importorskip("pandas")
    for column in (
        pd.Series(["ant", pd.NA] * (N // 2), name="kind"),
        pd.Series(["ant", None] * (N // 2), name="kind", dtype="string"),
        pd.Series(["ant", None] * (N // 2), name="kind", dtype="category"),
        pd.Series([1, None] * (N // 2), name="kind", dtype="Int64"),
        pd.Series([1.5, None] * (N // 2), name="kind", dtype="Float64"),
    ):
        says(["'kind'", "row 1", "missing"], ConditionalVAE(**SMALL).fit, X, condition=column)


def test_missing_y():
    y = NUMBERS.copy()
    y[4] = np.nan
    says(["NaN"], ConditionalVAE(**SMALL).fit, X, y)


@pytest.mark.parametrize("n", [0, 1, N - 1, N + 1])
def test_condition_of_the_wrong_length(cvae, n):
    """Both lengths are told, and whose they are."""
    given = np.resize(Y, n)
    words = [f"{n} rows", f"{N} are needed"]
    says(words, ConditionalVAE(**SMALL).fit, X, condition=given)
    says(words, cvae.transform, X, condition=given)
    says(words, cvae.score_samples, X, condition=given)
    says(words, cvae.inverse_transform, np.zeros((N, 2)), condition=given)


def test_y_of_the_wrong_length():
    says([f"{N - 1}", f"{N}"], ConditionalVAE(**SMALL).fit, X, Y[:-1])


@pytest.mark.parametrize("scalar", ["ant", 1, 1.0, np.str_("ant"), np.float64(2), True])
def test_scalar_condition(cvae, scalar):
    """One value is not a column where rows are counted; the message shows how to write one."""
    words = ["single value", "Write ["]
    says(words, ConditionalVAE(**SMALL).fit, X, condition=scalar)
    says(words, cvae.transform, X, condition=scalar)


def test_three_axes_in_the_condition(cvae):
    says(["3 axes"], cvae.transform, X, condition=np.zeros((N, 1, 1)))


def test_no_columns_in_the_condition():
    says(["without columns"], ConditionalVAE(**SMALL).fit, X, condition=np.zeros((N, 0)))


def test_no_condition_at_all():
    """All three sources are named, and the way out."""
    for method in ("fit", "partial_fit", "fit_transform"):
        words = ["condition=", "condition_columns", "fit(X, y)", "VAETransformer"]
        says(words, getattr(ConditionalVAE(**SMALL), method), X)


def test_two_sources():
    table = np.column_stack([X, np.arange(N) % 2])
    model = ConditionalVAE(condition_columns=[D], **SMALL)
    words = ["condition=", f"condition_columns=[{D}]"]
    says([*words, "leave one"], model.fit, table, condition=Y)
    model.fit(table)
    for method in ("transform", "score_samples", "elbo"):
        words = ["condition=", "condition_columns", f"'x{D}'", "Leave condition= out"]
        says(words, getattr(model, method), table, condition=Y)
    words = ["condition_proba is not defined with condition_columns", f"in 'x{D}'"]
    says(words, model.condition_proba, table)


def test_number_left_out(number_vae):
    """Numbers cannot be summed out, so they are needed everywhere."""
    words = ["condition= is required", "numeric condition 'condition[0]'", "Pass condition="]
    for method in ("transform", "score_samples", "score", "elbo"):
        says(words, getattr(number_vae, method), X)
    says(words, number_vae.sample, 3)
    says(words, number_vae.inverse_transform, np.zeros((3, 2)))


def test_no_proba_of_numbers(number_vae):
    """The remedy is one that this method has: it takes no condition."""
    words = ["condition_proba gives p(c|x) for labels", "'condition[0]'", "KBinsDiscretizer"]
    says(words, number_vae.condition_proba, X)
    mixed = np.column_stack([Y.astype(object), NUMBERS])
    mixed = ConditionalVAE(**SMALL).fit(X, condition=mixed)
    says(["numeric in 'condition[1]'."], mixed.condition_proba, X)


def test_strings_where_numbers_were(number_vae):
    says(["column of numbers", "'ant'"], number_vae.transform, X, condition=Y)


@pytest.mark.parametrize(
    "bad", ["abc", 1 + 1j, 10**400, type], ids=["text", "complex", "large", "object"]
)
def test_what_is_no_number_among_numbers(number_vae, bad):
    """The value and its row are told, not those of the first."""
    given = [*NUMBERS[:-1].tolist(), bad]
    words = [f"now it holds {bad!r} (row {N - 1})", "Give numbers"]
    says(words, number_vae.transform, X, condition=np.fromiter(given, object, N))


def test_complex_where_numbers_were(number_vae):
    says(["now it holds 0.5j (row 0)"], number_vae.transform, X, condition=NUMBERS + 0.5j)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_number_too_far_from_those_of_fit(dtype):
    """No infinity or NaN comes of it, in a fit that goes on neither."""
    model = ConditionalVAE(**SMALL).partial_fit(X.astype(dtype), condition=NUMBERS)
    words = ["'condition[0]' has 1e+300 (row 0)", "mean in fit, 0.5", "the range that it had"]
    says(words, model.sample, condition=[1e300])
    says(words, model.partial_fit, X.astype(dtype), condition=np.full(N, 1e300))


def test_what_is_no_array_for_a_condition(cvae):
    """The message does not take it for a single value."""
    sparse = scipy.sparse.csr_array(np.eye(N)[:, :1])
    words = ["condition has to be a column or a table", "csr_array", "condition.toarray()"]
    says(words, cvae.transform, X, condition=sparse, error=TypeError)
    words = ["generator", "list(condition)"]
    says(words, cvae.transform, X, condition=(y for y in Y), error=TypeError)
    words = ["dict_values", "list(condition)"]
    says(words, cvae.transform, X, condition=dict(enumerate(Y)).values(), error=TypeError)


def test_several_values_in_a_cell_of_the_condition(cvae):
    records = np.rec.fromarrays([Y, NUMBERS], names="kind,dose")
    words = ["'condition[0]' has several values in a cell", "DataFrame"]
    says(words, ConditionalVAE(**SMALL).fit, X, condition=records)
    says(["[1] (row 0)", "no label"], cvae.transform, X, condition=[[1], [1, 2]] * (N // 2))
    says(["[1] (row 0)", "no label"], ConditionalVAE(**SMALL).fit, X, [[1], [1, 2]] * (N // 2))


def test_structs_and_lazy_frames_as_a_condition():
    pl = pytest.importorskip("polars")
    structs = pl.Series("kind", [{"a": 1, "b": 2}] * N)
    words = ["'kind' has several values in a cell", "DataFrame"]
    says(words, ConditionalVAE(**SMALL).fit, X, condition=structs)
    frame = pl.DataFrame({"kind": structs, "a": NUMBERS})
    says(words, ConditionalVAE(**SMALL).fit, X, condition=frame)
    says(words, ConditionalVAE(condition_columns="kind", **SMALL).fit, frame)
    words = ["LazyFrame", "condition.collect()"]
    says(words, ConditionalVAE(**SMALL).fit, X, condition=frame.lazy(), error=TypeError)


def test_number_of_draws_with_one_label():
    model = ConditionalVAE(**SMALL).fit(X, np.zeros(N, dtype=int))
    says(["n_draws", "0"], model.condition_proba, X, n_draws=0)


def test_another_number_of_condition_columns(cvae):
    says(["2 column(s)", "1"], cvae.transform, X, condition=np.column_stack([Y, Y]))


# ---------------------------------------------------------------------- condition_columns


def test_condition_columns_that_are_not_there():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = ConditionalVAE(**SMALL)
    model.set_params(condition_columns=["kind"])
    says(["'kind'", "['a', 'b', 'c', 'd']"], model.fit, frame)
    says(["'kind'", "positions"], model.fit, X)
    says(["position 4", "4 columns"], model.set_params(condition_columns=[4]).fit, X)
    says(["position -5", "4 columns"], model.set_params(condition_columns=[-5]).fit, X)


@pytest.mark.parametrize("twice", [[0, 0], [3, -1]])
def test_condition_columns_twice(twice):
    says([repr(twice), "twice"], ConditionalVAE(condition_columns=twice, **SMALL).fit, X)


def test_condition_columns_by_name_and_position_twice():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcd"))
    says(["twice"], ConditionalVAE(condition_columns=["a", 0], **SMALL).fit, frame)


def test_condition_columns_that_are_all():
    says(["all the columns"], ConditionalVAE(condition_columns=[0, 1, 2, 3], **SMALL).fit, X)


@pytest.mark.parametrize("wrong", [[1.5], [None], 1.5, "a", {"a"}, True, [True, False]])
def test_condition_columns_of_the_wrong_type(wrong):
    """A column is a name or a position; nothing is rounded in silence."""
    says(["condition_columns"], ConditionalVAE(condition_columns=wrong, **SMALL).fit, X)


@pytest.mark.parametrize("wrong", [{0, 1}, {0: "a", 1: "b"}], ids=["set", "dict"])
def test_condition_columns_have_an_order(wrong):
    """That of a set of names changes from one process to the next, and the model with it."""
    words = [type(wrong).__name__, "have an order", "Give a list"]
    says(words, ConditionalVAE(condition_columns=wrong, **SMALL).fit, X)


# ----------------------------------------------------------------------------- parameters

WRONG = [
    ("n_components", 0), ("n_components", 1.5), ("likelihood", "gausian"),
    ("noise_variance", "columns"), ("noise_variance", 0.0), ("noise_variance", -1.0),
    ("beta", -1.0), ("beta", "big"), ("n_importance_samples", 0), ("hidden_layer_sizes", (8, 0)),
    ("hidden_layer_sizes", (-1,)), ("hidden_layer_sizes", 0), ("hidden_layer_sizes", "8"),
    ("hidden_layer_sizes", (8, 2.5)), ("hidden_layer_sizes", ("8",)),
    ("activation", "sigmoidal"), ("dropout", 1.0), ("dropout", -0.1), ("alpha", -1e-3),
    ("learning_rate", "fast"), ("learning_rate_init", 0.0), ("learning_rate_init", -1.0),
    ("batch_size", 0), ("batch_size", 12.5), ("max_iter", 0), ("early_stopping", "yes"),
    ("validation_fraction", 0.0), ("validation_fraction", 1.0), ("n_iter_no_change", 0),
    ("tol", -1.0), ("n_init", 0), ("init", "svd"), ("warm_start", "no"), ("random_state", "seed"),
    ("device", "gpu"), ("device", 0), ("verbose", "loud"),
    ("beta", np.nan), ("beta", np.inf), ("learning_rate_init", np.inf), ("alpha", np.inf),
    ("noise_variance", np.nan), ("noise_variance", np.inf),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG, ids=repr)
@pytest.mark.parametrize("estimator", [VAETransformer, ConditionalVAE])
def test_wrong_parameters_fail_in_fit(estimator, name, value):
    """Not in __init__; the message names the parameter and its value."""
    model = estimator(**{**SMALL, name: value})
    with pytest.raises((ValueError, TypeError)) as caught:
        model.fit(X, Y)
    assert name in str(caught.value)
    assert not hasattr(model, "kl_per_component_")


def test_a_layer_without_units_has_a_remedy():
    words = ["hidden_layer_sizes=(8, 0)", "at least 1", "hidden_layer_sizes=()"]
    says(words, VAETransformer(hidden_layer_sizes=(8, 0)).fit, X)


def test_unknown_device():
    says(["'gpu'", "'auto'", "'cuda'"], VAETransformer(device="gpu").fit, X)
    says(["'cuda:99'", "'auto'"], VAETransformer(device="cuda:99").fit, X)
    says(["'meta'", "not supported"], VAETransformer(device="meta").fit, X)
    says(["'meta'", "not supported"], VAETransformer(device=torch.device("meta")).fit, X)


SIZES = [
    ("n_components", 3), ("hidden_layer_sizes", (9,)), ("activation", "tanh"),
    ("noise_variance", "shared"), ("noise_variance", 0.5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), SIZES, ids=repr)
def test_a_size_changed_after_the_first_fit(name, value):
    """warm_start and partial_fit name what changed, from what to what, and the way back."""
    words = [f"{name} was", f"is {value!r}", "warm_start=False"]
    warm = VAETransformer(warm_start=True, **SMALL).fit(X).set_params(**{name: value})
    says(words, warm.fit, X)
    part = ConditionalVAE(**SMALL).partial_fit(X, Y).set_params(**{name: value})
    says(words, part.partial_fit, X, Y)
    part.fit(X, Y)  # anew: any size


@pytest.mark.parametrize("n_samples", [0, -1, 1.5, True, None, "3"])
def test_number_of_samples(vae, cvae, n_samples):
    for model in (vae, cvae):
        says([f"n_samples must be an integer of at least 1; got {n_samples!r}"],
             model.sample, n_samples)  # fmt: skip
        says(["n_draws", repr(n_samples)], model.score_samples, X, n_draws=n_samples)
        for name in ("n_imputations", "n_draws"):
            words = [f"{name} must be", repr(n_samples)]
            says(words, model.sample_missing, X, **{name: n_samples})


def test_number_of_samples_and_rows_of_the_condition(cvae):
    words = ["n_samples=3", "2 rows", "leave n_samples out"]
    says(words, cvae.sample, 3, condition=["ant", "bee"])


# -------------------------------------------------------------------------------- warnings


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("batch_size", [8, 64])
@pytest.mark.parametrize("init", ["both", "random", "pca", "factor_analysis"])
def test_training_that_explodes(early_stopping, batch_size, init):
    """A loss that is no longer finite: a warning that names the remedy, and the best
    weights so far, whose answers are finite."""
    model = VAETransformer(
        **{**SMALL, "max_iter": 10}, learning_rate_init=1e30, early_stopping=early_stopping,
        batch_size=batch_size, init=init,
    )  # fmt: skip
    with pytest.warns(ConvergenceWarning, match=r"finite.*Lower learning_rate_init.*1e\+30"):
        model.fit(X)
    assert all(p.isfinite().all() for p in model.to_torch().parameters())
    for answer in (model.transform(X), model.sample(9), model.score_samples(X),
                   model.inverse_transform(model.transform(X)), model.kl_per_component_,
                   model.noise_variance_):  # fmt: skip
        assert np.isfinite(answer).all()
    assert np.abs(model.transform(X)).max() < 1e6


def test_collapse_is_said():
    """No component in use: a warning with the number and what to turn."""
    model = VAETransformer(
        **{**SMALL, "max_iter": 60}, init="random", beta=1e6, learning_rate_init=1e-2
    )
    with pytest.warns(
        ConvergenceWarning, match="All 2 components collapsed.*Lower beta.*1e"
    ) as all_:
        model.fit(X)
    assert model.n_active_components_ == 0
    said = " ".join(str(warning.message) for warning in all_)
    assert "init='factor_analysis'" in said
    assert "noise_variance" not in said  # it is 'feature' already


def test_random_networks_that_learned_nothing_are_no_model():
    model = VAETransformer(**SMALL, init="random", learning_rate_init=1.0)
    with pytest.warns(ConvergenceWarning, match="never improved on.*learning_rate_init") as all_:
        model.fit(X)
    assert model.best_validation_score_ > max(model.validation_scores_)
    last = f"finally {model.validation_scores_[-1]:.4g}"
    assert any(last in str(warning.message) for warning in all_)
    # At PCA or factor analysis there is a model already.
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        VAETransformer(**SMALL, init="factor_analysis", learning_rate_init=1.0).fit(X)


def test_collapse_asks_for_what_is_not_so_already():
    """The default start has been at factor analysis: to advise it would lead nowhere."""
    model = VAETransformer(
        **{**SMALL, "max_iter": 300}, noise_variance="shared", beta=50, learning_rate_init=1e-2
    )
    with pytest.warns(ConvergenceWarning, match="All 2 components collapsed") as caught:
        model.fit(X)
    said = " ".join(str(warning.message) for warning in caught)
    assert "use noise_variance='feature';" in said
    assert "init=" not in said


@pytest.mark.parametrize("early_stopping", [True, False])
def test_too_few_epochs_are_said(early_stopping):
    model = VAETransformer(
        n_components=2, hidden_layer_sizes=(8,), max_iter=8, n_iter_no_change=4,
        early_stopping=early_stopping, init="random", batch_size=8, random_state=0,
        device="cpu",  # with the noise of a GPU it may collapse
    )  # fmt: skip
    with pytest.warns(ConvergenceWarning, match="after max_iter=8 .*Increase max_iter"):
        model.fit(X)


@pytest.mark.parametrize("estimator", [VAETransformer, ConditionalVAE])
@pytest.mark.parametrize("method", ["fit", "fit_transform"])
def test_a_warning_points_at_the_callers_line(estimator, method):
    """A warning that names a line inside scikit-learn cannot be found nor filtered."""
    model = estimator(**SMALL, learning_rate_init=1e30)  # no bound survives that
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(model, method)(X, Y)
    assert caught
    assert {w.filename for w in caught} == {__file__}


def test_a_failed_fit_leaves_the_model_as_it_was(cvae):
    """An error in a later fit with bad input does not change what was fitted."""
    model = ConditionalVAE(**SMALL).partial_fit(X, Y)
    before = model.transform(X)
    says(["'cow'"], model.partial_fit, X, np.full(N, "cow"))
    np.testing.assert_array_equal(model.transform(X), before)
