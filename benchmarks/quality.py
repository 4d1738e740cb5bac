"""Features and held-out log-likelihood of VAETransformer and of other ways to reduce columns.

    python benchmarks/quality.py --data DIR --jobs 4 --output quality.md
    python benchmarks/quality.py --data DIR --set noise_variance=shared
    python benchmarks/quality.py --data DIR --report

Without --data the tables of scikit-learn alone. Tables and splits: see `tables.py`; peers: see
`peers.py`. A case is a table and a number of components; all models see the same rows. Each
model has its defaults but for the number of components and the seed, that of the split.

nats
    Held-out log-likelihood of a row of the standardised columns: the `score` of VAETransformer,
    PCA and FactorAnalysis. Of the peers it is the ELBO, a lower bound of the same.
LR
    Held-out accuracy of LogisticRegression on the standardised components.
kNN
    Held-out accuracy of KNeighborsClassifier(5) on the components as they are. With no scaling,
    components of PCA that vary little count for little in the distance, which is PCA's best
    case: scaled, they would be noise as loud as the rest. Scaled components are measured too.
fit, s
    Seconds by the wall, on one thread.

Measurements are added to a file of JSON lines (--results), one for each table, number of
components, split and model. What is there is not measured again, so that a run may be stopped
and the other models need to run but once. What they came to is kept beside this file, in
quality_others.jsonl, seconds included, which are of the machine that measured them; without that
file all models are measured. Parameters (--set) and a label (--label, for another state of the
code) are part of our model's name, and the report compares the one that is asked for with all
others in the file.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from peers import PEERS, available
from results import Measurements, add_options, markdown, measure_all, name_of, publish
from sklearn.decomposition import PCA, FactorAnalysis, KernelPCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tables import load_tables, split

from skvae import VAETransformer

# A clear loss of a case: below this many points, and this many standard errors over the splits.
POINTS = -1.0
STANDARD_ERRORS = -2.0
OURS = "VAETransformer"
OTHERS = Path(__file__).with_name("quality_others.jsonl")
LINEAR = ("PCA", "FactorAnalysis")

BASELINES: dict[str, Callable[..., Any]] = {
    "PCA": PCA,
    "FactorAnalysis": FactorAnalysis,
    "KernelPCA": partial(KernelPCA, kernel="rbf"),
}

COMPARED = ("compared with", "accuracy of")
ACCURACIES = {"lr": "LR", "knn": "kNN", "knn_scaled": "kNN, scaled"}
MEASURES = {
    "nats": "Held-out log-likelihood, nats a row",
    "bound": "Held-out ELBO of the peers, nats a row",
    "lr": "LogisticRegression, % right",
    "knn": "5 nearest neighbours, % right",
    "knn_scaled": "5 nearest neighbours of scaled components, % right",
    "fit_seconds": "Seconds of a fit",
}


class Task(NamedTuple):
    table: str
    n_components: int
    split: int
    model: str


class Quality(NamedTuple):
    """Of one fit; None where a model has no such thing. Accuracies in percent."""

    nats: float | None
    bound: float | None
    lr: float
    knn: float
    knn_scaled: float
    fit_seconds: float
    has_converged: bool
    n_active_components: int | None


class Clear(NamedTuple):
    """A case that is clearly below another model's."""

    table: str
    n_components: int
    other: str
    measure: str
    ours: float
    theirs: float
    difference: float
    standard_error: float
    n_active_components: float


def measure(task: Task, folder: Path | None, settings: dict[str, Any]) -> Quality:
    """Fit a model on a split and judge it."""
    rows = split(folder, task.table, task.split)
    model = make_model(task, settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.perf_counter()
        model.fit(rows.X_train)
        fit_seconds = time.perf_counter() - start
    has_converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    Z_train, Z_test = model.transform(rows.X_train), model.transform(rows.X_test)

    def accuracy(classifier: Any) -> float:
        return 100 * float(classifier.fit(Z_train, rows.y_train).score(Z_test, rows.y_test))

    return Quality(
        nats=float(model.score(rows.X_test)) if hasattr(model, "score") else None,
        bound=model.bound(rows.X_test) if task.model in PEERS else None,
        lr=accuracy(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))),
        knn=accuracy(KNeighborsClassifier(5)),
        knn_scaled=accuracy(make_pipeline(StandardScaler(), KNeighborsClassifier(5))),
        fit_seconds=fit_seconds,
        has_converged=has_converged,
        n_active_components=getattr(model, "n_active_components_", None),
    )


def make_model(task: Task, settings: dict[str, Any]) -> Any:
    """The model of a task, not fitted."""
    if task.model in PEERS:
        return PEERS[task.model](task.n_components, random_state=task.split)
    if task.model in BASELINES:
        return BASELINES[task.model](n_components=task.n_components, random_state=task.split)
    return VAETransformer(task.n_components, random_state=task.split).set_params(**settings)


def make_tasks(arguments: argparse.Namespace, ours: str) -> Iterator[Task]:
    """What is asked for; all models of a case together, so that a part of a run is of use."""
    models = [ours if model == OURS else model for model in arguments.models]
    for table in arguments.tables:
        for seed in range(arguments.splits):
            n_columns = split(arguments.data, table, seed).X_train.shape[1]
            for n_components in arguments.n_components:
                if n_components < n_columns:
                    for model in models:
                        yield Task(table, n_components, seed, model)


def report(rows: pd.DataFrame, ours: str) -> str:
    """All of it; `rows` has a column for each field of `Task` and `Quality`, and "error"."""
    measured = set(rows["model"])
    order = dict.fromkeys([ours, *BASELINES, *PEERS, *sorted(measured)])
    models = [model for model in order if model in measured]
    others = [model for model in models if model != ours]
    losses = clear_losses(rows, ours, others)
    by_difference = sorted(losses, key=lambda case: case.difference)
    n_cases = len(rows[["table", "n_components"]].drop_duplicates())
    parts = [
        f"# {ours} compared with others",
        *headline(rows, ours, losses),
        f"Written by `make quality`; the protocol is in `benchmarks/quality.py`. "
        f"{rows['table'].nunique()} tables, {n_cases} cases, {splits(rows, models)}. A case is "
        "a table and a number of components n. LR: accuracy of LogisticRegression on the "
        "features; kNN: accuracy of 5 nearest neighbours; scaled: on scaled features. Accuracies "
        "in percent, differences in points. skorch, pythae and pyod: VAEs trained by these "
        "packages; `benchmarks/peers.py` says with which settings.",
        "## Summary",
        f"Difference: {ours} minus the other on the same rows; the mean over splits, then mean and "
        f"standard error over cases. Clearly below: cases whose mean over splits is below "
        f"{POINTS:g} point and below {STANDARD_ERRORS:g} standard errors.",
        summary(rows, ours, others, losses),
        fits(rows, models),
        "## Held-out log-likelihood not above PCA and FactorAnalysis",
        likelihood_losses(rows, ours),
        "## Cases clearly below",
        f"Active: components of {ours} in use, mean over splits.",
        markdown(
            ["table", "n", *COMPARED, "ours", "theirs", "difference", "s.e.", "active"],
            ["{}"] * 4 + ["{:.1f}"] * 5,
            by_difference,
            n_words=4,
        ),
    ]
    for measure, title in MEASURES.items():
        parts += [f"## {title}", case_table(rows, models, measure)]
    return "\n\n".join(parts) + "\n"


def splits(rows: pd.DataFrame, models: list[str]) -> str:
    """How many, and which models were measured on fewer of them in some case."""
    by_case = rows.groupby(["model", "table", "n_components"])["split"].nunique()
    least = by_case.groupby("model").min()[models]
    fewer = [f"{model} {n} or more" for model, n in least.items() if n < least.max()]
    return f"{least.max()} splits" + (f" ({', '.join(fewer)})" if fewer else "")


def headline(rows: pd.DataFrame, ours: str, losses: list[Clear]) -> list[str]:
    """The features against PCA's in a sentence, if PCA was measured."""
    if "PCA" not in set(rows["model"]):
        return []
    differences = paired(rows, ours, "PCA", "lr")["difference"]
    n_worse = sum(loss.other == "PCA" and loss.measure == ACCURACIES["lr"] for loss in losses)
    return [
        f"In place of PCA's, the features of {ours} change the accuracy of LogisticRegression by "
        f"{differences.mean():+.1f} points on average; they are better in "
        f"{(differences > 0).mean():.0%} of {len(differences)} cases and clearly worse in "
        f"{n_worse / len(differences):.0%}."
    ]


def paired(rows: pd.DataFrame, ours: str, other: str, measure: str) -> pd.DataFrame:
    """By case: mean over the splits that both have, of both and of the difference, and its s.e."""
    wide = rows.pivot(index=["table", "n_components", "split"], columns="model", values=measure)
    wide = wide[[ours, other]].astype(float).dropna()
    wide["difference"] = wide[ours] - wide[other]
    by_case = wide.groupby(level=["table", "n_components"])
    return pd.DataFrame(
        {
            "ours": by_case[ours].mean(),
            "theirs": by_case[other].mean(),
            "difference": by_case["difference"].mean(),
            "standard_error": by_case["difference"].sem(),
        }
    )


def clear_losses(rows: pd.DataFrame, ours: str, others: list[str]) -> list[Clear]:
    """All cases, measures and models with which ours is clearly below."""
    of_ours = rows[rows["model"] == ours].groupby(["table", "n_components"])
    active = of_ours["n_active_components"].mean()
    losses = []
    for other in others:
        for measure, title in ACCURACIES.items():
            cases = paired(rows, ours, other, measure)
            is_clear = (cases["difference"] < POINTS) & (
                cases["difference"] < STANDARD_ERRORS * cases["standard_error"]
            )
            for case in cases[is_clear].itertuples():
                table, n_components = case.Index
                losses.append(
                    Clear(
                        table,
                        n_components,
                        other,
                        title,
                        case.ours,
                        case.theirs,
                        case.difference,
                        case.standard_error,
                        active[case.Index],
                    )
                )
    return losses


def summary(rows: pd.DataFrame, ours: str, others: list[str], losses: list[Clear]) -> str:
    """A line for each other model and classifier."""
    lines = []
    for other in others:
        for measure, title in ACCURACIES.items():
            differences = paired(rows, ours, other, measure)["difference"]
            lines.append(
                (
                    other,
                    title,
                    differences.mean(),
                    differences.sem(),
                    len(differences),
                    100 * (differences > 0).mean(),
                    sum(loss.other == other and loss.measure == title for loss in losses),
                )
            )
    return markdown(
        [*COMPARED, "difference", "s.e.", "cases", "above, %", "clearly below"],
        ["{}", "{}", "{:+.2f}", "{:.2f}", "{}", "{:.0f}", "{}"],
        lines,
        n_words=2,
    )


def fits(rows: pd.DataFrame, models: list[str]) -> str:
    """Seconds of each model, and what went wrong; what could not be imported, too."""
    lines: list[tuple[Any, ...]] = []
    for model in models:
        of_model = rows[rows["model"] == model]
        seconds = of_model["fit_seconds"].astype(float)
        errors = [str(error)[:80] for error in of_model["error"].dropna()]
        n_doubtful = int(of_model["has_converged"].eq(False).sum())
        lines.append(
            (
                model,
                len(of_model),
                seconds.median(),
                seconds.max(),
                n_doubtful,
                len(errors),
                "; ".join(sorted(set(errors))),
            )
        )
    for model, reason in available().missing.items():
        if model not in models:
            lines.append((model, 0, None, None, None, None, f"not measured: {reason}"))
    return markdown(
        ["model", "fits", "median, s", "longest, s", "not converged", "failed", "why"],
        ["{}", "{}", "{:.2f}", "{:.1f}", "{}", "{}", "{}"],
        lines,
        n_words=1,
    )


def likelihood_losses(rows: pd.DataFrame, ours: str) -> str:
    """The cases where one of the linear models is not surpassed."""
    nats = case_means(rows, "nats").reindex(columns=[ours, *LINEAR]).dropna()
    behind = nats[nats[ours] <= nats[list(LINEAR)].max(axis=1)]
    table = markdown(
        ["table", "n", *nats.columns],
        ["{}", "{}", *["{:.2f}"] * len(nats.columns)],
        behind.reset_index().itertuples(index=False),
        n_words=2,
    )
    return f"{len(behind)} of {len(nats)} cases.\n\n{table}"


def case_table(rows: pd.DataFrame, models: list[str], measure: str) -> str:
    """One measure, the mean over splits, by case and model."""
    means = case_means(rows, measure).reindex(columns=models).dropna(axis=1, how="all")
    return markdown(
        ["table", "n", *means.columns],
        ["{}", "{}", *["{:.2f}"] * len(means.columns)],
        means.reset_index().itertuples(index=False),
        n_words=2,
    )


def case_means(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    values = rows.assign(**{measure: rows[measure].astype(float)})
    return values.pivot_table(index=["table", "n_components"], columns="model", values=measure)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder of tables (default: those of scikit-learn)")
    add("--short", action="store_true", help="8 tables, 2 and 8 components, 2 splits")
    add("--tables", type=names, help="their names, with commas between (default: all)")
    add("--n-components", type=int, nargs="+", help="default: 2 4 8 16")
    add("--splits", type=int, help="default: 5")
    add("--models", type=names, help="their names, with commas between (default: all)")
    add_options(parser, "local/quality.jsonl")
    arguments = parser.parse_args()
    tables = list(load_tables(arguments.data))
    models = [OURS, *BASELINES, *available().names]
    for option, known in (("tables", tables), ("models", models)):
        for name in getattr(arguments, option) or []:
            if name not in known:
                parser.error(f"--{option}: there is no {name!r} among {', '.join(known)}")
    is_short = arguments.short
    arguments.tables = arguments.tables or (short(tables) if is_short else tables)
    arguments.n_components = arguments.n_components or ((2, 8) if is_short else (2, 4, 8, 16))
    arguments.splits = arguments.splits or (2 if is_short else 5)
    arguments.models = arguments.models or models
    return arguments


def names(text: str) -> list[str]:
    return text.split(",")


def short(tables: list[str]) -> list[str]:
    """Eight: of each eighth, from narrow to wide, the middle one."""
    groups = np.array_split(tables, min(8, len(tables)))
    return [str(group[(len(group) - 1) // 2]) for group in groups]


def main() -> None:
    arguments = parse_arguments()
    settings = dict(arguments.set)
    VAETransformer().set_params(**settings)  # a wrong name fails here and not in every task
    ours = name_of(settings, arguments.label)
    measurements = Measurements(arguments.results, Task, OTHERS)
    if not arguments.report:
        work = partial(measure, folder=arguments.data, settings=settings)
        measure_all(make_tasks(arguments, ours), work, measurements, arguments.jobs)
    rows = pd.DataFrame(measurements, columns=[*Task._fields, *Quality._fields, "error"])
    rows = rows[
        rows["table"].isin(arguments.tables)
        & rows["n_components"].isin(arguments.n_components)
        & (rows["split"] < arguments.splits)
    ]
    if ours not in set(rows["model"]):
        raise SystemExit(f"{arguments.results} has no such cases of {ours}.")
    publish(report(rows, ours), arguments.output)


if __name__ == "__main__":
    main()
