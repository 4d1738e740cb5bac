"""Labelled tables of numbers, and how they are split for `quality.py`.

Tables
    The iris, wine, breast cancer ("wdbc") and digits data of scikit-learn, and every file
    NAME.npz of a folder that has X (n, d) and labels y: whole numbers, since real ones mean
    regression. Files may have `categorical` (d,), which marks columns of codes. Of each table
    the numeric columns are taken, the rows without missing values, and at most 4,000 rows
    (seed 0). It counts if it has at least 4 columns and 100 rows. digits is left out where
    there is optdigits, of which it is a part. Images and counts are stored otherwise, under
    other names than X, and so do not come in.

Splits
    - Classes of fewer than 10 rows are dropped: there would be too few to train and to test on.
    - Split 70:30, stratified; the number of the split is the seed.
    - Columns that are constant in the training rows, or linear functions of those before them,
      are dropped, for every model: a density has no bound there.
    - Columns are standardised on the training rows and clipped at 8 standard deviations.
    - Normal noise of 0.05 standard deviations is added to both parts. Many columns are whole
      numbers or rounded; with no noise a model could put any density on their few values.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

MAX_ROWS = 4_000
MIN_ROWS = 100
MIN_COLUMNS = 4
MIN_CLASS = 10
CLIP = 8.0
JITTER = 0.05
# Of a standard deviation: what a column may differ from a linear function of others by rounding.
TOLERANCE = 1e-4

BUNDLED = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "wdbc": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}


class Table(NamedTuple):
    """Numbers (n, d) in float64 and labels (n,)."""

    X: np.ndarray
    y: np.ndarray


class Split(NamedTuple):
    """Rows to learn from and rows held out, standardised, with their labels."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


@cache
def load_tables(folder: Path | None) -> dict[str, Table]:
    """All tables, the narrowest first."""
    tables = {name: select(*load(return_X_y=True)) for name, load in BUNDLED.items()}
    for path in sorted(folder.glob("*.npz")) if folder else []:
        table = read(path)
        if table is not None and is_eligible(table):
            tables[path.stem] = table
    if "optdigits" in tables:
        del tables["digits"]
    return dict(sorted(tables.items(), key=lambda item: (item[1].X.shape[1], item[0])))


def read(path: Path) -> Table | None:
    """A file's table; None if what is there is not labelled rows."""
    with np.load(path, allow_pickle=False) as file:
        if "X" not in file or "y" not in file or file["y"].dtype.kind == "f":
            return None
        return select(numbers(file), file["y"])


def numbers(file: Mapping[str, np.ndarray]) -> np.ndarray:
    """The columns of a file that are no categories, (n, d) in float64."""
    X = file["X"]
    return (X[:, ~file["categorical"]] if "categorical" in file else X).astype(np.float64)


def select(X: np.ndarray, y: np.ndarray) -> Table:
    """Complete rows, at most `MAX_ROWS` of them."""
    is_complete = ~np.isnan(X).any(axis=1)
    X, y = X[is_complete], y[is_complete]
    rows = np.random.default_rng(0).permutation(len(X))[:MAX_ROWS]
    return Table(X[rows], y[rows])


def is_eligible(table: Table) -> bool:
    return len(table.X) >= MIN_ROWS and table.X.shape[1] >= MIN_COLUMNS


@cache
def split(folder: Path | None, name: str, seed: int) -> Split:
    """Split a table as the module's docstring says."""
    X, y = load_tables(folder)[name]
    labels, codes, sizes = np.unique(y, return_inverse=True, return_counts=True)
    is_kept = sizes[codes] >= MIN_CLASS
    X_train, X_test, y_train, y_test = train_test_split(
        X[is_kept],
        labels[codes[is_kept]],
        test_size=0.3,
        stratify=codes[is_kept],
        random_state=seed,
    )
    columns = independent_columns(X_train)
    scaler = StandardScaler().fit(X_train[:, columns])
    random = np.random.default_rng(seed)

    def scale(X: np.ndarray) -> np.ndarray:
        X = scaler.transform(X[:, columns]).clip(-CLIP, CLIP)
        return X + JITTER * random.standard_normal(X.shape)

    return Split(scale(X_train), y_train, scale(X_test), y_test)


def independent_columns(X: np.ndarray) -> np.ndarray:
    """Indices of the columns that vary and are no linear function of those before them."""
    columns = np.flatnonzero(np.ptp(X, axis=0) > 0)
    standardised = StandardScaler().fit_transform(X[:, columns])
    # |R_jj| is the length of what remains of column j beside those before it.
    remainder = np.abs(np.diagonal(np.linalg.qr(standardised, mode="r")))
    return columns[: len(remainder)][remainder > TOLERANCE * np.sqrt(len(X))]
