"""Outliers by log p(x): the area under the ROC curve, compared with published ones.

    python benchmarks/outliers.py --data DIR --jobs 4 --output outliers.md

DIR has adbench/*.npz of the ADBench repository [1]_ with X and y (1 is an outlier), and
published/DTE_adbench_aucroc_semisupervised.csv, the table of 26 methods of Livernoche et
al. [2]_. The protocol is theirs: train on a random half of the normal rows, test on the other
half and all outliers, 5 seeds. The halves are not theirs row for row.

VAETransformer comes with its defaults and gets the rows as they are; an outlier is a row of low
`score_samples`. Beside it, on the same halves, standardised on the training rows:
IsolationForest, the distance to the fifth neighbour, and the log-likelihood of PCA with as many
components as the VAE (one less than there are columns, if that is fewer).

Measurements go to a file (--results) as in `quality.py`, with --set and --label.

.. [1] S. Han et al., "ADBench: Anomaly Detection Benchmark", NeurIPS 2022.
.. [2] V. Livernoche, V. Jain, Y. Hezaveh and S. Ravanbakhsh, "On Diffusion Modeling for Anomaly
   Detection", ICLR 2024.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from results import (
    Measurements,
    add_options,
    counted,
    markdown,
    measure_all,
    name_of,
    publish,
)
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from skvae import VAETransformer

OURS = "VAETransformer"
PUBLISHED = Path("published", "DTE_adbench_aucroc_semisupervised.csv")
# Of the published methods, those that are shown for each table; all stand in the table of means.
SHOWN = ["VAE", "PCA", "IForest", "LOF", "KNN", "DTE-NP"]


class Task(NamedTuple):
    dataset: str
    seed: int
    model: str


class Detection(NamedTuple):
    """Area under the ROC curve in percent, and the time of fit and scores."""

    auc: float
    seconds: float


class Halves(NamedTuple):
    """Normal rows to learn from; the other normal rows and all outliers (1)."""

    X_train: np.ndarray
    X_test: np.ndarray
    is_outlier: np.ndarray


def halves(path: Path, seed: int) -> Halves:
    with np.load(path, allow_pickle=False) as file:
        X, is_outlier = file["X"].astype(np.float64), file["y"].astype(bool)
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(~is_outlier))
    train, rest = np.split(normal, [len(normal) // 2])
    test = np.concatenate([rest, np.flatnonzero(is_outlier)])
    return Halves(X[train], X[test], is_outlier[test])


def measure(task: Task, folder: Path, settings: dict[str, Any]) -> Detection:
    X_train, X_test, is_outlier = halves(folder / "adbench" / f"{task.dataset}.npz", task.seed)
    vae = VAETransformer(random_state=task.seed).set_params(**settings)
    start = time.perf_counter()
    if task.model in BASELINES:
        scaler = StandardScaler().fit(X_train)
        X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)
        scores = BASELINES[task.model](X_train, X_test, task.seed, vae.n_components)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            scores = -vae.fit(X_train).score_samples(X_test)
    seconds = time.perf_counter() - start
    return Detection(100 * float(roc_auc_score(is_outlier, scores)), seconds)


# How far out a row is. All take the same arguments; not all need them.
Baseline = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


def isolation_forest(
    X_train: np.ndarray, X_test: np.ndarray, seed: int, n_components: int
) -> np.ndarray:
    return -IsolationForest(random_state=seed).fit(X_train).score_samples(X_test)


def neighbour_distance(
    X_train: np.ndarray, X_test: np.ndarray, seed: int, n_components: int
) -> np.ndarray:
    return NearestNeighbors(n_neighbors=5).fit(X_train).kneighbors(X_test)[0][:, -1]


def pca(X_train: np.ndarray, X_test: np.ndarray, seed: int, n_components: int) -> np.ndarray:
    n_components = min(n_components, X_train.shape[1] - 1)
    return -PCA(n_components, random_state=seed).fit(X_train).score_samples(X_test)


BASELINES: dict[str, Baseline] = {
    "IsolationForest": isolation_forest,
    "5th neighbour": neighbour_distance,
    "PCA.score_samples": pca,
}


def report(rows: pd.DataFrame, published: pd.DataFrame, ours: str) -> str:
    """Means over seeds by table, with the published ones, and the means over tables."""
    measured = rows.pivot_table(index="dataset", columns="model", values="auc")
    measured = measured[sorted(measured, key=lambda model: (model != ours, model in BASELINES))]
    theirs = published.loc[[published_name(dataset) for dataset in measured.index]]
    both = measured.join(theirs.set_index(measured.index).add_suffix(" (published)"))
    by_table = both[[*measured, *(f"{method} (published)" for method in SHOWN)]]
    by_table.loc["mean"] = by_table.mean()
    here = measured.mean().sort_values(ascending=False)
    means = both.mean().sort_values(ascending=False)
    spread = rows[rows["model"] == ours].groupby("dataset")["auc"].sem().mean()
    failed = rows[rows["error"].notna()]
    parts = [
        f"# Outliers by {ours}",
        f"Area under the ROC curve in percent, mean over {len(measured)} tables of ADBench: "
        + ", ".join(f"{model} {auc:.1f}" for model, auc in here.items())
        + ".",
        "Written by `make outliers`; the protocol is in `benchmarks/outliers.py`. "
        "Each model learns from a random half of the normal rows and scores the other half and all "
        f"outliers; means over {counted(rows['seed'].nunique(), 'seed')}. The standard error of "
        f"{ours} is {spread:.1f} for a table, on average over tables. 5th neighbour: the distance "
        "to the fifth nearest training row. The columns marked (published) are from Livernoche et "
        'al., "On Diffusion Modeling for Anomaly Detection", ICLR 2024: the same protocol with '
        "other random halves.",
        markdown(
            ["table", *by_table.columns],
            ["{}", *["{:.1f}"] * len(by_table.columns)],
            by_table.reset_index().itertuples(index=False),
            n_words=1,
        ),
        *(
            f"Failed: {row.dataset}, seed {row.seed}, {row.model}: {row.error}"
            for row in failed.itertuples()
        ),
        f"## Means over these {len(measured)} tables",
        markdown(["method", "mean"], ["{}", "{:.2f}"], means.items(), n_words=1),
    ]
    return "\n\n".join(parts) + "\n"


def published_name(dataset: str) -> str:
    """ "7_Cardiotocography" is "cardiotocography" there."""
    return dataset.partition("_")[2].lower()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with adbench/ and published/")
    add("--sets", nargs="+", help="file names without .npz (default: all)")
    add("--seeds", type=int, default=5, help="default: 5")
    add_options(parser, "local/outliers.jsonl")
    arguments = parser.parse_args()
    for path in (arguments.data / "adbench", arguments.data / PUBLISHED):
        if not path.exists():
            parser.error(f"--data: there is no {path}")
    found = sorted(path.stem for path in (arguments.data / "adbench").glob("*.npz"))
    arguments.sets = arguments.sets or found
    return arguments


def main() -> None:
    arguments = parse_arguments()
    settings = dict(arguments.set)
    VAETransformer().set_params(**settings)  # a wrong name fails here and not in every task
    ours = name_of(settings, arguments.label)
    measurements = Measurements(arguments.results, Task)
    if not arguments.report:
        tasks = [
            Task(dataset, seed, model)
            for dataset in arguments.sets
            for seed in range(arguments.seeds)
            for model in (ours, *BASELINES)
        ]
        work = partial(measure, folder=arguments.data, settings=settings)
        measure_all(tasks, work, measurements, arguments.jobs)
    rows = pd.DataFrame(measurements, columns=[*Task._fields, *Detection._fields, "error"])
    rows = rows[rows["dataset"].isin(arguments.sets) & (rows["seed"] < arguments.seeds)]
    if ours not in set(rows["model"]):
        raise SystemExit(f"{arguments.results} has none of these sets for {ours}.")
    published = pd.read_csv(arguments.data / PUBLISHED, index_col="dataset")
    methods = [name for name in published if not name.endswith("_std")]
    publish(report(rows, published[methods], ours), arguments.output)


if __name__ == "__main__":
    main()
