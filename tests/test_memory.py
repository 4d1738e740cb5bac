"""What answers take beside X: as much as a few passes, however many rows there are."""

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import skvae
from skvae import VAETransformer

STATUS = Path("/proc/self/status")

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="reads the memory from /proc")


@pytest.fixture(scope="module")
def alone():
    """Calls a function in a process of its own, whose peak is its own.

    It is forked from one that has imported torch, which takes seconds, and done nothing else.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([skvae.__name__])

    def result(function, *args, **kwargs):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(function, *args, **kwargs).result()

    return result


def mib(name):
    """Of this process: VmRSS is what it has, VmHWM the most it has had."""
    values = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(values[name].split()[0]) / 1024


def growth(method, likelihood, n_rows, **kwargs):
    """MiB by which a method raises this process's peak."""
    torch.set_num_threads(1)
    X = np.random.default_rng(0).integers(0, 2, (n_rows, 784)).astype(np.float32)
    model = VAETransformer(
        2, likelihood=likelihood, hidden_layer_sizes=(8,), init="random", max_iter=1, random_state=0
    ).fit(X[:100])
    # Having freed a block of 31 MiB, glibc keeps smaller ones for what comes after.
    torch.empty(31 * 2**18)
    room = np.ones((int(mib("VmHWM") - mib("VmRSS")), 2**17))  # what has been freed is full
    before = mib("VmHWM")
    getattr(model, method)(X, **kwargs)
    del room
    return mib("VmHWM") - before


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize(
    ("method", "n_rows", "kwargs"),
    # X of 160 MiB; and the draws of all rows, which would be 1 GiB.
    [("transform", 53_500, {}), ("score_samples", 2700, {"n_draws": 128})],
)
def test_neither_rows_nor_draws_pile_up(alone, method, n_rows, kwargs, likelihood):
    grown = alone(growth, method, likelihood, n_rows, **kwargs)
    assert grown < 128  # a few passes of 8 MiB for each tensor


def growth_of_fit(path, kind):
    """MiB that a fit takes for this process at the peak, pages of the file left out."""
    torch.set_num_threads(1)
    X = np.memmap(path, np.float32, "r").reshape(-1, 100)
    X = X if kind == "memory map" else np.array(X)
    peaks, is_over = [mib("RssAnon")], threading.Event()

    def look():
        while not is_over.wait(0.005):
            peaks.append(mib("RssAnon"))

    looking = threading.Thread(target=look)
    looking.start()
    VAETransformer(2, hidden_layer_sizes=(8,), batch_size=4096, max_iter=1, random_state=0).fit(X)
    is_over.set()
    looking.join()
    return max(peaks) - peaks[0]


@pytest.mark.parametrize("kind", ["memory map", "array"])
def test_a_fit_makes_no_copies_of_x(alone, kind, tmp_path):
    """None of a memory map; of an array one, as the model sees it."""
    n_rows, size = 500_000, 500_000 * 100 * 4 / 2**20
    path = tmp_path / "X.dat"
    with path.open("wb") as file:
        for i in range(10):
            rng = np.random.default_rng(i)
            rng.standard_normal((n_rows // 10, 100), np.float32).tofile(file)
    grown = alone(growth_of_fit, path, kind)
    # Windows, chunks and what libraries take when first used: 130 MiB. One more X would be 190.
    assert grown < (0 if kind == "memory map" else size) + 170
