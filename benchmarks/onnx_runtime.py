"""What does a row cost in onnxruntime, and what in `transform` of Python?

    python benchmarks/onnx_runtime.py --output docs/onnx.md

Models of scikit-learn's digits with default sizes, converted by skl2onnx. The two sides are timed
in turn, on the same rows and as many threads, and the medians are reported with their ratio and
with the largest difference of the answers. (The file is not called onnx.py, as a script's folder
comes first where Python looks for the package onnx.)
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import skl2onnx
import sklearn
import torch
from results import markdown, publish
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import skvae.onnx
from skvae import ConditionalVAE, VAETransformer

ROWS = (1, 10, 100, 1000, 10_000)


class Subject(NamedTuple):
    """A fitted model, what is asked of it, and which output of the graph that is."""

    name: str
    model: Any
    ask: str
    output: int
    dtype: Any
    options: dict[str, Any]


class Row(NamedTuple):
    name: str
    dtype: str
    n_rows: int
    python: float  # milliseconds
    onnx: float
    ratio: float
    difference: float


def subjects(max_iter: int) -> Iterator[Subject]:
    """Fitted in double precision, as scikit-learn's data sets come."""
    X, y = load_digits(return_X_y=True)
    settings: dict[str, Any] = {"max_iter": max_iter, "random_state": 0}
    vae = VAETransformer(**settings).fit(X)
    for dtype in (np.float32, np.float64):
        yield Subject("VAETransformer, transform", vae, "transform", 0, dtype, {})
    steps = StandardScaler(), VAETransformer(**settings), LogisticRegression(max_iter=1000)
    pipe = make_pipeline(*steps).fit(X, y)
    name = "StandardScaler, VAETransformer, LogisticRegression: predict_proba"
    yield Subject(name, pipe, "predict_proba", 1, np.float32, {"options": {"zipmap": False}})
    conditional = ConditionalVAE(**settings).fit(X, y)
    name = "ConditionalVAE, transform, ten labels integrated out"
    yield Subject(name, conditional, "transform", 0, np.float32, {})


def measured(subject: Subject, sizes: list[int], seconds: float, threads: int) -> Iterator[Row]:
    X = load_digits().data.astype(subject.dtype)
    graph = skl2onnx.to_onnx(subject.model, X[:1], **subject.options)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    output = [session.get_outputs()[subject.output].name]
    python = getattr(subject.model, subject.ask)
    for n_rows in sizes:
        rows = np.ascontiguousarray(np.resize(X, (n_rows, X.shape[1])))

        def by_onnx(rows: np.ndarray = rows) -> np.ndarray:
            return session.run(output, {"X": rows})[0]

        def by_python(rows: np.ndarray = rows) -> np.ndarray:
            return python(rows)

        difference = float(np.abs(by_python() - by_onnx()).max())
        of_python, of_onnx = medians([by_python, by_onnx], seconds)
        yield Row(
            subject.name,
            np.dtype(subject.dtype).name,
            n_rows,
            of_python * 1e3,
            of_onnx * 1e3,
            of_python / of_onnx,
            difference,
        )


def medians(calls: list[Callable[[], Any]], seconds: float) -> list[float]:
    """Of the times of each, taken in turn until they add up to these seconds; five at least."""
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for some, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            call()
            some.append(time.perf_counter() - start)
    return [float(np.median(some)) for some in times]


def report(rows: list[Row], threads: int) -> str:
    versions = (
        f"onnxruntime {onnxruntime.__version__}, skl2onnx {skl2onnx.__version__}, "
        f"scikit-learn {sklearn.__version__}, torch {torch.__version__.partition('+')[0]}"
    )
    header = ["what", "dtype", "rows", "Python, ms", "onnxruntime, ms", "ratio", "difference"]
    formats = ["{}", "{}", "{:,}", "{:.3f}", "{:.3f}", "{:.1f}", "{:.0e}"]
    return (
        "# ONNX\n\n"
        "Written by `make onnx` (`benchmarks/onnx_runtime.py`): models of the digits (64 columns, "
        "8 components, hidden layers of 128 and 128), converted by `skl2onnx.to_onnx` as [how to "
        "save, carry and deploy](how_to/persistence.md) shows. The two sides take turns on the "
        "same rows; times are medians in milliseconds, the ratio is Python's time over "
        "onnxruntime's, the difference is the largest between their answers.\n\n"
        f"{versions}; {threads} thread{'s' if threads > 1 else ''} on either side.\n\n"
        f"{markdown(header, formats, rows, 2)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--max-iter", type=int, default=20, help="epochs of each fit")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line of the table")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="file for the Markdown that is printed")
    arguments = parser.parse_args()
    skvae.onnx.register()
    rows: list[Row] = []
    with warnings.catch_warnings(), threadpool_limits(arguments.threads):
        warnings.simplefilter("ignore", ConvergenceWarning)
        for subject in subjects(arguments.max_iter):
            rows += measured(subject, arguments.rows, arguments.seconds, arguments.threads)
    publish(report(rows, arguments.threads), arguments.output)


if __name__ == "__main__":
    main()
