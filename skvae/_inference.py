"""What a fitted model says of rows: posteriors, log-likelihoods, means, in bounded memory.

The model is a lone one in the dtype of x. Axes: ``N`` rows, ``D`` columns, ``C``
condition columns, ``S`` draws, ``Z`` components.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from skvae._bounds import gaussian_kl, log_mean_exp
from skvae._likelihoods import Likelihood
from skvae._memory import keep_freed_memory
from skvae._packs import n_parameters
from skvae._proposals import Proposal
from skvae._rows import Rows
from skvae._threads import ONE_THREAD_OPERATIONS, share
from skvae._vae import VAE, Posterior, log_exposure, log_prob_observed, observed

# Bytes of the widest tensor of a pass: on a CPU what its cache holds beside the weights, on a
# GPU enough to keep it busy.
_MAX_BYTES = {"cpu": 2**20, "cuda": 2**25}

# Draws of z may take so many times as much: they are read once.
_DRAWN = 4

# Multiply-adds that are worth a thread of their own: a millisecond or two, for which it may have
# to wait while threads that shared an operation before look out for another one.
_OPERATIONS_A_THREAD = 5 * ONE_THREAD_OPERATIONS


class Scores(NamedTuple):
    """Of each row, by S draws with importance weights."""

    log_likelihood: Tensor  # (N,)     log p(x|c), nearly
    effective_sample_size: Tensor  # (N,)     1 to S


class ELBOTerms(NamedTuple):
    """Of each row, by S draws from q(z|x, c)."""

    reconstruction: Tensor  # (N,)     E_q[log p(x|z, c)]
    kl: Tensor  # (N,)     KL[q(z|x, c) || p(z)]


def means(model: VAE, x: Rows, c: Tensor) -> Tensor:
    """Means of q(z|x, c) alone, ``(N, Z)``."""

    def answer(rows: slice) -> tuple[Tensor]:
        some, given = x[rows][None], c[None, rows]
        if _is_encoded(model, some):
            return (model.encode_mean(some, given)[0],)
        return (_posterior(model, some, given).loc[0],)

    (loc,) = _by_chunks(model, answer, len(x), _draws_size(model, 1))
    return loc


def posterior(model: VAE, x: Rows, c: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of q(z|x, c), ``(N, Z)`` each."""

    def answer(rows: slice) -> tuple[Tensor, Tensor]:
        some, given = x[rows][None], c[None, rows]
        q = _posterior(model, some, given)
        return q.loc[0], q.log_scale[0].exp()

    loc, scale = _by_chunks(model, answer, len(x), _draws_size(model, 1))
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


def scores(model: VAE, x: Rows, c: Tensor, noise: Tensor, *, only_holes: bool = False) -> Scores:
    """``noise`` (S, Z) is the same for every row: a row's scores depend on it alone.

    With ``only_holes`` z of complete rows is drawn from q(z|x, c) alone.
    """

    def answer(rows: slice) -> Scores:
        some, given = x[rows][None], c[None, rows]
        _, log_weights = _weighed(model, some, given, noise, only_holes)
        return Scores(log_mean_exp(log_weights), 1 / normalised(log_weights, 0).square().sum(0))

    return Scores(*_by_chunks(model, answer, len(x), _draws_size(model, len(noise)), len(noise)))


def elbo_terms(model: VAE, x: Rows, c: Tensor, noise: Tensor) -> ELBOTerms:
    """``noise`` (S, Z) is the same for every row."""

    def answer(rows: slice) -> ELBOTerms:
        some, given = x[rows][None], c[None, rows]
        q = _posterior(model, some, given)
        log_px = _log_px(model, q.rsample(noise[:, None, None]), some, given)
        return ELBOTerms(log_px.mean(0), gaussian_kl(q.loc[0], q.log_scale[0]).sum(1))

    return ELBOTerms(*_by_chunks(model, answer, len(x), _draws_size(model, len(noise)), len(noise)))


def _is_encoded(model: VAE, x: Tensor) -> bool:
    """Whether the encoder alone gives q(z|x, c): it knows of holes, or there are none."""
    return model.architecture.sees_mask or observed(x, model.architecture) is None


def _posterior(model: VAE, x: Tensor, c: Tensor) -> Posterior:
    """q(z|x, c) of rows (1, B, ...)."""
    if _is_encoded(model, x):
        return model.encode(x, c)
    return Proposal.of(model, x, c, _pass_size(model), only_holes=True).q


def _log_px(model: VAE, z: Tensor, x: Tensor, c: Tensor) -> Tensor:
    """log p(x|z, c) of z (S, 1, B, Z), (S, B); the decoder takes a few draws at a time."""
    log_px, exposure = x.new_empty(len(z), x.shape[1]), log_exposure(x, model.architecture)
    for some in _steps(model, *log_px.shape):
        p = model.decode(z[some], c, exposure)
        log_px[some] = log_prob_observed(p, x, model.architecture)[:, 0]
    return log_px


def _weighed(
    model: VAE, x: Tensor, c: Tensor, noise: Tensor, only_holes: bool = False
) -> tuple[Tensor, Tensor]:
    """Draws of z (S, 1, B, Z) for rows x, c (1, B, ...), and log importance weights (S, B)."""
    proposal = Proposal.of(model, x, c, _pass_size(model), only_holes=only_holes)
    z, log_density = proposal.drawn(noise)
    # log p(z) less the log of the proposal's density, whose constants cancel
    log_ratio = (-0.5 * z.square().sum(-1) - log_density)[:, 0]
    log_weights = _log_px(model, z, x, c) + log_ratio
    # Rows so far out that the dtype holds no density of theirs have none.
    return z, log_weights.nan_to_num(-torch.inf, torch.inf, -torch.inf)


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
) -> tuple[Tensor, Tensor]:
    """E[cell | what is observed of x, c], (N, D), by self-normalised importance sampling.

    Mattei & Frellsen, MIWAE, 2019, equation 12. The noise (S, Z) is that of all rows. With it
    log p(what is observed of x|c) by the same draws, (N,).
    """

    def answer(rows: slice) -> tuple[Tensor, Tensor]:
        some, given = x[rows][None], c[None, rows]
        z, log_weights = _weighed(model, some, given, noise)
        shares = normalised(log_weights, 0)
        total = some.new_zeros(some.shape[1], model.architecture.n_features)
        for draws in _steps(model, len(z), len(total)):
            p = model.decode(z[draws], given, log_exposure(some, model.architecture))
            cells = cell(p)[:, 0]
            total += (shares[draws, :, None] * cells).sum(0)
        return total, log_mean_exp(log_weights)

    size = _draws_size(model, len(noise))
    means, log_likelihood = _by_chunks(model, answer, len(x), size, len(noise))
    return means, log_likelihood


def resampled(
    model: VAE, x: Rows, c: Tensor, noise: Tensor, n: int, generator: torch.Generator
) -> Tensor:
    """Draws of x given what is observed of it, (n, N, D): sampling-importance-resampling.

    Rubin, The SIR algorithm, 1987: z is one of the importance sample, by its weight.
    """

    def answer(rows: slice) -> tuple[Tensor]:
        some, given = x[rows][None], c[None, rows]
        z, log_weights = _weighed(model, some, given, noise)
        by_row = normalised(log_weights, 0).T.to(generator.device)
        chosen = torch.multinomial(by_row, n, True, generator=generator).T.to(z.device)
        kept = z[chosen, 0, torch.arange(z.shape[2], device=z.device)]  # (n, B, Z)
        exposure = log_exposure(some, model.architecture)
        cells = [
            model.decode(kept[draws, None], given, exposure).sample(generator)[:, 0]
            for draws in _steps(model, n, len(by_row))
        ]
        return (torch.cat(cells).transpose(0, 1),)

    n_draws = max(n, len(noise))
    size = _draws_size(model, n_draws)
    (draws,) = _by_chunks(model, answer, len(x), size, n_draws, is_random=True)
    return draws.transpose(0, 1)


def decode(
    model: VAE,
    z: Tensor,
    c: Tensor,
    cell: Callable[[Likelihood], Tensor],
    exposure: Tensor | None = None,
    *,
    is_random: bool = False,
) -> Tensor:
    """``cell`` of p(x|z, c), its mean for instance, ``(N, D)``; ``exposure`` is its log (N, 1).

    ``is_random`` tells that it draws.
    """

    def answer(rows: slice) -> tuple[Tensor]:
        exposed = None if exposure is None else exposure[None, rows]
        return (cell(model.decode(z[None, None, rows], c[None, rows], exposed))[0, 0],)

    (decoded,) = _by_chunks(model, answer, len(z), _pass_size(model), is_random=is_random)
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


def _draws_size(model: VAE, n_draws: int) -> int:
    """Rows at once where z is drawn: its draws are read once, as are matrices of Z x Z."""
    n_components = model.architecture.n_components
    return _pass_size(model, max(n_draws * n_components // _DRAWN, n_components**2))


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Products in the dtype of their factors, whatever the caller lets torch do."""
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _by_chunks(
    model: VAE,
    answer: Callable[[slice], tuple[Tensor, ...]],
    n_rows: int,
    size: int,
    n_draws: int = 1,
    *,
    is_random: bool = False,
) -> list[Tensor]:
    """Answers, each with an axis of rows first, of so many rows at once at most.

    On a CPU the chunks of what takes long are answered side by side, a thread each; but what
    draws random numbers is asked in order, and its chunks do not hang on the threads there are.

    Answers are copied to where all of them go: kept as they are, each would lie in the middle
    of the memory that its pass has freed, where the next one then finds no room.
    """
    operations = n_rows * n_draws * n_parameters(model.architecture)
    n_threads = n_wanted = 1
    if operations >= 2 * _OPERATIONS_A_THREAD:
        n_wanted = min(torch.get_num_threads(), int(operations // _OPERATIONS_A_THREAD))
        n_threads = 1 if is_random else min(n_wanted, n_rows)
        if n_threads > 1:  # as many chunks for each
            size = math.ceil(n_rows / (math.ceil(n_rows / size / n_threads) * n_threads))
    wholes: list[Tensor] = []
    lock = threading.Lock()

    def fill(rows: slice) -> None:
        with torch.inference_mode(), without_autocast():
            parts = answer(rows)
        # As other tensors are, whatever mode the caller is in: a helper is in none.
        with torch.inference_mode(mode=False), torch.no_grad():
            with lock:
                if not wholes:
                    wholes.extend(part.new_empty(n_rows, *part.shape[1:]) for part in parts)
            for whole, part in zip(wholes, parts, strict=True):
                whole[rows] = part

    keep_freed_memory()
    tasks = [partial(fill, slice(start, start + size)) for start in range(0, n_rows, size)]
    is_on_cpu = model.encoder.linear.weight.device.type == "cpu"
    if is_on_cpu and (n_threads > 1 or n_wanted == 1):
        share(tasks, n_threads)
    else:
        for task in tasks:
            task()
    return wholes
