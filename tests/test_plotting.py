"""Displays: the arrays they hold are the estimator's answers, and the axes show these arrays."""

import sys
from datetime import datetime
from itertools import pairwise

import numpy as np
import pytest
import sklearn
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm, Normalize, to_rgba
from matplotlib.dates import date2num
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from scipy.stats import norm
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)

from skvae import ConditionalVAE, VAETransformer, plotting
from skvae.impute import VAEImputer
from skvae.plotting import (
    ComponentDisplay,
    LatentSpaceDisplay,
    LossCurveDisplay,
    ManifoldDisplay,
    ReconstructionDisplay,
    SampleDisplay,
    TraversalDisplay,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"n_components": 3, "hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}
N, D, SHAPE = 90, 6, (2, 3)
RNG = np.random.default_rng(0)
Y = np.array(["ant", "bee", "cat"])[np.arange(N) % 3]
X = 5 + 3 * RNG.normal(size=(N, 2)) @ RNG.normal(size=(2, D)) + RNG.normal(size=(N, D))
X[:, 0] += 20 * (Y == "bee")
NAMES = [f"column {k}" for k in range(D)]
HOLES = np.where(RNG.uniform(size=X.shape) < 0.2, np.nan, X)


@pytest.fixture(scope="module")
def vae():
    return VAETransformer(**SMALL).fit(X)


@pytest.fixture(scope="module")
def cvae():
    return ConditionalVAE(**SMALL).fit(X, Y)


@pytest.fixture(scope="module")
def pipeline():
    """With names of columns, and a classifier behind the VAE."""
    pandas = pytest.importorskip("pandas")
    steps = StandardScaler(), VAETransformer(**SMALL), LogisticRegression()
    return make_pipeline(*steps).fit(pandas.DataFrame(X, columns=NAMES), Y)


@pytest.fixture(scope="module")
def frame():
    return pytest.importorskip("pandas").DataFrame(X, columns=NAMES)


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def assert_whole(figure):
    """Titles and labels of axes are within the figure."""
    figure.canvas.draw()
    for ax in figure.axes:
        for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
            if text.get_text():
                box = text.get_window_extent()
                assert -1 <= box.x0 <= box.x1 <= figure.bbox.x1 + 1
                assert -1 <= box.y0 <= box.y1 <= figure.bbox.y1 + 1


def unscaled(pipeline, rows):
    return pipeline[:1].inverse_transform(rows)


# ------------------------------------------------------------------------- latent space


def test_latent_space_holds_the_posterior(vae):
    display = LatentSpaceDisplay.from_estimator(vae, X, Y, components=(2, "vaetransformer0"))
    found = vae.posterior(X)
    np.testing.assert_array_equal(display.mean, found.mean[:, [2, 0]])
    np.testing.assert_array_equal(display.std, found.std[:, [2, 0]])
    np.testing.assert_array_equal(display.y, Y)
    nats = vae.kl_per_component_
    assert display.ax_.get_xlabel() == f"component 2 ({nats[2]:.2f} nats)"
    assert display.ax_.get_ylabel() == f"component 0 ({nats[0]:.2f} nats)"


def test_latent_space_of_labels_has_one_scatter_for_each(vae):
    display = LatentSpaceDisplay.from_estimator(vae, X, Y)
    assert [scatter.get_label() for scatter in display.scatters_] == ["ant", "bee", "cat"]
    for scatter, spread, label in zip(
        display.scatters_, display.spreads_, ["ant", "bee", "cat"], strict=True
    ):
        np.testing.assert_array_equal(scatter.get_offsets(), display.mean[label == Y])
        np.testing.assert_array_equal(spread.get_offsets(), display.mean[label == Y])
    shapes = {scatter.get_paths()[0].vertices.tobytes() for scatter in display.scatters_}
    assert len(shapes) == 3  # to be told apart without colours
    assert [text.get_text() for text in display.legend_.get_texts()] == ["ant", "bee", "cat"]
    at_medians = display.plot(names="median")
    for text, label in zip(at_medians.texts_, ["ant", "bee", "cat"], strict=True):
        np.testing.assert_array_equal(text.get_position(), np.median(display.mean[label == Y], 0))
    assert at_medians.legend_ is None


@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (np.arange(N) % 3, ["0", "1", "2"]),
        (np.arange(N) % 11, [str(k) for k in range(11)]),  # in the order of numbers
        ((np.arange(N) % 2).astype(float), ["0", "1"]),
        (np.arange(N) % 2 == 0, ["False", "True"]),
        # What is missing is no label, and last; other values are apart wherever they differ.
        (np.array(["b", 7, None], dtype=object)[np.arange(N) % 3], ["7", "b", "missing"]),
        (np.array([2, np.nan, 0, 10])[np.arange(N) % 4], ["0", "2", "10", "missing"]),
        (np.array([True, None, False])[np.arange(N) % 3], ["False", "True", "missing"]),
        (1e7 + np.arange(N) % 2, ["10000000", "10000001"]),
        (np.linspace(0, 1, N), None),
        (np.arange(N), None),
    ],
)
def test_latent_space_tells_labels_from_numbers(vae, y, labels):
    display = LatentSpaceDisplay.from_estimator(vae, X, y)
    if labels is None:
        [scatter] = display.scatters_
        np.testing.assert_array_equal(scatter.get_array(), y)
        assert display.colorbar_ is not None
        assert display.legend_ is None
    else:
        assert [scatter.get_label() for scatter in display.scatters_] == labels
        assert display.colorbar_ is None


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_latent_space_keeps_the_order_of_categories(vae, library):
    frames = pytest.importorskip(library)
    order = ["mid", "low", "high"]
    values = np.array(order)[np.arange(N) % 3]
    if library == "pandas":
        y = frames.Series(frames.Categorical(values, order))
    else:
        y = frames.Series(values, dtype=frames.Enum(order))
    display = LatentSpaceDisplay.from_estimator(vae, X, y)
    assert [scatter.get_label() for scatter in display.scatters_] == order
    np.testing.assert_array_equal(display.y, values)


DATES = np.datetime64("2020-03-01", "D") + np.arange(N)


@pytest.mark.parametrize(
    "y",
    [
        DATES,
        DATES.astype(object),
        np.array([day.isoformat() + "T06+06:00" for day in DATES.tolist()]),
    ],
    ids=["datetime64", "date", "datetime of a zone"],
)
def test_latent_space_takes_dates_for_numbers(vae, y):
    if y.dtype.kind == "U":
        y = np.array([datetime.fromisoformat(text) for text in y], dtype=object)
    display = LatentSpaceDisplay.from_estimator(vae, X, y)
    display.figure_.canvas.draw()
    np.testing.assert_array_equal(display.scatters_[0].get_array(), date2num(DATES))
    texts = [text.get_text() for text in display.colorbar_.ax.get_yticklabels()]
    assert {"Apr", "May"} <= set(texts)


@pytest.mark.parametrize("n_labels", [12, 30, 45])
def test_latent_space_of_many_labels(vae, n_labels):
    """No two look the same, and the axes keep their room."""
    y = np.array([f"{i % n_labels:02}" for i in range(N)])
    display = LatentSpaceDisplay.from_estimator(vae, X, y)
    looks = {
        (tuple(scatter.get_facecolor()[0]), scatter.get_paths()[0].vertices.tobytes())
        for scatter in display.scatters_
    }
    assert len(looks) == n_labels
    display.figure_.canvas.draw()
    box, whole = display.ax_.get_window_extent(), display.figure_.bbox
    assert box.height > 0.8 * whole.height
    assert box.width > 0.5 * whole.width
    assert display.legend_.get_window_extent().y0 > 0 or n_labels > 40


@pytest.mark.parametrize("y", [np.linspace(0, 1, N), np.array(["a", "b"] * 45, dtype=object)])
def test_latent_space_shows_what_is_missing_in_grey(vae, y):
    y = y.copy()
    y[:9] = None
    display = LatentSpaceDisplay.from_estimator(vae, X, y)
    points = display.scatters_[-1]
    assert not np.ma.getmaskarray(points.get_offsets()).any()
    for artist in (points, display.spreads_[-1]):
        np.testing.assert_allclose(artist.get_facecolor()[:9, :3], 0.6)


def test_latent_space_draws_standard_deviations(vae):
    """An ellipse of n_std of them on either side, a cross of as many, or nothing."""
    display = LatentSpaceDisplay.from_estimator(vae, X, n_std=2, spread="ellipse")
    [ellipses] = display.spreads_
    np.testing.assert_allclose(ellipses.get_widths(), 4 * display.std[:, 0])
    np.testing.assert_allclose(ellipses.get_heights(), 4 * display.std[:, 1])
    [crosses] = display.plot(spread="cross", n_std=2).spreads_
    arms = np.array(crosses.get_segments())  # those along x, then those along y
    along_x = np.stack([display.mean - 2 * display.std * [1, 0]] * 2, axis=1)
    along_x[:, 1] += 4 * display.std * [1, 0]
    np.testing.assert_allclose(arms[:N], along_x)
    np.testing.assert_allclose(arms[N:].mean(axis=1), display.mean)
    np.testing.assert_allclose(np.ptp(arms[N:], axis=1), 4 * display.std * [0, 1])
    assert display.plot(spread=None).spreads_ == []
    assert display.plot().ax_.get_ylim()[1] > (display.mean + display.std)[:, 1].max()


def test_latent_space_integrates_out_or_takes_a_condition(cvae):
    unknown = LatentSpaceDisplay.from_estimator(cvae, X, Y)
    np.testing.assert_array_equal(unknown.mean, cvae.posterior(X).mean[:, :2])
    given = LatentSpaceDisplay.from_estimator(cvae, X, Y, condition=Y)
    np.testing.assert_array_equal(given.std, cvae.posterior(X, condition=Y).std[:, :2])
    assert (given.mean != unknown.mean).any()


def test_latent_space_of_other_models():
    Z = PCA(3).fit_transform(X)
    display = LatentSpaceDisplay.from_posterior(Z, y=Y, components=(1, 2))
    np.testing.assert_array_equal(display.mean, Z[:, 1:])
    assert display.std is None
    assert display.spreads_ == []
    with pytest.raises(ValueError, match=r"std has the shape \(90, 2\), but mean has \(90, 3\)"):
        LatentSpaceDisplay.from_posterior(Z, Z[:, :2])


def test_latent_space_names_y(vae):
    pandas = pytest.importorskip("pandas")
    display = LatentSpaceDisplay.from_estimator(vae, X, pandas.Series(Y, name="animal"))
    assert display.legend_.get_title().get_text() == "animal"
    numbers = pandas.Series(np.linspace(0, 1, N), name="age")
    display = LatentSpaceDisplay.from_estimator(vae, X, numbers)
    assert display.colorbar_.ax.get_ylabel() == "age"


# ---------------------------------------------------------------------------- loss curve


def test_loss_curve_holds_the_bounds_and_the_epoch_kept():
    vae = VAETransformer(**{**SMALL, "max_iter": 40, "learning_rate_init": 0.03}).fit(X)
    display = LossCurveDisplay.from_estimator(vae)
    np.testing.assert_array_equal(display.training, -np.array(vae.loss_curve_))
    np.testing.assert_array_equal(display.validation, vae.validation_scores_)
    assert 0 < display.best_epoch < vae.n_iter_
    assert display.validation[display.best_epoch - 1] == vae.best_validation_score_
    training, validation = display.lines_
    np.testing.assert_array_equal(training.get_ydata(), display.training)
    np.testing.assert_array_equal(validation.get_xdata(), 1 + np.arange(vae.n_iter_))
    assert display.best_.get_xdata() == [display.best_epoch]
    assert display.best_.get_ydata() == [vae.best_validation_score_]
    assert display.ax_.get_ylabel() == "ELBO (nats a row)"


def test_loss_curve_knows_that_the_start_was_kept():
    """Its bound is above that of every epoch."""
    display = LossCurveDisplay.from_scores([4, 3], [-6, -5], -4.5)
    assert (display.best_epoch, display.best_bound) == (0, -4.5)
    assert "the start" in display.legend_.get_texts()[-1].get_text()
    display = LossCurveDisplay.from_scores([4, 3, 2], [-6, -5, -5])
    assert (display.best_epoch, display.best_bound) == (2, -5)  # the first of two equal ones


@pytest.mark.parametrize(
    ("validation", "best", "epoch"), [([-3, -1, -2], -3, 1), ([np.nan, -1, -2], None, 2)]
)
def test_loss_curve_marks_the_epoch_of_the_bound(validation, best, epoch):
    display = LossCurveDisplay.from_scores([1, 2, 3], validation, best)
    assert (display.best_epoch, display.best_bound) == (epoch, validation[epoch - 1])
    with pytest.raises(ValueError, match=r"-2\.5 is none of validation_scores, nor above"):
        LossCurveDisplay.from_scores([1, 2, 3], validation, -2.5)


def test_loss_curve_without_validation():
    vae = VAETransformer(**SMALL, early_stopping=False, beta=2, n_importance_samples=3).fit(X)
    display = LossCurveDisplay.from_estimator(vae)
    assert display.validation is None
    assert display.best_ is None
    assert len(display.lines_) == 1
    name = "importance-weighted bound, 3 draws, beta=2 (nats a row)"
    assert display.ax_.get_ylabel() == name
    for score_type in ("validation", "both"):
        with pytest.raises(ValueError, match=r"this fit has none.*early_stopping=True"):
            display.plot(score_type=score_type)


@pytest.mark.parametrize(("score_type", "n_lines"), [("training", 1), ("validation", 1)])
def test_loss_curve_of_one_kind(vae, score_type, n_lines):
    display = LossCurveDisplay.from_estimator(vae, score_type=score_type)
    assert [line.get_label() for line in display.lines_] == [score_type]
    assert (display.best_ is None) == (score_type == "training")


# ---------------------------------------------------------------------------- components


def test_components_hold_the_nats(vae):
    display = ComponentDisplay.from_estimator(vae)
    np.testing.assert_array_equal(display.kl, vae.kl_per_component_)
    np.testing.assert_array_equal([bar.get_height() for bar in display.bars_], display.kl)
    others = ComponentDisplay.from_estimator(vae, X[:40])
    # The sum over components is the KL of the bound, in float64 but for other operations.
    assert others.kl.sum() == pytest.approx(vae.elbo(X[:40]).kl.mean(), rel=1e-9)
    again = ComponentDisplay.from_posterior(*vae.posterior(X[:40]))
    np.testing.assert_array_equal(again.kl, others.kl)


def test_components_of_a_conditional_model_take_the_likeliest_labels(cvae):
    display = ComponentDisplay.from_estimator(cvae, X)
    assert display.kl.sum() == pytest.approx(cvae.elbo(X).kl.mean(), rel=1e-9)
    with pytest.raises(ValueError, match="without X"):
        ComponentDisplay.from_estimator(cvae, condition=Y)


@pytest.mark.parametrize("log", [False, True])
def test_components_below_the_threshold_are_empty(log):
    display = ComponentDisplay(kl=np.array([1.0, 0.011, 0.009, 0.0])).plot(log=log)
    filled = [bar.get_facecolor() != to_rgba("white") for bar in display.bars_]
    assert filled == [True, True, False, False]
    assert display.threshold_.get_ydata()[0] == 0.01
    assert "2 of 4 above 0.01 nats" in display.legend_.get_texts()[0].get_text()
    assert display.ax_.get_yscale() == ("log" if log else "linear")


@pytest.mark.parametrize(
    ("std", "match"),
    [(None, r"std \(\)"), (np.ones((9, 3)), r"std \(9, 3\)"), (np.zeros((9, 2)), "above 0")],
)
def test_components_need_means_and_deviations(std, match):
    with pytest.raises(ValueError, match=match):
        ComponentDisplay.from_posterior(np.zeros((9, 2)), std)


@pytest.mark.parametrize(
    ("display", "tick"),
    [
        (ComponentDisplay(kl=np.ones(1)), 0),
        (LossCurveDisplay(training=np.ones(1)), 1),
    ],
)
def test_one_component_or_epoch_has_one_whole_tick(display, tick):
    ax = display.plot().ax_
    low, high = ax.get_xlim()
    assert [t for t in ax.get_xticks() if low <= t <= high] == [tick]


# ------------------------------------------------------------------------ reconstruction


def test_reconstruction_holds_data_means_and_draws(vae):
    display = ReconstructionDisplay.from_estimator(vae, X, n_rows=4, random_state=7)
    Z = vae.transform(X[:4])
    np.testing.assert_array_equal(display.X, X[:4])
    np.testing.assert_array_equal(display.mean, vae.inverse_transform(Z))
    draw = vae.inverse_transform(Z, mean=False, random_state=7)
    np.testing.assert_array_equal(display.draw, draw)
    np.testing.assert_allclose(display.center, X.mean(axis=0))
    np.testing.assert_allclose(display.scale, X.std(axis=0))
    assert display.axes_.shape == (4,)
    data, mean, _ = display.lines_[3]
    np.testing.assert_allclose(data.get_ydata(), (X[3] - X.mean(0)) / X.std(0))
    np.testing.assert_allclose(mean.get_ydata(), (display.mean[3] - X.mean(0)) / X.std(0))
    plain = ReconstructionDisplay.from_estimator(vae, X, n_rows=4, standardise=False)
    np.testing.assert_array_equal(plain.lines_[3][0].get_ydata(), X[3])


def test_missing_cells_leave_the_rest(vae):
    """Of a table, and of images; a column without any value is not moved or scaled."""
    rows = HOLES.copy()
    rows[:, 2] = np.nan
    model = VAETransformer(**SMALL).fit(HOLES)
    display = ReconstructionDisplay.from_estimator(model, rows)
    known = np.delete(np.arange(D), 2)
    np.testing.assert_allclose(display.center[known], np.nanmean(rows[:, known], axis=0))
    np.testing.assert_allclose(display.scale[known], np.nanstd(rows[:, known], axis=0))
    assert (display.center[2], display.scale[2]) == (0, 1)
    data, *others = (line.get_ydata() for line in display.lines_[0])
    np.testing.assert_array_equal(np.isnan(data), np.isnan(rows[0]))
    assert np.isfinite(others).all()
    picture = ReconstructionDisplay.from_estimator(model, HOLES, image_shape=SHAPE).image_
    shown = HOLES[:10][np.isfinite(HOLES[:10])]
    np.testing.assert_allclose(picture.get_clim(), np.percentile(shown, [0.5, 99.5]))


@pytest.mark.parametrize("n_rows", [1, 4])
def test_text_of_line_panels_is_whole(vae, frame, n_rows):
    """Labels within the figure, and the legend above the title of the first panel."""
    table = frame.add_prefix("a rather long name of ")
    named = VAETransformer(**SMALL).fit(table)
    for display in (
        ReconstructionDisplay.from_estimator(vae, X, n_rows=n_rows),
        ReconstructionDisplay.from_estimator(named, table, n_rows=n_rows),
        TraversalDisplay.from_estimator(named, components=range(min(3, n_rows))),
    ):
        assert_whole(display.figure_)
    display = ReconstructionDisplay.from_estimator(vae, X, n_rows=n_rows)
    display.figure_.canvas.draw()
    [title] = [text for text in display.ax_.findobj(Text) if text.get_text() == "row 0"]
    assert display.legend_.get_window_extent().y0 > title.get_window_extent().y1


@pytest.mark.parametrize("n_columns", [1, 3])
@pytest.mark.parametrize("layout", [None, "constrained"])
def test_legend_of_reconstructions_stays_in_the_axes(vae, n_columns, layout):
    figure, axes = plt.subplots(2, n_columns, layout=layout, squeeze=False)
    display = ReconstructionDisplay.from_estimator(vae, X, n_rows=2, ax=axes[1, 0])
    figure.canvas.draw()
    legend = display.legend_.get_window_extent()
    # A layout gives the panels also the margin that axes without labels do not need.
    place = Bbox.union([ax.get_window_extent() for ax in (axes[1, 0], *display.axes_)])
    assert place.x0 <= legend.x0 <= legend.x1 <= place.x1
    assert place.y0 <= legend.y0 <= legend.y1 <= place.y1


@pytest.mark.parametrize("shape", [(12, 1), (1, 12), (4, 3)])
def test_text_beside_images_of_any_shape_is_whole(shape):
    """And no two tick labels lie over each other."""
    rows = RNG.normal(size=(40, 12))
    model = ConditionalVAE(**SMALL).fit(rows, ["the first of two", "b"] * 20)
    for display in (
        ReconstructionDisplay.from_estimator(model, rows, image_shape=shape),
        ManifoldDisplay.from_estimator(model, image_shape=shape),
        TraversalDisplay.from_estimator(model, image_shape=shape, components=[0]),
        TraversalDisplay.from_estimator(model, image_shape=shape, ax=plt.subplots(1, 3)[1][0]),
        SampleDisplay.from_estimator(model, image_shape=shape),
    ):
        if len(display.figure_.axes) < 3:
            assert_whole(display.figure_)
        display.figure_.canvas.draw()
        for labels in (display.ax_.get_xticklabels(), display.ax_.get_yticklabels()):
            boxes = [label.get_window_extent() for label in labels if label.get_text()]
            assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_reconstruction_of_images(vae):
    """A line for data, means and draws, a column for each row, and NaN between."""
    display = ReconstructionDisplay.from_estimator(vae, X, n_rows=5, image_shape=SHAPE)
    picture = display.image_.get_array().filled(np.nan)
    assert picture.shape == (3 * 3 + 1, 5 * 4 + 1)
    for i, rows in enumerate((display.X, display.mean, display.draw)):
        for j, row in enumerate(rows):
            tile = picture[3 * i + 1 : 3 * i + 3, 4 * j + 1 : 4 * j + 4]
            np.testing.assert_array_equal(tile, row.reshape(SHAPE))
    assert np.isnan(picture[::3]).all()
    assert np.isnan(picture[:, ::4]).all()
    assert len(display.ax_.get_yticklabels()) == 3


def test_images_in_colour_are_within_0_and_1():
    rows = 255 * RNG.uniform(size=(4, 18))
    display = ReconstructionDisplay.from_arrays(rows, rows / 2, image_shape=(3, 2, 3))
    picture = np.asarray(display.image_.get_array())
    assert picture.shape == (2 * 4 + 1, 4 * 3 + 1, 3)
    assert picture.min() >= 0
    assert picture.max() == 1
    assert display.draw is None


def test_reconstruction_takes_the_likeliest_labels(cvae):
    labels = cvae.classes_[cvae.condition_proba(X[:6]).argmax(axis=1)]
    unknown = ReconstructionDisplay.from_estimator(cvae, X, n_rows=6)
    given = ReconstructionDisplay.from_estimator(
        cvae, X, n_rows=6, condition=[*labels, *Y[6:].tolist()]
    )
    expected = cvae.inverse_transform(cvae.transform(X[:6], condition=labels), condition=labels)
    np.testing.assert_array_equal(unknown.mean, expected)
    np.testing.assert_array_equal(given.mean, expected)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ReconstructionDisplay.from_estimator(cvae, X, condition=Y[:6])


@pytest.mark.parametrize("value", ["bee", np.array("bee")])
def test_a_single_condition_is_that_of_all_rows(cvae, value):
    for draw, attribute in (
        (ReconstructionDisplay.from_estimator, "mean"),
        (LatentSpaceDisplay.from_estimator, "mean"),
        (ComponentDisplay.from_estimator, "kl"),
    ):
        expected = getattr(draw(cvae, X, condition=["bee"] * N), attribute)
        np.testing.assert_array_equal(getattr(draw(cvae, X, condition=value), attribute), expected)


def test_numbers_as_a_condition_are_required():
    numbers = ConditionalVAE(**SMALL).fit(X, condition=np.linspace(0, 1, N))
    for display in (ReconstructionDisplay, ComponentDisplay, LatentSpaceDisplay):
        with pytest.raises(ValueError, match=r"condition= is required.*Pass condition="):
            display.from_estimator(numbers, X)
    display = ReconstructionDisplay.from_estimator(numbers, X, condition=0.5, n_rows=2)
    Z = numbers.transform(X[:2], condition=[0.5, 0.5])
    expected = numbers.inverse_transform(Z, condition=[0.5, 0.5])
    np.testing.assert_array_equal(display.mean, expected)


@pytest.mark.parametrize("columns", [["kind"], [2], "kind", 2])
def test_columns_of_a_condition_are_not_shown(frame, columns):
    """Rows are decoded with the condition they have."""
    table = frame.copy()
    table.insert(2, "kind", Y)
    model = ConditionalVAE(**SMALL, condition_columns=columns).fit(table)
    display = ReconstructionDisplay.from_estimator(model, table, n_rows=5)
    np.testing.assert_array_equal(display.X, X[:5])
    assert display.feature_names.tolist() == NAMES
    expected = model.inverse_transform(model.transform(table[:5]), condition=Y[:5])
    np.testing.assert_array_equal(display.mean, np.delete(expected, 2, axis=1).astype(float))
    samples = SampleDisplay.from_estimator(model, table, n_samples=3, features=("column 2", 5))
    assert samples.samples.shape == (3, 3, D)
    assert samples.features == [2, 5]
    with pytest.raises(ValueError, match="condition_columns"):
        ReconstructionDisplay.from_estimator(model, table, condition=Y)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_categories_are_not_shown(library):
    """A table of two numbers, a category and a bool, whose rows come back as DataFrames."""
    frames = pytest.importorskip(library)
    data = {"a": X[:, 0], "kind": Y, "b": X[:, 1], "is_odd": np.arange(N) % 2 == 1}
    table = frames.DataFrame(data)
    model = VAETransformer(**SMALL, likelihood="auto").fit(table)
    display = ReconstructionDisplay.from_estimator(model, table, n_rows=4)
    assert display.feature_names.tolist() == ["a", "b", "is_odd"]
    shown = np.column_stack([X[:, 0], X[:, 1], np.arange(N) % 2])
    np.testing.assert_array_equal(display.X, shown[:4])
    Z = model.transform(table[:4])
    for name, mean in {"mean": True, "draw": False}.items():
        rows = model.inverse_transform(Z, mean=mean)
        found = getattr(display, name)
        np.testing.assert_array_equal(found[:, :2], rows[["a", "b"]].to_numpy())
        np.testing.assert_array_equal(found[:, 2], rows["is_odd"].to_numpy())
    samples = SampleDisplay.from_estimator(model, table, features=("a", "b"), n_samples=5)
    np.testing.assert_array_equal(samples.samples[0, :, 0], model.sample(5)["a"].to_numpy())
    assert ManifoldDisplay.from_estimator(model, feature="b", n_grid=3).feature == 1
    assert LatentSpaceDisplay.from_estimator(model, table, Y).mean.shape == (N, 2)
    categories = VAETransformer(**SMALL, likelihood="categorical").fit(table[["kind"]])
    with pytest.raises(ValueError, match="all columns of X are categories"):
        TraversalDisplay.from_estimator(categories)


def test_reconstruction_names_columns(vae, pipeline, frame):
    def ticks(display):
        return [tick.get_text() for tick in display.axes_[-1].get_xticklabels()]

    assert ticks(ReconstructionDisplay.from_estimator(pipeline, frame)) == NAMES
    assert ticks(ReconstructionDisplay.from_estimator(vae, X)) == [f"x{k}" for k in range(D)]
    assert ticks(ReconstructionDisplay.from_arrays(frame, X)) == NAMES
    with pytest.raises(ValueError, match=r"mean has the shape \(90, 2\), but X has \(90, 6\)"):
        ReconstructionDisplay.from_arrays(frame, X[:, :2])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_arrays_go_by_their_names(library):
    frames = pytest.importorskip(library)
    table = frames.DataFrame({name: X[:, k] for k, name in enumerate(NAMES)})
    turned = table[NAMES[::-1]]
    display = ReconstructionDisplay.from_arrays(table, turned, turned)
    np.testing.assert_array_equal(display.mean, X)
    np.testing.assert_array_equal(display.draw, X)
    display = ReconstructionDisplay.from_arrays(X, turned)  # an array has no names to go by
    np.testing.assert_array_equal(display.mean, X[:, ::-1])
    display = SampleDisplay.from_arrays(turned, table, table, features="column 1")
    for rows in (display.samples[0], display.means[0], display.X):
        np.testing.assert_array_equal(rows, X[:, ::-1])
    assert display.features == [4]
    other = frames.DataFrame({f"other {k}": X[:, k] for k in range(D)})
    with pytest.raises(ValueError, match=r"mean has the columns 'other 0'.* X has 'column 0'"):
        ReconstructionDisplay.from_arrays(table, other)
    with pytest.raises(ValueError, match=r"X has the columns 'other 0'.* samples has 'column 0'"):
        SampleDisplay.from_arrays(table, table, other)


def test_numbers_of_columns_are_no_names(frame):
    pandas = pytest.importorskip("pandas")
    display = ReconstructionDisplay.from_arrays(frame, pandas.DataFrame(X))
    np.testing.assert_array_equal(display.mean, X)
    assert display.feature_names.tolist() == NAMES


# ------------------------------------------------------------------------------ manifold


def test_manifold_is_decoded_at_the_quantiles(vae):
    display = ManifoldDisplay.from_estimator(vae, components=(2, 0), image_shape=SHAPE, n_grid=4)
    # Each step holds the same share of p(z): its middle is at (i + 1/2) / n.
    np.testing.assert_allclose(norm.cdf(display.quantiles), [0.125, 0.375, 0.625, 0.875])
    assert display.decoded.shape == (4, 4, D)
    for i in range(4):
        for j in range(4):
            z = [display.quantiles[i], 0, display.quantiles[j]]  # x is component 2, y is 0
            # Another number of rows at once: rounding.
            np.testing.assert_allclose(
                display.decoded[i, j], vae.inverse_transform([z])[0], rtol=1e-10
            )
    picture = display.image_.get_array().filled(np.nan)
    lower_left, upper_right = picture[-3:-1, 1:4], picture[1:3, -4:-1]
    np.testing.assert_array_equal(lower_left, display.decoded[0, 0].reshape(SHAPE))
    np.testing.assert_array_equal(upper_right, display.decoded[3, 3].reshape(SHAPE))
    assert display.ax_.get_xlabel().startswith("component 2")


def test_manifold_of_a_feature(pipeline):
    display = ManifoldDisplay.from_estimator(pipeline, feature="column 4", n_grid=5)
    assert display.colorbar_.ax.get_ylabel() == "E[column 4 | z]"
    np.testing.assert_array_equal(display.image_.get_array(), display.decoded[:, :, 4])
    assert display.image_.origin == "lower"
    # In the units of the frame, not of the scaler's output.
    assert display.decoded.mean() == pytest.approx(X.mean(), abs=3)


def test_manifold_takes_one_condition(cvae):
    bee = ManifoldDisplay.from_estimator(cvae, feature=0, n_grid=3, condition="bee")
    expected = cvae.inverse_transform(np.zeros((1, 3)), condition=["bee"])[0]
    np.testing.assert_allclose(bee.decoded[1, 1], expected, rtol=1e-10)
    average = ManifoldDisplay.from_estimator(cvae, feature=0, n_grid=3)
    np.testing.assert_allclose(
        average.decoded[1, 1], cvae.inverse_transform(np.zeros((1, 3)))[0], rtol=1e-10
    )
    pandas = pytest.importorskip("pandas")
    framed = ManifoldDisplay.from_estimator(
        cvae, feature=0, n_grid=3, condition=pandas.DataFrame({"y": ["bee"]})
    )
    np.testing.assert_array_equal(framed.decoded, bee.decoded)
    with pytest.raises(ValueError, match=r"2 rows.*single row"):
        ManifoldDisplay.from_estimator(
            cvae, feature=0, condition=pandas.DataFrame({"y": ["bee", "ant"]})
        )


def test_decoders_of_other_models():
    pca = PCA(3, whiten=True).fit(X)
    display = ManifoldDisplay.from_decoder(pca.inverse_transform, 3, feature=1, n_grid=3)
    np.testing.assert_allclose(display.decoded[1, 1], pca.mean_)
    display = TraversalDisplay.from_decoder(pca.inverse_transform, 3, n_steps=3, reach=1)
    step = np.sqrt(pca.explained_variance_)[:, None] * pca.components_
    np.testing.assert_allclose(display.decoded[:, 2] - display.base, step)
    np.testing.assert_allclose(display.decoded[:, 0] - display.base, -step)


def test_manifold_takes_the_first_two_components(vae):
    for display in (
        ManifoldDisplay.from_estimator(vae, feature=0, n_grid=3, components=None),
        ManifoldDisplay.from_decoder(vae.inverse_transform, 3, feature=0, n_grid=3),
    ):
        labels = display.ax_.get_xlabel(), display.ax_.get_ylabel()
        assert [label[:11] for label in labels] == ["component 0", "component 1"]


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"feature": 0, "components": 1}, "components=1 of 3; the plane needs two"),
        ({}, r"either image_shape=\(height, width\) or feature="),
        ({"image_shape": SHAPE, "feature": 0}, "either"),
        ({"feature": "colour"}, "no feature 'colour'.*'x0', 'x1'"),
        ({"feature": D}, "no feature 6"),
        ({"feature": 0, "components": (1, 1)}, "two different ones"),
        ({"feature": 0, "components": (0, 3)}, "no component 3.*by position 0 to 2"),
        ({"feature": 0, "components": (0, "pca1")}, "no component 'pca1'.*'vaetransformer0'"),
        ({"feature": 0, "condition": "ant"}, "a VAETransformer has none"),
    ],
)
def test_manifold_errors(vae, kwargs, match):
    with pytest.raises(ValueError, match=match):
        ManifoldDisplay.from_estimator(vae, **kwargs)


# ----------------------------------------------------------------------------- traversal


def test_traversal_moves_one_component(vae):
    z = vae.transform(X[:1])[0]
    display = TraversalDisplay.from_estimator(
        vae, z=z, components=[1, 2], n_steps=5, image_shape=SHAPE
    )
    np.testing.assert_array_equal(display.values, [-2, -1, 0, 1, 2])
    for i, component in enumerate((1, 2)):
        for j, value in enumerate(display.values):
            moved = z.copy()
            moved[component] = value
            np.testing.assert_allclose(
                display.decoded[i, j], vae.inverse_transform([moved])[0], rtol=1e-10
            )
    np.testing.assert_allclose(display.base, vae.inverse_transform([z])[0], rtol=1e-10)
    picture = display.image_.get_array().filled(np.nan)
    np.testing.assert_array_equal(picture[4:6, 1:4], display.decoded[1, 0].reshape(SHAPE))
    assert [tick.get_text() for tick in display.ax_.get_yticklabels()] == [
        f"component {j} ({vae.kl_per_component_[j]:.2f} nats)" for j in (1, 2)
    ]
    assert display.scale is None


def test_traversal_of_a_table_is_in_standard_deviations(pipeline):
    display = TraversalDisplay.from_estimator(pipeline, components=[0], n_steps=3)
    samples = unscaled(pipeline, pipeline[1].sample(1000, random_state=0))
    np.testing.assert_allclose(display.scale, samples.std(axis=0))
    lines = display.lines_[0]
    change = (display.decoded[0] - display.base) / display.scale
    np.testing.assert_allclose([line.get_ydata() for line in lines], change)
    assert [line.get_linestyle() for line in lines] == ["--", "-", "-"]
    assert display.feature_names.tolist() == NAMES


def test_traversal_shows_the_components_in_use():
    """X has two of them."""
    vae = VAETransformer(**{**SMALL, "n_components": 6, "max_iter": 1}).fit(X)
    expected = np.flatnonzero(vae.kl_per_component_ > 0.01)
    display = TraversalDisplay.from_estimator(vae, image_shape=SHAPE)
    assert len(display.decoded) == len(expected) == vae.n_active_components_ < 6
    with pytest.raises(ValueError, match="components is empty"):
        TraversalDisplay.from_estimator(vae, components=[])
    with pytest.raises(ValueError, match=r"z has the shape \(2,\).*of 6 components"):
        TraversalDisplay.from_estimator(vae, z=[0, 0])


@pytest.mark.parametrize("components", [1, np.int64(1), "vaetransformer1"])
def test_traversal_of_one_component(vae, components):
    display = TraversalDisplay.from_estimator(vae, components=components, n_steps=3)
    expected = TraversalDisplay.from_estimator(vae, components=[1], n_steps=3)
    np.testing.assert_array_equal(display.decoded, expected.decoded)
    if components == 1:
        display = TraversalDisplay.from_decoder(vae.inverse_transform, 3, components=components)
        assert display.component_names == ["component 1"]


# ------------------------------------------------------------------------------- samples


def test_samples_and_means_have_one_z(vae):
    display = SampleDisplay.from_estimator(vae, X, n_samples=7, random_state=3)
    np.testing.assert_array_equal(display.samples[0], vae.sample(7, random_state=3))
    np.testing.assert_array_equal(display.means[0], vae.sample(7, mean=True, random_state=3))
    np.testing.assert_array_equal(display.X, X)
    samples, means = display.scatters_
    np.testing.assert_array_equal(samples.get_offsets(), display.samples[0][:, :2])
    np.testing.assert_array_equal(means.get_offsets(), display.means[0][:, :2])
    # A generator gives both the same z too.
    random = SampleDisplay.from_estimator(
        vae, n_samples=4000, random_state=np.random.RandomState(0)
    )
    noise = (random.samples - random.means)[0].var(axis=0)
    # Five standard errors of a variance by 4,000 draws.
    np.testing.assert_allclose(noise, vae.noise_variance_, rtol=5 * np.sqrt(2 / 4000))


def test_samples_by_condition(cvae):
    display = SampleDisplay.from_estimator(cvae, n_samples=4)
    assert display.condition_names == ["ant", "bee", "cat"]
    assert display.samples.shape == display.means.shape == (3, 4, D)
    expected = cvae.sample(condition=np.repeat(cvae.classes_, 4))
    np.testing.assert_array_equal(display.samples.reshape(-1, D), expected)
    assert len(display.scatters_) == 6
    images = SampleDisplay.from_estimator(cvae, condition=["cat", "ant"], image_shape=SHAPE)
    assert images.samples.shape == (2, 6, D)
    picture = images.images_[0].get_array().filled(np.nan)
    np.testing.assert_array_equal(picture[4:6, 1:4], images.samples[1, 0].reshape(SHAPE))
    assert [tick.get_text() for tick in images.ax_.get_yticklabels()] == ["cat", "ant"]


def test_samples_of_several_labels_and_of_numbers():
    table = np.column_stack([Y, np.array(["u", "v"])[np.arange(N) // 3 % 2]])
    labels = ConditionalVAE(**SMALL).fit(X, condition=table)
    display = SampleDisplay.from_estimator(labels, n_samples=2)
    assert display.condition_names == [", ".join(pair) for pair in labels.combinations_]
    expected = labels.sample(condition=[c for c in labels.combinations_ for _ in range(2)])
    np.testing.assert_array_equal(display.samples.reshape(-1, D), expected)
    numbers = ConditionalVAE(**SMALL).fit(X, condition=np.linspace(0, 1, N))
    display = SampleDisplay.from_estimator(numbers, n_samples=2, condition=[0.0, 0.5])
    assert display.condition_names == ["0.0", "0.5"]
    with pytest.raises(ValueError, match="condition= is required"):
        SampleDisplay.from_estimator(numbers)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_samples_take_the_columns_of_a_condition_by_name(library):
    frames = pytest.importorskip(library)
    letters, numbers = np.array(["u", "v"])[np.arange(N) // 3 % 2], np.linspace(0, 1, N)
    table = frames.DataFrame({"kind": Y, "letter": letters, "number": numbers})
    model = ConditionalVAE(**SMALL).fit(X, condition=table)
    turned = frames.DataFrame({"number": [0.5, 1.0], "letter": ["u", "v"], "kind": ["bee", "ant"]})
    display = SampleDisplay.from_estimator(model, n_samples=2, condition=turned)
    assert display.condition_names == ["0.5, u, bee", "1.0, v, ant"]
    rows = [("bee", "u", 0.5)] * 2 + [("ant", "v", 1.0)] * 2
    expected = model.sample(condition=np.array(rows, dtype=object))
    np.testing.assert_array_equal(display.samples.reshape(-1, D), expected)
    unknown = frames.DataFrame({"number": [0.5], "letter": ["u"], "sort": ["bee"]})
    with pytest.raises(ValueError, match=r"condition has the columns .*'sort'"):
        SampleDisplay.from_estimator(model, condition=unknown)


def test_samples_need_a_condition(cvae, frame):
    for condition in ([], frame[["column 0"]][:0]):
        with pytest.raises(ValueError, match="condition has no rows"):
            SampleDisplay.from_estimator(cvae, condition=condition)


def test_samples_without_conditions_are_a_square(vae):
    display = SampleDisplay.from_estimator(vae, n_samples=10, image_shape=SHAPE)
    picture = display.images_[1].get_array().filled(np.nan)
    assert picture.shape == (2 * 3 + 1, 4 * 4 + 1)  # 2 x 4, as 3 x 4 are too many
    np.testing.assert_array_equal(picture[4:6, 1:4], display.means[0, 4].reshape(SHAPE))
    again = SampleDisplay.from_arrays(display.samples[0], display.means[0], X, features=(3, 4))
    np.testing.assert_array_equal(again.samples, display.samples)
    np.testing.assert_array_equal(again.scatters_[0].get_offsets(), display.samples[0][:, 3:5])
    with pytest.raises(ValueError, match="means has the shape"):
        SampleDisplay.from_arrays(display.samples[0], display.means[0][:2])


def test_samples_name_columns(pipeline, frame):
    display = SampleDisplay.from_estimator(pipeline, frame, features=("column 5", 0))
    assert display.ax_.get_xlabel() == "column 5"
    assert display.ax_.get_ylabel() == "column 0"
    np.testing.assert_array_equal(display.X, X)


def test_samples_stand_beside_data_of_the_same_columns(vae, frame):
    named = VAETransformer(**SMALL).fit(frame)
    for model in (named, make_pipeline(StandardScaler(), VAETransformer(**SMALL)).fit(frame)):
        with pytest.raises(ValueError, match="feature names should match"):
            SampleDisplay.from_estimator(model, frame[NAMES[::-1]])
    for table in (X[:, :2], np.column_stack([X, X])):
        with pytest.raises(ValueError, match="but VAETransformer is expecting 6 features"):
            SampleDisplay.from_estimator(vae, table)
        with pytest.raises(ValueError, match="needs the 6 columns of samples"):
            SampleDisplay.from_arrays(X, X, table)


@pytest.mark.parametrize("features", ["column 3", 3, (3,)])
def test_samples_of_one_column_are_histograms(frame, features):
    """Over the same bins, each with the area 1."""
    model = ConditionalVAE(**SMALL).fit(frame, Y)
    display = SampleDisplay.from_estimator(model, frame, features=features, stairs_kwargs={"lw": 3})
    assert display.features == [3]
    assert display.scatters_ == []
    assert display.ax_.get_xlabel() == "column 3"
    _, bins, _ = display.histograms_[0].get_data()
    drawn = [*display.samples[:, :, 3], *display.means[:, :, 3]]
    for histogram, values in zip(display.histograms_, drawn, strict=True):
        heights, edges, _ = histogram.get_data()
        np.testing.assert_array_equal(edges, bins)
        np.testing.assert_allclose(heights, np.histogram(values, bins, density=True)[0])
        assert histogram.get_linewidth() == 3
    assert [text.get_text() for text in display.legend_.get_texts()] == ["data", *model.classes_]


@pytest.mark.parametrize("condition", ["bee", ["bee"], np.array("bee"), np.array(["bee"])])
def test_samples_of_one_condition(cvae, condition):
    display = SampleDisplay.from_estimator(cvae, n_samples=3, condition=condition)
    assert display.condition_names == ["bee"]
    np.testing.assert_array_equal(display.samples[0], cvae.sample(condition=["bee"] * 3))


def test_one_column_and_one_component(frame):
    """Every Display has something to show without being told what."""
    small = {**SMALL, "n_components": 1}
    mixed = frame[["column 0"]].assign(kind=Y)
    for model, table in (
        (VAETransformer(**small).fit(X[:, :1]), X[:, :1]),
        (VAETransformer(**small, likelihood="auto").fit(mixed), mixed),
    ):
        samples = SampleDisplay.from_estimator(model, table)
        assert samples.features == [0]
        assert len(samples.histograms_) == 2
        plane = LatentSpaceDisplay.from_estimator(model, table)
        np.testing.assert_array_equal(plane.mean[:, 0], plane.mean[:, 1])
        lines = TraversalDisplay.from_estimator(model).lines_[0]
        lines += ReconstructionDisplay.from_estimator(model, table).lines_[0]
        assert all(line.get_marker() not in ("None", None, "") for line in lines)
        with pytest.raises(ValueError, match="One alone is for TraversalDisplay"):
            ManifoldDisplay.from_estimator(model, feature=0)
    assert LatentSpaceDisplay.from_posterior(np.zeros((4, 1))).mean.shape == (4, 2)


# ----------------------------------------------------------------- what all of them share

EACH = {
    "LatentSpaceDisplay": lambda model, **kw: LatentSpaceDisplay.from_estimator(model, X, **kw),
    "LossCurveDisplay": LossCurveDisplay.from_estimator,
    "ComponentDisplay": ComponentDisplay.from_estimator,
    "ReconstructionDisplay": lambda model, **kw: ReconstructionDisplay.from_estimator(
        model, X, n_rows=2, **kw
    ),
    "ManifoldDisplay": lambda model, **kw: ManifoldDisplay.from_estimator(
        model, feature=0, n_grid=3, **kw
    ),
    "TraversalDisplay": lambda model, **kw: TraversalDisplay.from_estimator(
        model, components=[0, 1], n_steps=3, **kw
    ),
    "SampleDisplay": lambda model, **kw: SampleDisplay.from_estimator(model, n_samples=5, **kw),
}
PANELS = {"ReconstructionDisplay": 2, "TraversalDisplay": 2, "SampleDisplay": 2}
each = pytest.mark.parametrize("name", EACH)


def test_each_display_is_here():
    assert set(EACH) == set(plotting.__all__)


@each
def test_plot_draws_on_given_axes(vae, name):
    """Returns itself; a display of several panels takes as many axes, or divides one."""
    figure, axes = plt.subplots(1, 2)
    n_panels = PANELS.get(name, 1)
    display = EACH[name](vae, ax=axes if n_panels == 2 else axes[0])
    assert display.figure_ is figure
    assert display.ax_ is axes[0]
    assert display.ax_.has_data()
    assert display.plot() is display
    assert display.figure_ is not figure  # without axes, a figure of its own
    if n_panels == 2:
        _, ax = plt.subplots()
        display.plot(ax=ax)
        assert len(display.axes_) == 2
        assert display.figure_ is ax.figure
        assert not ax.axison
        with pytest.raises(ValueError, match="ax holds 3 axes"):
            display.plot(ax=plt.subplots(1, 3)[1])
        with pytest.raises(ValueError, match=r"plt\.subplots or a GridSpec"):
            display.plot(ax=plt.figure().add_axes((0, 0, 1, 1)))


@pytest.mark.parametrize("name", sorted(set(EACH) - set(PANELS)))
def test_an_array_of_one_axes_is_a_single_one(vae, name):
    _, ax = plt.subplots()
    for given in ([ax], np.array([[ax]], dtype=object)):
        assert EACH[name](vae, ax=given).ax_ is ax
    with pytest.raises(ValueError, match=rf"ax holds 2 axes; {name}\.plot needs a single one"):
        EACH[name](vae, ax=plt.subplots(1, 2)[1])


@each
def test_what_is_no_axes_is_refused(vae, name):
    for wrong in (plt.figure(), "ax", {"a": 1}, [plt.figure()]):
        with pytest.raises(TypeError, match=rf"{name}\.plot draws on Axes of matplotlib"):
            EACH[name](vae, ax=wrong)


def test_images_are_drawn_into_the_same_panels(vae):
    for draw in (
        lambda **kw: ReconstructionDisplay.from_estimator(vae, X, image_shape=SHAPE, **kw),
        lambda **kw: TraversalDisplay.from_estimator(vae, image_shape=SHAPE, **kw),
        lambda **kw: SampleDisplay.from_estimator(vae, image_shape=SHAPE, **kw),
    ):
        display = draw()
        assert draw(ax=display.axes_).ax_ is display.ax_
        assert display.figure_.axes == display.axes_.tolist()


@each
def test_axes_are_drawn_without_warning(vae, name):
    """Layout, fonts and all."""
    EACH[name](vae).figure_.canvas.draw()


@each
def test_in_a_pipeline(pipeline, frame, name, monkeypatch):
    """The VAE in it, on rows that have come through the steps before it."""
    monkeypatch.setitem(globals(), "X", frame)
    display = EACH[name](pipeline)
    alone = EACH[name](pipeline, step="vaetransformer")
    for attribute, value in vars(display).items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            np.testing.assert_array_equal(value, getattr(alone, attribute))
    inner = pipeline[1]
    rows = pipeline[:1].transform(frame)
    if name == "LatentSpaceDisplay":
        np.testing.assert_array_equal(display.mean, inner.posterior(rows).mean[:, :2])
        np.testing.assert_allclose(display.mean, inner.transform(rows)[:, :2], rtol=1e-12)
    if name == "ReconstructionDisplay":
        means = unscaled(pipeline, inner.inverse_transform(inner.transform(rows[:2])))
        np.testing.assert_array_equal(display.X, frame[:2])
        np.testing.assert_allclose(display.mean, means, rtol=1e-10)
    if name == "SampleDisplay":
        expected = unscaled(pipeline, inner.sample(5))
        np.testing.assert_array_equal(display.samples[0], expected)


@each
def test_tensors(vae, name, monkeypatch):
    """Rows and attributes of another namespace are drawn as numpy."""
    torch = pytest.importorskip("torch")
    monkeypatch.setitem(globals(), "X", torch.from_numpy(X))
    with sklearn.config_context(array_api_dispatch=True):
        display = EACH[name](VAETransformer(**SMALL).fit(X))
    alone = EACH[name](vae)
    for attribute, value in vars(alone).items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            found = getattr(display, attribute)
            assert isinstance(found, np.ndarray)
            # The same rows, from the same seed.
            np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(cvae, library):
    """Of rows, of y and of a condition."""
    frames = pytest.importorskip(library)
    table = frames.DataFrame({f"x{k}": X[:, k] for k in range(D)})
    named = ConditionalVAE(**SMALL).fit(table, condition=frames.DataFrame({"kind": Y}))
    condition = frames.DataFrame({"kind": Y})
    given = ReconstructionDisplay.from_estimator(named, table, condition=condition)
    same = ReconstructionDisplay.from_estimator(cvae, X, condition=Y)
    # Another layout in memory: rounding.
    np.testing.assert_allclose(given.draw, same.draw, rtol=1e-12)
    y = frames.Series(name="animal", **{"data" if library == "pandas" else "values": Y})
    display = LatentSpaceDisplay.from_estimator(named, table, y, condition=condition)
    assert display.y_name == "animal"
    np.testing.assert_array_equal(display.y, Y)
    one = frames.DataFrame({"kind": ["bee"]})
    bee = ManifoldDisplay.from_estimator(named, feature="x0", n_grid=3, condition=one)
    expected = ManifoldDisplay.from_estimator(cvae, feature=0, n_grid=3, condition="bee")
    np.testing.assert_allclose(bee.decoded, expected.decoded, rtol=1e-12)


def fails_for_many(rows):
    if len(rows) > 3:
        raise IndexError
    return rows


@pytest.mark.parametrize(
    "step",
    [
        Normalizer(),
        FunctionTransformer(np.abs),  # its inverse_transform would leave rows as they are
        make_pipeline(StandardScaler(), FunctionTransformer(np.abs)),
        SimpleImputer(),
        SimpleImputer(add_indicator=True),
        OrdinalEncoder(),
        KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf"),
        FunctionTransformer(np.abs, lambda rows: rows[:1], check_inverse=False),
        FunctionTransformer(np.abs, lambda rows: [["5 m"] * D] * len(rows), check_inverse=False),
        FunctionTransformer(np.abs, fails_for_many, check_inverse=False),
    ],
)
def test_steps_that_cannot_be_undone_leave_rows_as_the_vae_sees_them(step):
    """Data, means and draws in the same units, whatever these are."""
    pipe = make_pipeline(step, VAETransformer(**SMALL)).fit(HOLES if "Imp" in str(step) else X)
    seen = pipe[0].transform(X)
    display = ReconstructionDisplay.from_estimator(pipe, X, n_rows=5)
    np.testing.assert_array_equal(display.X, seen[:5])
    expected = pipe[1].inverse_transform(pipe[1].transform(seen[:5]))
    np.testing.assert_array_equal(display.mean, expected)
    samples = SampleDisplay.from_estimator(pipe, X, n_samples=5)
    np.testing.assert_array_equal(samples.X, seen)
    np.testing.assert_array_equal(samples.samples[0], pipe[1].sample(5))
    plane = ManifoldDisplay.from_estimator(pipe, feature=0, n_grid=3).decoded
    np.testing.assert_allclose(plane[1, 1], pipe[1].inverse_transform(np.zeros((1, 3)))[0])
    base = TraversalDisplay.from_estimator(pipe).base
    np.testing.assert_allclose(base, plane[1, 1])


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize("selector", [SelectKBest(k=3), VarianceThreshold(7)])
def test_selected_columns_alone_are_shown(frame, selector, is_nested):
    """A selector's inverse has zeros for the others."""
    step = make_pipeline(selector) if is_nested else selector
    pipe = make_pipeline(step, StandardScaler(), VAETransformer(**SMALL)).fit(frame, Y)
    kept = pipe[0].get_feature_names_out().tolist()
    assert 1 < len(kept) < D
    display = ReconstructionDisplay.from_estimator(pipe, frame)
    assert display.feature_names.tolist() == kept
    np.testing.assert_array_equal(display.X, frame[kept][:3])
    samples = SampleDisplay.from_estimator(pipe, n_samples=4).samples[0]
    np.testing.assert_array_equal(samples, pipe[1].inverse_transform(pipe[2].sample(4)))


def test_a_selector_of_all_columns_is_undone(frame):
    pipe = make_pipeline(StandardScaler(), VarianceThreshold(), VAETransformer(**SMALL)).fit(frame)
    display = ReconstructionDisplay.from_estimator(pipe, frame)
    np.testing.assert_array_equal(display.X, X[:3])
    assert display.feature_names.tolist() == NAMES


def test_steps_are_undone_as_far_as_they_can(frame):
    """From the last: without the imputer, rows have the units and names of the user's table."""
    holes = frame.mask(np.isnan(HOLES))
    pipe = make_pipeline(SimpleImputer(), StandardScaler(), "passthrough", VAETransformer(**SMALL))
    pipe.fit(holes)
    display = ReconstructionDisplay.from_estimator(pipe, holes)
    assert display.feature_names.tolist() == NAMES
    np.testing.assert_allclose(display.X, pipe[0].transform(holes)[:3])
    Z = pipe[3].transform(pipe[:3].transform(holes[:3]))
    np.testing.assert_allclose(
        display.mean, pipe[1].inverse_transform(pipe[3].inverse_transform(Z))
    )


def test_columns_behind_a_step_have_its_names(frame):
    table = frame.assign(kind=Y)
    columns = make_column_transformer(
        (StandardScaler(), NAMES[:2]), (OneHotEncoder(sparse_output=False), ["kind"])
    )
    pipe = make_pipeline(columns, VAETransformer(**SMALL)).fit(table)
    display = ReconstructionDisplay.from_estimator(pipe, table)
    assert display.feature_names.tolist() == columns.get_feature_names_out().tolist()
    ratios = FunctionTransformer(lambda table: table.assign(ratio=table["column 0"] / 100))
    pipe = make_pipeline(ratios, VAETransformer(**SMALL)).fit(frame)
    assert TraversalDisplay.from_estimator(pipe).feature_names.tolist() == [*NAMES, "ratio"]
    words = ["a cat", "the dog", "the bird", "a cat and the dog"] * 20
    pipe = make_pipeline(CountVectorizer(), VAETransformer(**SMALL, likelihood="poisson"))
    display = SampleDisplay.from_estimator(pipe.fit(words), words, features=("dog", "cat"))
    assert display.ax_.get_xlabel() == "dog"
    np.testing.assert_array_equal(display.X, pipe[0].transform(words).toarray())


def test_the_last_vae_of_a_pipeline_or_the_named_one():
    first, second = VAETransformer(**SMALL), VAETransformer(**{**SMALL, "n_components": 2})
    pipe = make_pipeline(first, second).fit(X)
    assert len(ComponentDisplay.from_estimator(pipe).kl) == 2
    assert len(ComponentDisplay.from_estimator(pipe, step="vaetransformer-1").kl) == 3
    with pytest.raises(ValueError, match="no step of the Pipeline; its steps are"):
        ComponentDisplay.from_estimator(pipe, step="vae")
    other = make_pipeline(StandardScaler(), VAETransformer(**SMALL)).fit(X)
    with pytest.raises(ValueError, match=r"'standardscaler' is a StandardScaler.*'vaetransf"):
        ComponentDisplay.from_estimator(other, step="standardscaler")


@each
def test_errors_of_the_estimator(name):
    with pytest.raises(NotFittedError):
        EACH[name](VAETransformer())
    with pytest.raises(NotFittedError):
        EACH[name](make_pipeline(StandardScaler(), VAETransformer()))
    with pytest.raises(TypeError, match=r"got a PCA.*best_estimator_"):
        EACH[name](PCA().fit(X))
    with pytest.raises(ValueError, match=r"none of the steps .'pca'.* is a VAETransformer"):
        EACH[name](make_pipeline(PCA()).fit(X))


def test_errors_say_where_a_model_within_another_is():
    imputer = VAEImputer(VAETransformer(**SMALL)).fit(HOLES)
    for estimator in (imputer, make_pipeline(imputer)):
        with pytest.raises((TypeError, ValueError), match=r"of a VAEImputer, estimator_"):
            ComponentDisplay.from_estimator(estimator)
    assert len(ComponentDisplay.from_estimator(imputer.estimator_).kl) == 3
    columns = make_column_transformer((VAETransformer(**SMALL), [0, 1, 2])).fit(X)
    match = r"of a ColumnTransformer, the VAE in its named_transformers_"
    for estimator in (columns, make_pipeline(columns)):
        with pytest.raises((TypeError, ValueError), match=match):
            ComponentDisplay.from_estimator(estimator)


def test_step_without_a_pipeline_is_refused(vae):
    with pytest.raises(ValueError, match="step='vae' names a step of a Pipeline"):
        ComponentDisplay.from_estimator(vae, step="vae")


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((2, 2), "4 pixels, but the rows have 6 columns"),
        ((6,), "must be"),
        (6, r"image_shape=6 must be \(height, width\)"),
        ((1, 3, 2), "must be"),
    ],
)
@pytest.mark.parametrize(
    "draw",
    [
        lambda vae, shape: ReconstructionDisplay.from_estimator(vae, X, image_shape=shape),
        lambda vae, shape: ManifoldDisplay.from_estimator(vae, image_shape=shape),
        lambda vae, shape: TraversalDisplay.from_estimator(vae, image_shape=shape),
        lambda vae, shape: SampleDisplay.from_estimator(vae, image_shape=shape),
    ],
)
def test_a_wrong_image_shape_is_refused(vae, draw, shape, match):
    with pytest.raises(ValueError, match=match):
        draw(vae, shape)
    assert not plt.get_fignums()  # and no empty figure is left


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"components": (0, 9)}, "no component 9"),
        ({"components": (0, 1, 2)}, "3 entries; a plane has two"),
        ({"y": Y[:5]}, r"y has the shape \(5,\)"),
        ({"spread": "circle"}, "spread='circle' must be"),
        ({"names": "below"}, "names='below' must be"),
    ],
)
def test_latent_space_errors(vae, kwargs, match):
    with pytest.raises(ValueError, match=match):
        LatentSpaceDisplay.from_estimator(vae, X, **kwargs)


def test_keywords_reach_the_artists(vae):
    """And win over ours, also by their short names."""
    display = LatentSpaceDisplay.from_estimator(
        vae, X, Y, scatter_kwargs={"alpha": 0.3}, spread_kwargs={"alpha": 0.7}
    )
    assert {scatter.get_alpha() for scatter in display.scatters_} == {0.3}
    assert {spread.get_alpha() for spread in display.spreads_} == {0.7}
    curve = LossCurveDisplay.from_estimator(
        vae, line_kwargs={"c": "red", "lw": 3}, best_kwargs={"marker": "v"}
    )
    assert {line.get_color() for line in curve.lines_} == {"red"}
    assert {line.get_linewidth() for line in curve.lines_} == {3}
    assert curve.best_.get_marker() == "v"
    bars = ComponentDisplay.from_estimator(
        vae, bar_kwargs={"width": 0.5}, threshold_kwargs={"ls": "-"}
    )
    assert {bar.get_width() for bar in bars.bars_} == {0.5}
    assert bars.threshold_.get_linestyle() == "-"
    for draw in (
        lambda **kw: ReconstructionDisplay.from_estimator(vae, X, image_shape=SHAPE, **kw).image_,
        lambda **kw: ManifoldDisplay.from_estimator(vae, image_shape=SHAPE, **kw).image_,
        lambda **kw: ManifoldDisplay.from_estimator(vae, feature=1, **kw).image_,
        lambda **kw: TraversalDisplay.from_estimator(vae, image_shape=SHAPE, **kw).image_,
        lambda **kw: SampleDisplay.from_estimator(vae, image_shape=SHAPE, **kw).images_[1],
    ):
        image = draw(imshow_kwargs={"cmap": "magma", "vmin": -7})
        assert image.get_cmap().name == "magma"
        assert image.norm.vmin == -7
    for line in (
        ReconstructionDisplay.from_estimator(vae, X, line_kwargs={"lw": 5}).lines_[0][1],
        TraversalDisplay.from_estimator(vae, line_kwargs={"lw": 5}).lines_[0][1],
    ):
        assert line.get_linewidth() == 5
    samples = SampleDisplay.from_estimator(vae, scatter_kwargs={"alpha": 0.2})
    assert samples.scatters_[0].get_alpha() == 0.2


@pytest.mark.parametrize(
    ("draw", "kwargs"),
    [
        (lambda model, **kw: LatentSpaceDisplay.from_estimator(model, X, Y, **kw), "scatter"),
        (lambda model, **kw: LatentSpaceDisplay.from_estimator(model, X, X[:, 0], **kw), "scatter"),
        (lambda model, **kw: LatentSpaceDisplay.from_estimator(model, X, Y, **kw), "spread"),
        (lambda model, **kw: SampleDisplay.from_estimator(model, X, **kw), "scatter"),
        (lambda model, **kw: ComponentDisplay.from_estimator(model, **kw), "bar"),
    ],
)
@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"lw": 4}, "linewidth", 4),
        ({"linewidth": 4}, "linewidth", 4),
        ({"ec": "red"}, "edgecolor", "red"),
        ({"edgecolor": "red"}, "edgecolor", "red"),
        ({"color": "red"}, "facecolor", "red"),
    ],
)
def test_keywords_have_several_names(vae, draw, kwargs, given, name, value):
    display = draw(vae, **{f"{kwargs}_kwargs": given})
    artists = {"bar": "bars_", "scatter": "scatters_", "spread": "spreads_"}[kwargs]
    found = np.ravel(plt.getp(getattr(display, artists)[0], name))
    np.testing.assert_array_equal(found[:3], to_rgba(value)[:3] if value == "red" else value)


@pytest.mark.parametrize("kwargs", [{"image_shape": SHAPE}, {"feature": 1}])
@pytest.mark.parametrize("norm", [LogNorm(1, 9), Normalize(0, 2), "linear"])
def test_images_take_a_norm_and_no_cmap(vae, kwargs, norm):
    given = {"norm": norm, "cmap": None}
    image = ManifoldDisplay.from_estimator(vae, **kwargs, imshow_kwargs=given).image_
    assert image.norm is norm or norm == "linear"
    assert image.get_cmap().name == plt.rcParams["image.cmap"]


@pytest.mark.parametrize("layout", [None, "constrained"])
def test_legends_have_every_label(layout):
    """Also those that matplotlib would leave out, and what others have drawn."""
    labels = ["", "_b", "c"]
    y = np.array(labels)[np.arange(N) % 3]
    model = ConditionalVAE(**SMALL).fit(X, y)
    for draw in (
        lambda **kw: LatentSpaceDisplay.from_estimator(model, X, y, **kw),
        lambda **kw: SampleDisplay.from_estimator(model, **kw),
        lambda **kw: SampleDisplay.from_estimator(model, features=0, **kw),
    ):
        figure, ax = plt.subplots(layout=layout)
        display = draw(ax=ax)
        assert [text.get_text() for text in display.legend_.get_texts()] == labels
        figure.canvas.draw()
    _, ax = plt.subplots(layout=layout)
    ax.plot([0, 1], label="mine")
    legend = LatentSpaceDisplay.from_estimator(model, X, y, ax=ax).legend_
    assert [text.get_text() for text in legend.get_texts()] == ["mine", *labels]


def test_dollars_are_no_formulas(frame):
    """In the names of columns, labels and y: this one would be an error as one."""
    pandas = pytest.importorskip("pandas")
    price = r"$\price_$"
    table = frame.rename(columns={"column 0": price})
    y = pandas.Series(Y, name=price).replace("bee", price)
    model = ConditionalVAE(**SMALL).fit(table, y)
    for display in (
        LatentSpaceDisplay.from_estimator(model, table, y),
        LatentSpaceDisplay.from_estimator(model, table, y, names="median"),
        LatentSpaceDisplay.from_estimator(model, table, pandas.Series(X[:, 0], name=price)),
        ReconstructionDisplay.from_estimator(model, table),
        ManifoldDisplay.from_estimator(model, feature=price, n_grid=3),
        TraversalDisplay.from_estimator(model),
        SampleDisplay.from_estimator(model, features=(price, 1)),
        SampleDisplay.from_estimator(model, features=(1, price)),
        SampleDisplay.from_estimator(model, features=price),
        SampleDisplay.from_estimator(model, image_shape=SHAPE),
    ):
        display.figure_.canvas.draw()
        shown = [text.get_text() for text in display.figure_.findobj(Text)]
        assert any(r"\$\price_\$" in text for text in shown)


@pytest.mark.parametrize("layout", [None, "constrained"])
def test_legends_keep_off_the_neighbour(cvae, layout):
    for draw in (
        lambda ax: LatentSpaceDisplay.from_estimator(cvae, X, Y, ax=ax),
        lambda ax: SampleDisplay.from_estimator(cvae, X, ax=ax),
    ):
        figure, axes = plt.subplots(1, 2, layout=layout)
        legend = draw(axes[0]).legend_
        figure.canvas.draw()
        assert legend.get_window_extent().x1 < axes[1].get_window_extent().x0


@each
def test_what_is_drawn_is_seen_on_dark_paper(vae, name):
    """No black on black; the mosaic's images have a paper of their own."""
    with plt.style.context("dark_background"):
        display = EACH[name](vae)
        if name == "LatentSpaceDisplay":
            display = EACH[name](vae, y=Y, names="median")
            [outline] = display.texts_[0].get_path_effects()
            assert to_rgba(outline._gc["foreground"])[:3] == (0, 0, 0)
        if name == "SampleDisplay":
            assert (display.scatters_[0].get_edgecolor()[0] == to_rgba("black")).all()
        lines = [line for ax in display.figure_.axes for line in ax.lines]
        lines += [line for ax in display.figure_.axes for line in ax.get_xgridlines()]
        for line in lines:
            assert to_rgba(line.get_color()) != to_rgba("black")
    grid = [
        line for ax in display.figure_.axes for line in ax.get_ygridlines() + ax.get_xgridlines()
    ]
    if name in ("LossCurveDisplay", "ReconstructionDisplay", "TraversalDisplay"):
        assert min(max(to_rgba(line.get_color())[:3]) for line in grid) < 0.3


@pytest.mark.parametrize("name", PANELS)
def test_axes_are_divided_once(vae, name):
    """Without a change of what pyplot takes for the current axes."""
    _, axes = plt.subplots(1, 2)
    display = EACH[name](vae, ax=axes[0])
    assert plt.gca() is axes[1]
    with pytest.raises(ValueError, match=r"divided before.*ax=display\.axes_"):
        display.plot(ax=axes[0])
    assert display.plot(ax=display.axes_).ax_ is display.ax_


@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize("name", PANELS)
def test_one_panel_stands_for_all(vae, name, is_new):
    display = EACH[name](vae, ax=None if is_new else plt.subplots()[1])
    again = EACH[name](vae, ax=display.ax_)
    assert again.axes_.tolist() == display.axes_.tolist()
    with pytest.raises(ValueError, match=r"one of such a division.*ax=display\.axes_"):
        ReconstructionDisplay.from_estimator(vae, X, n_rows=5, ax=display.ax_)


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("ReconstructionDisplay", "n_rows"),
        ("ManifoldDisplay", "n_grid"),
        ("TraversalDisplay", "n_steps"),
    ],
)
def test_counts_below_one_are_refused(vae, name, parameter, value):
    draw = getattr(plotting, name).from_estimator
    args = {"ReconstructionDisplay": {"X": X}, "ManifoldDisplay": {"feature": 0}}.get(name, {})
    with pytest.raises(ValueError, match=f"{parameter} == {value}, must be >= 1"):
        draw(vae, **args, **{parameter: value})


@each
def test_without_matplotlib_the_error_says_where_to_get_it(vae, name, monkeypatch):
    """Before anything is computed, or drawn."""
    display = EACH[name](vae)
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    match = r"draws with matplotlib.*pip install matplotlib"
    with pytest.raises(ImportError, match=rf"{name}\.from_estimator {match}"):
        EACH[name](VAETransformer())
    with pytest.raises(ImportError, match=rf"{name}\.plot {match}"):
        display.plot()
