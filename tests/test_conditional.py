"""ConditionalVAE: where the condition comes from, and what integrating it out means."""

import pickle
import warnings

import numpy as np
import pytest
import sklearn
from scipy.special import logsumexp
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import ConditionalVAE

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"n_components": 2, "hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}
N = 120
RNG = np.random.default_rng(0)
CODE = np.repeat([0, 1, 1], N // 3)[RNG.permutation(N)]  # p(c) = 1/3, 2/3
CENTRES = np.array([[0.0, 0, 0], [9.0, -9, 9]])
X = CENTRES[CODE] + RNG.normal(size=(N, 3))
NAMES = np.array(["ant", "bee"])[CODE]


@pytest.fixture(scope="module")
def model():
    return ConditionalVAE(**SMALL).fit(X, NAMES)


@pytest.mark.parametrize(
    "labels",
    [NAMES, NAMES.tolist(), CODE, CODE.astype(bool), CODE.astype(np.int8),
     np.array(["a", 7], dtype=object)[CODE], np.array([None.__class__, 7], dtype=object)[CODE]],
    ids=["str", "list", "int", "bool", "int8", "mixed", "objects"],
)  # fmt: skip
def test_labels_of_any_type(labels):
    """The same condition under other names is the same model."""
    a = ConditionalVAE(**SMALL).fit(X, condition=labels)
    assert len(a.classes_) == 2
    assert a.transform(X, condition=labels).shape == (N, 2)
    np.testing.assert_allclose(a.condition_proba(X).sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_of_labels_and_numbers(library):
    """Columns are found by name, whatever their order."""
    frames = pytest.importorskip(library)
    number = np.linspace(0, 1, N)
    frame = frames.DataFrame({"kind": NAMES, "dose": number})
    a = ConditionalVAE(**SMALL).fit(X, condition=frame)
    assert [list(c) for c in a.categories_] == [["ant", "bee"]]
    assert not hasattr(a, "classes_")
    turned = frame[["dose", "kind"]]
    np.testing.assert_array_equal(a.transform(X, condition=frame), a.transform(X, condition=turned))
    np.testing.assert_array_equal(
        a.score_samples(X, condition=frame), a.score_samples(X, condition=turned)
    )
    labels = frames.DataFrame({"kind": NAMES, "odd": np.arange(N) % 2})
    b = ConditionalVAE(**SMALL).fit(X, condition=labels)
    assert b.condition_proba(X).shape == (N, 4)
    assert b.sample(condition=labels).shape == (N, 3)


def test_columns_of_y_are_read_as_those_of_a_condition():
    """By their own dtypes, of which scikit-learn's checks make one for all."""
    pd = pytest.importorskip("pandas")
    codes = pd.Series(2**60 + 1 + CODE)
    for y in (codes.astype("Int64"), codes.astype("Int64").to_frame("y")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataConversionWarning)  # a table of one column
            a = ConditionalVAE(**SMALL).fit(X, y)
        assert a.classes_.tolist() == [2**60 + 1, 2**60 + 2]
    table = pd.DataFrame({"level": pd.Categorical(0.5 + CODE), "kind": NAMES, "id": codes})
    by_y, by_condition = (
        ConditionalVAE(**SMALL).fit(X, table),
        ConditionalVAE(**SMALL).fit(X, condition=table),
    )
    for a in (by_y, by_condition):
        assert [c.tolist() for c in a.categories_] == [
            [0.5, 1.5],
            ["ant", "bee"],
            [2**60 + 1, 2**60 + 2],
        ]


@pytest.mark.parametrize(
    ("condition", "error"),
    [({"kind": NAMES}, TypeError), ({0, 1}, TypeError), ([[{1}]] * N, ValueError)],
    ids=["mapping", "set", "unhashable"],
)
def test_what_is_no_condition(condition, error):
    with pytest.raises(error, match=r"condition.*(table|label)"):
        ConditionalVAE(**SMALL).fit(X, condition=condition)


def test_floats_in_a_mixed_table_are_numbers():
    """A list of rows says what a DataFrame of them says."""
    dose = np.linspace(0, 1, N)
    listed = [[kind, value] for kind, value in zip(NAMES.tolist(), dose.tolist(), strict=True)]
    a = ConditionalVAE(**SMALL).fit(X, condition=listed)
    assert len(a.categories_) == 1
    assert a.sample(condition=[["ant", 0.123], ["bee", 0.456]]).shape == (2, 3)


def test_three_sources_are_one_model(model):
    keyword = ConditionalVAE(**SMALL).fit(X, condition=NAMES)
    table = np.column_stack([X[:, :1], CODE, X[:, 1:]])
    columns = ConditionalVAE(condition_columns=[1], **SMALL).fit(table.astype(object).tolist())
    np.testing.assert_array_equal(model.transform(X), keyword.transform(X))
    assert columns.transform(table).shape == (N, 2)


def test_scores_integrate_the_label_out(model):
    """log p(x) = logsumexp_c(log p(c) + log p(x|c)), to float64 rounding."""
    prior = np.log(np.bincount(CODE) / N)
    each = [model.score_samples(X, condition=[c] * N) for c in model.classes_]
    joint = np.column_stack(each) + prior
    np.testing.assert_allclose(model.score_samples(X), logsumexp(joint, 1), rtol=1e-12)
    proba = model.condition_proba(X)
    np.testing.assert_allclose(proba, np.exp(joint - logsumexp(joint, 1)[:, None]), atol=1e-12)
    assert (model.classes_[proba.argmax(1)] == NAMES).mean() > 0.98  # blobs 15 sd apart


def test_sampling_given_a_condition(model):
    rows = model.sample(condition=["ant"] * 200 + ["bee"] * 200)
    for part, centre in zip((rows[:200], rows[200:]), CENTRES, strict=True):
        # sd 1, 200 draws: the mean within 0.07 of the model's; the model's within 0.5.
        np.testing.assert_allclose(part.mean(0), centre, atol=1.0)
    assert model.sample(1, condition=["ant", "bee"]).shape == (2, 3)
    share = (model.sample(2000)[:, 0] > 4.5).mean()
    assert share == pytest.approx(2 / 3, abs=0.05)  # 0.0105 is one standard error


@pytest.mark.parametrize("label", ["ant", np.str_("ant")])
def test_a_single_value_is_the_condition_of_all_samples(model, label):
    expected = model.sample(5, condition=["ant"])
    np.testing.assert_array_equal(model.sample(5, condition=label), expected)


def test_single_values_of_other_types():
    number = ConditionalVAE(**SMALL).fit(X, condition=np.linspace(0, 1, N))
    for one in (0.5, np.float64(0.5), np.array(0.5)):
        np.testing.assert_array_equal(
            number.sample(3, condition=one), number.sample(3, condition=[0.5])
        )
    code = ConditionalVAE(**SMALL).fit(X, CODE)
    np.testing.assert_array_equal(code.sample(3, condition=1), code.sample(3, condition=[1]))
    two = ConditionalVAE(**SMALL).fit(X, condition=np.column_stack([NAMES, NAMES]))
    with pytest.raises(ValueError, match=r"1 column\(s\), but the model was fitted with 2"):
        two.sample(condition="ant")


def test_the_prior_is_the_share_of_every_combination(model):
    """With it users can draw the labels that `sample` draws, and keep them."""
    np.testing.assert_allclose(model.condition_prior_, np.bincount(CODE) / N, rtol=1e-12)
    labels = np.random.default_rng(0).choice(model.classes_, 100, p=model.condition_prior_)
    assert model.sample(condition=labels).shape == (100, 3)
    odd = np.arange(N) % 5 == 0
    two = ConditionalVAE(**SMALL).fit(X, condition=np.column_stack([CODE, odd]))
    assert len(two.combinations_) == 4
    for (code, is_odd), share in zip(two.combinations_, two.condition_prior_, strict=True):
        assert share == pytest.approx(np.mean((code == CODE) & (odd == is_odd)), rel=1e-12)
    loaded = pickle.loads(pickle.dumps(two))
    np.testing.assert_array_equal(loaded.condition_prior_, two.condition_prior_)


def test_the_prior_is_that_of_the_first_fit(model):
    other = ConditionalVAE(**SMALL).partial_fit(X, NAMES)
    before = other.condition_prior_
    other.partial_fit(X, NAMES[::-1][: N // 2].repeat(2))
    np.testing.assert_array_equal(other.condition_prior_, before)
    other.fit(X, condition=np.linspace(0, 1, N))
    assert not hasattr(other, "condition_prior_")


def test_counterfactuals(model):
    z = model.transform(X, condition=NAMES)
    same, other = (model.inverse_transform(z, condition=c) for c in (NAMES, NAMES[::-1].copy()))
    swapped = np.where(NAMES == "ant", "bee", "ant")
    other = model.inverse_transform(z, condition=swapped)
    for name, code in (("ant", 0), ("bee", 1)):
        np.testing.assert_allclose(same[name == NAMES].mean(0), CENTRES[code], atol=1.0)
        np.testing.assert_allclose(other[name == NAMES].mean(0), CENTRES[1 - code], atol=1.5)
    each = [model.inverse_transform(z, condition=[c] * N) for c in model.classes_]
    np.testing.assert_allclose(
        model.inverse_transform(z), each[0] / 3 + each[1] * 2 / 3, rtol=1e-10, atol=1e-12
    )


def test_a_draw_given_z_has_the_condition_or_one_by_its_share(model):
    z = np.zeros((2000, 2))
    for name, code in (("ant", 0), ("bee", 1)):
        drawn = model.inverse_transform(z, condition=[name] * len(z), mean=False)
        mean = model.inverse_transform(z[:1], condition=[name])[0]
        # Five standard errors, the deviation of the rows being 1.
        np.testing.assert_allclose(drawn.mean(0), mean, atol=0.15)
        assert (drawn.std(0) > 0.5).all()
        np.testing.assert_allclose(mean, CENTRES[code], atol=1.0)
    share = (model.inverse_transform(z, mean=False)[:, 0] > 4.5).mean()
    assert share == pytest.approx(2 / 3, abs=0.05)  # 0.0105 is one standard error


def test_a_draw_given_z_tells_the_label_it_has():
    """Where the condition is a column of X, the drawn label stands in it."""
    table = [[code, *row] for code, row in zip(CODE.tolist(), X.tolist(), strict=True)]
    model = ConditionalVAE(condition_columns=[0], **SMALL).fit(table)
    rows = model.inverse_transform(np.zeros((200, 2)), mean=False).astype(float)
    assert set(rows[:, 0]) == {0, 1}
    np.testing.assert_array_equal(rows[:, 0] == 1, rows[:, 1] > 4.5)
    means = model.inverse_transform(np.zeros((3, 2))).astype(float)
    assert set(means[:, 0]) == {1}  # the most frequent


def test_no_leak_of_labels(model):
    """fit_transform(X, y) is fit(X, y).transform(X): y does not touch the features."""
    np.testing.assert_array_equal(
        ConditionalVAE(**SMALL).fit_transform(X, NAMES), model.transform(X)
    )
    keyword = ConditionalVAE(**SMALL).fit_transform(X, condition=NAMES)
    np.testing.assert_array_equal(keyword, model.transform(X, condition=NAMES))


def test_score_takes_y_where_it_is_the_condition(model):
    given = model.score_samples(X, condition=NAMES).mean()
    # The order of a sum: rounding.
    assert model.score(X, NAMES) == pytest.approx(given, rel=1e-12)
    assert model.score(X) == pytest.approx(model.score_samples(X).mean(), rel=1e-12)
    keyword = ConditionalVAE(**SMALL).fit(X, condition=NAMES)
    assert keyword.score(X, CODE) == keyword.score(X)


def test_metadata_routing_through_pipeline_and_search():
    """`condition` is passed on and sliced by Pipeline, GridSearchCV and cross_validate."""
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = make_pipeline(StandardScaler(), ConditionalVAE(**SMALL), LogisticRegression())
        dose = np.linspace(0, 1, N)
        pipe.fit(X, CODE, condition=dose)
        assert pipe.predict(X, condition=dose).shape == (N,)
        with pytest.raises(ValueError, match="condition= is required"):
            pipe.predict(X)
        grid = {"conditionalvae__n_components": [1, 2]}
        search = GridSearchCV(pipe, grid, cv=3, error_score="raise")
        search.fit(X, CODE, condition=dose)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        found = cross_validate(pipe, X, CODE, params={"condition": dose}, cv=3, error_score="raise")
        assert np.isfinite(found["test_score"]).all()
        alone = GridSearchCV(ConditionalVAE(**SMALL), {"beta": [0.5, 1]}, cv=3, error_score="raise")
        alone.fit(X, condition=dose)


def test_in_a_pipeline_without_routing():
    pipe = make_pipeline(StandardScaler(), ConditionalVAE(**SMALL), LogisticRegression())
    found = GridSearchCV(pipe, {"conditionalvae__beta": [0.5, 1]}, cv=3, error_score="raise")
    assert found.fit(X, NAMES).predict(X).shape == (N,)


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("columns", [["kind"], "kind", [1], 1, [-3], ["kind", "c"]])
def test_condition_columns(library, columns):
    """By name or position, strings too; outputs have X's width with the labels in place."""
    frames = pytest.importorskip(library)
    data = {"a": X[:, 0], "kind": NAMES, "b": X[:, 1], "c": X[:, 2]}
    frame = frames.DataFrame(data)
    model = ConditionalVAE(condition_columns=columns, **SMALL).fit(frame)
    assert model.n_features_in_ == 4
    z = model.transform(frame)
    assert z.shape == (N, 2)
    assert np.isfinite(model.score_samples(frame)).all()
    if columns == ["kind", "c"]:
        return
    for rows in (model.inverse_transform(z), model.sample(9)):
        assert rows.shape[1] == 4
        assert set(rows[:, 1]) <= {"ant", "bee"}
    given = model.sample(condition=["ant", "bee"])
    assert list(given[:, 1]) == ["ant", "bee"]
    np.testing.assert_allclose(given[:, [0, 2, 3]].astype(float), CENTRES, atol=6)  # 6 sd


def test_several_columns_are_put_back_where_they_were():
    """Columns given in another order come back in X's own places."""
    table = np.column_stack([CODE, 100 * X, 10 + CODE]).astype(int)  # integers are labels
    model = ConditionalVAE(condition_columns=[4, 0], **SMALL).fit(table)
    rows = model.sample(20)
    np.testing.assert_array_equal(rows[:, 4], rows[:, 0] + 10)


def test_a_condition_by_name_stands_in_its_own_columns():
    """Whatever the order it is given in."""
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=["p", "q", "r"])
    table.insert(0, "a", CODE)
    table.insert(1, "b", 10 * (1 + np.arange(N) % 2))
    model = ConditionalVAE(**SMALL, condition_columns=["a", "b"]).fit(table)
    turned = pandas.DataFrame({"b": [20], "a": [1]})
    for row in (
        model.sample(condition=turned)[0],
        model.inverse_transform(np.zeros((1, 2)), condition=turned)[0],
    ):
        assert row[:2].tolist() == [1, 20]


def test_columns_of_other_names_are_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"kind": NAMES, "dose": np.linspace(0, 1, N)})
    model = ConditionalVAE(**SMALL).fit(X, condition=frame)
    other = frame.rename(columns={"kind": "Kind"})
    for one in (model, pickle.loads(pickle.dumps(model))):
        with pytest.raises(ValueError, match=r"'Kind'.*fitted with 'kind', 'dose'.*Rename"):
            one.transform(X, condition=other)


def test_combinations_name_the_columns_of_condition_proba():
    table = np.column_stack([NAMES, np.array(["u", "v"])[np.arange(N) % 2]])
    model = ConditionalVAE(**SMALL).fit(X, condition=table)
    assert model.combinations_ == [("ant", "u"), ("ant", "v"), ("bee", "u"), ("bee", "v")]
    read = model.condition_proba(X).argmax(1)
    # The first column's clusters are nine standard deviations apart.
    assert [model.combinations_[i][0] for i in read] == NAMES.tolist()


def test_a_label_of_a_single_row_is_learned_wherever_this_row_falls():
    """Held out to know when to stop, it would leave p(x|c) of its label untrained."""
    held_out = np.random.RandomState(SMALL["random_state"]).permutation(N)[0]
    codes, rows = CODE.copy(), X.copy()
    codes[held_out], rows[held_out] = 2, 20.0
    model = ConditionalVAE(**SMALL).fit(rows, codes)
    # Where it is one of the training rows, within 2 of them; where not, 18 away from them.
    np.testing.assert_allclose(model.sample(condition=[2], mean=True), 20.0, atol=3)
    assert model.best_validation_score_ > -10  # -65 with that row


def test_labels_of_their_own_leave_rows_to_validate_by():
    model = ConditionalVAE(**SMALL).fit(X, np.arange(N).astype(str))
    assert model.best_validation_score_ is not None


def test_without_a_label_cells_are_imputed_by_all_of_them():
    """By p(c | what is observed), with the draws that this is asked with."""
    rng = np.random.default_rng(1)
    labels = np.where(rng.random(N) < 0.3, 1 - CODE, CODE)
    model = ConditionalVAE(**SMALL).fit(X, labels)
    holes = np.where(rng.random(X.shape) < 0.4, np.nan, X)
    shares = model.condition_proba(holes, n_draws=32)
    assert (shares.max(1) < 0.9).mean() > 0.5  # the label is in doubt, and not even
    assert (np.abs(shares[:, 0] - 0.5) > 0.1).mean() > 0.5
    each = [model.impute(holes, condition=np.full(N, c), n_draws=32) for c in model.classes_]
    expected = sum(share[:, None] * rows for share, rows in zip(shares.T, each, strict=True))
    np.testing.assert_allclose(model.impute(holes, n_draws=32), expected, rtol=1e-10)


def test_masked_labels_are_missing():
    """As masked cells of X are; a mask without any changes nothing."""
    masked = np.ma.array(CODE, mask=np.arange(N) == 4)
    for arguments in ({"y": masked}, {"condition": masked}, {"condition": 1.5 * masked}):
        with pytest.raises(ValueError, match=r"missing.*row 4"):
            ConditionalVAE(**SMALL).fit(X, **arguments)
    open_ones = np.ma.array(CODE)
    for arguments in ({"y": open_ones}, {"condition": open_ones}):
        assert ConditionalVAE(**SMALL).fit(X, **arguments).classes_.tolist() == [0, 1]


def test_integers_of_a_masked_table_are_labels():
    """As they are without a mask, whether or not cells of the other columns are missing."""
    table = np.column_stack([CODE, 100 * X]).astype(int)
    mask = np.zeros(table.shape, dtype=bool)
    for hole in (False, True):
        mask[3, 2] = hole
        masked = np.ma.array(table, mask=mask)
        model = ConditionalVAE(condition_columns=[0], **SMALL).fit(masked)
        assert model.classes_.tolist() == [0, 1]
        assert model.transform(masked).shape == (N, 2)


@pytest.mark.parametrize(
    "labels",
    [[frozenset({0}), frozenset({1})], [("a", 1), (1, "a")], [2**63, -1]],
    ids=["sets", "tuples", "beyond int64"],
)
def test_labels_without_an_order_of_their_own(labels):
    """Each is one category, and none is a number."""
    given = np.fromiter((labels[code] for code in CODE), object, N)
    given = given.tolist() if isinstance(labels[0], int) else given
    model = ConditionalVAE(**SMALL).fit(X, condition=given)
    assert len(model.classes_) == 2
    assert set(model.classes_) == set(labels)
    assert model.condition_proba(X).shape == (N, 2)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        loaded.transform(X, condition=given), model.transform(X, condition=given)
    )


def test_many_labels_are_told_where_the_user_fits():
    """Filters go by the module, and Python by the line, of whoever is warned."""
    with pytest.warns(UserWarning, match="different numbers") as caught:
        ConditionalVAE(**SMALL).fit(X, condition=np.arange(N))
    assert {warning.filename for warning in caught} == {__file__}


def test_a_model_goes_on_with_the_columns_of_its_condition():
    """A position that X does not have is not one of them, whatever is left when it is divided."""
    table = np.column_stack([X, CODE])
    last = table.shape[1] - 1
    model = ConditionalVAE(condition_columns=[last], **SMALL).fit(table)
    model.set_params(condition_columns=-1).partial_fit(table)
    with pytest.raises(ValueError, match=f"was .{last}. and is .{2 * last + 1}."):
        model.set_params(condition_columns=2 * last + 1).partial_fit(table)


def test_a_date_keeps_its_time_zone():
    """Alone as in a column."""
    pd = pytest.importorskip("pandas")
    days = pd.Series(pd.to_datetime(CODE, unit="D", utc=True))
    model = ConditionalVAE(**SMALL).fit(X, condition=days)
    day = model.classes_[1]
    np.testing.assert_array_equal(
        model.sample(3, condition=day), model.sample(3, condition=[day] * 3)
    )


def test_a_number_beyond_float32_is_put_back_as_it_is():
    table = np.column_stack([np.linspace(1e39, 2e39, N), X])
    model = ConditionalVAE(condition_columns=[0], **SMALL).fit(table)
    rows = model.inverse_transform(np.zeros((1, 2), np.float32), condition=[1.5e39])
    assert rows[0, 0] == 1.5e39


@pytest.mark.parametrize("value", [0.1, 0.0, 1e6])
def test_a_constant_number_is_no_scale(value):
    """Its deviation is rounding: another number later must not be astronomically far."""
    model = ConditionalVAE(**SMALL).fit(X, condition=np.full(N, value))
    assert np.abs(model.sample(condition=[value + 0.1], mean=True)).max() < 100


def test_interrupt_leaves_a_complete_model(ctrl_c_in_the_fourth_epoch):
    model = ConditionalVAE(**SMALL)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, NAMES)
    assert model.classes_.tolist() == ["ant", "bee"]
    assert np.isfinite(model.score(X, NAMES))


@pytest.mark.parametrize("stage", ["_left_behind", "_left_behind_of_condition", "_take_on"])
def test_interrupt_while_the_attributes_are_set_leaves_the_model_before(monkeypatch, stage):
    """Never the network of one fit with the labels of another."""
    model = ConditionalVAE(**SMALL).fit(X, NAMES)
    before = model.transform(X)

    def interrupted(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(ConditionalVAE, stage, interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[:, :2], CODE)
    assert model.classes_.tolist() == ["ant", "bee"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).transform(X), before)


def test_unknown_labels_take_their_likeliest_values(model):
    """In the answers that split a bound: those of the labels condition_proba prefers."""
    likeliest = model.classes_[model.condition_proba(X).argmax(1)]
    assert len(set(likeliest)) == 2
    for one, other in zip(model.elbo(X), model.elbo(X, condition=likeliest), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        model.effective_sample_size(X), model.effective_sample_size(X, condition=likeliest)
    )
