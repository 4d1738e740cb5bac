"""How many components? A search over a Pipeline, scored twice, on scikit-learn's digits.

One GridSearchCV of `skvae.model_selection` trains every VAE of the search at once. Each fit is
scored by the held-out log-likelihood of its VAE and by the accuracy of the classifier behind it;
PCA stands in the same place of the same Pipeline. A table, a finding, and a picture of both
scores over n_components with their spread over the folds; in less than a minute on two cores.

    python examples/n_components.py --output n_components.png
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # a file is all that is drawn

import numpy as np
from joblib import cpu_count
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skvae import VAETransformer
from skvae.model_selection import GridSearchCV

JITTER = 0.3  # standard deviation, in grey levels of 0 to 16: whole numbers have no density
N_COMPONENTS = [2, 4, 8, 12, 16, 24]
N_FOLDS = 5
MODELS = {
    "PCA": PCA(random_state=0),
    # Smaller networks and fewer epochs than by default, for the sake of a minute.
    "VAETransformer": VAETransformer(
        hidden_layer_sizes=(64, 64), max_iter=60, n_iter_no_change=10, random_state=0, device="cpu"
    ),
}
COLOURS = {"PCA": "0.45", "VAETransformer": "tab:blue"}


class Curve(NamedTuple):
    """A score over n_components, of every fold."""

    folds: np.ndarray  # (n_folds, n_sizes)

    @property
    def mean(self) -> np.ndarray:
        return self.folds.mean(axis=0)

    @property
    def std(self) -> np.ndarray:
        return self.folds.std(axis=0)

    @property
    def best(self) -> int:
        return int(self.mean.argmax())


Curves = dict[str, dict[str, Curve]]  # score -> model -> curve


def held_out_nats(pipeline: Pipeline, X: np.ndarray, y: Any = None) -> float:
    """log p(x) of the scaled pixels under the model in the middle, nats a row."""
    return float(pipeline["reduce"].score(pipeline["scale"].transform(X)))


SCORES = {"nats": held_out_nats, "accuracy": "accuracy"}


def search() -> Curves:
    """Both models at every number of components."""
    X, y = load_digits(return_X_y=True)
    X = X + np.random.default_rng(0).normal(scale=JITTER, size=X.shape)
    pipeline = Pipeline(
        [
            ("scale", StandardScaler()),
            ("reduce", PCA()),
            ("classify", LogisticRegression(max_iter=1000)),
        ]
    )
    found = GridSearchCV(
        pipeline,
        [{"reduce": [model], "reduce__n_components": N_COMPONENTS} for model in MODELS.values()],
        scoring=SCORES,
        refit=False,
        cv=N_FOLDS,
        n_jobs=min(2, cpu_count()),
        verbose=1,
    )
    # The end of max_iter is meant to come early here.
    warnings.simplefilter("ignore", ConvergenceWarning)
    found.fit(X, y)
    curves: Curves = {}
    for score in SCORES:
        folds = [found.cv_results_[f"split{fold}_test_{score}"] for fold in range(N_FOLDS)]
        # The candidates come in the order of the grid: one model after the other.
        of_models = np.split(np.array(folds), len(MODELS), axis=1)
        curves[score] = {name: Curve(of) for name, of in zip(MODELS, of_models, strict=True)}
    return curves


def print_table(curves: Curves) -> None:
    print(f"{'':14}{'held-out nats a row':^38}{'accuracy':^38}".rstrip())
    print("n_components  " + "".join(f"{name:>19}" for _ in SCORES for name in MODELS))
    for i, n in enumerate(N_COMPONENTS):
        cells = [f"{c.mean[i]:.1f} +/- {c.std[i]:4.1f}" for c in curves["nats"].values()]
        cells += [f"{c.mean[i]:.3f} +/- {c.std[i]:.3f}" for c in curves["accuracy"].values()]
        print(f"{n:12}  " + "".join(f"{cell:>19}" for cell in cells))
    print()


def finding(curves: Curves) -> str:
    """What the curves say, in words."""
    vae, pca = (curves["nats"][name] for name in ("VAETransformer", "PCA"))
    gained = vae.mean[vae.best] - pca.mean[pca.best]
    features, linear = (curves["accuracy"][name] for name in ("VAETransformer", "PCA"))
    ahead = (features.folds > linear.folds).all(axis=0)
    behind = (features.folds < linear.folds).all(axis=0)
    return (
        f"The VAE's held-out likelihood is best at {N_COMPONENTS[vae.best]} components, "
        f"{abs(gained):.1f} nats a row {'above' if gained > 0 else 'below'} PCA's best.\n"
        f"On every fold its features classify better than PCA's {at(ahead)}, and worse "
        f"{at(behind)}; at its best, with {N_COMPONENTS[features.best]}, their accuracy is "
        f"{features.mean[features.best]:.3f}; that of PCA, with {N_COMPONENTS[linear.best]}, is "
        f"{linear.mean[linear.best]:.3f}."
    )


def at(is_so: np.ndarray) -> str:
    """At which numbers of components."""
    return listed(np.array(N_COMPONENTS)[is_so].tolist()) if is_so.any() else "nowhere"


def listed(numbers: list[int]) -> str:
    *others, last = map(str, numbers)
    return f"at {', '.join(others)} and {last}" if others else f"at {last}"


def draw(curves: Curves, path: Path) -> None:
    titles = {
        "nats": ("Likelihood", "held-out log p(x), nats a row"),
        "accuracy": ("Features", "held-out accuracy of LogisticRegression"),
    }
    figure, axes = plt.subplots(1, len(titles), figsize=(10.5, 4.4), facecolor="white")
    for ax, (score, (title, subtitle)) in zip(axes, titles.items(), strict=True):
        for name, curve in curves[score].items():
            draw_curve(ax, name, curve)
        ax.set_title(title, fontsize=13, loc="left", pad=22)
        ax.text(0, 1.03, subtitle, transform=ax.transAxes, color="0.4")
        ax.set_xlabel("n_components")
        ax.set_xticks(N_COMPONENTS)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="0.92")
        ax.set_axisbelow(True)
    axes[1].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes[1].legend(frameon=False, loc="lower right")
    figure.text(
        0.995,
        0.01,
        f"mean of {N_FOLDS} folds; band: their standard deviation; ring: the best",
        ha="right",
        color="0.4",
        fontsize=9,
    )
    figure.tight_layout(w_pad=3, rect=(0, 0.03, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_curve(ax: Axes, name: str, curve: Curve) -> None:
    """The mean, its spread as a band, and a ring around the best."""
    colour, best = COLOURS[name], curve.best
    low, high = curve.mean - curve.std, curve.mean + curve.std
    ax.fill_between(N_COMPONENTS, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.plot(N_COMPONENTS, curve.mean, "o-", color=colour, markersize=4.5, label=name)
    ring = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.5}
    ax.plot(N_COMPONENTS[best], curve.mean[best], "o", color=colour, **ring)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("n_components.png"),
        help="where to save the picture (default: %(default)s)",
    )
    path = parser.parse_args().output
    start = time.perf_counter()
    curves = search()
    print_table(curves)
    print(finding(curves))
    draw(curves, path)
    print(f"\nPicture: {path}. Seconds in total: {time.perf_counter() - start:.0f}.")


if __name__ == "__main__":
    main()
