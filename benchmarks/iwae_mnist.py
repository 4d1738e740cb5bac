"""Importance-weighted autoencoders on MNIST: the paper's table, and nats over minutes.

    python benchmarks/iwae_mnist.py --data DIR --folder local/iwae
    python benchmarks/iwae_mnist.py --data DIR --folder local/iwae-short --short --output FILE

Does the public API reach what Burda, Grosse & Salakhutdinov (Importance Weighted
Autoencoders, ICLR 2016, table 1) report for one stochastic layer of 50, and how soon?

DIR has mnist.npz with X_train and X_test, uint8. Training sees pixel / 255 and draws bits
afresh at every step. The test rows are binarised once (seed 0), and a row's nats are
-log p(x) by 5,000 draws of z, so lower is better, as in the paper.

The curve has one point for each *complete* training: its schedule ends where its minutes do.
Every point is therefore what somebody with that many minutes would have got, which the inner
epochs of one long training are not. Each training is twice as long as the one before.

What is finished is kept in --folder and not done again: results.jsonl has a line for each
training, and beside it lie the fitted models, so that a run that was stopped while scoring
goes on with the scores. --short shows the order of the bounds without a GPU, in minutes: fewer
rows, and an end long before that of the paper.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import joblib
import numpy as np
import torch
from mnist import add_options, binarised, read
from results import Measurements, markdown, publish
from sklearn.exceptions import ConvergenceWarning

import skvae
from skvae import VAETransformer

SEED = 0

# -log p(x) by the number of draws in training; the second is a public reproduction with DReG.
PAPER = {1: 86.76, 5: 85.54, 50: 84.78}
REPRODUCTION_DREG = {1: 86.08, 5: 84.90, 50: 84.32}

SHORT = {
    "k": [1, 5, 20],
    "n_rows": 20_000,
    "batch_size": 100,
    "max_iter": 12,
    "n_fits": 2,
    "n_test": 1000,
    "n_draws": 500,
}


class Images(NamedTuple):
    """Rows to learn from, probabilities in [0, 1], and rows held out, bits; float32."""

    X_train: np.ndarray
    X_test: np.ndarray


class Task(NamedTuple):
    """A training and its test, by all that their numbers depend on."""

    k: int
    n_rows: int
    batch_size: int
    learning_rate: Literal["adaptive", "cosine", "constant"]
    learning_rate_init: float
    max_iter: int
    n_test: int
    n_draws: int

    @property
    def name(self) -> str:
        """Of the model's file: how it was trained."""
        rate = f"{self.learning_rate}{self.learning_rate_init:g}"
        return f"k{self.k}-rows{self.n_rows}-batch{self.batch_size}-{rate}-epochs{self.max_iter}"


class Outcome(NamedTuple):
    """What came of a task; nats are of a test row."""

    nats: float
    fit_seconds: float
    score_seconds: float
    training_nats: float  # -bound on the training rows in the last epoch
    n_active_components: int
    device: str
    versions: str


Results = dict[Task, Outcome]


class Notebook:
    """The folder in which outcomes, models and the nats of every test row are kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._measurements = Measurements(folder / "results.jsonl", Task)

    def results(self) -> Results:
        return {
            Task(*(row[name] for name in Task._fields)): Outcome(
                *(row[name] for name in Outcome._fields)
            )
            for row in self._measurements
        }

    def add(self, task: Task, outcome: Outcome, nats: np.ndarray) -> None:
        np.save(self._nats_file(task), nats)
        self._measurements.add(task._asdict() | outcome._asdict())

    def nats(self, task: Task) -> np.ndarray:
        return np.load(self._nats_file(task))

    def model(self, task: Task, fit: Callable[[], VAETransformer]) -> tuple[VAETransformer, float]:
        """The fitted model and its seconds, from the folder if it is there."""
        file = self._folder / f"{task.name}.joblib"
        if not file.is_file():
            unfinished = file.with_suffix(".part")
            joblib.dump(timed(fit), unfinished)
            unfinished.replace(file)
        return joblib.load(file)

    def _nats_file(self, task: Task) -> Path:
        return self._folder / f"{task.name}-test{task.n_test}-draws{task.n_draws}.npy"


def load(folder: Path, n_rows: int, n_test: int) -> Images:
    """The images; fewer rows are a random part, as the first of MNIST are unlike the last."""
    random = np.random.default_rng(SEED)
    train, test = (pixels.reshape(-1, 784) for pixels in read(folder, "X_train", "X_test"))
    bits = binarised(test, random.random(test.shape, dtype=np.float32))
    return Images(
        train[random.permutation(len(train))[:n_rows]] / np.float32(255),
        bits[random.permutation(len(bits))[:n_test]],
    )


def run(task: Task, images: Images, notebook: Notebook, device: str) -> Outcome:
    """Train, or take the model that was trained before; then test."""
    model = VAETransformer(
        50,
        likelihood="bernoulli",
        hidden_layer_sizes=(200, 200),
        activation="tanh",
        init="random",
        n_importance_samples=task.k,
        batch_size=task.batch_size,
        learning_rate=task.learning_rate,
        learning_rate_init=task.learning_rate_init,
        max_iter=task.max_iter,
        early_stopping=False,
        random_state=SEED,
        device=device,
    )
    with warnings.catch_warnings():
        # The schedule is meant to end where it ends.
        warnings.filterwarnings("ignore", "Stopped after max_iter=", ConvergenceWarning)
        model, fit_seconds = notebook.model(task, lambda: model.fit(images.X_train))
    scores, score_seconds = timed(lambda: model.score_samples(images.X_test, n_draws=task.n_draws))
    outcome = Outcome(
        -float(scores.mean(dtype=np.float64)),
        fit_seconds,
        score_seconds,
        float(model.loss_curve_[-1]),
        model.n_active_components_,
        name_of(model.device_),
        f"skvae {skvae.__version__}, torch {torch.__version__}",
    )
    notebook.add(task, outcome, -scores)
    return outcome


def run_all(arguments: argparse.Namespace, notebook: Notebook) -> Results:
    """Every k, and for each the trainings of the curve, the shortest first."""
    images = load(arguments.data, arguments.n_rows, arguments.n_test)
    known, results = notebook.results(), {}
    for k in arguments.k:
        fit_seconds = 0.0
        for task in tasks(k, arguments):
            if 2 * fit_seconds > 60 * arguments.minutes:
                break
            outcome = known.get(task) or run(task, images, notebook, arguments.device)
            fit_seconds, results[task] = outcome.fit_seconds, outcome
            # A long run says what it has as soon as it has it.
            print(in_words(task, outcome), file=sys.stderr, flush=True)
    return results


def tasks(k: int, arguments: argparse.Namespace) -> Iterator[Task]:
    lengths = {max(1, arguments.max_iter >> i) for i in range(arguments.n_fits)}
    for max_iter in sorted(lengths):
        yield Task(
            k,
            arguments.n_rows,
            arguments.batch_size,
            arguments.learning_rate,
            arguments.learning_rate_init,
            max_iter,
            arguments.n_test,
            arguments.n_draws,
        )


class Gain(NamedTuple):
    """Nats a row by which a training is below the first one, and their standard error."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, task: Task, first: Task, notebook: Notebook) -> Gain:
        # The same rows and bits for every k: the difference is surer than its two parts.
        gains = notebook.nats(first) - notebook.nats(task)
        return cls(float(gains.mean()), float(gains.std() / len(gains) ** 0.5))


def longest(results: Results) -> list[Task]:
    """The longest training of each k."""
    return list({task.k: task for task in results}.values())


def headline(results: Results, notebook: Notebook) -> str:
    """What the draws of each k gain over the first."""
    first, *others = longest(results)
    parts = [f"{results[first].nats:.2f} nats with k={first.k}"]
    for task in others:
        gain = Gain.of(task, first, notebook)
        parts.append(f"{gain.mean:.2f} ± {gain.standard_error:.2f} less with k={task.k}")
    return ", ".join(parts) + "."


def table_of_bounds(results: Results, notebook: Notebook) -> str:
    """The longest training of each k beside what was published."""
    first, *others = longest(results)
    rows = []
    for task in (first, *others):
        outcome = results[task]
        gain = Gain.of(task, first, notebook) if task != first else None
        rows.append(
            [
                f"k={task.k}",
                outcome.nats,
                gain and gain.mean,
                gain and gain.standard_error,
                PAPER.get(task.k),
                REPRODUCTION_DREG.get(task.k),
                outcome.training_nats,
                outcome.n_active_components,
                task.max_iter,
                outcome.fit_seconds / 60,
            ]
        )
    header = [
        "draws",
        "nats",
        f"below k={first.k}",
        "standard error",
        "paper",
        "reproduction with DReG",
        "-bound in training",
        "active components",
        "epochs",
        "minutes",
    ]
    formats = ["{}", *["{:.2f}"] * 6, "{}", "{:,}", "{:.1f}"]
    return markdown(header, formats, rows, 1)


def table_of_minutes(results: Results) -> str:
    """The curve: a row for each complete training."""
    rows = [
        [
            f"k={task.k}",
            task.max_iter,
            outcome.fit_seconds / 60,
            outcome.nats,
            outcome.score_seconds / 60,
        ]
        for task, outcome in results.items()
    ]
    header = ["draws", "epochs", "minutes of training", "nats", "minutes of scoring"]
    return markdown(header, ["{}", "{:,}", "{:.2f}", "{:.2f}", "{:.2f}"], rows, 1)


def describe(arguments: argparse.Namespace, results: Results) -> str:
    """What was run, on what."""
    devices = "; ".join(sorted({f"{o.device}, {o.versions}" for o in results.values()}))
    return (
        f"Written by `make {'iwae-short' if arguments.short else 'iwae'}`; the protocol is in "
        "`benchmarks/iwae_mnist.py`. "
        f"MNIST, {arguments.n_rows:,} training rows with bits drawn at every step; 784-200-200-50, "
        f"tanh, a linear map beside each network; batches of {arguments.batch_size}, Adam "
        f"{arguments.learning_rate_init:g} {arguments.learning_rate}, no early stopping. Nats: "
        f"-log p(x) of {arguments.n_test:,} test rows, binarised once, by {arguments.n_draws:,} "
        f"draws. Published: Burda et al. 2016, table 1, trained for 9.8 million steps of 20 "
        f"rows, and a public reproduction. {devices}."
    )


def in_words(task: Task, outcome: Outcome) -> str:
    return (
        f"k={task.k}, {task.max_iter} epochs: {outcome.nats:.2f} nats after "
        f"{outcome.fit_seconds:.0f} s, scored in {outcome.score_seconds:.0f} s"
    )


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The answer and its seconds by the wall."""
    start = time.perf_counter()
    answer = work()
    return answer, time.perf_counter() - start


def name_of(device: str) -> str:
    return torch.cuda.get_device_name(device) if "cuda" in device else f"{os.cpu_count()} CPU cores"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add_options(parser)
    add("--folder", type=Path, required=True, help="where results and models are kept")
    add("--output", type=Path, help="file for what is printed (default: results.md in --folder)")
    add("--k", type=int, nargs="+", default=[1, 5, 50], help="draws (default: 1 5 50)")
    add("--max-iter", type=int, default=1600, help="epochs of the longest fit (default: 1600)")
    add("--n-fits", type=int, default=5, help="points of the curve for each k (default: 5)")
    add("--minutes", type=float, default=float("inf"), help="begin no fit that would take longer")
    add("--batch-size", type=int, default=250, help="default: 250")
    add("--learning-rate", default="cosine", help='"cosine", "constant" (default: cosine)')
    add("--learning-rate-init", type=float, default=2e-3, help="default: 0.002")
    add("--n-rows", type=int, default=60_000, help="training rows (default: all 60,000)")
    add("--n-test", type=int, default=10_000, help="test rows (default: all 10,000)")
    add("--n-draws", type=int, default=5000, help="draws of z for the nats (default: 5000)")
    add("--short", action="store_true", help=f"other defaults: {SHORT}")
    arguments = parser.parse_args()
    if arguments.short:
        parser.set_defaults(**SHORT)
        arguments = parser.parse_args()
    return arguments


def main() -> None:
    arguments = parse_arguments()
    notebook = Notebook(arguments.folder)
    results = run_all(arguments, notebook)
    text = (
        f"# Importance-weighted bounds on MNIST\n\n{headline(results, notebook)}\n\n"
        f"{describe(arguments, results)}\n\n{table_of_bounds(results, notebook)}\n\n"
        "Nats over minutes; every row is a complete training, its schedule as long as it is.\n\n"
        f"{table_of_minutes(results)}\n"
    )
    publish(text, arguments.output or arguments.folder / "results.md")


if __name__ == "__main__":
    main()
