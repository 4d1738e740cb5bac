"""Work that is shared by threads: the same answers, and nobody left waiting."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from skvae import VAETransformer, _inference, _threads
from skvae._threads import share

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)) @ RNG.normal(size=(3, 6)) + 0.3 * RNG.normal(size=(300, 6))


@pytest.fixture(scope="module")
def model():
    vae = VAETransformer(2, hidden_layer_sizes=(8,), max_iter=5, random_state=0)
    return vae.fit(np.where(RNG.random(X.shape) < 0.1, np.nan, X))


@pytest.fixture
def threads(monkeypatch):
    """Sets how many share the smallest work; the names of all that took part."""
    names = set()
    monkeypatch.setattr(_inference, "_OPERATIONS_A_THREAD", 1)
    encode = _inference.VAE.encode

    def noted(self, *args):
        names.add(threading.current_thread().name)
        time.sleep(0.01)  # so that there is something left for the others
        return encode(self, *args)

    monkeypatch.setattr(_inference.VAE, "encode", noted)

    def so_many(n):
        names.clear()
        monkeypatch.setattr(torch, "get_num_threads", lambda: n)
        return names

    return so_many


def answers(model):
    given = X.copy()
    given[::7, 2] = np.nan
    yield model.transform(given)
    yield from model.posterior(given)
    yield model.score_samples(given, n_draws=16)
    yield from model.elbo(given)
    yield model.impute(given, n_draws=16)
    yield model.inverse_transform(np.arange(600.0).reshape(300, 2) / 600)


@pytest.mark.parametrize("n_threads", [2, 5])
def test_rows_have_the_same_answers_whoever_takes_them(model, threads, n_threads):
    assert threads(1) == set()
    alone = list(answers(model))
    names = threads(n_threads)
    for shared, expected in zip(answers(model), alone, strict=True):
        # A chunk of rows is another one.
        np.testing.assert_allclose(shared, expected, rtol=1e-11, atol=1e-12)
    assert len(names) > 1
    assert threading.current_thread().name in names


def test_draws_do_not_hang_on_the_threads(model, threads):
    given = X.copy()
    given[::7, 2] = np.nan

    def draws():
        return [
            *model.sample(1000, random_state=1).T,
            *model.sample_missing(given, 3, n_draws=16, random_state=1),
        ]

    threads(1)
    alone = draws()
    threads(5)
    for shared, expected in zip(draws(), alone, strict=True):
        np.testing.assert_array_equal(shared, expected)


def test_all_is_done_once():
    done = []
    share((lambda i=i: done.append(i) for i in range(1000)), 4)
    assert sorted(done) == list(range(1000))


@pytest.mark.parametrize("n_threads", [1, 3])
def test_an_error_ends_all(n_threads):
    """Of whichever thread it is; what has not begun is left."""
    done = []

    def fail():
        raise ValueError("no such row")

    with pytest.raises(ValueError, match="no such row"):
        share([fail, *[lambda: done.append(1)] * 100_000], n_threads)
    assert len(done) < 100_000


def test_an_error_of_a_helper_is_told():
    here, met = threading.current_thread(), threading.Barrier(2, timeout=10)

    def task():
        met.wait()
        if threading.current_thread() is not here:
            raise ValueError("of the other")

    with pytest.raises(ValueError, match="of the other"):
        share([task, task], 2)


def test_helpers_that_are_busy_are_not_waited_for(monkeypatch):
    helpers = _threads._Helpers()
    monkeypatch.setattr(_threads, "_helpers", helpers)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    go_on = threading.Event()
    busy = helpers.submit(lambda: go_on.wait(30))
    done = []
    share([lambda: done.append(1)] * 10, 3)
    assert len(done) == 10
    assert not busy.done()
    go_on.set()


def test_helpers_that_cannot_be_had_are_done_without(monkeypatch):
    """At the end of a process no thread can be started."""

    def submit(work):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_threads._helpers, "submit", submit)
    done = []
    share([lambda: done.append(1)] * 10, 3)
    assert len(done) == 10


def test_an_interrupt_leaves_nothing_under_way(monkeypatch):
    submit, n_helpers, done = _threads._helpers.submit, [], []

    def interrupted(work):
        if n_helpers:
            while not done:
                time.sleep(0.001)
            raise KeyboardInterrupt
        n_helpers.append(1)
        return submit(work)

    monkeypatch.setattr(_threads._helpers, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        share((lambda: (time.sleep(0.01), done.append(1)) for _ in range(1000)), 3)
    n_done = len(done)
    time.sleep(0.1)
    assert len(done) == n_done < 1000


def test_all_numbers_of_threads_stay(model, threads):
    """Those of numpy's BLAS too, which one thread may set and no other put back."""
    threads(3)
    before = threadpool_info()
    for _ in range(20):
        model.transform(X)
        assert threadpool_info() == before
    with ThreadPoolExecutor(1) as pool:
        pool.submit(model.transform, X).result()
        with threadpool_limits(1):
            assert all(library["num_threads"] == 1 for library in threadpool_info())
    assert threadpool_info() == before


def test_new_helpers_keep_to_one_thread(monkeypatch):
    """Whatever the user has told torch, which a new thread hears of only when it asks."""
    monkeypatch.setattr(_threads, "_helpers", _threads._Helpers())
    before, found, met = torch.get_num_threads(), [], threading.Barrier(2, timeout=10)

    def task():
        met.wait()
        torch.get_num_threads()
        found.extend(library.num_threads for library in _threads._libraries())

    try:
        torch.set_num_threads(2)
        share([task] * 2, 2)
    finally:
        torch.set_num_threads(before)
    assert found
    assert set(found) == {1}


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_modes_of_the_caller_do_not_matter(model, threads, mode):
    threads(3)
    expected = model.transform(X)
    for _ in range(5):
        with mode():
            found = model.transform(X), model.impute(X)
        np.testing.assert_array_equal(found[0], expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_helpers_of_its_own():
    """Those of its parent are not there; to wait for them would be for ever."""
    met = threading.Barrier(2, timeout=10)
    share([met.wait] * 2, 2)
    child = os.fork()
    if not child:
        status = 1
        try:
            share([threading.Barrier(2, timeout=10).wait] * 2, 2)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
