"""Bounds on log p(x): pure functions of the terms of one pass through the model.

Axes: ``(S, K, B, Z)`` = draws, models, rows, components.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Terms(NamedTuple):
    """What a bound is made of, for z = loc + scale * noise drawn from q(z|x)."""

    log_px: Tensor  # (S, K, B)     log p(x|z)
    z: Tensor  # (S, K, B, Z)
    loc: Tensor  # (K, B, Z)     of q(z|x)
    log_scale: Tensor  # (K, B, Z)     of q(z|x)

    @property
    def kl(self) -> Tensor:
        """KL[q(z|x) || N(0, I)] of each component in closed form, ``(K, B, Z)``."""
        return gaussian_kl(self.loc, self.log_scale)

    @property
    def log_ratio(self) -> Tensor:
        """log q(z|x) - log p(z), ``(S, K, B)``; its gradient flows through z alone.

        The parameters of q are detached here: that is the half of the doubly
        reparameterised gradient which needs no weights. In the value nothing changes.
        """
        deviation = (self.z - self.loc.detach()) * (-self.log_scale.detach()).exp()
        return (0.5 * (self.z.square() - deviation.square()) - self.log_scale.detach()).sum(-1)


def gaussian_kl(loc: Tensor, log_scale: Tensor) -> Tensor:
    """KL[N(loc, exp(log_scale)^2) || N(0, 1)] in nats, element by element."""
    return 0.5 * (loc.square() + (2 * log_scale).exp() - 1) - log_scale


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """log of the mean over the first axis of exp(log_weights)."""
    return torch.logsumexp(log_weights, 0) - math.log(log_weights.shape[0])


def elbo(terms: Terms, beta: Tensor) -> Tensor:
    """E_q[log p(x|z)] - beta KL[q(z|x) || p(z)], ``(K, B)``; beta is ``(K,)``.

    Kingma & Welling, Auto-Encoding Variational Bayes, 2014; beta: Higgins et al.,
    beta-VAE, 2017.
    """
    return terms.log_px.mean(0) - beta[:, None] * terms.kl.sum(-1)


def importance_weighted(terms: Terms, beta: Tensor) -> Tensor:
    """log mean exp(log p(x|z) - beta log q(z|x)/p(z)) over the draws, ``(K, B)``.

    Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016. The encoder
    gets the doubly reparameterised gradient (DReG) of Tucker et al., 2019. With w the
    normalised weights, plain backpropagation gives z the gradient w d log_w/dz, and a
    further term comes from the dependence of log q on its parameters. By the
    reparameterisation of that term, both together are, in expectation,
    w (1 - beta + beta w) d log_w/dz; at beta = 1 this is the w^2 of the paper.
    """
    log_w = terms.log_px - beta[:, None] * terms.log_ratio
    if terms.z.requires_grad:
        w = torch.softmax(log_w.detach(), 0)
        factor = 1 - beta[:, None] + beta[:, None] * w
        terms.z.register_hook(lambda gradient: gradient * factor[..., None])
    return log_mean_exp(log_w)
