"""What a fitted model says of rows: posteriors, log-likelihoods, means, in bounded memory.

The model is a lone one in the dtype of x. Axes: ``N`` rows, ``D`` columns, ``C``
condition columns, ``S`` draws, ``Z`` components.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from skvae._bounds import gaussian_kl, log_mean_exp
from skvae._heap import keep_freed_memory
from skvae._likelihoods import Likelihood
from skvae._proposals import Proposal
from skvae._rows import Rows
from skvae._vae import VAE, log_exposure, log_prob_observed, observed

# Bytes of the widest tensor of a pass: on a CPU what its cache holds beside the weights, on a
# GPU enough to keep it busy.
_MAX_BYTES = {"cpu": 2**20, "cuda": 2**25}


class Scores(NamedTuple):
    """Of each row, by S draws from q(z|x, c)."""

    log_likelihood: Tensor  # (N,)     importance-weighted: log p(x|c), nearly
    reconstruction: Tensor  # (N,)     E_q[log p(x|z, c)]
    kl: Tensor  # (N, Z)     KL[q(z_j|x, c) || p(z_j)]
    effective_sample_size: Tensor  # (N,)     of the importance weights, 1 to S


def means(model: VAE, x: Rows, c: Tensor) -> Tensor:
    """Means of q(z|x, c) alone, ``(N, Z)``."""

    def answer(rows: slice) -> tuple[Tensor]:
        some, given = x[rows][None], c[None, rows]
        if _is_encoded(model, some):
            return (model.encode_mean(some, given)[0],)
        return (_proposal(model, some, given).q.loc[0],)

    (loc,) = _by_chunks(answer, len(x), _draws_size(model, x, 1))
    return loc


def posterior(model: VAE, x: Rows, c: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of q(z|x, c), ``(N, Z)`` each."""

    def answer(rows: slice) -> tuple[Tensor, Tensor]:
        some, given = x[rows][None], c[None, rows]
        is_encoded = _is_encoded(model, some)
        q = model.encode(some, given) if is_encoded else _proposal(model, some, given).q
        return q.loc[0], q.log_scale[0].exp()

    loc, scale = _by_chunks(answer, len(x), _draws_size(model, x, 1))
    return loc, scale


@torch.no_grad()
def averages(
    model: VAE, x: Rows, c: Tensor, cell: Callable[[Likelihood], Tensor]
) -> tuple[Tensor, Tensor]:
    """Means over rows, in float64: of KL[q(z_j|x, c) || p(z_j)], (Z,), and of ``cell``, (D,).

    The latter of p(x|z, c) at the means of q(z|x, c).
    """
    a = model.architecture
    kl, cells = (
        torch.zeros(n, dtype=torch.float64, device=c.device) for n in (a.n_components, a.n_features)
    )
    size = _pass_size(model)
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        some, given = x[rows][None], c[None, rows]
        q = model.encode(some, given)
        kl += gaussian_kl(*q)[0].sum(0, dtype=torch.float64)
        p = model.decode(q.loc[None], given, log_exposure(some, a))
        cells += cell(p)[0, 0].sum(0, dtype=torch.float64)
    return kl / len(x), cells / len(x)


def scores(model: VAE, x: Rows, c: Tensor, noise: Tensor) -> Scores:
    """``noise`` (S, Z) is the same for every row: a row's scores depend on it alone."""

    def answer(rows: slice) -> Scores:
        some, given = x[rows][None], c[None, rows]
        proposal = _proposal(model, some, given)
        q = proposal.q
        log_px, log_weights = _weighed(model, proposal, some, given, noise)
        if proposal.parts:
            log_px, _ = _weighed(model, Proposal(q), some, given, noise)
        return Scores(
            log_mean_exp(log_weights),
            log_px.mean(0),
            gaussian_kl(q.loc[0], q.log_scale[0]),
            1 / normalised(log_weights, 0).square().sum(0),
        )

    return Scores(*_by_chunks(answer, len(x), _draws_size(model, x, len(noise))))


def _proposal(model: VAE, x: Tensor, c: Tensor) -> Proposal:
    """q(z|x, c) of rows (1, B, ...), and where to draw their z from."""
    # About a mode, every component is changed by itself.
    return Proposal.about(model, x, c, _pass_size(model) // (1 + model.architecture.n_components))


def _is_encoded(model: VAE, x: Tensor) -> bool:
    """Whether the encoder alone gives q(z|x, c): it knows of holes, or there are none."""
    return model.architecture.sees_mask or observed(x, model.architecture) is None


def _weighed(
    model: VAE, proposal: Proposal, x: Tensor, c: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """log p(x|z, c) of draws from the proposal, and their log importance weights, both (S, B).

    x and c are (1, B, ...), the noise (S, Z).
    """
    log_px, log_ratio = (x.new_empty(len(noise), x.shape[1]) for _ in range(2))
    exposure = log_exposure(x, model.architecture)
    for some in _steps(model, len(noise), x.shape[1]):
        z, log_density = proposal.drawn(noise, some)
        p = model.decode(z, c, exposure)
        log_px[some] = log_prob_observed(p, x, model.architecture)[:, 0]
        # log p(z) - log of the proposal's density, whose constants cancel
        log_ratio[some] = (-0.5 * z.square().sum(-1) - log_density)[:, 0]
    # Rows so far out that the dtype holds no density of theirs have none.
    return log_px, (log_px + log_ratio).nan_to_num(-torch.inf, torch.inf, -torch.inf)


def _shares(model: VAE, x: Tensor, c: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draws of z (S, 1, B, Z) for every row, and their importance weights (S, B): sums are 1."""
    proposal = _proposal(model, x, c)
    _, log_weights = _weighed(model, proposal, x, c, noise)
    return proposal.drawn(noise, slice(0, len(noise)))[0], normalised(log_weights, 0)


def normalised(log_weights: Tensor, dim: int) -> Tensor:
    """Weights that sum to one. All alike for rows so far out that none has a density at all."""
    is_lost = log_weights.amax(dim, keepdim=True) == -torch.inf
    return torch.softmax(log_weights.masked_fill(is_lost, 0.0), dim)


def _steps(model: VAE, n_draws: int, n_rows: int) -> Iterator[slice]:
    """The draws in parts of which the decoder takes one at a time."""
    size = max(1, _pass_size(model) // n_rows)
    return (slice(i, i + size) for i in range(0, n_draws, size))


def expected(
    model: VAE, x: Rows, c: Tensor, noise: Tensor, cell: Callable[[Likelihood], Tensor]
) -> Tensor:
    """E[cell | what is observed of x, c], (N, D), by self-normalised importance sampling.

    Mattei & Frellsen, MIWAE, 2019, equation 12. The noise (S, Z) is that of all rows.
    """

    def answer(rows: slice) -> tuple[Tensor]:
        some, given = x[rows][None], c[None, rows]
        z, shares = _shares(model, some, given, noise)
        total = some.new_zeros(some.shape[1], model.architecture.n_features)
        for draws in _steps(model, len(z), len(total)):
            p = model.decode(z[draws], given, log_exposure(some, model.architecture))
            cells = cell(p)[:, 0]
            total += (shares[draws, :, None] * cells).sum(0)
        return (total,)

    (means,) = _by_chunks(answer, len(x), _draws_size(model, x, len(noise)))
    return means


def resampled(
    model: VAE, x: Rows, c: Tensor, noise: Tensor, n: int, generator: torch.Generator
) -> Tensor:
    """Draws of x given what is observed of it, (n, N, D): sampling-importance-resampling.

    Rubin, The SIR algorithm, 1987: z is one of the importance sample, by its weight.
    """

    def answer(rows: slice) -> tuple[Tensor]:
        some, given = x[rows][None], c[None, rows]
        z, shares = _shares(model, some, given, noise)
        by_row = shares.T.to(generator.device)
        chosen = torch.multinomial(by_row, n, True, generator=generator).T.to(z.device)
        kept = z[chosen, 0, torch.arange(z.shape[2], device=z.device)]  # (n, B, Z)
        exposure = log_exposure(some, model.architecture)
        cells = [
            model.decode(kept[draws, None], given, exposure).sample(generator)[:, 0]
            for draws in _steps(model, n, len(by_row))
        ]
        return (torch.cat(cells).transpose(0, 1),)

    (draws,) = _by_chunks(answer, len(x), _draws_size(model, x, max(n, len(noise))))
    return draws.transpose(0, 1)


def decode(
    model: VAE,
    z: Tensor,
    c: Tensor,
    cell: Callable[[Likelihood], Tensor],
    exposure: Tensor | None = None,
) -> Tensor:
    """``cell`` of p(x|z, c), its mean for instance, ``(N, D)``; ``exposure`` is its log (N, 1)."""

    def answer(rows: slice) -> tuple[Tensor]:
        exposed = None if exposure is None else exposure[None, rows]
        return (cell(model.decode(z[None, None, rows], c[None, rows], exposed))[0, 0],)

    (decoded,) = _by_chunks(answer, len(z), _pass_size(model))
    return decoded


@torch.no_grad()
def marginal_kl(loc: Tensor, scale: Tensor, noise: Tensor, rows: Tensor) -> float:
    """KL[q(z) || p(z)] of the aggregate posterior q(z), the mean of q(z|x) over rows.

    By draws z = loc + scale * noise at these rows, whose densities are averaged over
    all posteriors, ``(N, Z)``.
    """
    z = loc[rows] + scale[rows] * noise
    ratios = []
    size = max(1, _MAX_BYTES[loc.device.type] // (loc.element_size() * loc.numel()))
    for some in z.split(size):
        deviation = (some[:, None] - loc) / scale
        log_q = (-0.5 * deviation.square() - scale.log()).sum(-1)  # (some, N)
        ratios.append(log_mean_exp(log_q.T) + 0.5 * some.square().sum(-1))
    return torch.cat(ratios).mean().item()


def _pass_size(model: VAE, n_draws: int = 1) -> int:
    """Rows at once, for which so many numbers each have to fit as well."""
    a, weight = model.architecture, model.encoder.linear.weight
    given = a.n_conditions + a.n_components  # what the decoder reads, once for every draw
    width = max(a.n_features * a.n_decoded, 2 * given, *a.hidden_layer_sizes, n_draws)
    return max(1, _MAX_BYTES[weight.device.type] // (weight.element_size() * width))


def _draws_size(model: VAE, x: Rows, n_draws: int) -> int:
    """The same where z is drawn: rows with holes have matrices of Z x Z for it."""
    a = model.architecture
    if observed(x[slice(0, 1)], a) is not None:
        n_draws = max(n_draws, a.n_components**2)
    return _pass_size(model, n_draws)


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Products in the dtype of their factors, whatever the caller lets torch do."""
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _by_chunks(
    answer: Callable[[slice], tuple[Tensor, ...]], n_rows: int, size: int
) -> list[Tensor]:
    """Answers, each with an axis of rows first, of so many rows at once.

    They are copied to where all of them go: kept as they are, each would lie in the middle of
    the memory that its pass has freed, where the next one then finds no room.
    """
    wholes: list[Tensor] = []
    keep_freed_memory()
    for start in range(0, n_rows, size):
        with torch.inference_mode(), without_autocast():
            parts = answer(slice(start, start + size))
        wholes = wholes or [part.new_empty(n_rows, *part.shape[1:]) for part in parts]
        for whole, part in zip(wholes, parts, strict=True):
            whole[start : start + size] = part
    return wholes
