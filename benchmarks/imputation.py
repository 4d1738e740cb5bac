"""How well are missing cells imputed, and in what time?

    python benchmarks/imputation.py --data DIR --output docs/imputation.md

The protocol of Mattei and Frellsen (MIWAE, ICML 2019, the authors' notebook): a table is
standardised, then half of its cells are taken out completely at random
(``numpy.random.seed(1234)``); the imputers see what is left, and the mean squared error is
over the cells that were taken out, in units of a column's standard deviation. Their own figure
for breast_cancer is 0.2867.

Tables: breast_cancer of scikit-learn, and those of DIR that are named in ``TABLES``
(``NAME.npz`` with X, or features and target, all numeric). ``--repeats`` takes other
cells out and averages; the first repeat is the authors'.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from results import counted, markdown, publish
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from tables import numbers

from skvae.impute import VAEImputer

SEED = 1234  # of the authors
AUTHORS_TABLE = "breast_cancer"
AUTHORS_ERROR = 0.2867

TABLES = ("wine_red", "wine_white", "concrete", "banknote", "yeast")

IMPUTERS: dict[str, Callable[[], Any]] = {
    "column means": SimpleImputer,
    "KNNImputer": KNNImputer,
    "IterativeImputer": lambda: IterativeImputer(random_state=0),
    "VAEImputer": lambda: VAEImputer(random_state=0),
}


def tables(folder: Path | None) -> dict[str, np.ndarray]:
    """Numbers (n, d), standardised."""
    found = {AUTHORS_TABLE: load_breast_cancer().data}
    if folder is not None:
        for name in TABLES:
            with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
                X = numbers(file)
            found[name] = X[:, X.std(0) > 0]
    return {name: (X - X.mean(0)) / X.std(0) for name, X in found.items()}


def without_half(X: np.ndarray, seed: int) -> np.ndarray:
    """A copy with NaN in half of the cells."""
    random = np.random.RandomState(seed)
    taken = random.choice(X.size, X.size // 2, replace=False)
    flat = X.flatten()
    flat[taken] = np.nan
    return flat.reshape(X.shape)


def measured(imputer: Any, X: np.ndarray, given: np.ndarray) -> tuple[float, float]:
    """Mean squared error over the cells taken out, and seconds."""
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        completed = imputer.fit_transform(given)
    seconds = time.perf_counter() - begun
    missing = np.isnan(given)
    return float(np.mean((completed - X)[missing] ** 2)), seconds


class Row(NamedTuple):
    """Of a table: errors (imputers, repeats) and seconds (imputers, repeats)."""

    name: str
    shape: tuple[int, int]
    errors: np.ndarray
    seconds: np.ndarray


def row_of(name: str, X: np.ndarray, repeats: int) -> Row:
    found = []
    for imputer, make in IMPUTERS.items():
        found.append([measured(make(), X, without_half(X, SEED + i)) for i in range(repeats)])
        print(name, imputer, *found[-1], flush=True)
    errors, seconds = np.moveaxis(np.array(found), 2, 0)
    return Row(name, X.shape, errors, seconds)


def lines(rows: list[Row]) -> list[list[str]]:
    """Of the report's table: one for each row, and one for the cells of the authors."""
    found = []
    for row in rows:
        head = [row.name, f"{row.shape[0]} x {row.shape[1]}"]
        means, medians = row.errors.mean(axis=1), np.median(row.seconds, axis=1)
        cells = [f"{e:.3f} ({s:.1f} s)" for e, s in zip(means, medians, strict=True)]
        found.append([*head, *cells])
        if row.name == AUTHORS_TABLE:
            head[0] += ", the cells of Mattei & Frellsen"
            found.append([*head, *(f"{error:.4f}" for error in row.errors[:, 0])])
    return found


def summary(rows: list[Row]) -> str:
    """On how many tables VAEImputer has the smallest error, and on how many it is the slowest."""
    ours = list(IMPUTERS).index("VAEImputer")
    best = sum(int(row.errors.mean(axis=1).argmin()) == ours for row in rows)
    slowest = sum(int(np.median(row.seconds, axis=1).argmax()) == ours for row in rows)

    def share(n: int) -> str:
        return f"all {n}" if n == len(rows) else f"{n} of {len(rows)}"

    return (
        f"VAEImputer has the smallest error on {share(best)} tables and is the slowest on "
        f"{share(slowest)}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="folder of tables; without it breast_cancer alone"
    )
    parser.add_argument("--repeats", type=int, default=3, help="of taking cells out")
    parser.add_argument("--output", type=Path, help="write the report there too")
    options = parser.parse_args()
    header = ["table", "n x d", *IMPUTERS]
    rows = [row_of(name, X, options.repeats) for name, X in tables(options.data).items()]
    publish(
        f"# Imputing missing cells\n\n{summary(rows)}\n\n"
        "Written by `make imputation`; the protocol is in `benchmarks/imputation.py`. "
        "Half of the cells are taken out; mean squared error over them in standardised units, the "
        f"mean over {counted(options.repeats, 'choice')} of cells, and median seconds. For "
        f"{AUTHORS_TABLE} a second row has the choice of Mattei & Frellsen (MIWAE, 2019), who "
        f"report {AUTHORS_ERROR}.\n\n"
        + markdown(header, ["{}"] * len(header), lines(rows), 2)
        + "\n",
        options.output,
    )


if __name__ == "__main__":
    main()
