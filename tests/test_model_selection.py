"""Searches that train everything at once: scikit-learn's answers, and nothing left behind."""

import os
import pickle
import re
import subprocess
import sys
import threading
import warnings
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import joblib
import numpy as np
import pytest
import sklearn
import torch
from joblib.parallel import ThreadingBackend
from scipy import stats
from sklearn import model_selection
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.callback import ProgressBar
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, FitFailedWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, ShuffleSplit
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from threadpoolctl import threadpool_info

from skvae import ConditionalVAE, VAETransformer, _fitting, impute
from skvae import model_selection as together
from skvae._deferred import _key
from skvae._preparing import Request
from skvae.impute import VAEImputer
from skvae.model_selection import GridSearchCV, RandomizedSearchCV

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# Scores are means over test rows of float32 models; what is trained together differs from
# what is trained alone by rounding.
NATS = 1e-3


@pytest.fixture
def trained(monkeypatch):
    """The number of fits in every training that takes place, where torch has one thread."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    sizes, train = [], _fitting._train

    def counted(jobs, *args):
        sizes.append(len(jobs))
        return train(jobs, *args)

    monkeypatch.setattr(_fitting, "_train", counted)
    return sizes


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = rng.normal(size=(3, 6))[y] + rng.normal(size=(90, 2)) @ rng.normal(size=(2, 6))
    return X + 0.5 * rng.normal(size=X.shape), np.array(["a", "b", "c"])[y]


def vae(**params):
    return VAETransformer(**{"hidden_layer_sizes": (8,), "max_iter": 6, "random_state": 0} | params)


def conditional(**params):
    return ConditionalVAE(**{"hidden_layer_sizes": (8,), "max_iter": 6, "random_state": 0} | params)


def in_pipeline(step, **params):
    return Pipeline(
        [("scale", StandardScaler()), ("vae", step), ("classify", LogisticRegression())], **params
    )


class Counted(TransformerMixin, BaseEstimator):
    """Does nothing but count how often it is fitted."""

    n_fits = 0

    def fit(self, X, y=None):
        Counted.n_fits += 1
        return self

    def transform(self, X):
        return X

    def __sklearn_is_fitted__(self):
        return True


SEARCHES = {
    # what: estimator, grid, and the fits that are trained at once, before that of the best
    "bare": (vae(), {"n_components": [1, 2, 3]}, [9]),
    "vector parameters": (
        vae(),
        {
            "n_components": [1, 3],
            "beta": [0.5, 1],
            "learning_rate_init": [1e-3, 1e-2],
            "alpha": [0, 0.1],
        },
        [24, 24],
    ),
    "widths": (vae(), {"hidden_layer_sizes": [(4,), (5,), (6,)]}, [9]),
    "depths": (vae(), {"hidden_layer_sizes": [(), (8,), (8, 8)]}, [3, 3, 3]),
    "batch sizes": (vae(), {"batch_size": [16, 32]}, [3, 3]),
    "epochs": (vae(max_iter=200), {"max_iter": [1, 40], "n_iter_no_change": [1, 5]}, [12]),
    "restarts": (vae(n_init=2, init="random"), {"n_components": [1, 2]}, [6]),
    "importance weights": (vae(n_importance_samples=3), {"n_components": [1, 2]}, [6]),
    "draws": (vae(), {"n_importance_samples": [1, 3]}, [3, 3]),
    "without validation": (vae(early_stopping=False), {"n_components": [1, 2]}, [6]),
    "dropout": (vae(), {"dropout": [0.0, 0.1, 0.2]}, [3, 6]),
    "pipeline": (in_pipeline(vae()), {"vae__n_components": [1, 2]}, [6]),
    "equal fits": (
        in_pipeline(vae()),
        {"vae__n_components": [1, 2], "classify__C": [0.1, 1, 10]},
        [6],
    ),
    "earlier steps": (
        in_pipeline(vae()),
        {"scale__with_mean": [True, False], "vae__n_components": [1, 2]},
        [12],
    ),
    "steps in the grid": (in_pipeline(PCA()), {"vae": [PCA(2), vae(), vae(n_components=2)]}, [6]),
    "other steps beside": (in_pipeline(vae()), {"vae": [PCA(1), "passthrough"]}, []),
    "columns": (
        make_pipeline(
            ColumnTransformer([("some", vae(n_components=2), [0, 1, 2])], remainder="passthrough"),
            LogisticRegression(),
        ),
        {"columntransformer__some__beta": [0.5, 1]},
        [6],
    ),
    "side by side": (
        in_pipeline(FeatureUnion([("one", vae(beta=0.5)), ("other", vae(n_components=2))])),
        {"vae__one__n_components": [1, 2], "vae__other__beta": [0.1, 1]},
        [6, 6],
    ),
    "one after the other": (
        make_pipeline(vae(n_components=4), vae(n_components=2), LogisticRegression()),
        {"vaetransformer-1__beta": [0.5, 1], "vaetransformer-2__beta": [0.5, 1]},
        [6, 12],
    ),
    "target as condition": (conditional(), {"n_components": [1, 2]}, [6]),
    "conditional features": (in_pipeline(conditional()), {"vae__n_components": [1, 2]}, [6]),
    "condition in columns": (
        conditional(),
        {"condition_columns": [[0], [1, 2]], "n_components": [1, 2]},
        [6, 6],
    ),
    "one candidate": (vae(), {"n_components": [2]}, [3]),
    "a search in a search": (
        model_selection.GridSearchCV(vae(), {"n_components": [1, 2]}, cv=2),
        {"estimator__beta": [0.5, 1]},
        [12, 6],  # what the inner searches fit on all their rows, once they know their best
    ),
}


@pytest.mark.parametrize("what", SEARCHES)
def test_results_are_those_of_scikit_learn(what, data, trained):
    estimator, grid, sizes = SEARCHES[what]
    ours = GridSearchCV(estimator, grid, cv=3, return_train_score=True).fit(*data)
    n_trained = list(trained)
    theirs = model_selection.GridSearchCV(estimator, grid, cv=3, return_train_score=True)
    theirs.fit(*data)
    assert_same_search(ours, theirs)
    # In batches; and the best again on all rows: of a search in a search all its fits.
    n_alone = 5 if what == "a search in a search" else len(together._vaes(ours.best_estimator_))
    assert n_trained == sizes + [1] * n_alone


def assert_same_search(ours, theirs):
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    for name, theirs_of in theirs.cv_results_.items():
        if "time" in name:
            continue
        if name.startswith("rank"):
            np.testing.assert_array_equal(ours.cv_results_[name], theirs_of)
        elif name != "params" and not name.startswith("param_"):
            np.testing.assert_allclose(ours.cv_results_[name], theirs_of, atol=NATS)
    assert repr(ours.cv_results_["params"]) == repr(theirs.cv_results_["params"])
    assert repr(ours.best_params_) == repr(theirs.best_params_)


def test_randomised_search_draws_its_candidates_once(data, trained):
    distributions = {"n_components": [1, 2, 3], "beta": stats.uniform(0.1, 1)}
    ours = RandomizedSearchCV(vae(), distributions, n_iter=4, cv=3).fit(*data)
    assert trained == [12, 1]
    theirs = RandomizedSearchCV(vae(), distributions, n_iter=4, cv=3, random_state=1)
    theirs.fit(*data)
    plain = model_selection.RandomizedSearchCV(
        vae(), distributions, n_iter=4, cv=3, random_state=1
    ).fit(*data)
    assert_same_search(theirs, plain)
    assert ours.cv_results_["params"] != theirs.cv_results_["params"]


@pytest.mark.parametrize("cv", ["unseeded", "generator", "groups"])
def test_splits_are_made_once(cv, data, trained):
    X, y = data
    groups = np.arange(len(X)) // 15
    splits = {
        "unseeded": ShuffleSplit(3),
        "generator": ShuffleSplit(3).split(X),
        "groups": GroupKFold(3),
    }[cv]
    params = {"groups": groups} if cv == "groups" else {}
    GridSearchCV(vae(), {"beta": [0.5, 1]}, cv=splits).fit(X, y, **params)
    assert trained == [6, 1]


def test_routed_conditions_are_sliced_for_each_fold(data, trained):
    X, y = data
    numbers = np.column_stack([np.arange(len(X)) % 7, X[:, 0] > 0]).astype(float)
    with sklearn.config_context(enable_metadata_routing=True):
        step = conditional(batch_size=128)  # so that folds of unlike sizes have as many steps
        step.set_fit_request(condition=True).set_transform_request(condition=True)
        pipe = in_pipeline(step)
        arguments = (pipe, {"vae__n_components": [1, 2]})
        ours = GridSearchCV(*arguments, cv=GroupKFold(3).set_split_request(groups=True))
        ours.fit(X, y, condition=numbers, groups=np.arange(len(X)) // 9)
        assert trained == [6, 1]
        theirs = model_selection.GridSearchCV(*arguments, cv=ours.cv)
        theirs.fit(X, y, condition=numbers, groups=np.arange(len(X)) // 9)
        assert_same_search(ours, theirs)


def test_several_scores_and_a_choice_of_ones_own(data):
    def simplest(results):
        return int(np.argmin(results["mean_test_nats"]))

    scoring = {"nats": lambda model, X, y=None: model.score(X), "size": lambda model, X, y=None: 1}
    arguments = (vae(), {"n_components": [1, 2]})
    keywords = {"scoring": scoring, "refit": simplest, "cv": 3}
    ours = GridSearchCV(*arguments, **keywords).fit(*data)
    theirs = model_selection.GridSearchCV(*arguments, **keywords).fit(*data)
    assert_same_search(ours, theirs)
    assert ours.best_index_ == theirs.best_index_


def test_candidates_that_fail_do_so_as_in_scikit_learn(data, trained):
    grid = {"n_components": [0, 2], "noise_variance": ["feature", "odd"]}
    results = []
    for search in (GridSearchCV, model_selection.GridSearchCV):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results.append(search(vae(), grid, cv=3).fit(*data))
        assert [w.category for w in caught if w.category is FitFailedWarning]
        assert not any("waits" in str(w.message) for w in caught)
    assert_same_search(*results)
    assert trained[:2] == [3, 1]
    with pytest.raises(ValueError, match="n_components"):
        GridSearchCV(vae(), grid, cv=3, error_score="raise").fit(*data)
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
        GridSearchCV(vae(), {"nonsense": [1]}, cv=3).fit(*data)


def test_what_is_not_validated_is_sorted_too(data):
    """Units are made of like requests; what these cannot be is for the fit to say."""
    search = GridSearchCV(vae(), {"n_components": [1.0, 2]}, cv=2, n_jobs=2, refit=False)
    with (
        sklearn.config_context(skip_parameter_validation=True),
        joblib.parallel_config("threading"),
    ):
        search.fit(data[0])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.filterwarnings("ignore:Scoring failed:UserWarning", "ignore:One or more:UserWarning")
def test_data_that_only_some_fits_can_take(data, trained):
    """Folds with values outside of the support fail; the others are trained."""
    X = (data[0] > 0).astype(float)
    X[0, 0] = 2  # in the first test fold, and in every other training fold
    search = GridSearchCV(vae(likelihood="bernoulli"), {"n_components": [1, 2]}, cv=3)
    with pytest.warns(FitFailedWarning, match="bernoulli"), pytest.raises(ValueError, match="X"):
        search.fit(X, np.zeros(len(X)))
    assert trained[0] == 2


def test_the_best_estimator_is_an_ordinary_one(data):
    pipe, grid = in_pipeline(vae()), {"vae": [vae(), vae(n_components=2)]}
    search = GridSearchCV(pipe, grid, cv=3).fit(*data)
    alone = clone(search.best_estimator_).fit(*data)
    np.testing.assert_allclose(
        search.best_estimator_.predict_proba(data[0]), alone.predict_proba(data[0]), atol=1e-4
    )
    for given in (search, pipe, *grid["vae"]):
        assert not any("_fit_cache" in vars(each) for each in together._vaes(given))
    assert set(vars(search)) == set(
        vars(model_selection.GridSearchCV(pipe, grid, cv=3).fit(*data))
    ) | {"memory_limit", "training_time_"}
    assert search.estimator is pipe
    assert all(
        a["vae"] is b for a, b in zip(search.cv_results_["params"], grid["vae"], strict=True)
    )
    size = len(pickle.dumps(search.best_estimator_))
    assert size == pytest.approx(len(pickle.dumps(alone)), rel=0.05)


def test_a_search_is_cloned_and_pickled(data):
    search = GridSearchCV(vae(), {"n_components": [1, 2]}, cv=3, memory_limit=1e8)
    assert clone(search).memory_limit == 1e8
    search.fit(*data)
    loaded = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(loaded.transform(data[0]), search.transform(data[0]))
    with pytest.raises(ValueError, match="memory_limit"):
        clone(search).set_params(memory_limit=0).fit(*data)


@pytest.mark.parametrize("search", [GridSearchCV, RandomizedSearchCV])
def test_signatures_are_those_of_scikit_learn(search):
    plain = getattr(model_selection, search.__name__)(vae(), {}).get_params(deep=False)
    ours = search(vae(), {}).get_params(deep=False)
    del ours["memory_limit"]
    assert list(ours) == list(plain)
    assert str(ours) == str(plain)


def test_equal_steps_are_fitted_once_a_fold_before_the_training(data, monkeypatch):
    pipe = Pipeline([("count", Counted()), ("vae", vae()), ("classify", LogisticRegression())])
    grid = {"vae__beta": [0.5, 1, 2]}
    for search, n_fits in ((GridSearchCV, 3 + 9 + 1), (model_selection.GridSearchCV, 9 + 1)):
        monkeypatch.setattr(Counted, "n_fits", 0)
        search(pipe, grid, cv=3).fit(*data)
        assert n_fits == Counted.n_fits


def test_warnings_of_a_training_are_those_of_the_fit(data):
    counts = []
    for search in (GridSearchCV, model_selection.GridSearchCV):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            search(vae(max_iter=30), {"n_components": [1, 2]}, cv=3).fit(*data)
        mine = [w for w in caught if w.category is ConvergenceWarning]
        assert all(w.filename == __file__ for w in mine)
        counts.append(len(mine))
    assert counts[0] == counts[1] > 0


def test_an_interrupt_leaves_nothing_behind(data, ctrl_c_in_the_fourth_epoch):
    estimator, other = vae(), vae(n_components=2)
    pipe = in_pipeline(estimator)
    search = GridSearchCV(pipe, {"vae": [other], "vae__n_components": [1, 2]}, cv=3)
    with pytest.raises(KeyboardInterrupt):
        search.fit(*data)
    assert "_fit_cache" not in vars(estimator)
    assert "_fit_cache" not in vars(other)
    assert not hasattr(search, "cv_results_")
    assert not hasattr(search, "_running")


def test_the_memory_limit_divides_a_batch(data, trained):
    grid = {"n_components": [1, 2, 3, 4]}
    whole = GridSearchCV(vae(), grid, cv=3).fit(*data)
    assert trained == [12, 1]
    trained.clear()
    divided = GridSearchCV(vae(), grid, cv=3, memory_limit=1e6).fit(*data)
    assert sum(trained) == 13
    assert max(trained) < 12
    assert_same_search(divided, whole)
    trained.clear()
    single = GridSearchCV(vae(), grid, cv=3, memory_limit=1).fit(*data)
    assert trained == [1] * 13
    assert_same_search(single, whole)


def test_a_batch_the_device_cannot_hold_is_halved(data, monkeypatch):
    grid = {"n_components": [1, 2, 3, 4]}
    whole = GridSearchCV(vae(), grid, cv=3).fit(*data)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    sizes, train = [], _fitting._train

    def short_of_memory(jobs, *args):
        sizes.append(len(jobs))
        results = train(jobs, *args)
        if len(jobs) > 3:  # at the end, when much has been told
            raise torch.OutOfMemoryError("CUDA out of memory")
        return results

    monkeypatch.setattr(_fitting, "_train", short_of_memory)
    tasks = Tasks()
    halved = GridSearchCV(vae(), grid, cv=3).set_callbacks(tasks).fit(*data)
    assert tasks.ended.count("fit") == 12 + 1  # and that of the whole
    assert sizes == [12, 6, 3, 3, 6, 3, 3, 1]
    assert_same_search(halved, whole)


@pytest.mark.filterwarnings("ignore:One or more:UserWarning")
def test_what_goes_wrong_in_a_training_is_the_error_of_its_fit(data, monkeypatch):
    train = _fitting._train

    def stumbles_over_two(jobs, *args):
        if any(job.design.n_components == 2 for job in jobs):
            raise RuntimeError("two is too many")
        return train(jobs, *args)

    monkeypatch.setattr(_fitting, "_train", stumbles_over_two)
    search = GridSearchCV(vae(), {"n_components": [1, 2]}, cv=3)
    with pytest.warns(FitFailedWarning, match="two is too many"):
        search.fit(*data)
    np.testing.assert_array_equal(np.isnan(search.cv_results_["mean_test_score"]), [False, True])


@pytest.mark.parametrize("n_threads", [2, 5])
def test_batches_side_by_side_give_the_same(data, monkeypatch, n_threads):
    arguments = (vae(), {"n_components": [1, 2, 3], "hidden_layer_sizes": [(4,), (8,)]})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = GridSearchCV(*arguments, cv=3).fit(*data)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    before = threadpool_info()
    threaded = GridSearchCV(*arguments, cv=3).fit(*data)
    assert_same_search(threaded, alone)
    assert threadpool_info() == before


def test_an_interrupt_ends_all_batches(data, monkeypatch, ctrl_c_in_the_fourth_epoch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    n_threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        GridSearchCV(vae(max_iter=10_000), {"n_components": [1, 2]}, cv=3).fit(*data)
    assert threading.active_count() == n_threads


def test_overlapping_trainings_put_the_threads_back(data):
    before = threadpool_info()
    with joblib.parallel_config("threading"):
        for _ in range(3):
            GridSearchCV(vae(), {"n_components": [1, 2]}, cv=3, n_jobs=2).fit(*data)
    assert threadpool_info() == before


def test_steps_that_work_in_place_do_not_spoil_what_is_kept(data, trained):
    pipe = make_pipeline(StandardScaler(), MinMaxScaler(copy=False), vae())
    search = GridSearchCV(pipe, {"vaetransformer__beta": [0.5, 1, 2]}, cv=3).fit(data[0])
    assert trained == [9, 1]
    theirs = model_selection.GridSearchCV(pipe, search.param_grid, cv=3).fit(data[0])
    assert_same_search(search, theirs)


def test_a_frozen_vae_is_not_waited_for(data, trained, monkeypatch):
    monkeypatch.setattr(Counted, "n_fits", 0)
    frozen = FrozenEstimator(vae().fit(data[0]))
    pipe = make_pipeline(frozen, Counted(), LogisticRegression())
    trained.clear()
    GridSearchCV(pipe, {"logisticregression__C": [0.1, 1]}, cv=3).fit(*data)
    assert not trained
    assert Counted.n_fits == 7


def test_parameters_that_cannot_be_pickled_train_alone(data, trained):
    likelihood = [("gaussian", lambda X: [True] * X.shape[1])]
    search = GridSearchCV(vae(likelihood=likelihood), {"n_components": [1, 2]}, cv=3)
    assert np.isfinite(search.fit(data[0]).cv_results_["mean_test_score"]).all()
    assert trained == [1] * 7


def test_an_unseeded_search_trains_equal_fits_once(data, trained):
    pipe = in_pipeline(vae(random_state=None))
    grid = {"vae__n_components": [1, 2], "classify__C": [0.1, 1]}
    search = GridSearchCV(pipe, grid, cv=3).fit(*data)
    assert trained == [6, 1]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_every_thread_has_as_many_batches(data, trained, monkeypatch):
    """90 fits of two starts are three batches of 64 models at most: one thread would wait."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    grid = {"n_components": [1, 2, 3], "beta": np.linspace(0.5, 1, 10)}
    GridSearchCV(vae(max_iter=1), grid, cv=3, refit=False).fit(*data)
    assert sorted(trained) == [21, 23, 23, 23]


@pytest.mark.parametrize("backend", [None, "loky", "multiprocessing", "threading"])
def test_jobs_share_the_trainings(data, backend):
    arguments = (in_pipeline(vae()), {"vae__n_components": [1, 2, 3], "classify__C": [0.1, 1]})
    alone = GridSearchCV(*arguments, cv=3).fit(*data)
    with joblib.parallel_config(backend=backend) if backend else nullcontext():
        shared = GridSearchCV(*arguments, cv=3, n_jobs=2).fit(*data)
    assert_same_search(shared, alone)


FORKING = """
import joblib, numpy as np, torch
from skvae import VAETransformer
from skvae.model_selection import GridSearchCV

if __name__ == "__main__":
    torch.set_num_threads(2)
    torch.ones(1000, 1000) @ torch.ones(1000, 1000)
    X = np.random.default_rng(0).normal(size=(5_000, 64))
    vae = VAETransformer(max_iter=1, random_state=0)
    with joblib.parallel_config(backend="multiprocessing"):
        search = GridSearchCV(vae, {"n_components": [1, 2]}, cv=2, n_jobs=2).fit(X)
    assert np.isfinite(search.best_score_)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_forked_jobs_do_not_wait_for_threads_that_are_not_there(tmp_path):
    """In a process of its own, whose OpenMP has had two threads at work before the fork."""
    (tmp_path / "forking.py").write_text(FORKING)
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(tmp_path / "forking.py")]
    subprocess.run(command, check=True, timeout=120, env=environment)


def test_verbose_tells_of_the_batches(data, capsys, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # each would have a batch of its own
    GridSearchCV(vae(), {"n_components": [1, 2]}, cv=3, verbose=1).fit(*data)
    told = capsys.readouterr().out
    assert "[GridSearchCV] training 6 fits, 12 models, at once on cpu" in told
    long = vae(max_iter=500, n_iter_no_change=5)
    GridSearchCV(long, {"n_components": [1, 2]}, cv=3, verbose=1, refit=False).fit(*data)
    told = capsys.readouterr().out
    assert re.search(r"training (\d) fits, validation rows included, \1 models, at once", told)
    assert told.count("fits ended after") == told.count("GridSearchCV] training") == 2
    assert "epochs at most" in told


class Tasks:
    """A callback of scikit-learn's that writes down what it is told."""

    def __init__(self):
        self.begun, self.ended = [], []

    def setup(self, *args, **keywords):
        pass

    def teardown(self, *args, **keywords):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(context.task_name)

    def on_fit_task_end(self, estimator, context):
        self.ended.append(context.task_name)


def test_callbacks_follow_the_training_and_the_evaluation(data):
    tasks = Tasks()
    GridSearchCV(vae(), {"n_components": [1, 2]}, cv=3).set_callbacks(tasks).fit(*data)
    assert sorted(tasks.begun) == sorted(tasks.ended)
    assert tasks.begun[:3] == ["fit", "search", "training"]
    assert tasks.ended.index("training") < tasks.begun.index("evaluation")
    assert tasks.begun.count("candidate-split-evaluation") == 6


def test_scikit_learns_progress_bar(data, capsys):
    pytest.importorskip("rich")
    search = GridSearchCV(vae(), {"n_components": [1, 2]}, cv=3)
    search.set_callbacks(ProgressBar(max_propagation_depth=0)).fit(*data)
    assert "GridSearchCV" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_batches_follow_one_another(data):
    """Of several, whose graphs must not be recorded at once; the results are scikit-learn's."""
    model = vae(device="cuda", max_iter=2)
    arguments = (model, {"n_components": [1, 2], "hidden_layer_sizes": [(4,), (4, 4)]})
    ours = GridSearchCV(*arguments, cv=2).fit(*data)
    assert_same_search(ours, model_selection.GridSearchCV(*arguments, cv=2).fit(*data))


def test_only_a_cpu_has_batches_side_by_side(data, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    numbers, side_by_side = [], _fitting.side_by_side

    def noted(tasks, n_threads, stop):
        numbers.append(n_threads)
        return side_by_side(tasks, n_threads, stop)

    monkeypatch.setattr(_fitting, "side_by_side", noted)
    prepare = _fitting.prepare

    def elsewhere(request, encoded):
        job = prepare(request, encoded)
        on_a_gpu = SimpleNamespace(device=torch.device("cuda"), shape=job.x.shape)
        return replace(job, x=on_a_gpu)  # where nothing can be trained, but all is divided

    X = data[0]
    GridSearchCV(vae(), {"n_components": [1, 2]}, cv=3, refit=False).fit(X)
    monkeypatch.setattr(_fitting, "prepare", elsewhere)
    monkeypatch.setattr(_fitting, "free_bytes", lambda device: 1e9)
    monkeypatch.setattr(_fitting, "_join", lambda jobs: None)
    requests = [Request(vae(n_components=n), X) for n in (1, 2)]
    outcomes = _fitting.fit_together(requests)
    assert all(outcome.error is not None for outcome in outcomes)
    assert numbers == [2, 1]


class Weighing(ThreadingBackend):
    """Threads that are given what processes would be: it is pickled, and its bytes are noted."""

    weights: ClassVar = []

    def submit(self, func, callback=None):
        if func.items[0][0].function.__name__ == "_fit_and_score":
            Weighing.weights.append(len(pickle.dumps(func)) / len(func))
        return super().submit(func, callback)


@pytest.mark.parametrize("where", ["estimator", "grid"])
def test_a_task_takes_its_own_answers_and_no_others(data, monkeypatch, where):
    monkeypatch.setattr(Weighing, "weights", [])
    joblib.register_parallel_backend("weighing", Weighing)
    heaviest = []
    for n in (2, 10):
        # Of a grid a task has those of its candidate, on all folds.
        grid = {"vae__beta": np.linspace(0.1, 1, n)} | ({"vae": [vae()]} if where == "grid" else {})
        Weighing.weights.clear()
        with joblib.parallel_config("weighing"):
            GridSearchCV(in_pipeline(vae()), grid, cv=3, n_jobs=2, refit=False).fit(*data)
        heaviest.append(max(Weighing.weights))
    assert heaviest[1] < 2 * heaviest[0]


def meddled(pipe, meddle):
    """The pipeline, and before its steps one that does something else as well."""

    def looked_at(X):
        meddle()
        return X

    return Pipeline([("meddle", FunctionTransformer(looked_at)), *pipe.steps])


def test_the_estimators_of_a_user_are_left_alone(data, trained):
    """So that several searches can have them at the same time."""
    given, other, found = vae(), vae(beta=0.5), []
    pipe = meddled(
        in_pipeline(given), lambda: found.append([*vars(given), *vars(other), *vars(pipe)])
    )
    before = [*vars(given), *vars(other), *vars(pipe)]
    GridSearchCV(pipe, {"vae": [given, other]}, cv=3).fit(*data)
    assert all(now == before for now in found)
    assert trained == [6, 1]


def test_an_estimator_may_be_in_the_grid_too(data, trained):
    given = vae()
    grid = {"vae": [given, "passthrough", vae(beta=0.5)]}
    search = GridSearchCV(in_pipeline(given), grid, cv=3, refit=False).fit(*data)
    assert trained == [6]
    theirs = model_selection.GridSearchCV(in_pipeline(given), grid, cv=3, refit=False).fit(*data)
    np.testing.assert_allclose(*(s.cv_results_["mean_test_score"] for s in (search, theirs)))


def test_warning_filters_are_those_of_the_user(data):
    """Of all threads: what one of them sets and puts back, others put back too late."""
    found = []
    pipe = meddled(in_pipeline(vae()), lambda: found.extend(warnings.filters))
    GridSearchCV(pipe, {"vae__beta": [0.5, 1]}, cv=3).fit(*data)
    assert found
    assert ("ignore", None, Warning, None, 0) not in found


def test_what_scikit_learn_warns_of_is_said_once(data):
    weight = np.ones(len(data[0]))  # which the VAE's score does not take
    search = GridSearchCV(vae(), {"beta": [0.5, 1]}, cv=3)
    warns = pytest.warns(UserWarning, match="does not support")
    with warns as caught, pytest.raises(ValueError, match="sample_weight"):
        search.fit(data[0], sample_weight=weight)
    assert len([w for w in caught if "does not support" in str(w.message)]) == 1


@pytest.mark.parametrize("estimator", [conditional(), VAEImputer(conditional(), n_draws=8)])
def test_what_a_fit_says_of_y_is_said_when_it_is_evaluated(data, estimator):
    X, y = data
    name = "estimator__beta" if isinstance(estimator, VAEImputer) else "beta"
    search = GridSearchCV(estimator, {name: [0.5, 1]}, cv=3, scoring=lambda model, X, y: 1)
    with pytest.warns(DataConversionWarning, match="column-vector") as caught:
        search.fit(X, y[:, None])
    assert len([w for w in caught if w.category is DataConversionWarning]) == 2 * 3 + 1


def test_a_condition_that_equals_y_is_not_taken_for_it(data, trained):
    """Where it came from is kept by the fit, which scores by y or by what it is given."""
    pd = pytest.importorskip("pandas")
    X, y = data[0], pd.Series(data[1], name="y")
    sources = []

    def noted(model, X, y):
        sources.append(model[-1]._source)
        return 1

    with sklearn.config_context(enable_metadata_routing=True):
        first, second = conditional(n_components=2), conditional()
        given = clone(second).set_fit_request(condition=True)
        pipe = Pipeline([("first", first), ("second", second)])
        grid = {"second": [given, clone(second).set_fit_request(condition=False)]}
        search = GridSearchCV(pipe, grid, cv=3, refit=False, scoring=noted, error_score="raise")
        search.fit(X, y, condition=y)
    assert sources == ["keyword"] * 3 + ["target"] * 3


@pytest.mark.filterwarnings("ignore:Scoring failed:UserWarning", "ignore:One or more:UserWarning")
def test_an_error_that_candidates_share_is_told_as_by_scikit_learn(data):
    X = np.where(data[0] > 0, 1.0, 0.0)
    X[0, 0] = 2
    grid = {"vae__n_components": [1, 2], "classify__C": [0.1, 1, 10]}
    told = []
    for search in (GridSearchCV, model_selection.GridSearchCV):
        pipe = Pipeline(
            [("vae", vae(likelihood="bernoulli")), ("classify", LogisticRegression(max_iter=300))]
        )
        with pytest.warns(FitFailedWarning) as caught:
            search(pipe, grid, cv=3, refit=False).fit(X, data[1])
        told.append(str(next(w.message for w in caught if w.category is FitFailedWarning)))
    assert told[0].count("fits failed with") == told[1].count("fits failed with")
    assert len(told[0]) < 2 * len(told[1])


def drawn(model, X, y=None):
    return model.sample(1)[0, 0]


def imputed(model, X, y=None):
    return model.transform(np.full((1, X.shape[1]), np.nan))[0, 0]


@pytest.mark.parametrize(
    ("of_a_generator", "scoring"),
    [
        (lambda generator: vae(random_state=generator), drawn),
        (
            lambda generator: VAEImputer(
                vae(random_state=None), sample_posterior=True, n_draws=8, random_state=generator
            ),
            imputed,
        ),
    ],
    ids=["VAE", "imputer"],
)
def test_a_generator_is_where_the_training_leaves_it(data, of_a_generator, scoring):
    scores = []
    for search in (GridSearchCV, model_selection.GridSearchCV):
        estimator = of_a_generator(np.random.RandomState(0))
        name = "estimator__beta" if isinstance(estimator, VAEImputer) else "beta"
        found = search(estimator, {name: [0.5, 1]}, cv=3, scoring=scoring).fit(data[0])
        scores.append(found.cv_results_["split0_test_score"])
    np.testing.assert_allclose(*scores, atol=1e-2)


class StopsSoon:
    """A callback that ends every training after two epochs."""

    def setup(self, *args, **keywords):
        pass

    def teardown(self, *args, **keywords):
        pass

    def on_fit_task_begin(self, *args, **keywords):
        pass

    def on_fit_task_end(self, estimator, context, **keywords):
        return context.task_name == "epoch" and context.task_id == 1


def test_a_vae_with_callbacks_trains_by_itself(data, trained):
    estimator = vae(early_stopping=False).set_callbacks(StopsSoon())
    search = GridSearchCV(
        estimator, {"beta": [0.5, 1]}, cv=3, scoring=lambda model, X, y=None: model.n_iter_
    ).fit(*data)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], [2, 2])
    assert trained == [1] * 7


def test_a_search_in_an_ensemble_in_a_search_has_batches_of_its_own(data, trained):
    inner = {"vae__n_components": [1, 2]}
    grid = {"estimator__estimator__classify__C": [0.1, 1]}
    searches = []
    for search in (GridSearchCV, model_selection.GridSearchCV):
        ensemble = BaggingClassifier(search(in_pipeline(vae()), inner, cv=2), 3, random_state=0)
        searches.append(search(ensemble, grid, cv=3, refit=False).fit(*data))
        if search is GridSearchCV:
            # The first of each ensemble, on every fold, are trained at once for all candidates;
            # the others for each: 2 candidates on 2 folds, and the best on all rows.
            assert trained == [12, 3] + [4, 1] * 2 * 6
    assert_same_search(*searches)


def test_imputers_that_make_their_vae_are_answered(data, trained, monkeypatch):
    monkeypatch.setattr(impute, "_DEFAULT", vae(random_state=None))
    X = data[0].copy()
    X[::5, 0] = np.nan
    pipe = Pipeline([("impute", VAEImputer(n_draws=8, random_state=0)), ("vae", PCA(2))])
    grid = {"vae__whiten": [True, False], "impute__estimator": [None, vae(), vae(beta=0.5)]}
    ours = GridSearchCV(pipe, grid, cv=3).fit(X)
    # That of its own making and the first of the grid are equal.
    assert trained == [6, 1]
    assert_same_search(ours, model_selection.GridSearchCV(pipe, grid, cv=3).fit(X))


def test_data_are_hashed_where_it_serves(data, monkeypatch):
    """Before the VAE, once to ask, and once to be answered: three times a fit."""
    X, y = data
    n_hashed, hash_of = 0, joblib.hash

    def counted(value, *args, **kwargs):
        nonlocal n_hashed
        n_hashed += len(pickle.dumps(value)) > X.nbytes / 2
        return hash_of(value, *args, **kwargs)

    monkeypatch.setattr(joblib, "hash", counted)
    GridSearchCV(in_pipeline(vae()), {"vae__beta": [0.5, 1]}, cv=3, refit=False).fit(X, y)
    assert n_hashed == 3 * 6


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_tensors_stay_tensors(data, monkeypatch, n_jobs):
    """Though threads and processes train, of which scikit-learn's configuration is not."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    X = torch.from_numpy(data[0])
    with sklearn.config_context(array_api_dispatch=True):
        arguments = (vae(), {"beta": [0.5, 1]})
        ours = GridSearchCV(*arguments, cv=3, n_jobs=n_jobs).fit(X)
        theirs = model_selection.GridSearchCV(*arguments, cv=3).fit(X)
    assert np.isfinite(ours.cv_results_["mean_test_score"]).all()
    assert_same_search(ours, theirs)


def test_a_device_of_torch_is_the_same_in_another_process():
    """Its state holds a string: answered fits were trained again there, each alone."""
    here = VAETransformer(device=torch.device("cpu"))
    there = pickle.loads(pickle.dumps(here))
    keys = {_key(Request(model, np.zeros((2, 2)))) for model in (here, there)}
    assert len(keys) == 1
