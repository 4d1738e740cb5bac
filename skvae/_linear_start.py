"""Factor analysis and PCA as models of a density: the linear model at which training starts.

x = A'c + mean + W z + e, with z ~ N(0, I) and e ~ N(0, diag(noise_variance)).

W is rotated so that the posterior covariance of z is diagonal: then the exact
posterior N(gain (x - A'c - mean), scale^2) lies in the family of q, and the ELBO of the
model at its start is log p(x) itself.

Axes: ``N`` rows, ``D`` columns, ``C`` condition columns, ``Z`` components.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skvae._rows import Rows, mean_rows, slices

# With more columns than this nothing of size D x D is made: random projections of at
# most _MAX_ROWS rows instead, or of so many numbers, and a few iterations. A start must never
# take longer than the training it starts.
_MAX_COVARIANCE = 256
_MAX_ROWS = 10_000
_MAX_NUMBERS = 2**25
_MAX_ITER_COVARIANCE = 300
_MAX_ITER_ROWS = 10
_TOLERANCE = 1e-5  # nats a row and iteration
# Of a column's variance, in a start at PCA: less is seldom more than an accident of few rows,
# and would be slow to leave.
_LEAST_LEFT = 1e-2

# Of a matrix of correlations that is put together by pairs of columns the least eigenvalue.
_LEAST_EIGENVALUE = 1e-3
_OVERSAMPLING = 10  # more vectors than asked for, as Halko et al. advise


class LinearModel(NamedTuple):
    """Its tensors are float64; ``Z`` is at most min(N, D)."""

    coefficients: Tensor  # (C, D)   A
    mean: Tensor  # (D,)
    loadings: Tensor  # (D, Z)   W
    noise_variance: Tensor  # (D,)
    gain: Tensor  # (Z, D)
    scale: Tensor  # (Z,)     standard deviations of q(z|x, c)


#: From rows of a table to the values (n, D) that are modelled, 0 where one is missing, and a mask
#: that is 0 there too; the mask is None where none is missing.
Read = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def as_they_are(rows: Tensor) -> tuple[Tensor, Tensor | None]:
    return rows, None


def linear_model(
    x: Rows,
    c: Tensor,
    n_components: int,
    noise: str | float,
    *,
    method: str,
    floor: float,
    generator: torch.Generator,
    read: Read = as_they_are,
) -> LinearModel:
    """A linear model of the values (N, D) that are read of x, given c (N, C).

    ``noise`` "shared" or a number is probabilistic PCA (Tipping & Bishop, 1999), the
    number its variance. With a variance for each column, ``method`` "factor_analysis" is
    that of maximum likelihood; "pca" has the loadings of probabilistic PCA, and the
    variances that these leave. No variance is below ``floor``.
    """
    spectrum: _CovarianceSpectrum | _RandomisedSpectrum
    n_rows, n_columns = len(x), read(x[:1])[0].shape[1]
    if n_columns <= _MAX_COVARIANCE:
        # Small matrices, one after the other: each takes a GPU longer than the host.
        coefficients, mean, covariance = (part.cpu() for part in _regression(x, c, read))
        spectrum = _CovarianceSpectrum(covariance)
    else:
        rows = torch.randperm(n_rows, generator=generator, device=generator.device)
        rows = rows[: min(_MAX_ROWS, _MAX_NUMBERS // n_columns)]
        some, c = x.index_select(0, rows.to(x.device)), c[rows.to(c.device)]
        coefficients, mean, _ = _regression(some, c, read)
        values, mask = read(some)
        left = values - c @ coefficients.to(c) - mean.to(values)
        n_rows = len(some)
        spectrum = _RandomisedSpectrum(left if mask is None else left * mask, generator)
    n_components = min(n_components, n_rows, n_columns)
    if noise == "shared" or not isinstance(noise, str):
        loadings, variance = _ppca(spectrum, n_components, noise, floor)
    elif method == "pca":
        # As many components as columns would leave no variance at all.
        n_components = max(1, min(n_components, n_columns - 1))
        loadings, _ = _ppca(spectrum, n_components, "shared", floor)
        variance = (spectrum.total - loadings.square().sum(1)).clamp(min=_LEAST_LEFT)
    else:
        loadings, variance = _factor_analysis(spectrum, n_components, floor)
    model = _with_posterior(coefficients, mean, loadings, variance)
    return LinearModel(*(part.to(x.device) for part in model))


def _regression(x: Rows, c: Tensor, read: Read) -> tuple[Tensor, Tensor, Tensor]:
    """Least squares of values on c with an intercept: (C, D), (D,), and the covariance left.

    Each moment is over the rows that have what it takes, and the covariance made one of a
    table after that. It (D, D) is empty beyond ``_MAX_COVARIANCE`` columns, where missing
    values count as the mean. The tiny ridge serves conditions whose columns are
    dependent, as one-hot columns are.
    """
    n_conditions = c.shape[1]
    of_values = mean_rows(x, read)
    mean = torch.cat((c.mean(0, dtype=torch.float64), of_values))
    n_left = n_conditions + (len(of_values) if len(of_values) <= _MAX_COVARIANCE else 0)
    products = mean.new_zeros(n_left, len(mean))
    counts = torch.zeros_like(products)
    for rows in slices(x):
        values, mask = read(x[rows])
        centred = torch.cat((c[rows], values), 1) - mean
        if mask is None:
            counts += len(values)
        else:
            there = torch.cat((torch.ones_like(c[rows]), mask), 1)
            centred *= there
            counts += there[:, :n_left].T @ there
        products += centred[:, :n_left].T @ centred
    products /= counts.clamp(min=1)
    is_by_pairs = bool((counts < len(x)).any())
    cc, cx = products[:n_conditions, :n_conditions], products[:n_conditions, n_conditions:]
    ridge = 1e-8 * torch.eye(n_conditions, dtype=torch.float64, device=x.device)
    coefficients = torch.linalg.solve(cc + ridge, cx)
    left = slice(0, n_left - n_conditions)
    covariance = products[n_conditions:, n_conditions:][:, left]
    explained = cx[:, left].T @ coefficients[:, left]
    covariance = covariance - (explained + explained.T) / 2
    return (
        coefficients,
        mean[n_conditions:] - mean[:n_conditions] @ coefficients,
        _positive(covariance) if is_by_pairs else covariance,
    )


def _positive(covariance: Tensor) -> Tensor:
    """A positive definite matrix near it, of the same diagonal.

    Moments over other rows for every pair of columns need not be those of any table: with a
    negative eigenvalue factor analysis would find columns without noise.
    """
    unit = covariance.diagonal().clamp(min=torch.finfo(covariance.dtype).tiny).sqrt()
    values, vectors = torch.linalg.eigh(covariance / (unit[:, None] * unit))
    if not len(values) or values[0] >= _LEAST_EIGENVALUE:
        return covariance
    found: Tensor = (vectors * values.clamp(min=_LEAST_EIGENVALUE)) @ vectors.mT
    scale = unit / found.diagonal().sqrt()
    return found * scale[:, None] * scale


class _CovarianceSpectrum:
    """Principal components from the covariance matrix (D, D)."""

    max_iter = _MAX_ITER_COVARIANCE

    def __init__(self, covariance: Tensor) -> None:
        self.covariance = covariance
        self.total = covariance.diagonal().clone()

    def principal(self, unit: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
        """Largest eigenvalues (Z,), and eigenvectors (D, Z), of x / unit."""
        values, vectors = torch.linalg.eigh(self.covariance / (unit[:, None] * unit))
        return values.flip(0)[:n_components], vectors.flip(1)[:, :n_components]


class _RandomisedSpectrum:
    """Principal components from the centred rows (N, D), by power iterations on a random basis.

    Halko, Martinsson & Tropp, Finding structure with randomness, 2011. The basis is
    kept from call to call: the units of factor analysis change little.
    """

    max_iter = _MAX_ITER_ROWS

    def __init__(self, x: Tensor, generator: torch.Generator) -> None:
        self.x, self.generator = x, generator
        self.total = x.square().mean(0, dtype=torch.float64)
        self.basis: Tensor | None = None

    def principal(self, unit: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
        x = self.x / unit.to(self.x)
        n_rows, n_columns = x.shape
        n_iter = 2
        if self.basis is None:
            width = min(n_components + _OVERSAMPLING, n_rows, n_columns)
            noise = torch.randn(
                n_columns,
                width,
                generator=self.generator,
                dtype=x.dtype,
                device=self.generator.device,
            )
            self.basis, n_iter = noise.to(x.device), 5
        for _ in range(n_iter):
            self.basis = torch.linalg.qr(x.T @ (x @ self.basis))[0]
        _, singular, rotation = torch.linalg.svd(x @ self.basis, full_matrices=False)
        values = singular[:n_components].double().square() / n_rows
        return values, (self.basis @ rotation.T)[:, :n_components].double()


def _ppca(
    spectrum: _CovarianceSpectrum | _RandomisedSpectrum,
    n_components: int,
    noise: str | float,
    floor: float,
) -> tuple[Tensor, Tensor]:
    """Loadings (D, Z) and variances (D,), all equal."""
    total = spectrum.total
    values, vectors = spectrum.principal(torch.ones_like(total), n_components)
    n_left = max(1, len(total) - n_components)
    left = (total.sum() - values.sum()) / n_left
    given = left.clamp(min=floor) if isinstance(noise, str) else total.new_tensor(noise)
    return vectors * (values - given).clamp(min=0).sqrt(), given.expand_as(total)


def _factor_analysis(
    spectrum: _CovarianceSpectrum | _RandomisedSpectrum, n_components: int, floor: float
) -> tuple[Tensor, Tensor]:
    """Loadings (D, Z) and variances (D,).

    Given the variances, the best loadings are principal components of x in units of
    the noise (Joereskog, 1967); given the loadings, the variances are what is left of
    the columns' own. The two in turn climb the likelihood.
    """
    total = spectrum.total
    variance = (total / 2).clamp(min=floor)
    loadings = total.new_zeros(len(total), n_components)
    previous = torch.inf
    for _ in range(spectrum.max_iter):
        unit = variance.sqrt()
        values, vectors = spectrum.principal(unit, n_components)
        values = values.clamp(min=1)
        loadings = unit[:, None] * vectors * (values - 1).sqrt()
        # Minus twice the log-likelihood a row, at these two, up to a constant.
        explained = (values.log() - values + 1).sum()
        loss = (variance.log().sum() + (total / variance).sum() + explained).item()
        if previous - loss < 2 * _TOLERANCE:
            break
        previous = loss
        variance = (total - loadings.square().sum(1)).clamp(min=floor)
    return loadings, variance


def _with_posterior(
    coefficients: Tensor, mean: Tensor, loadings: Tensor, variance: Tensor
) -> LinearModel:
    """Rotate the loadings until the posterior covariance is diagonal, most informed first."""
    information, rotation = torch.linalg.eigh(loadings.T @ (loadings / variance[:, None]))
    information, rotation = information.flip(0).clamp(min=0), rotation.flip(1)
    loadings = loadings @ rotation
    # The sign of a component is free: its largest loading is positive.
    largest = loadings.gather(0, loadings.abs().argmax(0, keepdim=True))
    loadings = torch.where(largest < 0, -loadings, loadings)
    gain = (loadings / variance[:, None]).T / (1 + information)[:, None]
    return LinearModel(coefficients, mean, loadings, variance, gain, (1 + information).rsqrt())
