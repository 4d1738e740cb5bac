"""A grid search trained all at once, compared with the same search fit by fit.

    python benchmarks/search.py --output docs/searches.md
    python benchmarks/search.py --rows scikit-learn --n-components 2 8 --betas 1 --folds 2
    python benchmarks/search.py --part training --device cuda --output docs/searches.md

search
    The whole of `GridSearchCV.fit`, the last fit on all rows included: a Pipeline
    StandardScaler -> VAETransformer -> LogisticRegression on the digits, over n_components and
    beta. Rows: the GridSearchCV of skvae and that of scikit-learn, with one and two jobs; and
    that of scikit-learn over the plain VAE that peers.py trains with skorch, with one.
training
    The trainings of these fits and nothing else, for a GPU: all at once, one by one, and by
    skorch; then a grid of hundreds of small models, all at once and one by one.

What skorch trains has the hidden layers, the activation, the batch size, Adam's rate and the beta
of ours. Our fits end early, so its epochs are taken from them: for a candidate of the search the
mean over the folds, rounded, of the epochs (`n_iter_`) that ours took; in the part training those
of the very fit. An epoch of skorch is all rows; of ours it is nine in ten, and a look at the rest;
the epochs that ours then trains on all rows, a ninth as many, skorch is spared.
Of its candidates only --skorch-candidates are run, evenly spread over the grid, and the seconds are
multiplied by the epochs of the whole search over the epochs that were run. So is what is trained
one by one of the small models, of which --alone are run.

Each measurement is a process of its own, in turns (A B C A B C ...), and starts with a fit of one
epoch that does not count. Memory is the largest sum of the peaks of the process and its children:
VmHWM of Linux, since ru_maxrss begins with the peak of the process that started this one, and has
children only once they have ended. Pages that processes share count for each.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from mnist import peak_gib
from peers import SkorchVAE
from results import cores, counted, markdown, status_mib
from sklearn import model_selection
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import skvae.model_selection
from skvae import VAETransformer
from skvae._fitting import fit_together
from skvae._preparing import Job, Request
from skvae._training import Training

SEED = 0
BATCH_SIZE = 128  # of ours and of skorch's

# Standard deviation of the noise, in grey levels of 0 to 16: whole numbers have no density.
JITTER = 0.3

# A user has not set these, and a shell may have.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

N_SMALL_FOLDS = 5
N_SMALL_COMPONENTS = 10
SMALL_HIDDEN_LAYER_SIZES = (32,)


class Grid(NamedTuple):
    """What is searched over."""

    n_components: Sequence[int]
    betas: Sequence[float]
    n_folds: int
    hidden_layer_sizes: tuple[int, ...] = (128, 128)

    def parameters(self, prefix: str = "") -> dict[str, Sequence[float]]:
        return {prefix + "n_components": self.n_components, prefix + "beta": self.betas}

    @property
    def n_candidates(self) -> int:
        return len(self.n_components) * len(self.betas)

    @property
    def n_fits(self) -> int:
        return self.n_candidates * self.n_folds


class Measured(NamedTuple):
    """What a row says of itself, from one process to the other."""

    seconds: float
    n_fits: int  # that were run for it
    n_batches: int | None  # they were trained in, if that is known
    epochs: list[float]  # of each candidate, or each fit
    scores: list[float]  # likewise
    ranks: list[int] | None
    scale: float  # seconds are to be multiplied by this
    mib: float
    gpu_mib: float | None


# --------------------------------------------------------------------- a whole search


class SkorchTransformer(TransformerMixin, BaseEstimator):
    """The plain VAE of skorch as a step of a Pipeline."""

    def __init__(
        self, n_components: int = 8, beta: float = 1.0, max_iter: int = 100, device: str = "cpu"
    ):
        self.n_components = n_components
        self.beta = beta
        self.max_iter = max_iter
        self.device = device

    def fit(self, X: np.ndarray, y: Any = None) -> SkorchTransformer:
        self.peer_ = SkorchVAE(
            learning_rate_init=1e-3,
            batch_size=BATCH_SIZE,
            random_state=SEED,
            **self.get_params(),
        ).fit(X)
        self.n_iter_ = self.max_iter
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return self.peer_.transform(X)


def epochs_of(pipeline: Pipeline, X: Any, y: Any) -> int:
    """For a scorer: what the VAE's training took."""
    return pipeline["vae"].n_iter_


def searched_vae(grid: Grid, device: str) -> VAETransformer:
    return VAETransformer(
        hidden_layer_sizes=grid.hidden_layer_sizes,
        batch_size=BATCH_SIZE,
        random_state=SEED,
        device=device,
    )


def searched(
    search: type[Any], n_jobs: int, grid: Grid, arguments: argparse.Namespace, _: list[float]
) -> dict[str, Any]:
    """A whole search over our estimator."""
    vae = searched_vae(grid, arguments.device)
    found = fitted_search(search, n_jobs, vae, grid.parameters("vae__"), grid, refit="accuracy")
    return {**found, "n_fits": grid.n_fits + 1}


def searched_by_skorch(
    grid: Grid, arguments: argparse.Namespace, epochs: list[float]
) -> dict[str, Any]:
    """The part of a search that is run for skorch, and what it stands for."""
    candidates = list(ParameterGrid(grid.parameters("vae__")))
    chosen = spread_over(len(candidates), arguments.skorch_candidates)
    part = [
        {name: [value] for name, value in candidates[i].items()}
        | {"vae__max_iter": [round(epochs[i])]}
        for i in chosen
    ]
    vae = SkorchTransformer(device=arguments.device)
    found = fitted_search(model_selection.GridSearchCV, 1, vae, part, grid, refit=False)
    # The search ends with a fit of some candidate on all rows.
    whole = grid.n_folds * sum(epochs) + sum(epochs) / len(epochs)
    scale = whole / (grid.n_folds * sum(found["epochs"]))
    return {**found, "n_fits": len(chosen) * grid.n_folds, "scale": scale, "ranks": None}


def fitted_search(
    search: type[Any], n_jobs: int, vae: Any, parameters: Any, grid: Grid, *, refit: Any
) -> dict[str, Any]:
    X, y = digits()
    pipeline = Pipeline(
        [("scale", StandardScaler()), ("vae", vae), ("classify", LogisticRegression(max_iter=1000))]
    )
    found = search(
        pipeline,
        parameters,
        scoring={"accuracy": "accuracy", "epochs": epochs_of},
        refit=refit,
        cv=grid.n_folds,
        n_jobs=n_jobs,
        error_score="raise",
    )
    seconds = seconds_of(lambda: found.fit(X, y))
    results = found.cv_results_
    return {
        "seconds": seconds,
        "epochs": results["mean_test_epochs"].tolist(),
        "scores": results["mean_test_accuracy"].tolist(),
        "ranks": results["rank_test_accuracy"].tolist(),
    }


# -------------------------------------------------------------------- training alone


def trained_together(grid: Grid, arguments: argparse.Namespace, _: list[float]) -> dict[str, Any]:
    """All fits at once, as a search has them trained."""
    every = list(fits(grid, arguments.device))
    requests = [
        Request(vae, vae._read(X, reset=True, method="fit")[0], data=fold)
        for vae, fold, X, _ in every
    ]
    n_batches = 0

    def report(jobs: Sequence[Job], training: Training) -> None:
        nonlocal n_batches
        is_first = not any(watch.training_bounds for watch in training.watches)
        n_batches += is_first and not training.is_on_all_rows  # which is of the same batch

    seconds = seconds_of(lambda: fit_together(requests, report=report))
    return {
        "seconds": seconds,
        "n_fits": len(requests),
        "n_batches": n_batches,
        "epochs": [vae.n_iter_ for vae, *_ in every],
        "scores": [vae.score(held_out) for vae, *_, held_out in every],
    }


def trained_alone(
    n_fits: int, grid: Grid, arguments: argparse.Namespace, epochs: list[float]
) -> dict[str, Any]:
    """Some of the fits, each by itself."""
    chosen = spread_over(grid.n_fits, n_fits)
    every = list(fits(grid, arguments.device))
    some = [every[i] for i in chosen]
    seconds = seconds_of(lambda: [vae.fit(X) for vae, _, X, _ in some])
    scores = [math.nan] * len(every)
    for i, (vae, _, _, X) in zip(chosen, some, strict=True):
        scores[i] = vae.score(X)
    return {
        "seconds": seconds,
        "n_fits": len(some),
        "n_batches": len(some),
        "epochs": [vae.n_iter_ for vae, *_ in some],
        "scores": scores,
        "scale": sum(epochs) / sum(epochs[i] for i in chosen),
    }


def trained_by_skorch(
    grid: Grid, arguments: argparse.Namespace, epochs: list[float]
) -> dict[str, Any]:
    chosen = set(spread_over(grid.n_candidates, arguments.skorch_candidates))
    work: list[tuple[SkorchVAE, np.ndarray]] = []
    for i, (vae, _, X, _) in enumerate(fits(grid, arguments.device)):
        if i // grid.n_folds in chosen:
            peer = SkorchVAE(
                vae.n_components,
                hidden_layer_sizes=grid.hidden_layer_sizes,
                learning_rate_init=vae.learning_rate_init,
                batch_size=BATCH_SIZE,
                max_iter=int(epochs[i]),
                random_state=SEED,
                device=arguments.device,
                beta=vae.beta,
            )
            work.append((peer, StandardScaler().fit_transform(X)))
    seconds = seconds_of(lambda: [peer.fit(X) for peer, X in work])
    n_epochs = [float(peer.max_iter or 0) for peer, _ in work]
    return {
        "seconds": seconds,
        "n_fits": len(work),
        "epochs": n_epochs,
        "scores": [],
        "scale": sum(epochs) / sum(n_epochs),
    }


def fits(grid: Grid, device: str) -> Iterator[tuple[VAETransformer, int, np.ndarray, np.ndarray]]:
    """Every fit of a search: an estimator, the fold, its rows to train on and those held out."""
    X, y = digits()
    folds = list(StratifiedKFold(grid.n_folds).split(X, y))
    vae = searched_vae(grid, device)
    for params, (fold, (train, test)) in product(
        ParameterGrid(grid.parameters()), enumerate(folds)
    ):
        yield clone(vae).set_params(**params), fold, X[train], X[test]


# ------------------------------------------------------------------------- the rows

Work = Callable[[Grid, argparse.Namespace, list[float]], dict[str, Any]]


class Row(NamedTuple):
    """Something to measure; the first of a table is what the others are compared with."""

    words: str
    work: Work


def rows_of(arguments: argparse.Namespace) -> dict[str, Row]:
    """All rows of the part, by name."""
    ours, theirs = skvae.model_selection.GridSearchCV, model_selection.GridSearchCV

    def search(search: type[Any], n_jobs: int) -> Work:
        return lambda *given: searched(search, n_jobs, *given)

    def alone(n_fits: int) -> Work:
        return lambda *given: trained_alone(n_fits, *given)

    if arguments.part == "search":
        return {
            "skvae": Row("skvae", search(ours, 1)),
            "skvae-2": Row("skvae, n_jobs=2", search(ours, 2)),
            "scikit-learn": Row("scikit-learn", search(theirs, 1)),
            "scikit-learn-2": Row("scikit-learn, n_jobs=2", search(theirs, 2)),
            "skorch": Row("skorch in scikit-learn", searched_by_skorch),
        }
    return {
        "together": Row("together", trained_together),
        "alone": Row("one by one", alone(sys.maxsize)),
        "skorch": Row("skorch", trained_by_skorch),
        "small": Row("small, together", trained_together),
        "small-alone": Row("small, one by one", alone(arguments.alone)),
    }


# What each is compared with, and has its epochs from.
FIRST = {"small": "small", "small-alone": "small"}

ROWS = {
    "search": ("skvae", "skvae-2", "scikit-learn", "scikit-learn-2", "skorch"),
    "training": ("together", "alone", "skorch", "small", "small-alone"),
}


def first_of(name: str, part: str) -> str:
    return FIRST.get(name, ROWS[part][0])


def grid_of(name: str, arguments: argparse.Namespace) -> Grid:
    """The grid of a row: that which was asked for, or one of small models."""
    if name not in FIRST:
        return Grid(arguments.n_components, arguments.betas, arguments.folds)
    n_betas = max(1, arguments.small // (N_SMALL_COMPONENTS * N_SMALL_FOLDS))
    return Grid(
        range(1, N_SMALL_COMPONENTS + 1),
        np.linspace(0.25, 2.5, n_betas).tolist(),
        N_SMALL_FOLDS,
        SMALL_HIDDEN_LAYER_SIZES,
    )


def measure(name: str, arguments: argparse.Namespace) -> Measured:
    """In this process, which was made for it."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    warm_up(name, arguments.device)
    epochs = json.load(sys.stdin)
    if arguments.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    with PeakMemory() as memory:
        found = rows_of(arguments)[name].work(grid_of(name, arguments), arguments, epochs)
    gpu_mib = None
    if arguments.device != "cpu" and not name.endswith("-2"):  # what jobs take is theirs
        gpu_mib = torch.cuda.max_memory_reserved() / 2**20
    defaults: dict[str, Any] = {"n_batches": None, "ranks": None, "scale": 1.0}
    return Measured(**(defaults | found), mib=memory.mib, gpu_mib=gpu_mib)


def warm_up(name: str, device: str) -> None:
    """The first fit of a process loads libraries, and the GPU's."""
    X = digits()[0][:200]
    if name == "skorch":
        SkorchVAE(2, max_iter=1, device=device).fit(X)
    else:
        VAETransformer(2, max_iter=1, device=device).fit(X)
    LogisticRegression(max_iter=2).fit(X, np.arange(len(X)) % 2)


def measure_elsewhere(name: str, epochs: list[float], arguments: argparse.Namespace) -> Measured:
    """In a fresh process, with the threads that a user has who sets nothing."""
    environment = {key: value for key, value in os.environ.items() if key not in THREADS}
    if arguments.threads is not None:
        environment["OMP_NUM_THREADS"] = str(arguments.threads)
    answer = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--measure", name],
        input=json.dumps(epochs),
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        check=True,
    )
    return Measured(**json.loads(answer.stdout.splitlines()[-1]))


def measure_in_turns(arguments: argparse.Namespace) -> dict[str, list[Measured]]:
    """A B C A B C ..., and after each what it took."""
    turns: dict[str, list[Measured]] = {}
    for turn, name in product(range(arguments.repeats), wanted(arguments)):
        first = turns.get(first_of(name, arguments.part))
        found = measure_elsewhere(name, first[0].epochs if first else [], arguments)
        turns.setdefault(name, []).append(found)
        print(f"turn {turn + 1}, {name}: {found.seconds:.1f} s", file=sys.stderr, flush=True)
    return turns


def wanted(arguments: argparse.Namespace) -> list[str]:
    """The rows asked for, in the order of the table, with those that they are compared with."""
    part = arguments.part
    names = [name for name in ROWS[part] if not arguments.rows or name in arguments.rows]
    names = [name for name in names if name != "skorch" or find_spec("skorch")]
    firsts = {first_of(name, part) for name in names}
    return [name for name in ROWS[part] if name in names or name in firsts]


# --------------------------------------------------------------------------- memory


class PeakMemory:
    """The most that this process and its children have had together while this is open."""

    seconds = 0.1  # from one look to the next

    def __enter__(self) -> PeakMemory:
        self.mib = 0.0
        self._is_over = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._looking.join()

    def _look(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._is_over.wait(self.seconds)
            self.mib = max(self.mib, sum(map(peak_mib, family())))


def family() -> Iterator[int]:
    """This process and all that come from it."""
    parents = [os.getpid()]
    while parents:
        pid = parents.pop()
        yield pid
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                parents += map(int, children.read_text().split())
            except OSError:  # it has ended
                continue


def peak_mib(pid: int) -> float:
    """Of a process; 0 where it has ended."""
    if not Path("/proc/self/status").exists():
        return 1024 * peak_gib()
    try:
        return status_mib("VmHWM", pid)
    except OSError:
        return 0.0


# -------------------------------------------------------------------------- the table


def table(turns: dict[str, list[Measured]], arguments: argparse.Namespace) -> str:
    """A line for each row."""
    rows, named = rows_of(arguments), wanted(arguments)
    is_search = arguments.part == "search"
    lines = []
    for name in named:
        first, found = turns[first_of(name, arguments.part)], turns[name]
        reference = turns.get("scikit-learn") if is_search else first
        seconds = [m.scale * m.seconds for m in found]
        ratios = [s / (m.scale * m.seconds) for s, m in zip(seconds, first, strict=True)]
        lines.append(
            [
                rows[name].words,
                fits_in_words(found[0], grid_of(name, arguments), is_search),
                f"{median(seconds):.1f}",
                f"{median(seconds) / median(m.scale * m.seconds for m in first):.2f}",
                f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{median(m.mib for m in found):.0f}",
                found[0].gpu_mib and f"{median(m.gpu_mib or 0.0 for m in found):.0f}",
                *differences(name, found[0], reference[0] if reference else None, is_search),
            ]
        )
    score = "largest difference of a " + ("mean score" if is_search else "score, nats")
    header = ["what", "fits run", "seconds", "ratio", "pairwise (range)", "peak MiB"]
    header += ["GPU MiB", score, "same best" if is_search else "batches"]
    header += ["ranks that differ"] * is_search
    unsaid = {"pairwise (range)"} if arguments.repeats == 1 else set()  # the ratio again
    unsaid |= {"GPU MiB"} if arguments.device == "cpu" else set()
    kept = [i for i, name in enumerate(header) if name not in unsaid]
    lines = [[line[i] for i in kept] for line in lines]
    return markdown([header[i] for i in kept], ["{}"] * len(kept), lines, 2)


def fits_in_words(measured: Measured, grid: Grid, is_search: bool) -> str:
    whole = grid.n_fits + is_search  # and the best on all rows
    if measured.n_fits == whole:
        return str(whole)
    return f"{measured.n_fits} of {whole}, x {measured.scale:.1f}"


def differences(
    name: str, measured: Measured, reference: Measured | None, is_search: bool
) -> list[str | None]:
    """From scikit-learn's search; from what is trained together."""
    if name == "skorch":
        return [None] * (2 + is_search)
    if is_search:
        if reference is None or reference is measured:
            return [None] * 3
        assert measured.ranks is not None
        assert reference.ranks is not None
        pairs = list(zip(measured.ranks, reference.ranks, strict=True))
        is_same = measured.ranks.index(1) == reference.ranks.index(1)
        difference = np.abs(np.subtract(measured.scores, reference.scores)).max()
        return [f"{difference:.1e}", "yes" if is_same else "no", str(sum(a != b for a, b in pairs))]
    assert reference is not None
    difference = np.nanmax(np.abs(np.subtract(measured.scores, reference.scores)))
    return [None if reference is measured else f"{difference:.1e}", str(measured.n_batches)]


def text(arguments: argparse.Namespace, shown: str) -> str:
    """The command, what was measured and where, and the table."""
    device, grid = arguments.device, grid_of("", arguments)
    if device != "cpu":
        device = torch.cuda.get_device_name(device)
    threads = "as many threads of torch as it takes by default"
    if arguments.threads is not None:
        threads = f"OMP_NUM_THREADS={arguments.threads}"
    command = shlex.join(["python", "benchmarks/search.py", *sys.argv[1:]])
    searched = (
        f"The digits, {len(digits()[0])} rows of {digits()[0].shape[1]} pixels with normal noise "
        f"of {JITTER} grey levels; n_components {', '.join(map(str, grid.n_components))}; beta "
        f"{', '.join(f'{beta:g}' for beta in grid.betas)}; {grid.n_folds} folds: {grid.n_fits} "
        f"fits of a VAE with hidden layers {grid.hidden_layer_sizes}"
    )
    if arguments.part == "search":
        what = (
            f"{searched}, each behind a StandardScaler and before a LogisticRegression, and the "
            "best again on all rows. Differences, of accuracies, are from scikit-learn's search "
            "with one job; ranks are of all candidates."
        )
        ratios = "Ratios are to the first row."
    else:
        small = grid_of("small", arguments)
        what = (
            f"{searched}, their training alone. Small: {small.n_fits} fits, n_components 1 to "
            f"{N_SMALL_COMPONENTS}, {counted(len(small.betas), 'value')} of beta, "
            f"{small.n_folds} folds, hidden layers {small.hidden_layer_sizes}. Differences are of "
            "held-out nats from those trained together."
        )
        ratios = "Ratios are to the first row, those of small models to the first of these."
    return (
        f"## Measured: {'a whole search' if arguments.part == 'search' else 'training alone'}, "
        f"{'CPU' if arguments.device == 'cpu' else 'GPU'}\n\n"
        f"`{command}`\n\n{what} skorch trains a plain VAE with the same hidden layers and as many "
        "epochs as ours took. Where not all fits were run, the seconds are those of the fits that "
        "were, times the factor given: the epochs of all over the epochs of these. Each row is a "
        f"fresh process; {counted(arguments.repeats, 'turn')}"
        f"{', medians' if arguments.repeats > 1 else ''}. {ratios} "
        "Memory: peaks of the process and its children together. "
        f"torch {torch.__version__}, {device}, {cores()}, {threads}.\n\n{shown}\n"
    )


def write_section(section: str, path: Path) -> None:
    """Into the page; in place of the section with the same heading, and otherwise at the end."""
    page = path.read_text(encoding="utf-8") if path.exists() else "# Searches\n"
    head, *sections = page.split("\n## ")
    title = section.removeprefix("## ").split("\n")[0]
    titles = [part.split("\n")[0] for part in sections]
    new = section.removeprefix("## ")
    if title in titles:
        sections[titles.index(title)] = new
    else:
        sections.append(new)
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [part.rstrip("\n") + "\n" for part in (head, *sections)]
    path.write_text("\n## ".join(parts), encoding="utf-8")


# --------------------------------------------------------------------------- the run


def spread_over(n: int, n_chosen: int) -> list[int]:
    """So many positions, or all of them, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, n - 1, min(n, n_chosen)).round().astype(int)).tolist()


def digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return X + np.random.default_rng(SEED).normal(scale=JITTER, size=X.shape), y


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--part", choices=list(ROWS), default="search", help="default: search")
    names = sorted({name for names in ROWS.values() for name in names})
    add("--rows", nargs="+", choices=names, help="default: all of the part, skorch if installed")
    add("--repeats", type=int, default=1, help="turns (default: 1)")
    add("--n-components", type=int, nargs="+", default=[2, 4, 8, 12, 16, 24])
    add("--betas", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    add("--folds", type=int, default=5)
    add("--skorch-candidates", type=int, default=2, help="that are run for it (default: 2)")
    add("--small", type=int, default=500, help="fits of small models (default: 500)")
    add("--alone", type=int, default=50, help="of these, that are run one by one (default: 50)")
    add("--device", default="cpu", help='"cpu" or "cuda" (default: cpu)')
    add("--threads", type=int, help="OMP_NUM_THREADS of all rows (default: not set)")
    add("--output", type=Path, help="page whose section is written anew, docs/searches.md")
    add("--measure", help=argparse.SUPPRESS)  # what the processes of the rows are asked for
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        parser.error("--device: torch sees no GPU here")
    if not set(arguments.rows or ()) <= set(ROWS[arguments.part]):
        parser.error(f"--rows: {arguments.part} has {', '.join(ROWS[arguments.part])}")
    if "skorch" in (arguments.rows or ()) and not find_spec("skorch"):
        parser.error("--rows: skorch is not installed")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments)._asdict()))
        return
    section = text(arguments, table(measure_in_turns(arguments), arguments))
    print(section, end="")
    if arguments.output is not None:
        write_section(section, arguments.output)


if __name__ == "__main__":
    main()
