"""Proposals: where z of a row is drawn from, with importance weights to correct for it.

q(z|x, c) serves for rows that are complete. Of a row with holes the encoder may be sure of more
than the row says: if it was trained on complete ones, a missing cell is to it one at the column's
mean. Half of such a row's z are drawn about the mode of p(z|what is observed), by the curvature
there (Geweke, Bayesian inference in econometric models using Monte Carlo integration, 1989), and
a quarter each from q and from the prior, where p(z|what is observed) has other modes. The three
are one density, a mixture (Hesterberg, Weighted average importance sampling and defensive
mixture distributions, 1995), so that no weight is more than four times p(x|z).

The model is a lone one. Axes: ``(1, B, D)`` = one model, rows, columns; ``S`` draws, ``Z``
components, ``P`` outputs of the decoder.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from skvae._vae import VAE, Posterior, explained, log_exposure, log_prob_observed, observed

# Fisher scoring ends once no row gains so many nats, of which a proposal needs no more.
_MOST_STEPS = 20
_LEAST_GAIN = 1e-2

# Parts of a step that are tried: far from the mode a whole one may go too far.
_PARTS = (1.0, 0.5, 0.25, 0.0625)


class Normal(NamedTuple):
    """N(loc, R R') for every row: ``loc`` (1, B, Z), R (1, B, Z, Z) upper triangular."""

    loc: Tensor
    root: Tensor

    def at(self, noise: Tensor) -> Tensor:
        """Standard normal noise (S, Z), the same for every row -> z, (S, 1, B, Z)."""
        return self.loc + torch.matmul(self.root, noise.T).permute(3, 0, 1, 2)

    def log_density(self, z: Tensor) -> Tensor:
        """(S, 1, B, Z) -> (S, 1, B), but for the constant of all normal densities."""
        deviation = (z - self.loc).permute(1, 2, 3, 0)
        noise: Tensor = torch.linalg.solve_triangular(self.root, deviation, upper=True)
        volume = self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * noise.square().sum(2).permute(2, 0, 1) - volume


class Proposal(NamedTuple):
    """q(z|x, c) of every row, and for rows with holes a mixture of others with it.

    Of rows with holes, where the encoder has not been trained on any, q is the normal about the
    mode, without its correlations.
    """

    q: Posterior
    parts: tuple[Normal, ...] = ()  # about the mode, q itself, and the prior

    @classmethod
    def about(cls, model: VAE, x: Tensor, c: Tensor, n_rows: int) -> Proposal:
        """For rows (1, B, ...); the modes of so many of them are looked for at once."""
        a, q = model.architecture, model.encode(x, c)
        mask = observed(x, a)
        rows = None if mask is None else (mask[0] == 0).any(-1).nonzero()[:, 0]
        if rows is None or not len(rows):
            return cls(q)
        # All parts of a row that is complete are q.
        mode, own, prior = (Normal(q.loc.clone(), q.log_scale.exp().diag_embed()) for _ in range(3))
        prior.loc[:, rows] = 0
        prior.root[:, rows] = torch.eye(a.n_components, dtype=x.dtype, device=x.device)
        for some in rows.split(max(1, n_rows)):
            mode.loc[:, some], mode.root[:, some] = _about_mode(
                model, q.loc[:, some], x[:, some], c[:, some]
            )
        if not a.sees_mask:
            # To this encoder a missing cell is the mean: q is what is about the mode instead, but
            # for the correlations.
            q = Posterior(mode.loc, mode.root.square().sum(-1).log() / 2)
            own = Normal(q.loc, q.log_scale.exp().diag_embed())
        return cls(q, (mode, own, prior))

    def drawn(self, noise: Tensor, some: slice) -> tuple[Tensor, Tensor]:
        """Those draws of noise (S, Z): z (S', 1, B, Z), and their log density (S', 1, B)."""
        if not self.parts:
            own = noise[some, None, None]
            log_density = -0.5 * own.square().sum(-1) - self.q.log_scale.sum(-1)
            return self.q.rsample(own), log_density
        n_others = len(noise) // 4
        counts = (len(noise) - 2 * n_others, n_others, n_others)
        pieces, first = [], 0
        for part, n in zip(self.parts, counts, strict=True):
            own = noise[max(first, some.start) : min(first + n, some.stop)]
            pieces.append(part.at(own))
            first += n
        z = torch.cat(pieces)
        densities = [
            part.log_density(z) + math.log(n / len(noise))
            for part, n in zip(self.parts, counts, strict=True)
            if n
        ]
        return z, torch.logsumexp(torch.stack(densities), 0)


def _about_mode(model: VAE, z: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The mode of p(z|what is observed of x, c), (1, B, Z), and a root of the inverse curvature.

    By Fisher scoring from z on, of whose steps the best part is taken, or none. A row's way is
    its own: it stays where a step gains little, however long others take.
    """
    parts = z.new_tensor(_PARTS)[:, None, None, None]
    best = _log_joint(model, z[None], x, c)[0]
    is_under_way = torch.ones_like(best, dtype=torch.bool)
    for _ in range(_MOST_STEPS):
        gradient, factor = _slope(model, z, x, c)
        step = torch.cholesky_solve(gradient[..., None].double(), factor)[..., 0]
        step = step.nan_to_num(0.0, 0.0, 0.0).to(z.dtype)
        tried = z + parts * step
        value, which = _log_joint(model, tried, x, c).max(0)
        is_better = is_under_way & (value > best)
        found = tried.gather(0, which[None, ..., None].expand(1, *z.shape))[0]
        z = torch.where(is_better[..., None], found, z)
        is_under_way = is_better & (value > best + _LEAST_GAIN)
        best = torch.where(is_better, value, best)
        if not is_under_way.any():
            break
    _, factor = _slope(model, z, x, c)
    one = torch.eye(z.shape[-1], dtype=factor.dtype, device=z.device).expand_as(factor)
    return z, torch.linalg.solve_triangular(factor.mT, one, upper=True).to(z.dtype)


def _log_joint(model: VAE, z: Tensor, x: Tensor, c: Tensor) -> Tensor:
    """log p(x|z, c) + log p(z) but for a constant, of what is observed, (S, 1, B)."""
    p = model.decode(z, c, log_exposure(x, model.architecture))
    log_joint = log_prob_observed(p, x, model.architecture) - 0.5 * z.square().sum(-1)
    return log_joint.nan_to_num(-torch.inf, torch.inf, -torch.inf)


def _slope(model: VAE, z: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the log joint in z, (1, B, Z), and a root of its expected curvature.

    The latter is 1 + J' F J, lower triangular (1, B, Z, Z) in float64, with the Jacobian J of
    the means and the Fisher information F of the cells that are observed. Differences serve
    for derivatives: they decide on where to draw, and the weights are right in any case.
    """
    a, mask = model.architecture, observed(x, model.architecture)
    assert mask is not None
    one = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    change = torch.finfo(z.dtype).eps ** (1 / 3) * z.abs().clamp(min=1)
    changed = torch.cat((z[None], z + change * one[:, None, None]))  # a component at a time
    change = change.movedim(-1, 0)[..., None]  # (Z, 1, B, 1)
    outputs = model.outputs(changed, c, log_exposure(x, a))
    here = [output[:1] for output in outputs]
    p, nearby = a.family.of(*here), a.family.of(*outputs).mean[1:]
    jacobian = ((nearby - p.mean) / change)[:, 0].movedim(0, 1)  # (B, Z, D)
    of_outputs = p.gradients(here, explained(x, a), mask[None])
    gradient = -z
    for output, of_output in zip(outputs[: a.n_decoded], of_outputs, strict=False):
        gradient += ((output[1:] - output[0]) / change * of_output).sum(-1)[:, 0].T
    weighted = jacobian.double() * (mask * p.information[0])[0, :, None]
    # Rows so far out that nothing can be said of them are drawn as widely as the prior.
    curvature = (weighted @ jacobian.double().mT).nan_to_num(0.0, 0.0, 0.0) + one
    factor, failure = torch.linalg.cholesky_ex(curvature)
    return gradient, torch.where((failure > 0)[:, None, None], one.double(), factor)[None]
