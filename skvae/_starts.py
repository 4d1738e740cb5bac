"""Starts: the models that a first fit trains, and which of them is kept.

Axes: ``N`` rows, ``D`` columns of the model, ``C`` condition columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skvae._likelihoods import VARIANCE_FLOOR
from skvae._linear_start import linear_model
from skvae._rows import Rows, mean_rows
from skvae._training import Trained, Watch
from skvae._vae import VAE, Architecture, deviation, explained, observed, seen_values

# The least variance, of standardised columns, of a factor analysis of what is not gaussian.
_LEAST_LEFT = 1e-2


class Starts(NamedTuple):
    """What the parameters of these names ask for."""

    init: str
    n_init: int

    def methods(self, architecture: Architecture) -> tuple[str, ...]:
        """How models are initialised, the preferred ways first."""
        # Pixels that are bits have the best likelihood from the random start. Without columns
        # there is nothing to analyse.
        if architecture.likelihood == "bernoulli" or not architecture.n_features:
            return ("random",)
        if self.init != "both":
            return (self.init,)
        # Factor analysis would explain categories by each other: their columns sum to one.
        if not architecture.is_standardised:
            return ("pca",)
        # With one variance for all columns, or a given one, both would be the same; and
        # factor analysis is the end of a linear model, not only its start.
        if architecture.noise not in ("feature", "decoder"):
            return ("pca",)
        return (
            ("pca", "factor_analysis") if architecture.hidden_layer_sizes else ("factor_analysis",)
        )

    def n_runs(self, architecture: Architecture) -> int:
        return self.n_init * len(self.methods(architecture))

    def models(
        self, architecture: Architecture, x: Rows, c: Tensor, seeds: Sequence[int]
    ) -> Iterator[VAE]:
        """Lone models, ``n_init`` by each method; x (N, D) and c (N, C) are to train on."""
        a, is_standardised = architecture, architecture.is_standardised
        mean = mean_rows(x, lambda rows: (explained(rows, a), observed(rows, a)))
        variance = None
        if not is_standardised:
            variance = mean_rows(
                x, lambda rows: (deviation(rows.double(), mean, a).square(), observed(rows, a))
            )

        def read(rows: Tensor) -> tuple[Tensor, Tensor | None]:
            mask = observed(rows, a)
            return seen_values(rows, a), None if mask is None else mask.roll(-a.n_counts, 1)

        methods = [method for method in self.methods(a) for _ in range(self.n_init)]
        for method, seed in zip(methods, seeds, strict=True):
            generator = torch.Generator(x.device).manual_seed(seed)
            model = VAE(a, device=x.device).randomise(generator, mean, variance)
            if method != "random":
                linear = linear_model(
                    x,
                    c,
                    a.n_components,
                    a.noise if is_standardised else "feature",
                    method=method,
                    floor=2 * VARIANCE_FLOOR if is_standardised else _LEAST_LEFT,
                    generator=generator,
                    read=read,
                )
                model.linearise(linear, None if is_standardised else x)
            yield model

    def best(self, results: Sequence[Trained]) -> Trained:
        """The best bound; but of two linear starts, PCA's where it serves.

        Features are better from PCA, whose components explain all columns alike, where
        factor analysis spends them on the columns that others repeat. It serves unless it
        has not come above factor analysis itself, before any training.
        """
        is_settled = self.is_settled(results, results[0].model.architecture)
        eligible = results[: self.n_init] if is_settled else results
        return max(eligible, key=lambda result: result.bound)

    def is_settled(
        self, runs: Sequence[Trained] | Sequence[Watch], architecture: Architecture
    ) -> bool:
        """Whether one of the preferred runs will be kept, whatever the others come to."""
        if self.methods(architecture) != ("pca", "factor_analysis"):
            return False
        preferred, rest = runs[: self.n_init], runs[self.n_init :]
        best = max(run.bound for run in preferred)
        return bool(rest) and rest[0].has_validation and best > rest[0].start_bound
