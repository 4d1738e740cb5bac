"""Bounds on log p(x): pure functions of the terms of one pass through the model.

Axes: ``(S, K, B, Z)`` = draws, models, rows, components.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Terms:
    """What a bound is made of, for z = loc + scale * noise drawn from q(z|x)."""

    log_px: Tensor  # (S, K, B)     log p(x|z)
    z: Tensor  # (S, K, B, Z)
    loc: Tensor  # (K, B, Z)     of q(z|x)
    log_scale: Tensor  # (K, B, Z)     of q(z|x)

    @cached_property  # the bound and its gradient both ask for it
    def log_ratio(self) -> Tensor:
        """log q(z|x) - log p(z), ``(S, K, B)``."""
        deviation = (self.z - self.loc) * (-self.log_scale).exp()
        return (0.5 * (self.z.square() - deviation.square()) - self.log_scale).sum(-1)

    @cached_property  # likewise
    def excess(self) -> Tensor:
        """The variance of q(z|x) less that of the prior, ``(K, B, Z)``."""
        return torch.expm1(2 * self.log_scale)

    @property
    def kl(self) -> Tensor:
        """KL[q(z|x) || N(0, I)] of each component in closed form, ``(K, B, Z)``."""
        return _kl(self.excess, self.loc, self.log_scale)


class Gradients(NamedTuple):
    """Of a bound's mean over rows, with respect to the parameters of q(z|x)."""

    loc: Tensor  # (K, B, Z)
    log_scale: Tensor  # (K, B, Z)


#: The decoder's backward pass: the gradient of the bound with respect to log p(x|z),
#: (S, K, B), to what follows of it for z, (S, K, B, Z).
DecoderBackward = Callable[[Tensor], Tensor]


class Bound(NamedTuple):
    """A bound (K, B), and its gradient; both are functions of the terms and beta (K,)."""

    value: Callable[[Terms, Tensor], Tensor]
    gradients: Callable[[Terms, Tensor, DecoderBackward], Gradients]


def gaussian_kl(loc: Tensor, log_scale: Tensor) -> Tensor:
    """KL[N(loc, exp(log_scale)^2) || N(0, 1)] in nats, element by element."""
    return _kl(torch.expm1(2 * log_scale), loc, log_scale)


def _kl(excess: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    return 0.5 * torch.addcmul(excess, loc, loc) - log_scale


def over_draws(values: Tensor) -> Tensor:
    """The sum over the first axis; what one draw alone has is not copied."""
    return values[0] if len(values) == 1 else values.sum(0)


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """log of the mean over the first axis of exp(log_weights)."""
    return torch.logsumexp(log_weights, 0) - math.log(log_weights.shape[0])


def elbo(terms: Terms, beta: Tensor) -> Tensor:
    """E_q[log p(x|z)] - beta KL[q(z|x) || p(z)], ``(K, B)``; beta is ``(K,)``.

    Kingma & Welling, Auto-Encoding Variational Bayes, 2014; beta: Higgins et al.,
    beta-VAE, 2017.
    """
    log_px = over_draws(terms.log_px) / len(terms.log_px)
    return torch.addcmul(log_px, beta.unsqueeze(1), terms.kl.sum(-1), value=-1)


def elbo_gradients(terms: Terms, beta: Tensor, decoder: DecoderBackward) -> Gradients:
    """By the reparameterisation z = loc + scale * noise, and the KL in closed form."""
    n_draws, _, n_rows = terms.log_px.shape
    z_gradient = decoder(torch.full_like(terms.log_px, 1 / (n_draws * n_rows)))
    of_loc = over_draws(z_gradient)
    of_log_scale = over_draws(z_gradient * (terms.z - terms.loc))
    beta, share = beta.view(-1, 1, 1), -1 / n_rows
    return Gradients(
        torch.addcmul(of_loc, beta, terms.loc, value=share),
        torch.addcmul(of_log_scale, beta, terms.excess, value=share),
    )


def importance_weighted(terms: Terms, beta: Tensor) -> Tensor:
    """log mean exp(log p(x|z) - beta log q(z|x)/p(z)) over the draws, ``(K, B)``.

    Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016.
    """
    return log_mean_exp(_log_weights(terms, beta))


def importance_weighted_gradients(
    terms: Terms, beta: Tensor, decoder: DecoderBackward
) -> Gradients:
    """Doubly reparameterised (DReG) for the encoder: Tucker et al., 2019.

    With w the normalised weights, plain backpropagation gives z the gradient
    w d log_w/dz, and a further term comes from the dependence of log q on its
    parameters. By the reparameterisation of that term, both together are, in
    expectation, w (1 - beta + beta w) d log_w/dz; at beta = 1 this is the w^2 of the
    paper.
    """
    beta_ = beta[:, None]
    w = torch.softmax(_log_weights(terms, beta), 0)
    share = w / w.shape[2]  # of the mean over rows
    deviation = terms.z - terms.loc
    # d (log q - log p) / dz, at fixed parameters of q
    ratio_gradient = terms.z - deviation * (-2 * terms.log_scale).exp()
    z_gradient = decoder(share) - (beta_ * share)[..., None] * ratio_gradient
    z_gradient *= (1 - beta_ + beta_ * w)[..., None]
    return Gradients(z_gradient.sum(0), (z_gradient * deviation).sum(0))


def _log_weights(terms: Terms, beta: Tensor) -> Tensor:
    """``(S, K, B)``"""
    return terms.log_px - beta[:, None] * terms.log_ratio


ELBO = Bound(elbo, elbo_gradients)
IMPORTANCE_WEIGHTED = Bound(importance_weighted, importance_weighted_gradients)
