"""Searches over the processes of a Dask cluster."""

import os
import signal
import threading
import time

import joblib
import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.datasets import load_wine

from skvae import VAETransformer
from skvae.model_selection import GridSearchCV

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    # Of what a cluster says while its processes come and go.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

X = load_wine().data
VAE = VAETransformer(max_iter=20, early_stopping=False, random_state=0)
GRID = {"n_components": [2, 4], "beta": [0.5, 1]}


@pytest.fixture(scope="module")
def alone():
    return GridSearchCV(VAE, GRID, cv=3).fit(X)


@pytest.fixture(scope="module")
def client():
    keywords = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**keywords) as cluster, Client(cluster) as client:
        yield client


def running(client):
    """What each worker has to do now, by its address."""
    return {worker: " ".join(map(str, tasks)) for worker, tasks in client.processing().items()}


def test_a_cluster_gives_the_same_results(client, alone):
    seen = []
    watch = threading.Event()

    def look():
        while not watch.wait(0.05):
            seen.append(sum("fit_unit" in tasks for tasks in running(client).values()))

    looking = threading.Thread(target=look)
    looking.start()
    with joblib.parallel_config(backend="dask"):
        search = GridSearchCV(VAE, GRID, cv=3, n_jobs=-1).fit(X)
    watch.set()
    looking.join()
    assert max(seen) == 2  # both workers trained
    assert_same_scores(search, alone)


def test_a_search_survives_the_death_of_a_worker(client, alone):
    pids, killed = client.run(os.getpid), []

    def kill():
        for _ in range(600):
            training = [w for w, tasks in running(client).items() if "fit_unit" in tasks]
            if len(training) == 2:
                time.sleep(0.3)
                os.kill(pids[training[0]], signal.SIGKILL)
                killed.append(training[0])
                return
            time.sleep(0.05)

    killing = threading.Thread(target=kill)
    killing.start()
    with joblib.parallel_config(backend="dask"):
        search = GridSearchCV(VAE, GRID, cv=3, n_jobs=-1).fit(X)
    killing.join()
    assert killed
    assert_same_scores(search, alone)


def assert_same_scores(search, alone):
    for i in range(3):
        name = f"split{i}_test_score"
        np.testing.assert_allclose(search.cv_results_[name], alone.cv_results_[name], atol=1e-3)
    assert search.best_params_ == alone.best_params_
