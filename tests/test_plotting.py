"""Displays: the arrays they hold are the estimator's answers, and the axes show these arrays."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba
from sklearn.decomposition import PCA

from skvae import ConditionalVAE, VAETransformer
from skvae.plotting import (
    ComponentDisplay,
    LatentSpaceDisplay,
    LossCurveDisplay,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"n_components": 3, "hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}
N, D, SHAPE = 90, 6, (2, 3)
RNG = np.random.default_rng(0)
Y = np.array(["ant", "bee", "cat"])[np.arange(N) % 3]
X = 5 + 3 * RNG.normal(size=(N, 2)) @ RNG.normal(size=(2, D)) + RNG.normal(size=(N, D))
X[:, 0] += 20 * (Y == "bee")
NAMES = [f"column {k}" for k in range(D)]


@pytest.fixture(scope="module")
def vae():
    return VAETransformer(**SMALL).fit(X)


@pytest.fixture(scope="module")
def cvae():
    return ConditionalVAE(**SMALL).fit(X, Y)


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


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
        (np.array(["b", 7, None], dtype=object)[np.arange(N) % 3], ["7", "None", "b"]),
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
    assert 0 < display.kept_epoch < vae.n_iter_
    assert display.validation[display.kept_epoch - 1] == vae.best_validation_score_
    training, validation = display.lines_
    np.testing.assert_array_equal(training.get_ydata(), display.training)
    np.testing.assert_array_equal(validation.get_xdata(), 1 + np.arange(vae.n_iter_))
    assert display.kept_.get_xdata() == [display.kept_epoch]
    assert display.kept_.get_ydata() == [vae.best_validation_score_]
    assert display.ax_.get_ylabel() == "ELBO (nats a row)"


def test_loss_curve_knows_that_the_start_was_kept():
    """Its bound is above that of every epoch."""
    display = LossCurveDisplay.from_scores([4, 3], [-6, -5], -4.5)
    assert (display.kept_epoch, display.kept_bound) == (0, -4.5)
    assert "the start" in display.legend_.get_texts()[-1].get_text()
    display = LossCurveDisplay.from_scores([4, 3, 2], [-6, -5, -5])
    assert (display.kept_epoch, display.kept_bound) == (2, -5)  # the first of two equal ones


def test_loss_curve_without_validation():
    vae = VAETransformer(**SMALL, early_stopping=False, beta=2, n_importance_samples=3).fit(X)
    display = LossCurveDisplay.from_estimator(vae)
    assert display.validation is None
    assert display.kept_ is None
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
    assert (display.kept_ is None) == (score_type == "training")


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
