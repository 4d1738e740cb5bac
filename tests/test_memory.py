"""What answers take beside X: as much as a few passes, however many rows there are."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from skvae import VAETransformer

STATUS = Path("/proc/self/status")

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="reads the memory from /proc")


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
def test_neither_rows_nor_draws_pile_up(method, n_rows, kwargs, likelihood):
    """In a process of its own, whose peak is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        grown = pool.submit(growth, method, likelihood, n_rows, **kwargs).result()
    assert grown < 128  # a few passes of 8 MiB for each tensor
