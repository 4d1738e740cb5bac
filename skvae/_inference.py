"""What a fitted model says of rows: posteriors, log-likelihoods, means, in bounded memory.

The model is a lone one in the dtype of x. Axes: ``N`` rows, ``D`` columns, ``C``
condition columns, ``S`` draws, ``Z`` components.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from skvae._bounds import gaussian_kl, log_mean_exp
from skvae._likelihoods import Likelihood
from skvae._vae import VAE

# Numbers in the widest tensor of a pass.
_MAX_NUMBERS = 2**21


class Rows(Protocol):
    """x (N, D): a tensor, or what makes the rows that are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...


class Scores(NamedTuple):
    """Of each row, by S draws from q(z|x, c)."""

    log_likelihood: Tensor  # (N,)     importance-weighted: log p(x|c), nearly
    reconstruction: Tensor  # (N,)     E_q[log p(x|z, c)]
    kl: Tensor  # (N, Z)     KL[q(z_j|x, c) || p(z_j)]
    effective_sample_size: Tensor  # (N,)     of the importance weights, 1 to S


def posterior(model: VAE, x: Rows, c: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of q(z|x, c), ``(N, Z)`` each."""

    def answer(rows: slice) -> tuple[Tensor, Tensor]:
        q = model.encode(x[rows][None], c[None, rows])
        return q.loc[0], q.log_scale[0].exp()

    loc, scale = _by_chunks(answer, model, len(x), 1)
    return loc, scale


def scores(model: VAE, x: Rows, c: Tensor, noise: Tensor) -> Scores:
    """``noise`` (S, Z) is the same for every row: a row's scores depend on it alone."""

    def answer(rows: slice) -> Scores:
        terms = model.terms(x[rows][None], c[None, rows], noise[:, None, None])
        log_weights = (terms.log_px - terms.log_ratio)[:, 0]
        return Scores(
            log_mean_exp(log_weights),
            terms.log_px[:, 0].mean(0),
            gaussian_kl(terms.loc[0], terms.log_scale[0]),
            1 / torch.softmax(log_weights, 0).square().sum(0),
        )

    return Scores(*_by_chunks(answer, model, len(x), len(noise)))


def decode(model: VAE, z: Tensor, c: Tensor, cell: Callable[[Likelihood], Tensor]) -> Tensor:
    """``cell`` of p(x|z, c), its mean for instance, ``(N, D)``."""

    def answer(rows: slice) -> tuple[Tensor]:
        return (cell(model.decode(z[None, None, rows], c[None, rows]))[0, 0],)

    (decoded,) = _by_chunks(answer, model, len(z), 1)
    return decoded


@torch.no_grad()
def marginal_kl(loc: Tensor, scale: Tensor, noise: Tensor, rows: Tensor) -> float:
    """KL[q(z) || p(z)] of the aggregate posterior q(z), the mean of q(z|x) over rows.

    By draws z = loc + scale * noise at these rows, whose densities are averaged over
    all posteriors, ``(N, Z)``.
    """
    z = loc[rows] + scale[rows] * noise
    ratios = []
    size = max(1, _MAX_NUMBERS // max(1, loc.numel()))
    for some in z.split(size):
        deviation = (some[:, None] - loc) / scale
        log_q = (-0.5 * deviation.square() - scale.log()).sum(-1)  # (some, N)
        ratios.append(log_mean_exp(log_q.T) + 0.5 * some.square().sum(-1))
    return torch.cat(ratios).mean().item()


@torch.no_grad()
def _by_chunks(
    answer: Callable[[slice], tuple[Tensor, ...]], model: VAE, n_rows: int, n_draws: int
) -> list[Tensor]:
    """Answers, each with an axis of rows first, for as many rows at once as memory allows.

    They are copied to where all of them go: kept as they are, each would lie in the middle of
    the memory that its pass has freed, where the next one then finds no room.
    """
    a = model.architecture
    width = max(a.n_features * a.n_decoded, 2 * a.n_components, *a.hidden_layer_sizes, 1)
    size = max(1, _MAX_NUMBERS // (n_draws * width))
    wholes: list[Tensor] = []
    for start in range(0, n_rows, size):
        parts = answer(slice(start, start + size))
        wholes = wholes or [part.new_empty(n_rows, *part.shape[1:]) for part in parts]
        for whole, part in zip(wholes, parts, strict=True):
            whole[start : start + size] = part
    return wholes
