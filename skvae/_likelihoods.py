"""Likelihoods p(x|z): what a decoder's outputs say about every cell of X.

A likelihood is an immutable object made from the decoder's outputs. It knows the
log density of each cell, the mean, the variance, and how to draw from itself with a
given generator. To add one, write a class like those below and one row in
``LIKELIHOODS``.

Axes: ``(S, K, B, D)`` = draws, models, rows, columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

LOG_2PI = math.log(2 * math.pi)

#: The smallest variance of a gaussian, as a fraction of the column's variance.
VARIANCE_FLOOR = 1e-6

# exp(30) in units of the column's variance: far beyond any data, far below overflow.
_LOG_VARIANCE_CEILING = 30.0


class Support(NamedTuple):
    """The values a likelihood can explain: those of the closed interval."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]"


class Likelihood(Protocol):
    """p(x|z) of every cell. Made by ``of``, one ``(S, K, B, D)`` tensor a parameter.

    A class that derives from this one gets ``gradients`` by autograd.

    ``parameters`` names the outputs. The first always comes from the decoder; the
    others (its dispersion) from where ``Architecture.noise`` says. ``standardised``
    tells whether the model sees columns of mean 0 and variance 1, or X as it is.
    ``is_bits`` tells that values strictly inside the support are probabilities of
    the two ends, from which training draws.
    """

    parameters: ClassVar[tuple[str, ...]]
    support: ClassVar[Support]
    standardised: ClassVar[bool]
    is_bits: ClassVar[bool]

    @classmethod
    def of(cls, *outputs: Tensor) -> Likelihood: ...

    @classmethod
    def start(cls, mean: Tensor, *variance: Tensor) -> tuple[Tensor, ...]:
        """Outputs at which the likelihood has this mean (and variance): inverse of ``of``."""
        ...

    def gradients(self, outputs: Sequence[Tensor], x: Tensor, weights: Tensor) -> Sequence[Tensor]:
        """Of the sum of weights (S, K, B) times log p(x|z), with respect to the outputs.

        ``outputs`` are those that this likelihood was made of; the gradients have their
        shapes. Training asks for them in every step: where a few operations by hand give
        them, these are worth writing.
        """
        # Training is in inference mode, whose tensors autograd takes as copies only.
        with torch.inference_mode(mode=False), torch.enable_grad():
            leaves = [output.detach().clone().requires_grad_() for output in outputs]
            log_px = self.of(*leaves).log_prob(x.clone()).sum(-1)
            return torch.autograd.grad(log_px, leaves, weights.clone())

    def log_prob(self, x: Tensor) -> Tensor: ...

    @property
    def mean(self) -> Tensor: ...

    @property
    def variance(self) -> Tensor: ...

    def sample(self, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """N(x; loc, variance), the variance not below ``VARIANCE_FLOOR``."""

    loc: Tensor
    _variance: Tensor  # of the shape of its output, which may be shared by rows

    parameters: ClassVar[tuple[str, ...]] = ("loc", "log_variance")
    support: ClassVar[Support] = Support(-math.inf, math.inf)
    standardised: ClassVar[bool] = True
    is_bits: ClassVar[bool] = False

    @classmethod
    def of(cls, *outputs: Tensor) -> Gaussian:
        # variance = floor + exp(raw): unlike a clamp, the gradient never dies.
        loc, raw = outputs
        return cls(loc, raw.clamp(max=_LOG_VARIANCE_CEILING).exp() + VARIANCE_FLOOR)

    @classmethod
    def start(cls, mean: Tensor, *variance: Tensor) -> tuple[Tensor, ...]:
        # A raw value far below the floor would take Adam thousands of steps to leave.
        excess = (variance[0] - VARIANCE_FLOOR).clamp(min=0.1 * VARIANCE_FLOOR)
        return mean, excess.log()

    def log_prob(self, x: Tensor) -> Tensor:
        # The variance may be shared by rows: one division for all of them.
        constant, precision = -0.5 * (self._variance.log() + LOG_2PI), -0.5 / self._variance
        return torch.addcmul(constant, (x - self.loc).square_(), precision)

    def gradients(self, outputs: Sequence[Tensor], x: Tensor, weights: Tensor) -> Sequence[Tensor]:
        weights, residual = weights.unsqueeze(-1), x - self.loc
        of_loc = (weights * residual).div_(self._variance)
        # Twice the variance times the gradient of the variance; and d variance / d raw is
        # variance - floor. The ceiling is passed over: what pulls back from it gets through.
        of_variance = torch.addcmul(-weights, of_loc, residual).sum_to_size(outputs[1].shape)
        of_raw = torch.addcdiv(
            0.5 * of_variance, of_variance, self._variance, value=-0.5 * VARIANCE_FLOOR
        )
        return of_loc, of_raw

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self._variance.expand_as(self.loc)

    def sample(self, generator: torch.Generator) -> Tensor:
        return self.loc + self._variance.sqrt() * drawn(torch.randn, self.loc, generator)


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """A bit that is 1 with probability sigmoid(logit).

    At a value x between 0 and 1, ``log_prob`` is the expected log density of a bit
    that is 1 with probability x.
    """

    logit: Tensor

    parameters: ClassVar[tuple[str, ...]] = ("logit",)
    support: ClassVar[Support] = Support(0.0, 1.0)
    standardised: ClassVar[bool] = False
    is_bits: ClassVar[bool] = True

    @classmethod
    def of(cls, *outputs: Tensor) -> Bernoulli:
        return cls(*outputs)

    @classmethod
    def start(cls, mean: Tensor, *variance: Tensor) -> tuple[Tensor, ...]:
        return (torch.logit(mean, eps=1e-4),)

    def gradients(self, outputs: Sequence[Tensor], x: Tensor, weights: Tensor) -> Sequence[Tensor]:
        return (weights[..., None] * (x - self.mean),)

    def log_prob(self, x: Tensor) -> Tensor:
        return (x * self.logit).sub_(functional.softplus(self.logit))

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(self.logit)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)

    def sample(self, generator: torch.Generator) -> Tensor:
        return (drawn(torch.rand, self.logit, generator) < self.mean).to(self.logit.dtype)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": Gaussian,
    "bernoulli": Bernoulli,
}


def drawn(draw: Callable[..., Tensor], like: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers of the shape and dtype of ``like``, drawn where the generator lives."""
    numbers = draw(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
    return numbers.to(like.device)
