"""More rows than memory: one epoch over a memory map.

    python benchmarks/streaming.py --folder DIR --output docs/streaming.md

Makes a file of N x 500 float32 in DIR (N = 10 million: 20 GB) unless it is there: a nonlinear
function of 8 factors, and noise. Then, each in a process of its own:
- one epoch of ``fit`` over the memory map, and ``transform`` and ``score_samples`` of a million
  rows of it: rows a second, and the memory that the process takes for itself at the peak
  (RssAnon of Linux; pages of the file belong to the system, which takes them back at will),
  less what it had before;
- the same of ``--few`` rows, as a memory map and in memory: what streaming costs;
- ``partial_fit`` over chunks of these, epoch by epoch, compared with ``fit``: the bound on rows
  kept apart, after as many epochs.

With ``--device cuda`` the rows go to a GPU as they are needed.
"""

from __future__ import annotations

import argparse
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import counted, in_a_process, markdown, publish, status_mib
from sklearn.exceptions import ConvergenceWarning

from skvae import VAETransformer

N_COLUMNS, N_FACTORS = 500, 8
CHUNK = 100_000
N_ANSWERED = 1_000_000
N_EPOCHS = 10
N_PARTS = 5


class PeakOfItsOwn:
    """MiB that this process takes for itself at the peak, looked at every few milliseconds."""

    def __enter__(self) -> PeakOfItsOwn:
        self._before = self.mib = status_mib("RssAnon")
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._is_over.wait(0.01):
            self.mib = max(self.mib, status_mib("RssAnon"))

    def __exit__(self, *exception: Any) -> None:
        self._is_over.set()
        self._thread.join()
        self.mib -= self._before


def make(path: Path, n_rows: int) -> None:
    """The file, if there is none of this size."""
    if path.exists() and path.stat().st_size == 4 * n_rows * N_COLUMNS:
        return
    rng = np.random.default_rng(0)
    first = rng.normal(size=(N_FACTORS, 64)).astype(np.float32)
    second = rng.normal(size=(64, N_COLUMNS)).astype(np.float32) / 8
    with path.open("wb") as file:
        for start in range(0, n_rows, CHUNK):
            n = min(CHUNK, n_rows - start)
            hidden = np.tanh(rng.standard_normal((n, N_FACTORS), np.float32) @ first)
            noise = 0.5 * rng.standard_normal((n, N_COLUMNS), np.float32)
            (hidden @ second + noise).tofile(file)


def opened(path: Path, n_rows: int) -> np.memmap:
    return np.memmap(path, dtype=np.float32, mode="r", shape=(n_rows, N_COLUMNS))


def vae(device: str, **parameters: Any) -> VAETransformer:
    defaults = {"validation_fraction": 0.01, "random_state": 0, "device": device}
    return VAETransformer(**{**defaults, **parameters})


def epoch(path: Path, n_rows: int, device: str, is_mapped: bool) -> list[Any]:
    """Rows a second of fit, transform and score_samples, and MiB of the fit and the others."""
    X: np.ndarray = opened(path, n_rows)
    X = X if is_mapped else np.array(X)
    with PeakOfItsOwn() as of_fit:
        begun = time.perf_counter()
        model = vae(device, max_iter=1).fit(X)
        seconds = [time.perf_counter() - begun]
    some = X[:N_ANSWERED]
    with PeakOfItsOwn() as of_answers:
        for method in (model.transform, lambda rows: model.score_samples(rows, n_draws=8)):
            begun = time.perf_counter()
            method(some)
            seconds.append(time.perf_counter() - begun)
    rates = [n / s for n, s in zip((n_rows, len(some), len(some)), seconds, strict=True)]
    return [*rates, of_fit.mib, of_answers.mib]


def partial(path: Path, n_rows: int, device: str) -> list[Any]:
    """Bounds of rows kept apart, in nats a row: of partial_fit, and of fit."""
    X = opened(path, n_rows)
    n_apart = n_rows // 10
    learned, apart = X[n_apart:], X[:n_apart]
    parameters = {"early_stopping": False, "learning_rate": "constant"}
    by_parts = vae(device, **parameters)
    for _ in range(N_EPOCHS):
        for part in np.array_split(learned, N_PARTS):
            by_parts.partial_fit(part)
    at_once = vae(device, max_iter=N_EPOCHS, **parameters).fit(learned)
    return [model.score(apart) for model in (by_parts, at_once)]


def told(measure: Any, n_threads: int, *arguments: Any) -> list[Any]:
    """In a process of its own, and printed."""
    found: list[Any] = in_a_process(quietly, measure, n_threads, *arguments)
    print(*arguments[1:], *found, flush=True)
    return found


def quietly(measure: Any, n_threads: int, *arguments: Any) -> list[Any]:
    torch.set_num_threads(n_threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an epoch is not the end
        return measure(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="where there is room for the file")
    add("--rows", type=int, default=10_000_000)
    add("--few", type=int, default=500_000, help="rows to compare with an array in memory")
    add("--threads", type=int, default=2)
    add("--device", default="cpu")
    add("--output", type=Path, help="write the report there too")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path, device = options.folder / "rows.dat", options.device
    make(path, options.rows)
    rows = []
    for n_rows, is_mapped in ((options.rows, True), (options.few, True), (options.few, False)):
        kind = "memory map" if is_mapped else "array"
        found = told(epoch, options.threads, path, n_rows, device, is_mapped)
        rows.append([kind, f"{n_rows:,}", f"{n_rows * N_COLUMNS * 4 / 1e9:.1f} GB", *found])
    header = ["X", "rows", "size", "fit, rows/s", "transform", "score_samples"]
    header += ["MiB, fit", "MiB, others"]
    table = markdown(header, ["{}", "{}", "{}", *["{:,.0f}"] * 5], rows, 1)
    n_learned = options.few // 10 - options.few // 100
    by_parts, at_once = told(partial, options.threads, path, options.few // 10, device)
    publish(
        "# More rows than memory\n\nWritten by `make streaming`; the protocol is in "
        f"`benchmarks/streaming.py`. {N_COLUMNS} columns of float32, the default model, one epoch; "
        f"{counted(options.threads, 'thread')}, {device}. Rows a second of `fit` (finding the "
        "scales, the start and the validation included), `transform` and `score_samples` (8 "
        "draws); memory that the process takes for itself at the peak of `fit`, and of the other "
        "two.\n\n"
        f"{table}\n\n"
        f"`partial_fit` over {N_PARTS} chunks of {n_learned // N_PARTS:,} rows, "
        f"{N_EPOCHS} times: {by_parts:.3f} nats a row on {options.few // 100:,} rows kept apart; "
        f"`fit` of as many epochs: {at_once:.3f}.\n",
        options.output,
    )


if __name__ == "__main__":
    main()
