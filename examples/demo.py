"""Variational autoencoders on scikit-learn's handwritten digits, in about a minute.

A grid search over a pipeline, a comparison with PCA and factor analysis, a model given
the labels that draws the digits one asks for, and a picture of what it draws.

    python examples/demo.py --output demo.png
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # a file is all that is drawn

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import ConditionalVAE, VAETransformer
from skvae.model_selection import GridSearchCV

JITTER = 0.3  # standard deviation, in grey levels of 0 to 16
N_COMPONENTS = [2, 4, 8, 16]
N_FOLDS = 3
N_PICTURES = 6  # of each digit, in each panel
SIDE = 8  # pixels of a digit's side


class Digits(NamedTuple):
    """The rows to learn from and the rows held out, with their labels."""

    X_train: np.ndarray
    X_test: np.ndarray
    y_train: np.ndarray
    y_test: np.ndarray


def load() -> Digits:
    """The digits, jittered and split."""
    X, y = load_digits(return_X_y=True)
    # The pixels are whole numbers from 0 to 16, many of them always 0. Such data have no
    # density: a narrow enough peak on each number makes log p(x) as large as one likes.
    # A little noise gives a density that a model can be right or wrong about.
    X = X + np.random.default_rng(0).normal(scale=JITTER, size=X.shape)
    return Digits(*train_test_split(X, y, stratify=y, random_state=0))


def search_components(data: Digits) -> int:
    """Choose the number of components by the accuracy of a classifier behind the VAE."""
    pipeline = make_pipeline(
        StandardScaler(),
        # The same device on every machine means the same figures.
        VAETransformer(random_state=0, device="cpu"),
        LogisticRegression(max_iter=1000),
    )
    grid = {"vaetransformer__n_components": N_COMPONENTS}
    search = GridSearchCV(pipeline, grid, cv=N_FOLDS).fit(data.X_train, data.y_train)
    results = search.cv_results_
    print_table(
        ["n_components", "accuracy", "+/-", "rank"],
        [
            [str(n), f"{mean:.3f}", f"{std:.3f}", str(rank)]
            for n, mean, std, rank in zip(
                results["param_vaetransformer__n_components"],
                results["mean_test_score"],
                results["std_test_score"],
                results["rank_test_score"],
                strict=True,
            )
        ],
    )
    best = int(search.best_params_["vaetransformer__n_components"])
    accuracy = search.score(data.X_test, data.y_test)
    n_fits = N_FOLDS * len(N_COMPONENTS)
    print(
        f"{n_fits} VAEs were trained at once in {search.training_time_:.0f} s. The search chooses "
        f"{best} components: accuracy {accuracy:.3f} on the held-out rows."
    )
    return best


def compare(data: Digits, sizes: Sequence[int]) -> None:
    """PCA, factor analysis and the VAE, by likelihood, features and time."""
    rows, findings = [], []
    for n_components in sizes:
        models = {
            "PCA": PCA(n_components, random_state=0),
            "FactorAnalysis": FactorAnalysis(n_components, random_state=0),
            "VAETransformer": VAETransformer(n_components, random_state=0, device="cpu"),
        }
        nats, accuracies = {}, {}
        for name, model in models.items():
            start = time.perf_counter()
            model.fit(data.X_train)
            seconds = time.perf_counter() - start
            nats[name] = model.score(data.X_test)
            accuracies[name] = accuracy_of_features(model, data)
            numbers = f"{nats[name]:.1f}", f"{accuracies[name]:.3f}", f"{seconds:.1f}"
            rows.append([str(n_components), name, *numbers])
        gained = nats["VAETransformer"] - max(nats["PCA"], nats["FactorAnalysis"])
        leader = max(accuracies, key=lambda name: accuracies[name])
        findings.append(
            f"At {n_components} components the VAE is {abs(gained):.1f} nats a row "
            f"{'above' if gained > 0 else 'below'} the better linear model; the features of "
            f"{leader} classify best ({accuracies[leader]:.3f})."
        )
    print_table(["n_components", "model", "log p(x)", "accuracy", "fit seconds"], rows)
    print("\n".join(findings))


def accuracy_of_features(model: Any, data: Digits) -> float:
    """Of a linear classifier that sees the components alone, all on one scale."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(model.transform(data.X_train), data.y_train)
    return float(classifier.score(model.transform(data.X_test), data.y_test))


def fit_conditional(data: Digits) -> ConditionalVAE:
    """A model of the pixels given the label: it scores, classifies and draws."""
    start = time.perf_counter()
    model = ConditionalVAE(
        # What is left of a digit once its label is known: slant, width, stroke. Twice as many
        # components score better and draw no better: docs/claims.md, section 4.
        n_components=4,
        random_state=0,
        device="cpu",
    ).fit(data.X_train, data.y_train)
    seconds = time.perf_counter() - start
    given = model.score(data.X_test, data.y_test)
    summed_out = model.score(data.X_test)
    guessed = model.classes_[model.condition_proba(data.X_test).argmax(axis=1)]
    accuracy = np.mean(guessed == data.y_test)
    linear = LogisticRegression(max_iter=1000)
    pixels = make_pipeline(StandardScaler(), linear).fit(data.X_train, data.y_train)
    print_table(
        ["quantity", "held out"],
        [
            ["log p(x|c), nats a row", f"{given:.2f}"],
            ["log p(x), labels summed out", f"{summed_out:.2f}"],
            ["accuracy of condition_proba", f"{accuracy:.3f}"],
            [
                "accuracy of LogisticRegression, all pixels",
                f"{pixels.score(data.X_test, data.y_test):.3f}",
            ],
        ],
    )
    n_wrong, n_classes = np.sum(guessed != data.y_test), len(model.classes_)
    print(
        f"Fitted in {seconds:.1f} s. The label tells {given - summed_out:.2f} nats about a digit, "
        f"of the {np.log(n_classes):.2f} in {n_classes} equal classes;\nas a classifier the "
        f"model gets {n_wrong} of {len(guessed)} held-out digits wrong."
    )
    return model


def draw(model: ConditionalVAE, data: Digits, path: Path) -> None:
    """A picture: real digits, draws of x given a label, and the means at the same z."""
    labels = np.repeat(model.classes_, N_PICTURES)
    real = np.concatenate(
        [data.X_test[data.y_test == label][:N_PICTURES] for label in model.classes_]
    )
    # One seed: the same z for both.
    drawn = model.sample(condition=labels, random_state=1)
    means = model.sample(condition=labels, mean=True, random_state=1)
    panels = {
        "Real digits": ("held out of the fit", real),
        r"Samples  $x \sim p(x\,|\,z, c)$": ("noisy, not blurry", drawn),
        r"Means  $\mathrm{E}[x\,|\,z, c]$": ("the same $z$, without the noise", means),
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 7.4), facecolor="white")
    for ax, (title, (subtitle, rows)) in zip(axes, panels.items(), strict=True):
        ax.imshow(mosaic(rows), cmap="gray_r", vmin=0, vmax=16, interpolation="nearest")
        ax.set_title(title, fontsize=14, pad=24)
        ax.text(0.5, 1.015, subtitle, transform=ax.transAxes, ha="center", color="0.4")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    centres = (SIDE + 1) * np.arange(len(model.classes_)) + (SIDE - 1) / 2 + 1
    axes[0].set_yticks(centres, [str(label) for label in model.classes_], fontsize=13)
    axes[0].tick_params(length=0, pad=8)
    axes[0].text(-0.055, 1.015, "label $c$", transform=axes[0].transAxes, ha="center", color="0.4")
    figure.tight_layout(w_pad=1.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, bbox_inches="tight", pad_inches=0.25)
    plt.close(figure)


def mosaic(rows: np.ndarray) -> np.ndarray:
    """(n * N_PICTURES, 64) -> one image of n rows of pictures, with lines between them."""
    tiles = np.clip(rows, 0, 16).reshape(-1, N_PICTURES, SIDE, SIDE)
    # A line of a light grey above and to the left of each picture, and around all.
    tiles = np.pad(tiles, ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=2.5)
    image = tiles.transpose(0, 2, 1, 3).reshape(-1, N_PICTURES * (SIDE + 1))
    return np.pad(image, ((0, 1), (0, 1)), constant_values=2.5)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns aligned: numbers to the right, words to the left."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, (name, *cells))) for name, cells in zip(header, columns, strict=True)]
    is_word = [any(cell[0].isalpha() for cell in cells) for cells in columns]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) if word else cell.rjust(width)
            for cell, width, word in zip(cells, widths, is_word, strict=True)
        ).rstrip()

    rule = "  ".join("-" * width for width in widths)
    print("\n".join([line(header), rule, *map(line, rows)]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo.png"),
        help="where to save the picture (default: %(default)s)",
    )
    path = parser.parse_args().output
    start = time.perf_counter()

    data = load()
    print(
        f"Digits: {len(data.X_train)} rows to fit, {len(data.X_test)} held out, "
        f"{data.X_train.shape[1]} pixels; log-likelihoods are of held-out rows, in nats a row."
    )
    print("\n1. Grid search: StandardScaler -> VAETransformer -> LogisticRegression\n")
    best = search_components(data)
    print("\n2. Compared with linear models, on the same pixels\n")
    compare(data, sorted({2, best}))
    print("\n3. Given the labels\n")
    conditional = fit_conditional(data)
    draw(conditional, data, path)
    print(f"\nPicture: {path}. Seconds in total: {time.perf_counter() - start:.0f}.")


if __name__ == "__main__":
    main()
