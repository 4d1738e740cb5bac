"""Rows sampled from a model in place of real ones: the adult table.

    python benchmarks/synthesis.py --data FOLDER --output docs/synthesis.md

FOLDER has adult.npz: `X` with codes in its categorical columns and NaN where a cell is
missing, `y`, and their names. Rows without missing cells are taken, but for the models that are
said to learn from all rows; the training part is the one of UCI. Its whole numbers are integers
and its categories categories, the label one of them, so that `likelihood="auto"` decides.

Every model learns from the training rows and gives as many rows of its own. A gradient boosting
classifier is trained on these and tested on the real test rows. There are two baselines: the real
training rows, and rows in which every column is drawn by itself.

Distances are between the real test rows and the sampled ones. Of a column: of numbers the
Kolmogorov-Smirnov distance, of categories the total variation. Of pairs of columns: how much
Cramer's V differs, numbers in tenths of the real ones, on average over pairs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from results import Measurements, counted, markdown, measure_all, publish, setting
from scipy.stats import ks_2samp
from scipy.stats.contingency import association
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score, roc_auc_score

from skvae import ConditionalVAE, VAETransformer

LABEL = "income"
N_TRAIN = 32_561  # UCI's training part comes first
N_BINS = 10

REAL = "real rows"
INDEPENDENT = "independent columns"


class Task(NamedTuple):
    model: str
    seed: int


class Quality(NamedTuple):
    """What rows of a model are worth; distances by column."""

    accuracy: float
    auc: float
    distances: dict[str, float]
    associations: float
    seconds: float


class Table(NamedTuple):
    train: pd.DataFrame
    test: pd.DataFrame
    holed: pd.DataFrame  # the training rows, those with missing cells too


@cache
def load(folder: Path) -> Table:
    with np.load(folder / "adult.npz", allow_pickle=False) as file:
        categories = json.loads(str(file["categories_json"]))
        table = pd.DataFrame(file["X"], columns=[str(name) for name in file["feature_names"]])
        label = pd.Categorical.from_codes(file["y"], [str(name) for name in file["target_names"]])
    is_complete = table.notna().all(axis=1)
    for name in table:
        if name in categories:
            codes = table[name].fillna(-1).astype(int)
            table[name] = pd.Categorical.from_codes(codes, categories[name])
        else:
            table[name] = table[name].astype("int64")
    table[LABEL] = label
    is_train = np.arange(len(table)) < N_TRAIN
    return Table(table[is_complete & is_train], table[is_complete & ~is_train], table[is_train])


# ----------------------------------------------------------------------- models

#: From training rows, a seed and settings of ours to as many rows of the model's own.
Sampler = Callable[[pd.DataFrame, int, dict[str, Any]], pd.DataFrame]


def real(train: pd.DataFrame, seed: int, settings: dict[str, Any]) -> pd.DataFrame:
    return train


def independent(train: pd.DataFrame, seed: int, settings: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            name: column.sample(len(train), replace=True, random_state=seed + i).array
            for i, (name, column) in enumerate(train.items())
        }
    )


def transformer(train: pd.DataFrame, seed: int, settings: dict[str, Any]) -> pd.DataFrame:
    model = VAETransformer(likelihood="auto", random_state=seed).set_params(**settings)
    return model.fit(train).sample(len(train))


def hours_as_categories(train: pd.DataFrame, seed: int, settings: dict[str, Any]) -> pd.DataFrame:
    likelihood = {"categorical": ["hours_per_week"], "remainder": "auto"}
    return transformer(train, seed, {**settings, "likelihood": likelihood})


def conditional(train: pd.DataFrame, seed: int, settings: dict[str, Any]) -> pd.DataFrame:
    model = ConditionalVAE(likelihood="auto", condition_columns=[LABEL], random_state=seed)
    return model.set_params(**settings).fit(train).sample(len(train))


def tvae(train: pd.DataFrame, seed: int, settings: dict[str, Any]) -> pd.DataFrame:
    import torch
    from ctgan import TVAE

    torch.manual_seed(seed)
    discrete = list(train.select_dtypes("category"))
    plain = train.astype(dict.fromkeys(discrete, object))
    model = TVAE()
    model.set_random_state(seed)
    model.fit(plain, discrete)
    rows = model.sample(len(train))
    return rows.astype(train.dtypes.to_dict())


ALL_ROWS = ", all rows"
HOURS_AS_CATEGORIES = ", hours as categories"

MODELS: dict[str, Sampler] = {
    REAL: real,
    INDEPENDENT: independent,
    "VAETransformer": transformer,
    f"VAETransformer{ALL_ROWS}": transformer,
    f"VAETransformer{HOURS_AS_CATEGORIES}": hours_as_categories,
    "ConditionalVAE": conditional,
    f"ConditionalVAE{ALL_ROWS}": conditional,
    "CTGAN's TVAE": tvae,
}


# -------------------------------------------------------------------- measuring


def measure(task: Task, folder: Path, settings: dict[str, Any]) -> Quality:
    train, test, holed = load(folder)
    train = holed if task.model.endswith(ALL_ROWS) else train
    begun = time.perf_counter()
    rows = MODELS[task.model](train, task.seed, settings)
    seconds = time.perf_counter() - begun
    accuracy, auc = classified(rows, test, task.seed)
    distances = {name: distance(test[name], rows[name]) for name in test}
    return Quality(accuracy, auc, distances, association_distance(test, rows), seconds)


def classified(rows: pd.DataFrame, test: pd.DataFrame, seed: int) -> tuple[float, float]:
    """Accuracy and area under the ROC curve on the test rows, learned from the others."""
    model = HistGradientBoostingClassifier(random_state=seed)
    model.fit(rows.drop(columns=LABEL), rows[LABEL].astype(str))
    X, y = test.drop(columns=LABEL), test[LABEL].astype(str)
    is_second = y == model.classes_[1]
    return (
        float(accuracy_score(y, model.predict(X))),
        float(roc_auc_score(is_second, model.predict_proba(X)[:, 1])),
    )


def distance(real: pd.Series, sampled: pd.Series) -> float:
    if real.dtype == "category":
        shares = [column.value_counts(normalize=True) for column in (real, sampled)]
        return float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2)
    return float(ks_2samp(real, sampled).statistic)


def association_distance(real: pd.DataFrame, sampled: pd.DataFrame) -> float:
    binned = [
        pd.DataFrame({name: in_bins(real[name], table[name]) for name in real})
        for table in (real, sampled)
    ]
    differences = [
        abs(cramers_v(binned[0][a], binned[0][b]) - cramers_v(binned[1][a], binned[1][b]))
        for a, b in combinations(real, 2)
    ]
    return float(np.mean(differences))


def in_bins(real: pd.Series, column: pd.Series) -> np.ndarray:
    """Codes of categories, or of tenths of the real numbers."""
    if real.dtype == "category":
        return column.cat.codes.to_numpy()
    edges = np.unique(real.quantile(np.linspace(0, 1, N_BINS + 1)[1:-1]))
    return np.searchsorted(edges, column)


def cramers_v(a: pd.Series, b: pd.Series) -> float:
    """0 where one of them does not vary."""
    table = pd.crosstab(a, b).to_numpy()
    return float(association(table, method="cramer")) if min(table.shape) > 1 else 0.0


# -------------------------------------------------------------------- the report


def report(rows: pd.DataFrame, settings: dict[str, Any], folder: Path, note: str) -> str:
    """Means over seeds: one table of what rows are worth, one of distances by column."""
    train, test, holed = load(folder)
    is_done = rows["error"].isna()
    done = rows[is_done]
    numbers = ["accuracy", "auc", "associations", "seconds"]
    means = done.groupby("model")[numbers].mean()
    by_column = pd.DataFrame(
        {
            model: pd.DataFrame(list(part["distances"])).mean()
            for model, part in done.groupby("model")
        }
    )
    models = [model for model in MODELS if model in means.index]
    means.insert(2, "columns", by_column.mean())
    changed = ", ".join(f"{name}={value!r}" for name, value in settings.items()) or "the defaults"
    parts = [
        "# Sampled rows in place of real ones",
        *headline(means),
        f"The adult table: {len(train):,} complete training rows ({len(holed):,} with those "
        f"that have missing cells), {len(test):,} to test on, "
        f'{counted(rows["seed"].nunique(), "seed")}, one thread. Ours with `likelihood="auto"` and '
        f"{changed}; for ConditionalVAE the label is the condition. Written by "
        "`make synthesis`; the protocol is in `benchmarks/synthesis.py`.",
        "A classifier trained on rows of a model, tested on real ones; and distances between these "
        "rows and the real test rows: 0 is none, and real training rows show what chance leaves. "
        "Columns: the mean of the second table. Pairs: how much Cramer's V differs, on average.",
        *([note] if note else []),
        markdown(
            ["rows of", "accuracy", "AUC", "columns", "pairs", "seconds"],
            ["{}", "{:.3f}", "{:.3f}", "{:.3f}", "{:.3f}", "{:.0f}"],
            means.loc[models].reset_index().itertuples(index=False),
            n_words=1,
        ),
        *(f"{row.model}, seed {row.seed}: {row.error}" for row in rows[~is_done].itertuples()),
        "## Distances by column",
        "Kolmogorov-Smirnov for numbers, total variation for categories.",
        markdown(
            ["column", *models],
            ["{}", *["{:.3f}"] * len(models)],
            by_column.loc[list(test), models].reset_index().itertuples(index=False),
            n_words=1,
        ),
    ]
    return "\n\n".join(parts) + "\n"


def headline(means: pd.DataFrame) -> list[str]:
    """The best model's AUC beside that of real rows, if both were measured."""
    auc = means["auc"]
    of_models = auc.drop([REAL, INDEPENDENT], errors="ignore")
    if REAL not in auc or of_models.empty:
        return []
    return [
        "A classifier trained on sampled rows has on real rows an area under the ROC curve (AUC) "
        f"of {of_models.max():.3f} at best ({of_models.idxmax()}); trained on real rows it has "
        f"{auc[REAL]:.3f}."
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with adult.npz")
    add("--results", type=Path, default="local/synthesis.jsonl", help="default: %(default)s")
    add("--models", nargs="+", choices=MODELS, default=list(MODELS), help="default: all")
    add("--seeds", type=int, default=1, help="default: 1")
    add("--set", type=setting, action="append", default=[], help="name=value, for ours")
    add("--jobs", type=int, default=1, help="processes of one thread each (default: 1)")
    add("--note", default="", help="a sentence for the report, on the machine for instance")
    add("--report", action="store_true", help="the report alone, of what has been measured")
    add("--output", type=Path, help="file for the Markdown that is printed")
    return parser.parse_args()


def tasks_of(models: Sequence[str], n_seeds: int) -> list[Task]:
    return [Task(model, seed) for model in models for seed in range(n_seeds)]


def main() -> None:
    arguments = parse_arguments()
    settings = dict(arguments.set)
    VAETransformer().set_params(**settings)  # a wrong name fails here and not in every task
    measurements = Measurements(arguments.results, Task)
    if not arguments.report:
        work = partial(measure, folder=arguments.data, settings=settings)
        measure_all(tasks_of(arguments.models, arguments.seeds), work, measurements, arguments.jobs)
    rows = pd.DataFrame(measurements, columns=[*Task._fields, *Quality._fields, "error"])
    publish(report(rows, settings, arguments.data, arguments.note), arguments.output)


if __name__ == "__main__":
    main()
