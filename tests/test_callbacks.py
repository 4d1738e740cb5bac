"""scikit-learn's callbacks on a fit: epochs, what the model would be after each, stopping."""

import numpy as np
import pytest
from sklearn import model_selection
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skvae import ConditionalVAE, VAETransformer
from skvae.model_selection import GridSearchCV

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"n_components": 2, "hidden_layer_sizes": (8,), "max_iter": 7, "random_state": 0}
X, y = load_wine(return_X_y=True)


class Epochs:
    """Keeps what it is told, and stops after some."""

    def __init__(self, stop_after=None):
        self.stop_after, self.tasks, self.scores = stop_after, [], []

    def setup(self, estimator, context):
        self.tasks.append("setup")

    def teardown(self, estimator, context):
        self.tasks.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
        self.tasks.append(context.task_name)
        if fitted_estimator is not None:
            self.scores.append(fitted_estimator.score(X, y))
        return self.stop_after == self.tasks.count("epoch")


@pytest.mark.parametrize("estimator", [VAETransformer(**SMALL), ConditionalVAE(**SMALL)])
def test_a_callback_sees_every_epoch_and_the_model_it_leads_to(estimator):
    epochs = Epochs()
    model = estimator.set_callbacks(epochs).fit(X, y)
    assert epochs.tasks == ["setup", *["epoch"] * 7, "fit", "teardown"]
    *_, last, end = epochs.scores
    assert last == pytest.approx(model.score(X, y), abs=1e-6)
    assert end == pytest.approx(model.score(X, y), abs=1e-6)
    assert epochs.scores[0] <= last
    plain = type(estimator)(**SMALL).fit(X, y)
    np.testing.assert_array_equal(model.transform(X), plain.transform(X))


def test_a_callback_stops_a_fit():
    model = VAETransformer(**SMALL).set_callbacks(Epochs(stop_after=3)).fit(X)
    assert model.n_iter_ == 3
    three = VAETransformer(**{**SMALL, "max_iter": 3}).fit(X)
    np.testing.assert_allclose(model.transform(X), three.transform(X), atol=1e-6)


LONG = {**SMALL, "n_iter_no_change": 10, "learning_rate_init": 0.003, "max_iter": 500}


def test_callbacks_see_the_epochs_on_all_rows_too(capsys):
    epochs = Epochs()
    model = VAETransformer(**LONG, verbose=10).set_callbacks(epochs).fit(X)
    n_last = epochs.tasks.count("epoch") - model.n_iter_
    assert 1 < n_last < 0.2 * model.n_iter_
    assert epochs.scores[-1] == pytest.approx(model.score(X), abs=1e-6)
    assert capsys.readouterr().out.count("on all rows") == n_last
    # They are part of max_iter.
    epochs = Epochs()
    short = VAETransformer(**{**LONG, "max_iter": model.n_iter_ + 1}).set_callbacks(epochs).fit(X)
    assert epochs.tasks.count("epoch") == model.n_iter_ + 1
    assert short.validation_scores_ == model.validation_scores_
    assert short.score(X) != model.score(X)
    # And they can be stopped.
    stopping = Epochs(stop_after=model.n_iter_ + 1)
    stopped = VAETransformer(**LONG).set_callbacks(stopping).fit(X)
    assert stopping.tasks.count("epoch") == model.n_iter_ + 1
    assert stopped.score(X) == pytest.approx(short.score(X), abs=1e-6)


@pytest.mark.parametrize("starts", [{}, {"init": "random", "n_init": 4}])
def test_who_stops_a_fit_has_no_more_epochs(starts):
    n_iter = VAETransformer(**LONG, **starts).fit(X).n_iter_
    for n_epochs in (n_iter - 2, n_iter):
        stopping = Epochs(stop_after=n_epochs)
        VAETransformer(**LONG, **starts).set_callbacks(stopping).fit(X)
        assert stopping.tasks.count("epoch") == n_epochs


def test_ctrl_c_among_the_epochs_on_all_rows():
    n_iter = VAETransformer(**LONG).fit(X).n_iter_

    class Interrupting(Epochs):
        def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
            super().on_fit_task_end(estimator, context, X=X, y=y, fitted_estimator=fitted_estimator)
            if self.tasks.count("epoch") == n_iter + 2:
                raise KeyboardInterrupt

    epochs = Interrupting()
    model = VAETransformer(**LONG).set_callbacks(epochs)
    with pytest.warns(match=f"interrupted after {n_iter} epochs"), pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert model.score(X) == pytest.approx(epochs.scores[-1], abs=1e-6)
    assert epochs.scores[-1] != epochs.scores[n_iter - 1]


def test_a_refit_on_other_columns():
    """Halfway through it the estimator has the columns of one model and the network of another."""
    monitor = ScoringMonitor(scoring=lambda model, X, y: {"nats": model.score(X)})
    model = VAETransformer(**SMALL).set_callbacks(monitor).fit(X)
    model.fit(X[:, :3])
    plain = VAETransformer(**SMALL).fit(X[:, :3])
    np.testing.assert_array_equal(model.transform(X[:, :3]), plain.transform(X[:, :3]))


def test_teardown_follows_an_error():
    epochs = Epochs()
    with pytest.raises(ValueError, match="infinity"):
        VAETransformer(**SMALL).set_callbacks(epochs).fit(np.where(X > 1000, np.inf, X))
    model = VAETransformer(likelihood="bernoulli", **SMALL).set_callbacks(epochs)
    with pytest.raises(ValueError, match="bernoulli"):
        model.fit(X)
    assert epochs.tasks == ["setup", "teardown"]
    assert not hasattr(model, "_callback_fit_ctx")


def test_scoring_monitor():
    monitor = ScoringMonitor(scoring=lambda model, X, y: {"nats": model.score(X)})
    model = VAETransformer(**SMALL).set_callbacks(monitor).fit(X, y)
    log = monitor.get_logs().data
    nats = [row["nats"] for row in log if row["task_name"] == "epoch"]
    assert len(nats) == 7
    assert nats[-1] == pytest.approx(model.score(X), abs=1e-6)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_progress_bar_nested_in_searches(capsys, n_jobs):
    pipe = make_pipeline(VAETransformer(**SMALL), LogisticRegression())
    grid = {"vaetransformer__n_components": [1, 2]}
    for search in (GridSearchCV, model_selection.GridSearchCV):
        bar = ProgressBar(max_propagation_depth=None)
        search(pipe, grid, cv=2, n_jobs=n_jobs).set_callbacks(bar).fit(X, y)
        assert "VAETransformer" in capsys.readouterr().out


def test_progress_bar_alone(capsys):
    VAETransformer(**SMALL).set_callbacks(ProgressBar()).fit(X)
    assert "VAETransformer" in capsys.readouterr().out
