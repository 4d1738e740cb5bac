"""Tables as users have them: likelihoods by column, and DataFrames that stay DataFrames."""

import pickle
from decimal import Decimal
from types import MappingProxyType

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_selector
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score

from skvae import ConditionalVAE, VAETransformer
from skvae import model_selection as ours
from skvae._frames import ColumnData, frame_of
from skvae.impute import VAEImputer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"n_components": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
N = 400
KINDS = ["c", "b", "a", "unseen"]


def frame(n=N, seed=0):
    """Two hidden causes, seen through columns of every kind."""
    rng = np.random.default_rng(seed)
    z, noise = rng.normal(size=(n, 2)), 0.3 * rng.normal(size=(n, 4))
    kind = np.array(["a", "b", "c"])[(z[:, 0] + noise[:, 0] > 0) * 1 + (z[:, 1] > 0) * 1]
    return pd.DataFrame(
        {
            "age": 20 + 5 * z[:, 0] + rng.normal(size=n),
            "income": np.exp(10 + z[:, 1] + noise[:, 1]),
            "visits": rng.poisson(np.exp(1 + 0.8 * z[:, 0])),
            "kind": pd.Categorical(kind, KINDS, ordered=True),
            "city": np.array(["Rome", "Oslo"])[(z[:, 1] + noise[:, 2] > 0) * 1],
            "flag": z.sum(1) + noise[:, 3] > 0,
        }
    )


DF = frame()
LIKELIHOOD = {
    "gaussian": ["age"], "lognormal": ["income"], "poisson": ["visits"],
    "categorical": ["kind", "city"], "bernoulli": ["flag"],
}  # fmt: skip
FAMILIES = ["gaussian", "lognormal", "poisson", "categorical", "categorical", "bernoulli"]
POLARS = pl.DataFrame(
    {
        name: pl.Series(DF[name].astype(str).tolist(), dtype=pl.Enum(KINDS))
        if name == "kind"
        else DF[name].tolist()
        for name in DF
    }
)


def fitted(X=DF, likelihood="auto", estimator=VAETransformer, **kwargs):
    return estimator(likelihood=likelihood, **{**SMALL, **kwargs}).fit(X)


def families(model):
    return list(model._fitted.codec.families)


def says(words, call, *args, error=ValueError, **kwargs):
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"


# ------------------------------------------------------------------ which likelihood


@pytest.mark.parametrize(
    "likelihood",
    [
        LIKELIHOOD,
        list(LIKELIHOOD.items()),
        {"gaussian": 0, "lognormal": [1], "poisson": slice(2, 3), "remainder": "auto"},
        [("gaussian", [True] + [False] * 5), ("lognormal", "income"), ("poisson", [-4]),
         ("categorical", make_column_selector(dtype_include=["category", "str"])),
         ("remainder", "bernoulli")],
    ],
    ids=["mapping", "list", "positions", "masks_and_selectors"],
)  # fmt: skip
def test_columns_are_named_in_the_manner_of_column_transformer(likelihood):
    model = fitted(likelihood=likelihood)
    assert families(model) == FAMILIES
    np.testing.assert_array_equal(model.transform(DF), fitted(likelihood=LIKELIHOOD).transform(DF))


def test_auto_goes_by_the_kind_of_a_column():
    table = DF.assign(
        few=np.arange(N) % 3 + 10,  # counts do not vary less than their mean
        debt=-DF["visits"],
        name=DF["city"].astype(object),
        nullable=DF["visits"].astype("UInt8").astype("UInt8"),
        single=DF["age"].astype("float32"),
    )
    named = dict(zip(table, families(fitted(table)), strict=True))
    assert named == {
        "age": "gaussian", "income": "gaussian", "visits": "negative_binomial",
        "kind": "categorical", "city": "categorical", "flag": "bernoulli",
        "few": "gaussian", "debt": "gaussian", "name": "categorical",
        "nullable": "negative_binomial", "single": "gaussian",
    }  # fmt: skip


def test_objects_that_are_numbers_are_no_categories():
    """None among numbers makes objects of them, in lists as in DataFrames."""
    whole = DF["visits"].astype(object).where(np.arange(N) % 7 > 0, None)
    table = DF[["city"]].assign(age=DF["age"].astype(object), visits=whole)
    table.loc[3, "age"] = None
    expected = ["categorical", "gaussian", "negative_binomial"]
    for X in (table, table.to_numpy(), table.to_numpy().tolist()):
        assert families(fitted(X)) == expected
    model = fitted(table)
    assert model.sample(3).dtypes.tolist() == [DF["city"].dtype, np.dtype(float), pd.Int64Dtype()]
    bits = DF["flag"].astype(object).where(np.arange(N) > 0, None)
    assert families(fitted(DF[["age"]].assign(flag=bits))) == ["gaussian", "categorical"]


@pytest.mark.parametrize("place", ["frame", "objects"])
def test_decimals_are_numbers(place):
    """Databases have them for numbers; as categories each would be one of its own."""
    prices = [None if i % 7 == 0 else Decimal(f"{age:.2f}") for i, age in enumerate(DF["age"])]
    table = DF[["city"]].assign(price=prices)
    model = fitted(table if place == "frame" else table.to_numpy())
    assert families(model) == ["categorical", "gaussian"]
    floats = table.assign(price=[price and float(price) for price in prices])
    expected = fitted(floats).transform(floats)
    np.testing.assert_array_equal(
        model.transform(table if place == "frame" else table.to_numpy()), expected
    )


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_half_precision_is_read_without_a_warning():
    table = DF[["age"]].astype("float16")
    assert fitted(table).sample(3).dtypes.tolist() == [np.float16]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA], ids=repr)
def test_how_a_cell_is_missing_changes_nothing(missing):
    """read_csv has bools beside NaN, of which numpy makes floats."""
    there = np.arange(N) % 7 > 0
    table = pd.DataFrame(
        {
            "flag": DF["flag"].astype(object).where(there, missing),
            "visits": DF["visits"].astype(object).where(there, missing),
        }
    )
    for X in (table, table.to_numpy(), table.to_numpy().tolist()):
        assert families(fitted(X)) == ["categorical", "negative_binomial"]
    completed = fitted(table).impute(table)["flag"]
    assert {type(value) for value in completed} == {bool}
    assert (completed[there] == DF["flag"][there]).all()


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool"])
def test_auto_of_an_array_goes_by_its_dtype(dtype):
    X = np.column_stack([DF["visits"], DF["visits"] + DF["flag"]]).astype(dtype)
    name = {"int64": "negative_binomial", "bool": "bernoulli"}.get(dtype, "gaussian")
    a, b = fitted(X), fitted(X, name)
    assert families(a) == [name] * 2
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))
    assert isinstance(a.sample(), np.ndarray)


@pytest.mark.parametrize("name", ["gaussian", "student_t"])
def test_parts_of_one_family_are_that_family(name):
    """To the bit: names for all columns and for each take the same path."""
    X = DF[["age", "income"]].to_numpy()
    a, b = fitted(X, name), fitted(X, [(name, [0]), (name, [1])])
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))


@pytest.mark.parametrize("library", ["pandas", "polars", "array"])
def test_the_library_of_a_table_changes_nothing(library):
    X = {"pandas": DF, "polars": POLARS, "array": DF.astype({"kind": str}).to_numpy()}[library]
    likelihood = dict(zip(LIKELIHOOD, ([0], [1], [2], [3, 4], [5]), strict=True))
    model, expected = fitted(X, likelihood), fitted(DF.astype({"kind": str}), likelihood)
    if library == "array":  # an array of objects declares no categories
        np.testing.assert_array_equal(model.score_samples(X), expected.score_samples(
            DF.astype({"kind": str})))  # fmt: skip
    assert families(model) == FAMILIES
    np.testing.assert_array_equal(model.transform(X), fitted(X, likelihood).transform(X))


def test_a_mixed_table_is_better_than_independent_columns():
    """Held out: what the columns tell of each other is worth nats, and no small part of one."""
    train, test = frame(600), frame(300, seed=1)
    kwargs = {**SMALL, "max_iter": 60, "hidden_layer_sizes": (16,)}
    together = VAETransformer(likelihood=LIKELIHOOD, **kwargs).fit(train).score(test)
    alone = 0.0
    for name, family in zip(train, FAMILIES, strict=True):
        model = VAETransformer(likelihood={family: [0]}, **{**kwargs, "n_components": 1})
        alone += model.fit(train[[name]]).score(test[[name]])
    assert together > alone + 1


def test_the_linear_start_is_not_worse_than_the_random_one():
    table = frame(600)
    scores = {
        init: fitted(table, LIKELIHOOD, init=init, max_iter=60) for init in ("both", "random")
    }
    test = frame(300, seed=1)
    assert scores["both"].validation_scores_[0] > scores["random"].validation_scores_[0]
    assert scores["both"].score(test) > scores["random"].score(test)


@pytest.mark.parametrize("noise", ["shared", "decoder", 0.5])
def test_noise_variance_of_a_mixed_table(noise):
    model = fitted(likelihood=LIKELIHOOD, noise_variance=noise)
    variance = dict(zip(DF, model.noise_variance_, strict=True))
    assert np.isnan([variance["kind"], variance["city"]]).all()
    assert (np.array([variance[name] for name in ("age", "income", "visits", "flag")]) > 0).all()
    if noise == 0.5:
        # float32 weights hold the number, the floor is added to it.
        assert variance["age"] == pytest.approx(0.5 * DF["age"].var(ddof=0), rel=2e-5)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_row_depends_on_itself_alone(dtype):
    """Law 5: subset, order and company change rounding only (tolerances of DESIGN.md)."""
    numbers = dict.fromkeys(["age", "income"], dtype)
    X = DF.drop(columns="visits").astype(numbers) if dtype == "float32" else DF
    model, order = fitted(X), np.random.default_rng(0).permutation(N)
    near = {"float64": 1e-10, "float32": 1e-4}[dtype]
    for f in (model.transform, model.score_samples):
        whole = f(X)
        assert whole.dtype == dtype
        np.testing.assert_allclose(f(X.iloc[order]), whole[order], rtol=near, atol=near)
        np.testing.assert_allclose(f(X.iloc[7:8]), whole[7:8], rtol=near, atol=near)


@pytest.mark.parametrize("name", ["student_t", "negative_binomial"])
def test_a_given_variance_is_for_those_that_have_one(name):
    """Others learn their dispersion for each column, as by default."""
    X = DF[["visits"]].assign(more=DF["visits"] + DF["flag"])
    a, b = fitted(X, name, noise_variance=0.5), fitted(X, name)
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))


# ------------------------------------------------------------- DataFrames stay DataFrames


@pytest.mark.parametrize("likelihood", ["auto", LIKELIHOOD], ids=["auto", "mapping"])
def test_samples_are_rows_that_could_have_been_there(likelihood):
    model = fitted(likelihood=likelihood)
    drawn = model.sample(200)
    assert drawn.dtypes.equals(DF.dtypes)
    assert list(drawn.columns) == list(DF.columns)
    assert drawn["kind"].cat.categories.tolist() == KINDS
    assert (drawn["visits"] >= 0).all()
    assert set(drawn["city"]) == {"Rome", "Oslo"}
    assert (drawn["income"] > 0).all() or likelihood == "auto"
    model.score(drawn)  # they are such that the model takes them


def test_expected_rows_have_means_and_the_likeliest_categories():
    model = fitted(likelihood=LIKELIHOOD, max_iter=60)
    for rows in (model.sample(20, mean=True), model.inverse_transform(model.transform(DF))):
        changed = rows.dtypes != DF.dtypes
        assert list(rows.columns[changed]) == ["visits"]  # a mean lies between integers
        assert (rows["visits"] % 1 != 0).any()
    assert (rows["city"] == DF["city"]).mean() > 0.8
    assert (rows["flag"] == DF["flag"]).mean() > 0.8
    assert np.corrcoef(rows["visits"], DF["visits"])[0, 1] > 0.8


@pytest.mark.parametrize("estimator", [VAETransformer, ConditionalVAE])
def test_draws_given_z_are_rows_that_could_have_been_there(estimator):
    """As samples are, and beside the same condition."""
    is_conditional = estimator is ConditionalVAE
    kwargs = {"condition_columns": ["city"]} if is_conditional else {}
    model = fitted(estimator=estimator, **kwargs)
    rows = model.inverse_transform(model.transform(DF), mean=False)
    assert rows.dtypes.tolist() == DF.dtypes.tolist()
    assert set(rows["kind"]) <= {"a", "b", "c"}
    assert (rows["visits"] >= 0).all()
    expected = model.inverse_transform(model.transform(DF))
    assert expected["visits"].dtype == float
    assert (expected["age"] != rows["age"]).all()
    if is_conditional:
        given = model.inverse_transform(np.zeros((2, 2)), condition=["Oslo", "Rome"], mean=False)
        assert given["city"].tolist() == ["Oslo", "Rome"]
        assert set(rows["city"]) == {"Oslo", "Rome"}


def test_integers_stay_integers_where_no_cell_is_filled():
    """What is filled are means, between the integers; what is complete has none."""
    table = DF[["age", "visits"]].assign(calls=DF["visits"].astype("Int64"))
    table.loc[::5, ["age", "calls"]] = pd.NA
    completed = fitted(table).impute(table)
    assert completed["visits"].equals(table["visits"])
    assert completed["calls"].dtype == float
    assert (completed["calls"][table["calls"].isna()] % 1 != 0).any()


def test_polars_stays_polars():
    model = fitted(POLARS)
    drawn = model.sample(30)
    assert isinstance(drawn, pl.DataFrame)
    assert drawn.schema == POLARS.schema
    expected = model.inverse_transform(model.transform(POLARS))
    assert expected.schema == {**POLARS.schema, "visits": pl.Float64}


@pytest.mark.parametrize("dtype", ["uint8", "Int64", "int32", "boolean", "float32", "string"])
def test_dtypes_come_back(dtype):
    column = DF["flag"] if dtype == "boolean" else DF["visits"].clip(upper=250)
    table = DF[["age"]].assign(x=column.astype(dtype))
    assert fitted(table).sample(50).dtypes.equals(table.dtypes)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_categories_that_are_modelled_as_numbers_come_back_as_numbers(library):
    """They are drawn where no category is."""
    grades, likelihood = (np.arange(N) % 5).astype(str), {"gaussian": ["x", "y"]}
    numbers = pd.DataFrame({"x": pd.Categorical(np.arange(N) % 5), "y": DF["age"]})
    enum = pl.Series("x", grades.tolist(), dtype=pl.Enum(list("01234")))
    X = numbers if library == "pandas" else pl.DataFrame({"x": enum, "y": DF["age"].tolist()})
    drawn = fitted(X, likelihood).sample(50)
    assert np.isfinite(drawn["x"].to_numpy()).all()
    assert (drawn["x"].to_numpy() % 1 != 0).any()


def test_draws_stay_in_the_range_of_their_dtype():
    """A draw below 0 is 0, and not what an unsigned byte makes of it."""
    table = pd.DataFrame({"age": DF["age"], "x": np.where(DF["flag"], 255, 0).astype("uint8")})
    drawn = fitted(table, {"gaussian": ["age", "x"]}).sample(200)["x"]
    # A gaussian of these moments has a sixth of its mass on either side.
    assert (drawn == 0).mean() > 0.1
    assert (drawn == 255).mean() > 0.1


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_draws_reach_to_the_ends_of_64_bits(dtype):
    """The largest is no float, and what is above it is no integer."""
    info = np.iinfo(dtype)
    ends = np.where(DF["flag"], info.max, info.min).astype(dtype)
    drawn = fitted(DF[["age"]].assign(x=ends), {"gaussian": ["age", "x"]}).sample(200)["x"]
    assert drawn.dtype == dtype
    assert ((drawn.astype(float) == float(info.max)) | (drawn > info.max - 2**12)).mean() > 0.1
    assert (drawn == info.min).mean() > 0.1


WHEN = pd.to_datetime(["2020-01-01 12:00", "2021-07-01 12:00"] * (N // 2))


@pytest.mark.parametrize(
    "values",
    [
        WHEN,
        WHEN.tz_localize("Europe/Berlin"),
        WHEN - WHEN[0],
        WHEN.to_period("D"),
        pl.Series(WHEN.to_list(), dtype=pl.Datetime("ms", "Europe/Berlin")),
        pl.Series(WHEN.to_list()).dt.date(),
        pl.Series(["1.50", "2.50"] * (N // 2)).cast(pl.Decimal(5, 2)),
    ],
    ids=lambda values: str(values.dtype),
)
def test_categories_of_any_type(values):
    """They come back in their dtype, also from a file."""
    library = pl if isinstance(values, pl.Series) else pd
    X = library.DataFrame({"age": DF["age"].tolist(), "x": values})
    model = fitted(X, {"categorical": ["x"], "remainder": "auto"})
    drawn = pickle.loads(pickle.dumps(model)).sample(50)["x"]
    assert drawn.dtype == X["x"].dtype
    assert set(drawn) == set(X["x"])
    # As a condition they are kept beside the model.
    given = fitted(X, {"gaussian": ["age"]}, ConditionalVAE, condition_columns="x")
    assert set(given.sample(50)["x"]) == set(X["x"])


@pytest.mark.parametrize("text", ["read_csv(source='x')", "Config", "nothing"])
def test_a_file_that_names_no_dtype_calls_nothing(text):
    """A state says what the dtypes of polars are; nothing else of polars is for it to ask for."""
    with pytest.raises(ValueError, match="no dtype of polars"):
        frame_of("polars", [ColumnData("x", np.arange(3), text)])


@pytest.mark.parametrize("kind", ["Int64", "category", "object", "polars"])
def test_large_integers_beside_missing_cells_are_categories(kind):
    """As floats these would all be one."""
    ids = np.array([2**60 + 1, 2**60 + 2, 2**60 + 3, None] * (N // 4), dtype=object)
    column = pl.Series(ids.tolist()) if kind == "polars" else pd.Series(ids, dtype="Int64")
    column = column if kind in ("polars", "Int64") else column.astype(kind)
    library = pl if kind == "polars" else pd
    X = library.DataFrame({"age": DF["age"].tolist(), "id": column})
    completed = fitted(X, {"categorical": ["id"], "gaussian": ["age"]}).impute(X)["id"].to_list()
    assert set(completed) == {2**60 + 1, 2**60 + 2, 2**60 + 3}
    assert all(new == old for new, old in zip(completed, ids, strict=True) if old is not None)


def test_numbers_of_the_other_byte_order():
    X = DF[["age", "visits"]].astype({"age": ">f8", "visits": ">i8"})
    model, native = fitted(X), fitted(DF[["age", "visits"]])
    np.testing.assert_array_equal(model.score_samples(X), native.score_samples(DF[X.columns]))
    assert VAEImputer(random_state=0).fit(X).transform(X).shape == X.shape


def test_plain_names_give_arrays():
    numbers = DF[["age", "income"]]
    model = fitted(numbers, "gaussian")
    assert isinstance(model.sample(), np.ndarray)
    assert isinstance(model.inverse_transform(model.transform(numbers)), np.ndarray)


def test_categories_in_an_array():
    X = DF[["city", "flag"]].to_numpy()
    drawn = fitted(X, "categorical").sample(50)
    assert drawn.dtype == object
    assert set(map(tuple, drawn.tolist())) <= {(c, f) for c in ("Rome", "Oslo") for f in (0, 1)}
    numbers = np.column_stack([np.arange(N) % 3 * 10.0, DF["age"]])
    drawn = fitted(numbers, {"categorical": [0], "gaussian": [1]}).sample(50)
    assert drawn.dtype == np.float64
    assert set(drawn[:, 0]) <= {0.0, 10.0, 20.0}


def test_declared_categories_may_come_later():
    """A category dtype says what there is; a later part may hold what the first did not."""
    a = DF["kind"] == "a"
    table, model = DF[["age", "kind"]], VAETransformer(likelihood="auto", **SMALL)
    model.partial_fit(table[a]).partial_fit(table[~a])
    swapped = table.assign(kind=table["kind"].cat.rename_categories({"a": "b", "b": "a"}))
    assert (model.score_samples(table) != model.score_samples(swapped.astype(table.dtypes))).any()
    seen = VAETransformer(likelihood="auto", **SMALL).partial_fit(table[~a].astype({"kind": str}))
    says(["'kind'", "'a'"], seen.partial_fit, table[a].astype({"kind": str}))


# ------------------------------------------------------------------- with a condition


def test_condition_columns_of_a_mixed_table():
    model = fitted(estimator=ConditionalVAE, condition_columns=["kind"])
    assert model.sample(20).dtypes.equals(DF.dtypes)
    drawn = model.sample(condition=["a", "b"])
    assert drawn["kind"].tolist() == ["a", "b"]
    again = model.inverse_transform(model.transform(DF), condition=DF["kind"])
    assert again["kind"].tolist() == DF["kind"].tolist()
    assert (families(model) == np.delete(families(fitted()), 3)).all()
    given = fitted(likelihood=LIKELIHOOD, estimator=ConditionalVAE, condition_columns=[3])
    assert families(given) == [*FAMILIES[:3], *FAMILIES[4:]]


@pytest.mark.parametrize("kind", ["numbers", "objects", "lists"])
def test_condition_columns_of_an_array(kind):
    X = np.column_stack([np.arange(N) % 2, DF["visits"], DF["age"]])
    X = {"numbers": X, "objects": X.astype(object), "lists": X.tolist()}[kind]
    likelihood = {"poisson": [1], "remainder": "auto"}
    model = fitted(X, likelihood, ConditionalVAE, condition_columns=[0])
    assert families(model) == ["poisson", "gaussian"]
    drawn = model.sample(condition=[0.0, 1.0])
    assert drawn[:, 0].tolist() == [0, 1]
    assert drawn.dtype == np.float64
    assert np.isfinite(model.score(X))


def test_a_condition_beside_a_mixed_table():
    rest = DF.drop(columns="city")
    model = ConditionalVAE(likelihood="auto", **SMALL).fit(rest, DF["city"])
    assert model.sample(condition=["Oslo", "Rome"]).dtypes.equals(rest.dtypes)
    np.testing.assert_allclose(model.condition_proba(rest).sum(1), 1)
    # Without a condition labels are averaged over: the likeliest category still is one.
    assert (
        model.inverse_transform(model.transform(rest))
        .drop(columns="visits")
        .dtypes.equals(rest.drop(columns="visits").dtypes)
    )
    polars = POLARS.drop("city")
    model = ConditionalVAE(likelihood="auto", **SMALL).fit(polars, POLARS["city"])
    assert model.sample(3).schema == polars.schema


# ------------------------------------------------------------------------ keep and carry


@pytest.mark.parametrize("X", [DF, POLARS], ids=["pandas", "polars"])
@pytest.mark.parametrize("way", ["pickle", "joblib", "skops"])
def test_a_copy_gives_the_same_rows(way, X, tmp_path):
    model = fitted(X)
    if way == "pickle":
        copied = pickle.loads(pickle.dumps(model))
    elif way == "joblib":
        joblib.dump(model, tmp_path / "model")
        copied = joblib.load(tmp_path / "model", mmap_mode="r")
    else:
        io = pytest.importorskip("skops.io")
        data = io.dumps(model)
        trusted = io.get_untrusted_types(data=data)
        assert trusted == ["skvae._transformer.VAETransformer"]
        copied = io.loads(data, trusted=trusted)
    assert copied.sample(9).equals(model.sample(9))
    np.testing.assert_array_equal(copied.score_samples(X), model.score_samples(X))
    np.testing.assert_array_equal(copied.partial_fit(X).transform(X),
                                  model.partial_fit(X).transform(X))  # fmt: skip


def test_any_mapping_is_one():
    model = fitted(likelihood=MappingProxyType(LIKELIHOOD))
    assert families(model) == families(fitted(likelihood=LIKELIHOOD))


def test_clone_and_search():
    """Mappings and selectors are parameters like others; a search trains all at once."""
    selector = make_column_selector(dtype_include=["category", "str"])
    likelihood = {"categorical": selector, "remainder": "auto"}
    model = VAETransformer(likelihood=likelihood, **SMALL)
    assert families(clone(model).fit(DF)) == families(fitted())
    assert np.isfinite(cross_val_score(model, DF, cv=2)).all()
    grid = {"n_components": [1, 2], "likelihood": ["auto", LIKELIHOOD]}
    one, other = (
        search(VAETransformer(**SMALL), grid, cv=2).fit(DF)
        for search in (GridSearchCV, ours.GridSearchCV)
    )
    # Training together equals training alone, but for roundings of float32.
    np.testing.assert_allclose(
        one.cv_results_["mean_test_score"], other.cv_results_["mean_test_score"], atol=1e-4
    )


def test_warm_start_goes_on_with_the_same_columns():
    model = VAETransformer(likelihood=LIKELIHOOD, warm_start=True, **SMALL).fit(DF)
    before = model.score(DF)
    assert model.fit(DF).score(DF) > before
    model.set_params(likelihood={**LIKELIHOOD, "gaussian": [], "student_t": ["age"]})
    says(["likelihood was", "student_t", "warm_start=False"], model.fit, DF)


# ------------------------------------------------------------------------------ bad input


def with_value(name, value, row=3):
    table = DF.copy()
    table[name] = table[name].astype(object)
    table.loc[row, name] = value
    return table.astype({name: DF[name].dtype}) if not isinstance(value, str) else table


@pytest.mark.parametrize(
    ("family", "name", "value", "words"),
    [
        ("poisson", "visits", -1, ["{0, 1, ...}", "X[3, 2]", "'visits'", "-1"]),
        ("negative_binomial", "visits", 1.5, ["{0, 1, ...}", "X[3, 2]", "1.5", "gaussian"]),
        ("lognormal", "income", 0.0, ["(0, inf)", "X[3, 1]", "0", "logarithm", "gaussian"]),
        ("lognormal", "income", -2.0, ["lognormal", "X[3, 1]", "-2"]),
        ("bernoulli", "age", 2.0, ["[0, 1]", "X[3, 0]", "2"]),
    ],
)
def test_values_outside_of_a_support(family, name, value, words):
    """Value, column, likelihood, rule and remedy, in fit and after."""
    numbers = DF[["age", "income", "visits"]].clip(0.5, 1).astype({"visits": float}).round(
        {"visits": 0})  # fmt: skip
    bad = numbers.copy()
    bad.loc[3, name] = value
    model = VAETransformer(likelihood={family: [name], "remainder": "gaussian"}, **SMALL)
    says([family, *words], model.fit, bad)
    model.fit(numbers)
    says([family, *words], model.transform, bad)


def test_unknown_categories():
    model = fitted()
    bad = with_value("city", "Bonn")
    words = ["'city'", "'Bonn'", "row 3", "'Oslo', 'Rome'", "declare"]
    for method in ("transform", "score", "partial_fit"):
        says(words, getattr(model, method), bad)


def test_unknown_categories_may_count_as_missing():
    model = fitted(handle_unknown="missing")
    new, missing = with_value("city", "Bonn"), with_value("city", None)
    for method in ("transform", "score_samples", "impute"):
        answers = [getattr(model, method)(table) for table in (new, missing)]
        np.testing.assert_array_equal(*answers)
    assert model.impute(new)["city"].isin(["Oslo", "Rome"]).all()
    model.partial_fit(new)


@pytest.mark.parametrize("name", ["age", "visits", "kind", "city", "flag"])
@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_cells(name, missing):
    """Of every family and in every writing: filled by what is expected of them."""
    holed = DF.astype({name: object})
    holed.loc[3, name] = missing
    for model in (fitted(holed, likelihood=LIKELIHOOD), fitted(likelihood=LIKELIHOOD)):
        assert np.isfinite(model.transform(holed)).all()
        completed = model.impute(holed)
        assert completed.notna().all(axis=None)
        kept = completed[name].drop(3).tolist()
        assert (
            kept == pytest.approx(DF[name].drop(3).tolist())
            if DF[name].dtype.kind == "f"
            else (kept == DF[name].drop(3).tolist())
        )


def test_a_column_all_missing():
    bad = DF.assign(empty=np.nan)
    says(["missing in every row", "'empty'"], VAETransformer(likelihood="auto", **SMALL).fit, bad)


def test_infinities():
    says(["infinity"], VAETransformer(likelihood="auto", **SMALL).fit, DF.assign(age=np.inf))
    likelihood = {"categorical": ["age"], "remainder": "auto"}
    whole = DF.assign(age=DF["age"].round())
    bad = whole.assign(age=whole["age"].replace(whole["age"][3], -np.inf))
    says(["'age'", "row 3", "infinity"], VAETransformer(likelihood=likelihood, **SMALL).fit, bad)
    says(["'age'", "row 3", "infinity"], fitted(whole, likelihood).transform, bad)


def test_mixed_types_in_a_column():
    bad = DF.astype({"city": object})
    bad.loc[3, "city"] = 7
    words = ["'city'", "several types", "'int', 'str'", "strings"]
    says(words, VAETransformer(likelihood="auto", **SMALL).fit, bad)


def test_strings_where_numbers_are_needed():
    likelihood = {"gaussian": ["city"], "remainder": "auto"}
    words = ["'city'", "'gaussian'", "numbers", "categorical"]
    says(words, VAETransformer(likelihood=likelihood, **SMALL).fit, DF)
    says(["'age'", "'old'", "row 3"], fitted().transform, with_value("age", "old"))


def test_what_can_change_is_no_category_of_new_rows_either():
    bad = DF.astype({"city": object})
    bad.at[3, "city"] = ["Rome"]
    says(["'city'", "['Rome']", "row 3", "not hashable"], fitted().transform, bad)


def test_a_dtype_that_no_likelihood_is_for():
    bad = DF.assign(day=pd.Timestamp("2020-01-01"))
    for likelihood in ("auto", {"gaussian": ["day"], "remainder": "auto"}):
        model = VAETransformer(likelihood=likelihood, **SMALL)
        says(["'day'", "datetime64", "categories"], model.fit, bad)
    days = np.array([["2020-01-01", "NaT"], ["2021-01-01", "2020-01-01"]], dtype="M8[D]")
    dates = DF[["age"]].assign(day=pd.Timestamp("2020-01-01"))
    spans = DF[["age"]].assign(span=pd.to_timedelta(np.arange(N), unit="h"))
    for rows, words in (
        (days, ["datetime64[D]"]),
        (days - days[0, 0], ["timedelta64[D]"]),
        (dates, ["'day'", "datetime64"]),
        (pl.DataFrame(dates.to_dict("list")), ["'day'", "Datetime"]),
        (spans, ["'span'", "timedelta64"]),
    ):
        says([*words, "no likelihood"], VAETransformer(**SMALL).fit, rows)
    for cells in ([{"a": 1}, None], [[1, 2], None]):
        bad = pl.DataFrame({"age": [1.0, 2.0], "cells": cells})
        says(["'cells'", "no likelihood"], VAETransformer(likelihood="auto", **SMALL).fit, bad)


@pytest.mark.parametrize(
    ("likelihood", "words"),
    [
        ({"gaussian": ["age"]}, ["'income', 'visits', 'kind', 'city', 'flag'", "remainder"]),
        ({"gaussian": ["age"], "student_t": ["age"]}, ["column 0", "twice"]),
        ({"age": "gaussian"}, ["'age'", "likelihoods for keys"]),
        ({"remainder": "guess"}, ["'guess'", "'auto'"]),
        ({"gaussian": ["size"], "remainder": "auto"}, ["'gaussian'", "size"]),
        ({"gaussian": [9], "remainder": "auto"}, ["'gaussian'", "9"]),
        (["gaussian", "poisson"], ["'gaussian'", "pairs"]),
        ("guess", ["likelihood", "'guess'"]),
    ],
)
def test_wrong_likelihoods(likelihood, words):
    says(words, VAETransformer(likelihood=likelihood, **SMALL).fit, DF)


def test_columns_of_other_names_or_order():
    model = fitted()
    says(["feature names"], model.transform, DF.rename(columns={"age": "years"}))
    says(["same order"], model.transform, DF[DF.columns[::-1]])
    says(["feature names", "flag"], model.transform, DF.drop(columns="flag"))
    with pytest.warns(UserWarning, match="feature names"):
        says(["5 features", "6 features"], model.transform, DF.to_numpy()[:, :5])


def test_two_columns_of_one_name():
    bad = pd.concat([DF, DF[["age"]]], axis=1)
    says(["'age'", "one name"], VAETransformer(likelihood="auto", **SMALL).fit, bad)
    numbers = bad[["age", "age", "visits"]]
    says(["'age'", "one name"], VAETransformer(**SMALL).fit, numbers)
    says(["'age'", "one name"], ConditionalVAE(condition_columns=["visits"]).fit, numbers)
    says(["'age'", "one name"], VAEImputer().fit, bad)
    says(["'age'", "one name"], VAEImputer(VAETransformer(**SMALL)).fit, numbers)


def test_one_row_and_no_rows():
    says(["1 sample", "minimum of 2"], VAETransformer(likelihood="auto", **SMALL).fit, DF[:1])
    says(["0 sample"], VAETransformer(likelihood="auto", **SMALL).fit, DF[:0])
    says(["0 sample"], fitted().transform, DF[:0])
    assert fitted().transform(DF[:1]).shape == (1, 2)


def test_a_column_of_one_category():
    """It is reproduced, and adds nothing."""
    table = DF[["age", "income"]]
    model = fitted(table.assign(same="x"))
    assert (model.sample(9)["same"] == "x").all()
    np.testing.assert_array_equal(
        model.score_samples(table.assign(same="x")), fitted(table).score_samples(table)
    )


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial", {"poisson": slice(None)}])
def test_counts_beyond_the_largest_are_refused_in_every_fit(likelihood):
    """A model that goes on would be led away by them as a first one."""
    counts = DF[["visits"]].assign(calls=DF["visits"] + 1)
    far = counts.assign(calls=10**14)
    words = ["'calls'", "1e+14", "1e+13", "lognormal"]
    model = VAETransformer(likelihood=likelihood, warm_start=True, **SMALL)
    says(words, model.fit, far)
    model.fit(counts)
    before = model.score(counts)
    for method in ("fit", "partial_fit"):
        says(words, getattr(model, method), far)
    assert model.score(counts) == before


def test_convergence_is_still_watched():
    with pytest.warns(ConvergenceWarning):
        VAETransformer(likelihood="auto", **{**SMALL, "max_iter": 4}, n_iter_no_change=2).fit(DF)
