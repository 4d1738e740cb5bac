"""Counts: documents and biological cells, compared with the models that are usual for them.

    python benchmarks/counts.py --data DIR --output docs/counts.md

Documents (octis_m10 and newsgroups20_nvdm_test of DIR, as sparse rows): a fifth of the rows is
kept apart, words that the others do not have are left out. At the same ``n_components``:
- perplexity of the rows kept apart, and that of LatentDirichletAllocation (by its own
  ``perplexity``, which is a bound too). Ours: the words of a row are multinomial given its
  length N, and with ``exposure="total"`` score_samples bounds log p(x | N) of Poisson counts,
  so that log p(words) >= score - N log N + N + sum log x!.
- accuracy of a 5-nearest-neighbours classifier (cosine) on the features, on LDA's topics and on
  TruncatedSVD of the counts and of tf-idf.

Cells (sc_worm_neuron: RNA counts of 13,488 genes): agreement of KMeans on the features with the
labels, and of KMeans on PCA of log counts (each cell scaled to the median total, log(1 + x)):
adjusted Rand index and normalised mutual information, the mean over 10 seeds of KMeans.

Each model is fitted in a process of its own, whose peak memory is reported less that before the
fit. All with the defaults of their packages but for what the tables say.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from results import in_a_process, markdown, publish, status_mib
from scipy.sparse import csr_array
from scipy.special import gammaln
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, LatentDirichletAllocation, TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from skvae import VAETransformer

DOCUMENTS = {"octis_m10": 10, "newsgroups20_nvdm_test": 20}
CELLS, N_COMPONENTS_CELLS = "sc_worm_neuron", 10

MODELS_OF_DOCUMENTS: dict[str, Any] = {
    "VAETransformer": lambda k: VAETransformer(
        k, likelihood="poisson", exposure="total", random_state=0
    ),
    "LatentDirichletAllocation": lambda k: LatentDirichletAllocation(k, random_state=0),
    "LatentDirichletAllocation(max_iter=100)": lambda k: LatentDirichletAllocation(
        k, max_iter=100, random_state=0
    ),
    "TruncatedSVD": lambda k: TruncatedSVD(k, random_state=0),
    "TruncatedSVD of tf-idf": lambda k: make_pipeline(
        TfidfTransformer(), TruncatedSVD(k, random_state=0)
    ),
}
MODELS_OF_CELLS: dict[str, Any] = {
    f"VAETransformer({likelihood!r})": lambda k, likelihood=likelihood: VAETransformer(
        k, likelihood=likelihood, exposure="total", random_state=0
    )
    for likelihood in ("negative_binomial", "poisson")
} | {"PCA of log counts": lambda k: PCA(k, random_state=0)}


def counts(path: Path) -> tuple[csr_array, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        parts = (file["data"], file["indices"].astype(np.int32), file["indptr"])
        return csr_array(parts, shape=tuple(file["shape"])), file["y"]


def split(X: csr_array, y: np.ndarray) -> tuple[Any, ...]:
    """Rows to learn from and rows kept apart, of the words that the former have."""
    learned, apart, y_learned, y_apart = train_test_split(X, y, test_size=0.2, random_state=0)
    has_word = learned.sum(0) > 0
    learned, apart = learned[:, has_word], apart[:, has_word]
    is_left = apart.sum(1) > 0
    return learned, apart[is_left], y_learned, y_apart[is_left]


def perplexity(scores: np.ndarray, X: csr_array) -> float:
    """By log p(x | N) of Poisson counts whose rates are relative to N, the total of a row."""
    N = X.sum(1).astype(float)
    factorials = csr_array((gammaln(X.data + 1.0), X.indices, X.indptr), shape=X.shape).sum(1)
    words = scores - N * np.log(N) + N + factorials
    return float(np.exp(-words.sum() / N.sum()))


def of_documents(path: Path, name: str, k: int) -> list[Any]:
    """Perplexity, accuracy, epochs, seconds and MiB."""
    learned, apart, y_learned, y_apart = split(*counts(path))
    model, seconds, mib = fitted(MODELS_OF_DOCUMENTS[name](k), learned)
    found = None
    if isinstance(model, VAETransformer):
        found = perplexity(model.score_samples(apart), apart)
    elif isinstance(model, LatentDirichletAllocation):
        found = model.perplexity(apart)
    neighbours = KNeighborsClassifier(metric="cosine").fit(model.transform(learned), y_learned)
    accuracy = neighbours.score(model.transform(apart), y_apart)
    return [found, accuracy, getattr(model, "n_iter_", None), seconds, mib]


def of_cells(path: Path, name: str, k: int) -> list[Any]:
    """Adjusted Rand index, normalised mutual information, epochs, seconds and MiB."""
    X, y = counts(path)
    if name.startswith("PCA"):
        totals = X.sum(1).astype(float)
        X = np.log1p(X.toarray() * (np.median(totals) / totals)[:, None])
    model, seconds, mib = fitted(MODELS_OF_CELLS[name](k), X)
    Z = model.transform(X)
    clusters = [KMeans(len(set(y.tolist())), random_state=i).fit_predict(Z) for i in range(10)]
    agreements = [
        np.mean([agreement(y, found) for found in clusters])
        for agreement in (adjusted_rand_score, normalized_mutual_info_score)
    ]
    return [*agreements, getattr(model, "n_iter_", None), seconds, mib]


def fitted(model: Any, X: Any) -> tuple[Any, float, float]:
    """With seconds, and MiB at the peak beyond those before."""
    before, begun = status_mib("VmHWM"), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X)
    return model, time.perf_counter() - begun, status_mib("VmHWM") - before


def told(measure: Any, *arguments: Any) -> list[Any]:
    """In a process of its own, and printed."""
    found: list[Any] = in_a_process(measure, *arguments)
    print(*arguments[1:], *found, flush=True)
    return found


def section(title: str, header: list[str], rows: list[list[Any]]) -> str:
    formats = ["{}", "{:.1f}" if header[1] == "perplexity" else "{:.3f}", "{:.3f}", "{}"]
    table = markdown(header, [*formats, "{:.0f}", "{:.0f}"], rows, 1)
    return f"## {title}\n\n{table}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--output", type=Path, help="write the report there too")
    names = [*DOCUMENTS, CELLS]
    parser.add_argument("--sets", nargs="+", choices=names, default=names, help="default: all")
    options = parser.parse_args()
    sections = []
    for data, k in DOCUMENTS.items():
        if data not in options.sets:
            continue
        path = options.data / f"{data}.npz"
        rows = [[name, *told(of_documents, path, name, k)] for name in MODELS_OF_DOCUMENTS]
        header = ["model", "perplexity", "accuracy", "epochs", "seconds", "MiB"]
        X, _ = counts(path)
        title = f"{data}: {X.shape[0]:,} documents, {X.shape[1]:,} words, n_components={k}"
        sections.append(section(title, header, rows))
    if CELLS in options.sets:
        path = options.data / f"{CELLS}.npz"
        rows = [[name, *told(of_cells, path, name, N_COMPONENTS_CELLS)] for name in MODELS_OF_CELLS]
        header = ["model", "adjusted Rand", "normalised MI", "epochs", "seconds", "MiB"]
        X, _ = counts(path)
        title = f"{CELLS}: {X.shape[0]:,} cells, {X.shape[1]:,} genes"
        sections.append(section(f"{title}, n_components={N_COMPONENTS_CELLS}", header, rows))
    publish(
        "# Counts\n\nWritten by `make counts`; the protocol is in `benchmarks/counts.py`. "
        "Documents: perplexity of documents that were not learned from (less is better), and "
        "accuracy of nearest neighbours on the features. Cells: agreement of clusters of the "
        "features with the labels, as adjusted Rand index and normalised mutual information. "
        "Seconds of the fit, and memory at its peak beyond that of the data.\n\n"
        + "\n".join(sections),
        options.output,
    )


if __name__ == "__main__":
    main()
