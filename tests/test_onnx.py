"""What skl2onnx makes of a model answers as `transform` does, in onnxruntime."""

import importlib
import sys
import warnings

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from skl2onnx import _parse, to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

import skvae.onnx
from skvae import ConditionalVAE, VAETransformer
from skvae._likelihoods import LIKELIHOODS
from skvae._networks import ACTIVATIONS
from skvae.impute import VAEImputer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

skvae.onnx.register()

SMALL = {"n_components": 2, "hidden_layer_sizes": (6, 5), "max_iter": 2, "random_state": 0}
RANDOM = np.random.default_rng(0)
Y = np.array(["ant", "bee", "cow"])[np.arange(90) % 3]
X = RANDOM.normal(size=(90, 4)) @ RANDOM.normal(size=(4, 4)) + 3
HOLES = np.where(RANDOM.random(X.shape) < 0.25, np.nan, X)
COUNTS = RANDOM.poisson(3, size=X.shape).astype(float)
CODES = RANDOM.integers(3, size=X.shape).astype(float)
#: Of every likelihood what it can explain.
DATA = {
    "gaussian": X,
    "student_t": X,
    "lognormal": np.exp(X / 4),
    "bernoulli": (X > 3) * 1.0,
    "poisson": COUNTS,
    "negative_binomial": COUNTS,
    "categorical": CODES,
}
FRAME = pd.DataFrame(
    {
        "height": X[:, 0],
        "kind": Y,
        "visits": COUNTS[:, 0].astype(np.int64),
        "ok": X[:, 1] > 3,
        "price": np.exp(X[:, 2] / 4),
        "grade": CODES[:, 0].astype(np.int64),
    }
)
MIXED = {
    "poisson": ["visits"],
    "lognormal": ["price"],
    "categorical": ["kind", "grade"],
    "student_t": ["height"],
    "bernoulli": ["ok"],
}


def shaken(model, scale=0.3):
    """A fitted model with random weights: no part of it is near zero, as after two epochs."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model._fitted.model.parameters():
            weights.normal_(0, scale, generator=generator)
    model._fitted._casts.clear()  # fitted weights never change, and are kept in other dtypes too
    return model


def fitted(estimator, X=X, *args, **kwargs):
    return shaken(estimator.set_params(**SMALL).fit(X, *args, **kwargs))


def inputs(X):
    if not isinstance(X, pd.DataFrame):
        return {"X": X}
    columns = {name: X[[name]].to_numpy() for name in X.columns}
    return {name: c.astype(object) if c.dtype.kind in "OU" else c for name, c in columns.items()}


def run(model, X, example=None, **options):
    """All outputs of the graph, which is made of one row of an example."""
    graph = to_onnx(model, (X if example is None else example)[:1], **options)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs(X))


def assert_same(model, X, **options):
    """In the dtype of `transform`; to 1e-5, where double agrees to its own rounding."""
    (features,) = run(model, X, **options)
    expected = np.asarray(model.transform(X))
    assert features.dtype == expected.dtype
    assert np.isfinite(expected).all()
    tolerance = 1e-5 if features.dtype == np.float32 else 1e-9
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(features, expected, rtol=0, atol=tolerance * scale)


FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64])


# ------------------------------------------------------------------- the encoder


@FLOATS
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("sizes", [(), (7,), (6, 5, 4)])
def test_networks(activation, sizes, dtype):
    model = VAETransformer(activation=activation, hidden_layer_sizes=sizes, max_iter=2)
    model = shaken(model.set_params(random_state=0).fit(X), 0.7)
    expected = model.transform(X.astype(dtype))
    (features,) = run(model, X.astype(dtype))
    # onnxruntime has the error function in single precision alone.
    is_double = dtype == np.float64 and activation != "gelu"
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-12 if is_double else 1e-5)


@FLOATS
@pytest.mark.parametrize("n_components", [1, 3, 9])
def test_any_number_of_components(n_components, dtype):
    model = VAETransformer(n_components, hidden_layer_sizes=6, max_iter=2, random_state=0)
    assert_same(shaken(model.fit(X)), X.astype(dtype))


@FLOATS
def test_one_row_and_many(dtype):
    model = fitted(VAETransformer())
    many = np.tile(X, (50, 1)).astype(dtype)
    for rows in (many[:1], many):
        (features,) = run(model, rows, example=many)
        np.testing.assert_allclose(features, model.transform(rows), rtol=0, atol=1e-5)


@FLOATS
@pytest.mark.parametrize(("scale", "shift"), [(1e6, 1e9), (1e-6, 0), (1, 1e6), (1e20, 0)])
def test_columns_of_any_scale(scale, shift, dtype):
    """The graph subtracts as `transform` does: what float32 rows still hold is not lost."""
    rows = (X * scale + shift).astype(dtype)
    assert_same(fitted(VAETransformer(), rows), rows)


@FLOATS
def test_constant_columns_are_left_out(dtype):
    rows = np.column_stack([np.full(90, 7.0), X[:, :2], np.zeros(90), X[:, 2:]]).astype(dtype)
    model = fitted(VAETransformer(), rows)
    assert_same(model, rows)
    other = rows.copy()
    other[:, 0] = np.nan
    assert_same(model, other)


#: What `transform` refuses in a column, however many values that had in fit.
REFUSED = {
    "gaussian": [np.inf, -np.inf],
    "student_t": [np.inf],
    "lognormal": [0.0, -1.0, np.inf],
    "bernoulli": [1.5, -0.1, np.inf],
    "poisson": [-1.0, 0.5, np.inf],
    "negative_binomial": [-1.0, 2.5, np.inf],
    "categorical": [7.0, np.inf],
}


@FLOATS
@pytest.mark.parametrize("likelihood", sorted(LIKELIHOODS))
def test_constant_columns_are_looked_at(likelihood, dtype):
    """The encoder does not see them, and a row that `transform` refuses has no features."""
    rows = np.column_stack([np.ones(90), DATA[likelihood], np.ones(90)]).astype(dtype)
    model = fitted(VAETransformer(likelihood={likelihood: list(range(6))}), rows)
    assert_same(model, rows)
    values = REFUSED[likelihood]
    strange = rows.copy()
    strange[range(len(values)), -1] = values
    strange[len(values), 0] = np.nan  # is missing, which is no error
    for i in range(len(values)):
        with pytest.raises(ValueError, match=r"needs values|was not there|infinity"):
            model.transform(strange[i : i + 1])
    (features,) = run(model, strange)
    np.testing.assert_array_equal(np.isnan(features).all(1), np.arange(90) < len(values))
    np.testing.assert_array_equal(features[len(values) :], run(model, rows)[0][len(values) :])


def test_a_constant_category_of_a_table():
    frame = FRAME.assign(kind="ant", grade=1)
    strange = frame.assign(kind=["dog", "", *["ant"] * 88], grade=[1, 1, 2, *[1] * 87])
    model = fitted(VAETransformer(likelihood=MIXED), frame)
    assert_same(model, frame)
    (features,) = run(model, strange)
    assert np.isnan(features).all(1).nonzero()[0].tolist() == [0, 2]
    model.set_params(handle_unknown="missing")
    assert_same(model, strange.assign(kind=["dog", None, *["ant"] * 88]).fillna({"kind": "ant"}))


@FLOATS
@pytest.mark.parametrize("likelihood", sorted(LIKELIHOODS))
@pytest.mark.parametrize("has_holes", [False, True])
def test_readings(likelihood, has_holes, dtype):
    rows = DATA[likelihood].astype(dtype)
    rows = np.where(np.isnan(HOLES), np.nan, rows).astype(dtype) if has_holes else rows
    model = VAETransformer(likelihood={likelihood: [0, 1, 2, 3]})
    assert_same(fitted(model, rows), rows)


@FLOATS
@pytest.mark.parametrize("noise", ["feature", "shared", "decoder", 0.5])
def test_noise_is_no_affair_of_the_encoder(noise, dtype):
    assert_same(fitted(VAETransformer(noise_variance=noise)), X.astype(dtype))


@FLOATS
def test_missing_cells(dtype):
    """Seen by an encoder that was fitted with some; with another the row is NaN."""
    holes = HOLES.astype(dtype)
    model = fitted(VAETransformer(), HOLES)
    assert_same(model, holes)
    assert_same(model, X.astype(dtype))
    (features,) = run(fitted(VAETransformer(), X), holes)
    np.testing.assert_array_equal(np.isnan(features).all(1), np.isnan(HOLES).any(1))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, bool])
def test_whole_numbers_are_double(dtype):
    rows = COUNTS.astype(dtype)
    model = fitted(VAETransformer(), rows)
    features = run(model, rows)[0]
    assert features.dtype == np.float64
    assert_same(model, rows)


# ------------------------------------------------------------------------- tables


def test_a_table():
    model = fitted(VAETransformer(likelihood=MIXED), FRAME)
    assert_same(model, FRAME)
    assert_same(model, FRAME[:1])


def test_a_table_of_float32():
    frame = FRAME.astype({"height": np.float32, "price": np.float32})[["height", "kind", "price"]]
    assert_same(fitted(VAETransformer(likelihood="auto"), frame), frame)


def test_a_plain_table_takes_an_input_for_each_column():
    frame = FRAME[["height", "price", "ok"]]
    assert_same(fitted(VAETransformer(), frame), frame)


def test_a_table_of_float32_categories_alone():
    """In double, as by `transform`; an array of them is in single precision."""
    codes = CODES[:, :2].astype(np.float32)
    both = pd.DataFrame(codes, columns=["a", "b"])
    for frame in (both, both[["a"]]):
        assert_same(fitted(VAETransformer(likelihood="categorical"), frame), frame)
    assert_same(fitted(VAETransformer(likelihood="categorical"), codes), codes)
    model = ConditionalVAE(likelihood="categorical", condition_columns=[0])
    assert_same(fitted(model, codes), codes)


def test_columns_are_found_by_name():
    """A graph is made of any row that has the columns of fit, in any order."""
    numbers = pd.DataFrame(X, columns=list("abcd"))
    table = FRAME[["height", "kind", "price"]]
    conditional = ConditionalVAE(condition_columns=["kind", "height"], likelihood="auto")
    for model, frame in (
        (VAETransformer(), numbers),
        (VAETransformer(likelihood="auto"), table),
        (conditional, FRAME),
    ):
        fitted(model, frame)
        (features,) = run(model, frame, example=frame[frame.columns[::-1]])
        np.testing.assert_allclose(features, model.transform(frame), rtol=0, atol=1e-12)


def test_columns_of_other_names_are_found_by_position():
    model = fitted(VAETransformer(), pd.DataFrame(X, columns=list("abcd")))
    (features,) = run(model, pd.DataFrame(X, columns=list("efgh")))
    np.testing.assert_array_equal(features, run(model, X)[0])


@pytest.mark.parametrize("names", ["ebcd", "abce", "bafg"])
def test_names_that_are_half_those_of_fit(names):
    model = fitted(VAETransformer(), pd.DataFrame(X, columns=list("abcd")))
    with pytest.raises(ValueError, match=r"inputs '\w', .*columns 'a', 'b', 'c', 'd'\. Give every"):
        run(model, pd.DataFrame(X, columns=list(names)))


def test_an_input_of_several_columns_beside_one_with_a_name():
    table = FRAME[["height", "price", "kind"]]
    model = fitted(VAETransformer(likelihood="auto"), table)
    numbers, kind = ("numbers", DoubleTensorType([None, 2])), ("kind", StringTensorType([None, 1]))
    graph = to_onnx(model, initial_types=[numbers, kind]).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    given = {"numbers": table[["height", "price"]].to_numpy(), **inputs(table[["kind"]])}
    np.testing.assert_allclose(session.run(None, given)[0], model.transform(table), atol=1e-9)
    with pytest.raises(ValueError, match="inputs 'kind', but VAETransformer was fitted with"):
        to_onnx(model, initial_types=[kind, numbers])


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_categories_that_double_does_not_tell_apart(dtype):
    """As `transform` compares: exactly."""
    big = 2**60 + np.arange(90) % 3
    frame = pd.DataFrame({"a": X[:, 0], "big": big})
    model = fitted(VAETransformer(likelihood={"categorical": ["big"], "gaussian": ["a"]}), frame)
    assert_same(model, frame.assign(big=big.astype(dtype)))


def test_missing_text_is_empty():
    frame = FRAME.copy()
    frame.loc[::4, "kind"] = None
    model = fitted(VAETransformer(likelihood=MIXED), frame)
    (features,) = run(model, frame.fillna({"kind": ""}), example=FRAME)
    np.testing.assert_allclose(features, model.transform(frame), rtol=0, atol=1e-9)


@pytest.mark.parametrize("column", ["kind", "grade"])
def test_an_unknown_category(column):
    """NaN where `transform` has an error, and missing where it is missing there."""
    strange = FRAME.copy()
    strange.loc[1, column] = {"kind": "dog", "grade": 9}[column]
    with_holes = FRAME.copy()
    with_holes.loc[::4, "price"] = np.nan
    model = fitted(VAETransformer(likelihood=MIXED), with_holes)
    (features,) = run(model, strange)
    assert np.isnan(features).all(1).tolist() == [i == 1 for i in range(90)]
    assert_same(model.set_params(handle_unknown="missing"), strange)


@pytest.mark.parametrize(
    ("likelihood", "value"),
    [("bernoulli", 1.5), ("bernoulli", -0.1), ("lognormal", 0.0), ("lognormal", -1.0),
     ("poisson", -1.0), ("poisson", 0.5), ("negative_binomial", 2.5), ("categorical", 7.0)],
)  # fmt: skip
@FLOATS
def test_what_no_likelihood_explains_is_nan(likelihood, value, dtype):
    rows = DATA[likelihood].astype(dtype)
    model = fitted(VAETransformer(likelihood={likelihood: [0, 1, 2, 3]}), rows)
    rows[2, 1] = value
    with pytest.raises(ValueError, match=r"needs values|was not there"):
        model.transform(rows)
    (features,) = run(model, rows)
    assert np.isnan(features).all(1).tolist() == [i == 2 for i in range(90)]


@FLOATS
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_leave_no_finite_feature(value, dtype):
    rows = X.astype(dtype)
    rows[2, 1] = value
    (features,) = run(fitted(VAETransformer()), rows)
    assert np.isfinite(features).any(1).tolist() == [i != 2 for i in range(90)]


# ---------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    "columns", [["kind"], ["height"], ["ok"], ["grade"], ["kind", "height", "visits"]]
)
@pytest.mark.parametrize("likelihood", ["gaussian", "auto"])
def test_a_condition_from_columns(columns, likelihood):
    names = [n for n in FRAME.columns if n != "kind" or likelihood == "auto" or n in columns]
    model = ConditionalVAE(condition_columns=columns, likelihood=likelihood)
    model = fitted(model, FRAME[names])
    assert_same(model, FRAME[names])
    other = FRAME[names].assign(**{columns[0]: FRAME[columns[0]].to_numpy()[::-1]})
    assert np.abs(run(model, other)[0] - run(model, FRAME[names])[0]).max() > 0.01


@FLOATS
def test_a_condition_among_numbers(dtype):
    """A single input, whose numbers are the condition."""
    rows = X.astype(dtype)
    assert_same(fitted(ConditionalVAE(condition_columns=[1, -1]), rows), rows)


def test_a_condition_that_is_unknown_or_missing_is_nan():
    model = fitted(ConditionalVAE(condition_columns=["kind"], likelihood="auto"), FRAME)
    strange = FRAME.copy()
    strange.loc[:1, "kind"] = ["dog", ""]
    (features,) = run(model, strange)
    assert np.isnan(features).all(1).tolist() == [i < 2 for i in range(90)]
    holes = np.column_stack([X[:, 0], HOLES[:, 1:]])
    model = fitted(ConditionalVAE(condition_columns=[0]), holes)
    (features,) = run(model, HOLES)
    np.testing.assert_array_equal(np.isnan(features).all(1), np.isnan(HOLES[:, 0]))


def soft(likelihood, noise="feature", X=None, condition=Y):
    """A model with weights so small that no label is certain."""
    rows = DATA[likelihood] if X is None else X
    model = ConditionalVAE(likelihood={likelihood: [0, 1, 2, 3]}, noise_variance=noise)
    model = shaken(model.set_params(**SMALL).fit(rows, condition=condition), 0.2)
    assert (model.condition_proba(rows).max(1) < 0.9).any()
    return model


NOT_WEIGHED = [("negative_binomial", "decoder"), ("student_t", "decoder")]


@pytest.mark.parametrize("likelihood", sorted(LIKELIHOODS))
@pytest.mark.parametrize("noise", ["feature", "shared", "decoder", 0.5])
def test_labels_integrated_out(likelihood, noise):
    model = soft(likelihood, noise)
    if (likelihood, noise) in NOT_WEIGHED:
        with pytest.raises(NotImplementedError, match=r"noise_variance='feature'.*condition_col"):
            run(model, DATA[likelihood])
    else:
        assert_same(model, DATA[likelihood])


@pytest.mark.parametrize("likelihood", sorted(LIKELIHOODS))
def test_labels_integrated_out_of_rows_with_holes(likelihood):
    """NaN, as their draws take the roots of matrices; complete rows are those of the model."""
    rows = np.where(np.isnan(HOLES), np.nan, DATA[likelihood])
    model = soft(likelihood, X=rows)
    (features,) = run(model, rows)
    np.testing.assert_array_equal(np.isnan(features).all(1), np.isnan(HOLES).any(1))
    assert_same(model, DATA[likelihood])


def test_labels_integrated_out_in_single_precision():
    """To rounding of log p(x|c), which both sides sum in float32."""
    for rows in (X, HOLES):
        assert_same(soft("gaussian", X=rows), X.astype(np.float32))


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_large_counts_keep_their_digits_in_single_precision(likelihood):
    """Log densities of which next to nothing is left of what they are differences of."""
    counts = np.floor(np.exp(2 * RANDOM.normal(size=(90, 4)) + 9)).astype(np.float32)
    model = ConditionalVAE(likelihood=likelihood).set_params(**SMALL).fit(counts, condition=Y)
    assert_same(model, counts)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_labels_whose_counts_are_all_but_impossible(likelihood):
    """A count where rates are below the least that log p(x|z) tells from 0."""
    model = fitted(ConditionalVAE(likelihood=likelihood), COUNTS, condition=Y)
    decoder = model._fitted.model.decoder
    with torch.no_grad():
        decoder.head.weight.zero_()
        decoder.linear.weight.zero_()
        decoder.linear.weight[0, :3, 0] = torch.tensor([-50.0, -65.0, -80.0])[:, None]
    model._fitted._casts.clear()
    assert_same(model, COUNTS)


@FLOATS
@pytest.mark.parametrize("has_holes", [False, True])
@pytest.mark.parametrize(
    "likelihood", ["gaussian", "student_t", "lognormal", "poisson", "negative_binomial"]
)
def test_rows_without_a_density_have_features(likelihood, has_holes, dtype):
    """So far out that the dtype holds none: the labels then have equal shares."""
    rows = DATA[likelihood].astype(dtype)
    model = soft(likelihood, X=np.where(np.isnan(HOLES), np.nan, rows) if has_holes else rows)
    rows[:4, 1] = [1e12, 1e18, 1e25, 1e37]
    if dtype == np.float64:
        rows[4:6, 1] = [1e150, 1e200]
    assert_same(model, rows)


@pytest.mark.parametrize("noise", ["feature", "shared", "decoder", 0.5])
def test_labels_of_several_columns_and_kinds(noise):
    """With several likelihoods, each of which has its own part of the decoder's outputs."""
    condition = pd.DataFrame({"kind": Y, "ok": X[:, 1] > 3})
    likelihood = dict(MIXED)
    if noise == "decoder":
        likelihood["gaussian"] = likelihood.pop("student_t")
    model = ConditionalVAE(likelihood=likelihood, noise_variance=noise).set_params(**SMALL)
    model = shaken(model.fit(FRAME, condition=condition), 0.2)
    assert len(model.combinations_) == 6
    assert_same(model, FRAME)


def test_one_label_is_nothing_to_integrate_out():
    assert_same(fitted(ConditionalVAE(), X, condition=["a"] * 90), X)


# ----------------------------------------------------------------------- pipelines


@FLOATS
@pytest.mark.parametrize("estimator", [VAETransformer(), ConditionalVAE()], ids=str)
def test_in_a_pipeline(estimator, dtype):
    pipe = make_pipeline(StandardScaler(), estimator.set_params(**SMALL), LogisticRegression())
    pipe.fit(X.astype(dtype), Y)
    shaken(pipe[1], 0.2)
    rows = X.astype(dtype)
    labels, shares = run(pipe, rows, options={"zipmap": False})
    assert (labels == pipe.predict(rows)).all()
    np.testing.assert_allclose(shares, pipe.predict_proba(rows), rtol=0, atol=1e-5)


@FLOATS
def test_in_a_column_transformer(dtype):
    """Some columns, in an order of their own, beside another transformer."""
    columns = ColumnTransformer(
        [("vae", VAETransformer(**SMALL), [3, 0]), ("pca", PCA(2), [1, 2])], remainder="passthrough"
    )
    rows = X.astype(dtype)
    shaken(columns.fit(rows).named_transformers_["vae"])
    (features,) = run(columns, rows)
    np.testing.assert_allclose(features, columns.transform(rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("columns", [["kind", "price"], ["price", "ok", "kind"]])
def test_text_and_numbers_in_a_column_transformer(columns):
    """skl2onnx would join them in one tensor, of text."""
    table = VAETransformer(likelihood="auto", **SMALL)
    labelled = ConditionalVAE(condition_columns=["kind"], **{**SMALL, "n_components": 1})
    for estimator in (table, make_pipeline(table), labelled):
        steps = ColumnTransformer([("vae", estimator, columns), ("pca", PCA(1), ["height"])])
        assert_same(steps.fit(FRAME), FRAME)


def test_a_skl2onnx_that_joins_all_columns(monkeypatch):
    """What tells it not to is private."""
    vae = VAETransformer(likelihood="auto", **SMALL)
    columns = ColumnTransformer([("vae", vae, ["price", "kind"])]).fit(FRAME)
    monkeypatch.setattr(_parse, "do_not_merge_columns", (OrdinalEncoder,))
    with pytest.raises(NotImplementedError, match=r"merged the columns.*VAETransformer by itself"):
        run(columns, FRAME)
    monkeypatch.delattr(_parse, "do_not_merge_columns")
    skvae.onnx.register()
    assert_same(fitted(VAETransformer(likelihood="auto"), FRAME), FRAME)


@FLOATS
def test_after_one(dtype):
    """Two models of one class in a graph, and one that reads what another step has encoded."""
    rows = X.astype(dtype)
    union = FeatureUnion([(name, VAETransformer(**SMALL)) for name in "ab"])
    pipe = make_pipeline(StandardScaler(), union).fit(rows)
    shaken(pipe[1].transformer_list[0][1])
    (features,) = run(pipe, rows)
    np.testing.assert_allclose(features, pipe.transform(rows), rtol=0, atol=1e-5)
    encode = ColumnTransformer([("codes", OrdinalEncoder(), ["kind"])], remainder="passthrough")
    table = VAETransformer(likelihood={"categorical": [0], "remainder": "gaussian"}, **SMALL)
    frame = FRAME[["kind", "height"]]
    pipe = make_pipeline(encode, table).fit(frame)
    shaken(pipe[1])
    (features,) = run(pipe, frame)
    np.testing.assert_allclose(features, pipe.transform(frame), rtol=0, atol=1e-5)


@pytest.mark.parametrize("target_opset", [13, 15, 17, 18, 21])
def test_opsets(target_opset):
    options = {"target_opset": {"": target_opset, "ai.onnx.ml": 3}}
    assert_same(fitted(VAETransformer(likelihood=MIXED), FRAME), FRAME, **options)
    assert_same(soft("categorical"), CODES, **options)
    assert_same(soft("gaussian", X=HOLES), X, **options)


def test_rows_of_an_open_width():
    model = fitted(VAETransformer())
    types = [("X", DoubleTensorType([None, None]))]
    graph = to_onnx(model, initial_types=types)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    np.testing.assert_allclose(session.run(None, {"X": X})[0], model.transform(X), atol=1e-9)


# -------------------------------------------------------------------------- errors


def test_what_cannot_be_converted_says_what_to_do():
    with pytest.raises(NotImplementedError, match=r"Leave it out.*takes missing cells"):
        run(VAEImputer(VAETransformer(**SMALL)).fit(HOLES), HOLES)
    with pytest.raises(NotImplementedError, match=r"'y'.*condition_columns"):
        run(fitted(ConditionalVAE(), X, X[:, 0]), X)
    with pytest.raises(NotImplementedError, match="nothing to convert"):
        run(VAETransformer(**SMALL).fit(np.ones((30, 2))), X[:, :2])
    with pytest.raises(NotImplementedError, match=r"target_opset=12.*needs 13"):
        run(fitted(VAETransformer()), X, target_opset=12)
    with pytest.raises(NotImplementedError, match=r"exposure='total'.*exposure=None"):
        run(fitted(VAETransformer(likelihood="poisson", exposure="total"), COUNTS), COUNTS)
    with pytest.raises(NotFittedError):
        run(VAETransformer(), X)
    several = pd.DataFrame({"a": X[:, 0], "b": pd.Categorical(["x", 1] * 45, ["x", 1])})
    model = fitted(VAETransformer(likelihood="auto"), several)
    types = [("a", DoubleTensorType([None, 1])), ("b", StringTensorType([None, 1]))]
    with pytest.raises(NotImplementedError, match=r"'b' has categories of several types.*strings"):
        to_onnx(model, initial_types=types)
    days = pd.Categorical(np.array(["2020-01-01", "2020-01-02"] * 45, "datetime64[us]"))
    model = fitted(VAETransformer(likelihood="auto"), several.assign(b=days))
    with pytest.raises(NotImplementedError, match=r"'b' has categories that are neither.*strings"):
        to_onnx(model, initial_types=types)


def test_inputs_that_are_not_those_of_fit():
    with pytest.raises(ValueError, match="3 columns, but VAETransformer was fitted with 4"):
        run(fitted(VAETransformer()), X[:, :3])
    model = fitted(VAETransformer(likelihood="auto"), FRAME[["height", "kind"]])
    text, number = StringTensorType([None, 1]), FloatTensorType([None, 1])
    with pytest.raises(ValueError, match="numbers in column 0 of X, but its input is of text"):
        to_onnx(model, initial_types=[("height", text), ("kind", text)])
    with pytest.raises(ValueError, match=r"'kind' has the categories.*input is of numbers"):
        to_onnx(model, initial_types=[("height", number), ("kind", number)])
    model = fitted(VAETransformer(likelihood="auto"), FRAME[["kind", "height", "price"]])
    types = [("kind", text), ("height", number), ("price", text)]
    with pytest.raises(ValueError, match="numbers in column 2 of X, but its input is of text"):
        to_onnx(model, initial_types=types)


def test_to_register_again_changes_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        skvae.onnx.register()
    assert_same(fitted(VAETransformer()), X)


@pytest.fixture
def not_imported(monkeypatch):
    """As if nobody had imported skvae.onnx; a process of its own would take seconds."""
    monkeypatch.delitem(sys.modules, "skvae.onnx")
    monkeypatch.delattr(skvae, "onnx")


@pytest.mark.usefixtures("not_imported")
def test_who_has_not_imported_it_is_told_to():
    says = r"'skvae' has no attribute 'onnx'.*import skvae\.onnx"
    with pytest.raises(AttributeError, match=says):
        skvae.onnx.register()


@pytest.mark.usefixtures("not_imported")
@pytest.mark.parametrize("missing", ["onnx", "skl2onnx"])
def test_a_missing_extra_is_named(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    says = r"skvae\.onnx needs .*pip install skl2onnx onnxruntime"
    with pytest.raises(ImportError, match=says):
        importlib.import_module("skvae.onnx")
