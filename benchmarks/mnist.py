"""MNIST, 60,000 rows of 784 pixels: seconds, nats, features and memory of a fit.

    python benchmarks/mnist.py --data DIR --output results.md

DIR has mnist.npz with X_train, y_train, X_test and y_test, all uint8. Two cases:

binary
    likelihood="bernoulli" on pixels binarised once: each is 1 with probability pixel / 255
    (seed 0), the same bits for every model and epoch.
grey
    likelihood="gaussian" on (pixel + u) / 256 with u uniform in [0, 1) (seed 0). Without
    this dequantisation whole numbers have no density, and log p(x) no bound.

Each case runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from results import cores, markdown, publish
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import VAETransformer

GREY_LEVELS = 256
N_CLASSIFIER_ROWS = 10_000
SEED = 0
BATCH_SIZE = 128


class Images(NamedTuple):
    """Rows to learn from and rows held out, float32, with their labels."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


class Result(NamedTuple):
    """A row of the table; None where there is nothing to say."""

    case: str
    model: str
    fit_seconds: float
    n_epochs: int | None
    nats: float | None
    bits_per_pixel: float | None
    score_seconds: float | None
    accuracy: float
    peak_gib: float | None


class Report(NamedTuple):
    """All of a case."""

    results: list[Result]
    notes: list[str]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of every benchmark on MNIST."""
    parser.add_argument("--data", type=images_folder, required=True, help="folder with mnist.npz")
    parser.add_argument(
        "--device", default="auto", help='"auto", "cpu", "cuda", "cuda:1" (default: auto)'
    )


def images_folder(text: str) -> Path:
    folder = Path(text)
    if not (folder / "mnist.npz").is_file():
        raise argparse.ArgumentTypeError(f"there is no mnist.npz in {folder}")
    return folder


def read(folder: Path, *names: str) -> list[np.ndarray]:
    """These arrays of the file."""
    with np.load(folder / "mnist.npz", allow_pickle=False) as file:
        return [file[name] for name in names]


def binarised(pixels: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Bits, each 1 with probability pixel / 255."""
    return (255 * uniform < pixels).astype(np.float32)


def load(folder: Path, n_rows: int | None, is_binary: bool) -> Images:
    """The images of a case, as the module's docstring says."""
    random = np.random.default_rng(SEED)
    parts = dict(zip(Images._fields, read(folder, *Images._fields), strict=True))
    if n_rows is not None:
        rows = random.permutation(len(parts["X_train"]))[:n_rows]
        parts |= {name: parts[name][rows] for name in ("X_train", "y_train")}
    for name in ("X_train", "X_test"):
        pixels = parts[name].reshape(len(parts[name]), -1)
        uniform = random.random(pixels.shape, dtype=np.float32)
        if is_binary:
            parts[name] = binarised(pixels, uniform)
        else:
            parts[name] = (pixels + uniform) / np.float32(GREY_LEVELS)
    return Images(**parts)


def measure(is_binary: bool, arguments: argparse.Namespace) -> Report:
    """Fit and judge the VAE of a case, and PCA beside it."""
    images = load(arguments.data, arguments.n_rows, is_binary)
    case = "binary" if is_binary else "grey"
    memory = [f"{peak_gib():.2f} with the data loaded"]
    vae = VAETransformer(
        arguments.n_components,
        likelihood="bernoulli" if is_binary else "gaussian",
        noise_variance=arguments.noise_variance,
        hidden_layer_sizes=tuple(arguments.hidden_layer_sizes),
        batch_size=BATCH_SIZE,
        max_iter=arguments.max_iter,
        init=arguments.init,
        device=arguments.device,
        random_state=SEED,
        verbose=arguments.verbose,
    )
    with warnings.catch_warnings():
        # With --max-iter the fit is meant to end early; the table says how many epochs.
        warnings.filterwarnings("ignore", "max_iter=", ConvergenceWarning)
        fit_seconds = seconds_of(lambda: vae.fit(images.X_train))
    memory.append(f"{peak_gib():.2f} after fit")
    nats: list[float] = []
    score_seconds = seconds_of(
        lambda: nats.append(
            float(vae.score_samples(images.X_test, n_draws=arguments.n_draws).mean())
        )
    )
    memory.append(f"{peak_gib():.2f} after score_samples")
    vae_peak = peak_gib()
    notes = [
        f"{case}: {vae.n_active_components_} of {vae.n_components} components active, "
        f"validation bound {vae.best_validation_score_:.2f} nats a row; memory in GiB: "
        f"{', '.join(memory)}."
    ]
    if vae.device_.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated() / 2**30
        eager, captured = step_milliseconds(vae, images.X_train)
        notes.append(
            f"{case}: {peak:.2f} GiB of the GPU at most; a step of {vae.batch_size} rows takes "
            f"{eager:.3f} ms eager and {captured:.3f} ms captured in a CUDA graph."
        )
    results = [
        Result(
            case,
            f"VAETransformer({vae.likelihood})",
            fit_seconds,
            vae.n_iter_,
            nats[0],
            None if is_binary else bits_per_pixel(nats[0], images.X_test.shape[1]),
            score_seconds,
            accuracy_of_features(vae, images),
            vae_peak,
        )
    ]
    return Report([*results, measure_pca(case, arguments.n_components, images)], notes)


def measure_pca(case: str, n_components: int, images: Images) -> Result:
    """PCA in float64: its density needs the inverse of a nearly singular covariance."""
    images = images._replace(
        X_train=images.X_train.astype(np.float64), X_test=images.X_test.astype(np.float64)
    )
    pca = PCA(n_components, random_state=SEED)
    fit_seconds = seconds_of(lambda: pca.fit(images.X_train))
    nats = score_seconds = bits = None
    # Of bits PCA gives a density, the VAE a probability: no common unit, so no number.
    if case == "grey":
        scores: list[float] = []
        score_seconds = seconds_of(lambda: scores.append(float(pca.score(images.X_test))))
        nats, bits = scores[0], bits_per_pixel(scores[0], images.X_test.shape[1])
    accuracy = accuracy_of_features(pca, images)
    return Result(case, "PCA", fit_seconds, None, nats, bits, score_seconds, accuracy, None)


def accuracy_of_features(model: Any, images: Images) -> float:
    """On all test rows, of a linear classifier of the scaled components."""
    some = slice(N_CLASSIFIER_ROWS)  # the rows of MNIST are in no order
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(model.transform(images.X_train[some]), images.y_train[some])
    return float(classifier.score(model.transform(images.X_test), images.y_test))


def bits_per_pixel(nats: float, n_pixels: int) -> float:
    """Of a density of (pixel + u) / 256, as the literature counts: bits for a grey level."""
    return math.log2(GREY_LEVELS) - nats / n_pixels / math.log(2)


def step_milliseconds(vae: VAETransformer, X: np.ndarray, n_epochs: int = 5) -> tuple[float, float]:
    """A training step's time, eager and captured.

    The difference of a long and a short fit, in which all that comes before and after the
    steps cancels.
    """
    X = X[:N_CLASSIFIER_ROWS]
    n_steps = n_epochs * math.ceil(len(X) / BATCH_SIZE)

    def seconds(max_iter: int) -> float:
        model = VAETransformer(**vae.get_params()).set_params(
            # One model and nothing but steps.
            init="random",
            early_stopping=False,
            max_iter=max_iter,
            verbose=False,
        )
        return seconds_of(lambda: model.fit(X))

    def milliseconds() -> float:
        seconds(1)  # kernels are loaded and chosen here
        return 1000 * (seconds(1 + n_epochs) - seconds(1)) / n_steps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with uncaptured():
            eager = milliseconds()
        return eager, milliseconds()


@contextmanager
def uncaptured() -> Iterator[None]:
    """Training whose steps run as on the CPU, without CUDA graphs."""
    with mock.patch("skvae._training.capture", lambda step, state, device: step):
        yield


def seconds_of(work: Callable[[], Any]) -> float:
    """By the wall; a GPU's work is over when its answer is here, and all of these read it."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_gib() -> float:
    """The most memory this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, else in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def table(results: list[Result]) -> str:
    """A line for each model of each case."""
    header = [
        "pixels",
        "model",
        "fit, s",
        "epochs",
        "held-out nats a row",
        "bits a pixel",
        "score, s",
        "accuracy",
        "peak GiB",
    ]
    formats = ["{}", "{}", "{:.1f}", "{}", "{:.2f}", "{:.3f}", "{:.1f}", "{:.4f}", "{:.2f}"]
    return markdown(header, formats, results, n_words=2)


def describe(arguments: argparse.Namespace) -> str:
    """What was run, on what."""
    hidden = ", ".join(map(str, arguments.hidden_layer_sizes))
    n_rows = "all 60,000" if arguments.n_rows is None else f"{arguments.n_rows:,} random"
    device = arguments.device
    if device != "cpu" and torch.cuda.is_available():
        device += f" ({torch.cuda.get_device_name()})"
    return (
        "# MNIST\n\nWritten by `make mnist`; the protocol is in `benchmarks/mnist.py`. "
        f"{n_rows.capitalize()} training rows, scored on all 10,000 test rows with "
        f"{arguments.n_draws} draws; {arguments.n_components} components, hidden layers "
        f"({hidden}), init={arguments.init!r}, noise_variance={arguments.noise_variance!r}, at "
        f"most {arguments.max_iter} epochs, the rest by default. Binary pixels: one fixed draw "
        f"with probability pixel / 255. Grey pixels: (pixel + u) / {GREY_LEVELS}, u uniform in "
        f"[0, 1). Accuracy: LogisticRegression on the scaled components of the first "
        f"{N_CLASSIFIER_ROWS:,} training rows. torch {torch.__version__}, device {device}, "
        f"{cores()}."
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add_options(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--grey", action="store_true", help="the grey case alone")
    which.add_argument("--binary", action="store_true", help="the binary case alone")
    add("--n-rows", type=int, help="training rows, drawn at random (default: all)")
    add("--n-components", type=int, default=32, help="default: 32")
    add("--hidden-layer-sizes", type=int, nargs="*", default=[128, 128], help="default: 128 128")
    add("--noise-variance", default="feature", help='of the grey case (default: "feature")')
    add("--init", default="random", help='"random", "factor_analysis", "both" (default: random)')
    add("--max-iter", type=int, default=15, help="most epochs (default: 15)")
    add("--n-draws", type=int, default=128, help="draws of z for the nats (default: 128)")
    add("--output", type=Path, help="file for the Markdown that is printed")
    add("--verbose", action="store_true", help="print the bound while fitting")
    arguments = parser.parse_args()
    return arguments


def main() -> None:
    arguments = parse_arguments()
    cases = [True] if arguments.binary else [False] if arguments.grey else [True, False]
    # A fresh process for each case; forked ones would begin with this one's peak memory.
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        reports = []
        for is_binary in cases:
            reports.append(pool.submit(measure, is_binary, arguments).result())
            # A long run says what it has as soon as it has it.
            print("\n".join(reports[-1].notes), file=sys.stderr, flush=True)
    results = [result for report in reports for result in report.results]
    notes = "\n".join(f"- {note}" for report in reports for note in report.notes)
    publish(f"{describe(arguments)}\n\n{table(results)}\n\n{notes}\n", arguments.output)


if __name__ == "__main__":
    main()
