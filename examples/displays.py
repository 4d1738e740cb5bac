"""Every Display of skvae.plotting on handwritten digits, and those of tables on wines.

    python examples/displays.py --output displays

Writes one picture for each into the folder, in less than a minute.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files are all that is drawn

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits, load_wine
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import ConditionalVAE, VAETransformer
from skvae.plotting import (
    ComponentDisplay,
    LatentSpaceDisplay,
    LossCurveDisplay,
    ManifoldDisplay,
    ReconstructionDisplay,
    SampleDisplay,
    TraversalDisplay,
)

JITTER = 0.3  # standard deviation, in grey levels of 0 to 16; see examples/demo.py
SHAPE = (8, 8)


def draw_digits() -> dict[str, Any]:
    """Two components for a plane, eight for the rest, four given the label."""
    X, y = load_digits(return_X_y=True)
    X = X + np.random.default_rng(0).normal(scale=JITTER, size=X.shape)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    plane = VAETransformer(2, random_state=0, device="cpu").fit(X_train)
    eight = VAETransformer(8, random_state=0, device="cpu").fit(X_train)
    given = ConditionalVAE(4, random_state=0, device="cpu").fit(X_train, y_train)
    return {
        "latent_space": LatentSpaceDisplay.from_estimator(plane, X_test, y_test, names="median"),
        "manifold": ManifoldDisplay.from_estimator(plane, image_shape=SHAPE),
        "loss_curve": LossCurveDisplay.from_estimator(eight),
        "components": ComponentDisplay.from_estimator(eight),
        "reconstruction": ReconstructionDisplay.from_estimator(eight, X_test, image_shape=SHAPE),
        "traversal": TraversalDisplay.from_estimator(eight, image_shape=SHAPE),
        "samples": SampleDisplay.from_estimator(eight, image_shape=SHAPE),
        "samples_by_digit": SampleDisplay.from_estimator(given, image_shape=SHAPE),
    }


def draw_wines() -> dict[str, Any]:
    """A table of named columns with units of their own, behind a scaler in a Pipeline."""
    X, y = load_wine(return_X_y=True, as_frame=True)
    y = y.map({k: f"cultivar {k + 1}" for k in range(3)}).rename("wine")
    pipeline = make_pipeline(StandardScaler(), VAETransformer(4, random_state=0, device="cpu"))
    pipeline.fit(X)
    given = ConditionalVAE(2, random_state=0, device="cpu").fit(X, y)
    columns = ("alcohol", "color_intensity")
    return {
        "wine_latent_space": LatentSpaceDisplay.from_estimator(pipeline, X, y),
        "wine_alcohol": LatentSpaceDisplay.from_estimator(
            pipeline, X, X["alcohol"], spread="cross"
        ),
        "wine_reconstruction": ReconstructionDisplay.from_estimator(pipeline, X),
        "wine_manifold": ManifoldDisplay.from_estimator(pipeline, feature="alcohol"),
        "wine_traversal": TraversalDisplay.from_estimator(pipeline, n_steps=5),
        "wine_samples": SampleDisplay.from_estimator(given, X, features=columns),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("displays"),
        help="folder for the pictures (default: %(default)s)",
    )
    folder = parser.parse_args().output
    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    displays = {**draw_digits(), **draw_wines()}
    for name, display in displays.items():
        display.figure_.savefig(folder / f"{name}.png", dpi=110)
        plt.close(display.figure_)
    seconds = time.perf_counter() - start
    print(f"{len(displays)} pictures in {folder}; {seconds:.0f} seconds.")


if __name__ == "__main__":
    main()
