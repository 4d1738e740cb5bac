"""Proposals: where z of a row is drawn from, with importance weights to correct for it.

q(z|x, c) alone is a poor one: it has no correlations, of a row unlike those of training it may
be sure of the wrong place, and of a row with holes it may be surer than the row says. So half of
the draws are about the mode of p(z|what is observed), by the curvature there (Geweke, Bayesian
inference in econometric models using Monte Carlo integration, 1989), and half from q; of these,
where there are holes, half from the prior, as p(z|little) may have other modes. All are one
density, a mixture (Hesterberg, Weighted average importance sampling and defensive mixture
distributions, 1995): with draws enough to share, no weight is more than twice, or with holes four
times, that under q alone.

The model is a lone one. Axes: ``(1, B, D)`` = one model, rows, columns; ``S`` draws, ``Z``
components, ``P`` outputs of the decoder.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from skvae._vae import (
    VAE,
    Posterior,
    cast,
    explained,
    log_exposure,
    log_prob_observed,
    observed,
)

# Fisher scoring is over for a row that gains no more nats: a proposal needs no better.
_MOST_STEPS = 40
_LEAST_GAIN = 0.5

# Steps that are found in the dtype of the rows. Who has a longer way is far out, and further steps
# are differences of large numbers.
_ROUNDED_STEPS = 3

# Parts of a step that are tried in turn: far from the mode a whole one may go too far, by much
# where means are exponentials.
_PARTS = (1.0, 0.5, 0.25, 2**-4, 2**-6, 2**-8, 2**-10)


class Laplace(NamedTuple):
    """N(loc, (R R')^-1) of every row: ``loc`` (1, B, Z), R (1, B, Z, Z) lower triangular."""

    loc: Tensor
    root: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        """Standard normal noise (S, 1, 1, Z), the same for every row -> z, (S, 1, B, Z)."""
        # That of all rows is one product.
        of_noise = self._inverse_root().movedim(2, 0).flatten(1)  # (Z, B Z)
        return (noise[:, 0, 0] @ of_noise).view(len(noise), *self.loc.shape).add_(self.loc)

    def log_density(self, z: Tensor) -> Tensor:
        """(S, 1, B, Z) -> (S, 1, B), but for the constant of all normal densities."""
        noise = (z - self.loc).permute(1, 2, 0, 3) @ self.root  # (1, B, S, Z)
        return self.log_peak - 0.5 * noise.square_().sum(-1).permute(2, 0, 1)

    @property
    def log_peak(self) -> Tensor:
        """The log density at ``loc``, (1, B), but for that constant."""
        return self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def uncorrelated(self) -> Posterior:
        """The normal of the same means and variances."""
        return Posterior(self.loc, self._inverse_root().square().sum(-2).log() / 2)

    def _inverse_root(self) -> Tensor:
        one = torch.eye(self.root.shape[-1], dtype=self.root.dtype, device=self.root.device)
        inverse: Tensor = torch.linalg.solve_triangular(
            self.root, one.expand_as(self.root), upper=False
        )
        return inverse


class Proposal(NamedTuple):
    """q(z|x, c) of every row, alone or in a mixture.

    Of rows with holes, where the encoder has not been trained on any, q is the normal about the
    mode, without its correlations.
    """

    q: Posterior
    mode: Laplace | None = None
    rest: Posterior | None = None  # of rows with holes the prior, of others q; None without holes

    @classmethod
    def of(
        cls, model: VAE, x: Tensor, c: Tensor, size: int, *, only_holes: bool = False
    ) -> Proposal:
        """For rows (1, B, ...), of which a pass of the decoder takes ``size``.

        With ``only_holes`` z of rows that are complete is from q alone.
        """
        a, q = model.architecture, model.encode(x, c)
        mask = observed(x, a)
        has_holes = x.new_zeros(1, x.shape[1], 1, dtype=torch.bool)
        if mask is not None:
            has_holes = (mask == 0).any(-1, keepdim=True)
        is_sought = has_holes if only_holes else torch.ones_like(has_holes)
        rows = is_sought[0, :, 0].nonzero()[:, 0]
        if not len(rows):
            return cls(q)
        # All parts of a row whose mode is not sought are q.
        mode = Laplace(q.loc.clone(), (-q.log_scale).exp().diag_embed())
        found = _about_mode(model, q.loc[:, rows], x[:, rows], c[:, rows], size)
        for whole, part in zip(mode, found, strict=True):
            whole[:, rows] = part
        if not a.sees_mask and mask is not None:
            # To this encoder a missing cell is one at the mean.
            q = Posterior(*map(torch.where, (has_holes,) * 2, mode.uncorrelated(), q))
        if not has_holes.any():
            return cls(q, mode)
        return cls(q, mode, Posterior(*(t.masked_fill(has_holes, 0.0) for t in q)))

    def drawn(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Noise (S, Z) -> z (S, 1, B, Z), and its log density (S, 1, B) but for that constant."""
        n = len(noise)
        parts: list[tuple[Posterior | Laplace, int]] = [(self.q, n)]
        if self.mode is not None:
            n_rest = n // 4 if self.rest is not None else 0
            parts = [(self.mode, n - n // 2), (self.q, n // 2 - n_rest)]
            parts += [(self.rest, n_rest)] if self.rest is not None else []
        parts = [(part, size) for part, size in parts if size]
        pieces = noise[:, None, None].split([size for _, size in parts])
        draws = [part.rsample(own) for (part, _), own in zip(parts, pieces, strict=True)]

        densities = []
        for i, (part, size) in enumerate(parts):
            of_draws = [part.log_density(z) for z in draws[:i]]
            # Of its own draws the noise is known: no product, and no digits lost.
            of_draws.append(part.log_peak - 0.5 * pieces[i].square().sum(-1))
            of_draws += [part.log_density(z) for z in draws[i + 1 :]]
            densities.append(torch.cat(of_draws) + math.log(size / n))
        return torch.cat(draws), torch.logsumexp(torch.stack(densities), 0)


def _about_mode(model: VAE, z: Tensor, x: Tensor, c: Tensor, size: int) -> Laplace:
    """About the mode of p(z|what is observed of x, c), by the curvature of its logarithm there.

    By Fisher scoring from z (1, B, Z) on. A row's way is its own: it ends where a step gains
    little, however long others take, with the curvature from which that step was taken.
    """
    exact, precise = model, (x, c)
    if z.device.type == "cpu" and z.dtype != torch.float64:
        # So that which steps are taken hangs next to never on how the rows of a batch are rounded.
        # (Many a GPU has next to no float64.)
        exact, precise = cast(model, torch.float64), (x.double(), c.double())
    at = z.to(precise[0].dtype, copy=True)
    best = _log_joint(exact, at, *precise)
    root = z.new_empty(*z.shape, z.shape[-1])
    rows = torch.arange(z.shape[1], device=z.device)
    for i in range(_MOST_STEPS):
        before = best[:, rows]
        by, (x_, c_) = (model, (x, c)) if i < _ROUNDED_STEPS else (exact, precise)
        step, found = _step(by, at[:, rows].to(x_.dtype), x_[:, rows], c_[:, rows], size)
        root[:, rows], step, left = found.to(root.dtype), step.to(at.dtype), rows
        for part in _PARTS:
            tried = at[:, left] + part * step
            value = _log_joint(exact, tried, *(some[:, left] for some in precise))
            is_better = (value > best[:, left])[0]  # not where a step or a value overflows to NaN
            better = left[is_better]
            at[:, better], best[:, better] = tried[:, is_better], value[:, is_better]
            left, step = left[~is_better], step[:, ~is_better]
            if not len(left):
                break
        rows = rows[(best[:, rows] > before + _LEAST_GAIN)[0]]
        if not len(rows):
            break
    return Laplace(at.to(z.dtype), root)


def _log_joint(model: VAE, z: Tensor, x: Tensor, c: Tensor) -> Tensor:
    """log p(x|z, c) + log p(z) of z (1, B, Z), but for a constant and what is missing, (1, B)."""
    p = model.decode(z[None], c, log_exposure(x, model.architecture))
    return log_prob_observed(p, x, model.architecture)[0] - 0.5 * z.square().sum(-1)


def _step(model: VAE, z: Tensor, x: Tensor, c: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A step towards the mode, (1, B, Z), and a root of the curvature, (1, B, Z, Z)."""
    steps, roots = [], []
    for some in torch.arange(z.shape[1], device=z.device).split(max(1, size // (1 + z.shape[-1]))):
        gradient, root = _slope(model, z[:, some], x[:, some], c[:, some])
        step = torch.cholesky_solve(gradient[..., None].double(), root)[..., 0]
        steps.append(step.to(z.dtype))
        roots.append(root.to(z.dtype))
    return torch.cat(steps, 1), torch.cat(roots, 1)


def _slope(model: VAE, z: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the log joint in z, (1, B, Z), and a root of its expected curvature.

    The latter is 1 + J' F J, lower triangular (1, B, Z, Z) in float64, with the Jacobian J of
    the means and the Fisher information F of the cells that are observed.
    """
    a, mask = model.architecture, observed(x, model.architecture)
    weights = x.new_ones(*x.shape[:2], 1) if mask is None else mask
    outputs, slopes = model.outputs_and_slopes(z[None], c, log_exposure(x, a))
    p = a.family.of(*outputs)
    of_outputs = p.gradients(outputs, explained(x, a), weights[None])
    gradient = -z[0]
    for slope, of_output in zip(slopes, of_outputs, strict=False):
        gradient += (slope.movedim(0, 2) @ of_output[0][..., None])[0, ..., 0]
    jacobian = p.slopes_of_mean(outputs, slopes)[:, 0].movedim(0, 1).double()  # (B, Z, D)
    weighted = jacobian * (weights * p.information[0])[0, :, None]
    # Rows so far out that nothing can be said of them are drawn as widely as the prior.
    one = torch.eye(z.shape[-1], dtype=torch.float64, device=z.device)
    curvature = (weighted @ jacobian.mT).nan_to_num(0.0, 0.0, 0.0) + one
    root, failure = torch.linalg.cholesky_ex(curvature)
    return gradient[None], torch.where((failure > 0)[:, None, None], one, root)[None]
