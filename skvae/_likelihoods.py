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
from functools import cache, cached_property
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

LOG_PI = math.log(math.pi)
LOG_2PI = math.log(2 * math.pi)

#: The smallest variance of a gaussian, as a fraction of the column's variance.
VARIANCE_FLOOR = 1e-6

#: Overdispersion of a negative binomial, 1 / r: a variance of mean + 1e-4 mean^2 is a Poisson's
#: for all but huge counts.
OVERDISPERSION_FLOOR = 1e-4

#: Degrees of freedom of Student's t: above 2, so that there is a variance; at the ceiling it is
#: a gaussian but for its far tails.
DEGREES_RANGE = (2.1, 1000.0)
_DEGREES_START = 10.0

#: exp(30) in units of the column's variance, or counts: far beyond any data, far below overflow.
LOG_CEILING = 30.0

#: The largest count: exp(LOG_CEILING) is the largest mean.
MOST_COUNT = 1e13

# The least mean of a count, and share of a bit or category, at which a start begins; and the
# most that a count's variance may exceed its mean there, over the mean squared.
_LEAST_MEAN = 1e-4
_MOST_OVERDISPERSION = 1e2

#: In place of 0 where a count divides, or a rate that is less.
TINY = 1e-20

# Of Stirling's series in 1 / y, odd powers, the highest first: from y = 7 on all digits of float64.
_STIRLING = (-691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12)
_DIGAMMA = (-691 / 32760, 1 / 132, -1 / 240, 1 / 252, -1 / 120, 1 / 12)  # likewise, in 1 / x^2
_ABOVE_MINUS_ONE = -1 + 1e-7

#: How a cell of X comes to the model: "standardised" or its "log" standardised; a "count" or a
#: "plain" number as they are, the count with its logarithm for the encoder; a "category" as a
#: column of 0 and 1 for each.
Reading = Literal["standardised", "log", "count", "plain", "category"]


class Support(NamedTuple):
    """The values a likelihood can explain: those of an interval, or the whole ones in it."""

    low: float
    high: float
    is_open: bool = False  # at its lower end
    is_whole: bool = False

    def __str__(self) -> str:
        if self.is_whole:
            return f"{{{self.low:g}, {self.low + 1:g}, ...}}"
        opening = "(" if self.is_open else "["
        closing = ")" if math.isinf(self.high) else "]"
        return f"{opening}{self.low:g}, {self.high:g}{closing}"

    def outside(self, x: Tensor) -> Tensor:
        """Which cells of x are none of these values; NaN is not asked for."""
        below = x <= self.low if self.is_open else x < self.low
        outside = below | (x > self.high)
        return outside | (x > x.floor()) if self.is_whole else outside


class Likelihood(Protocol):
    """p(x|z) of every cell. Made by ``of``, one ``(S, K, B, D)`` tensor a parameter.

    A class that derives from this one gets ``gradients`` by autograd.

    ``parameters`` names the outputs. The first always comes from the decoder; the
    others (its dispersion) from where ``Architecture.noise`` says. ``support`` is that of
    the user's column, ``reading`` what the model sees of it. ``is_bits`` tells that values
    strictly inside the support are probabilities of the two ends, from which training
    draws. ``is_scaled`` tells that the dispersion is a variance in units of the column's,
    which ``Architecture.noise`` may give as a number.
    """

    parameters: ClassVar[tuple[str, ...]]
    support: ClassVar[Support]
    reading: ClassVar[Reading]
    is_bits: ClassVar[bool] = False
    is_scaled: ClassVar[bool] = False

    @classmethod
    def of(cls, *outputs: Tensor) -> Likelihood: ...

    @classmethod
    def sized(cls, sizes: tuple[int, ...]) -> type[Likelihood]:
        """The family for variables of so many columns each, where these have to be told."""
        return cls

    @classmethod
    def start(cls, mean: Tensor, variance: Tensor) -> tuple[Tensor, ...]:
        """Outputs at which the likelihood has this mean, and this variance where it has one of
        its own: the inverse of ``of``.
        """
        ...

    @classmethod
    def slope(cls, mean: Tensor) -> Tensor:
        """Of the first output over the mean, where a start has this mean."""
        return torch.ones_like(mean)

    def gradients(self, outputs: Sequence[Tensor], x: Tensor, weights: Tensor) -> Sequence[Tensor]:
        """Of the sum of weights times the cells' log p(x|z), with respect to the outputs.

        ``outputs`` are those that this likelihood was made of; the gradients have their
        shapes. ``weights`` are (S, K, B, D), or (S, K, B, 1) where all cells of a row have
        the same; the columns of one category have the same in any case. Training asks for
        the gradients in every step: where a few operations by hand give them, these are
        worth writing.
        """
        # Training is in inference mode, whose tensors autograd takes as copies only.
        with torch.inference_mode(mode=False), torch.enable_grad():
            leaves = [output.detach().clone().requires_grad_() for output in outputs]
            cells = self.of(*leaves).log_prob(x.clone())
            return torch.autograd.grad(cells, leaves, weights.clone().expand_as(cells))

    def log_prob(self, x: Tensor) -> Tensor: ...

    @property
    def mean(self) -> Tensor: ...

    def slopes_of_mean(self, outputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
        """Derivatives of the mean, (Z, K, B, D), by the chain rule from those of outputs.

        ``outputs`` are those that this likelihood was made of, of one draw, and ``slopes`` the
        derivatives of the first of them. Right where a cell's mean hangs on its own outputs
        alone. With ``information`` they decide on where z is drawn to score a row.
        """
        with torch.inference_mode(mode=False), torch.enable_grad():
            leaves = [output.detach().clone().requires_grad_() for output in outputs]
            decoded, mean = leaves[: len(slopes)], self.of(*leaves).mean
            of_mean = torch.autograd.grad(mean.sum(), decoded, materialize_grads=True)
        total = torch.zeros_like(slopes[0])
        for of_output, slope in zip(of_mean, slopes, strict=True):
            total.addcmul_(of_output, slope)
        return total

    @property
    def variance(self) -> Tensor: ...

    @property
    def information(self) -> Tensor:
        """Fisher's, of a cell about its mean: that of an exponential family."""
        return 1 / self.variance.clamp(min=TINY)

    def sample(self, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """N(x; loc, variance), the variance not below ``VARIANCE_FLOOR``."""

    loc: Tensor
    _variance: Tensor  # of the shape of its output, which may be shared by rows

    parameters: ClassVar[tuple[str, ...]] = ("loc", "log_variance")
    support: ClassVar[Support] = Support(-math.inf, math.inf)
    reading: ClassVar[Reading] = "standardised"
    is_scaled: ClassVar[bool] = True

    @classmethod
    def of(cls, *outputs: Tensor) -> Gaussian:
        # variance = floor + exp(raw): unlike a clamp, the gradient never dies.
        loc, raw = outputs
        return cls(loc, _above(VARIANCE_FLOOR, raw))

    @classmethod
    def start(cls, mean: Tensor, variance: Tensor) -> tuple[Tensor, ...]:
        return mean, _raw_above(VARIANCE_FLOOR, variance)

    def log_prob(self, x: Tensor) -> Tensor:
        # The variance may be shared by rows: one division for all of them.
        constant = torch.rsub(self._variance.log(), -0.5 * LOG_2PI, alpha=0.5)
        precision = self._variance.reciprocal()
        return torch.addcmul(constant, (x - self.loc).square_(), precision, value=-0.5)

    def gradients(self, outputs: Sequence[Tensor], x: Tensor, weights: Tensor) -> Sequence[Tensor]:
        residual = x - self.loc
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

    def slopes_of_mean(self, outputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
        return slopes[0]

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
    reading: ClassVar[Reading] = "plain"
    is_bits: ClassVar[bool] = True

    @classmethod
    def of(cls, *outputs: Tensor) -> Bernoulli:
        return cls(*outputs)

    @classmethod
    def start(cls, mean: Tensor, variance: Tensor) -> tuple[Tensor, ...]:
        return (torch.logit(mean, eps=_LEAST_MEAN),)

    @classmethod
    def slope(cls, mean: Tensor) -> Tensor:
        mean = mean.clamp(_LEAST_MEAN, 1 - _LEAST_MEAN)
        return 1 / (mean * (1 - mean))

    def gradients(self, outputs: Sequence[Tensor], x: Tensor, weights: Tensor) -> Sequence[Tensor]:
        return (weights * (x - self.mean),)

    def log_prob(self, x: Tensor) -> Tensor:
        return (x * self.logit).sub_(functional.softplus(self.logit))

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(self.logit)

    def slopes_of_mean(self, outputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
        return self.variance * slopes[0]

    @property
    def variance(self) -> Tensor:
        return torch.sigmoid(self.logit) * torch.sigmoid(-self.logit)  # near 1 no digits are lost

    def sample(self, generator: torch.Generator) -> Tensor:
        return (drawn(torch.rand, self.logit, generator) < self.mean).to(self.logit.dtype)


@dataclass(frozen=True)
class LogNormal(Gaussian):
    """A positive number whose logarithm is gaussian.

    The model sees the logarithm, standardised: on it the density is that of a gaussian, and
    what the logarithm does to the density is known to ``ColumnCodec``.
    """

    support: ClassVar[Support] = Support(0.0, math.inf, is_open=True)
    reading: ClassVar[Reading] = "log"


@dataclass(frozen=True)
class StudentT(Likelihood):
    """Student's t of location loc: a gaussian that expects outliers.

    Its degrees of freedom lie in ``DEGREES_RANGE``; the square of its scale is not below
    ``VARIANCE_FLOOR``.
    """

    loc: Tensor
    _square: Tensor  # of the scale
    _degrees: Tensor

    parameters: ClassVar[tuple[str, ...]] = ("loc", "log_square", "log_degrees")
    support: ClassVar[Support] = Support(-math.inf, math.inf)
    reading: ClassVar[Reading] = "standardised"

    @classmethod
    def of(cls, *outputs: Tensor) -> StudentT:
        loc, square, degrees = outputs
        low, high = DEGREES_RANGE
        degrees = low + degrees.clamp(max=math.log(high - low)).exp()
        return cls(loc, _above(VARIANCE_FLOOR, square), degrees)

    @classmethod
    def start(cls, mean: Tensor, variance: Tensor) -> tuple[Tensor, ...]:
        square = variance * (1 - 2 / _DEGREES_START)
        degrees = torch.full_like(mean, math.log(_DEGREES_START - DEGREES_RANGE[0]))
        return mean, _raw_above(VARIANCE_FLOOR, square), degrees

    def log_prob(self, x: Tensor) -> Tensor:
        half, spread = self._degrees / 2, self._degrees * self._square
        constant = torch.lgamma(half + 0.5) - torch.lgamma(half) - 0.5 * (spread.log() + LOG_PI)
        return constant - (half + 0.5) * torch.log1p((x - self.loc).square() / spread)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (self._square * self._degrees / (self._degrees - 2)).expand_as(self.loc)

    @property
    def information(self) -> Tensor:
        information = (self._degrees + 1) / ((self._degrees + 3) * self._square)
        return information.expand_as(self.loc)

    def sample(self, generator: torch.Generator) -> Tensor:
        half = (self._degrees / 2).expand_as(self.loc)
        scale = (self._square * half / drawn_gamma(half, generator)).sqrt()
        return self.loc + scale * drawn(torch.randn, self.loc, generator)


@dataclass(frozen=True)
class Poisson(Likelihood):
    """A count of events that do not know of each other; the logarithm of their rate."""

    log_rate: Tensor

    parameters: ClassVar[tuple[str, ...]] = ("log_rate",)
    support: ClassVar[Support] = Support(0.0, math.inf, is_whole=True)
    reading: ClassVar[Reading] = "count"

    @classmethod
    def of(cls, *outputs: Tensor) -> Poisson:
        return cls(*outputs)

    @classmethod
    def start(cls, mean: Tensor, variance: Tensor) -> tuple[Tensor, ...]:
        return (mean.clamp(min=_LEAST_MEAN).log(),)

    @classmethod
    def slope(cls, mean: Tensor) -> Tensor:
        return 1 / mean.clamp(min=_LEAST_MEAN)

    def gradients(self, outputs: Sequence[Tensor], x: Tensor, weights: Tensor) -> Sequence[Tensor]:
        return (weights * (x - self.mean),)

    def log_prob(self, x: Tensor) -> Tensor:
        mean = self.mean.clamp(min=TINY)
        return x - mean - x * _log_1p((x - mean) / mean) - _beyond_stirling(x)

    @property
    def mean(self) -> Tensor:
        return self.log_rate.clamp(max=LOG_CEILING).exp()

    @property
    def variance(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator) -> Tensor:
        return drawn_poisson(self.mean, generator)


@dataclass(frozen=True)
class NegativeBinomial(Likelihood):
    """A count whose rate is itself uncertain: a gamma's of shape r, variance mean + mean^2 / r.

    1 / r, the overdispersion, is not below ``OVERDISPERSION_FLOOR``.
    """

    log_mean: Tensor
    _r: Tensor

    parameters: ClassVar[tuple[str, ...]] = ("log_mean", "log_overdispersion")
    support: ClassVar[Support] = Support(0.0, math.inf, is_whole=True)
    reading: ClassVar[Reading] = "count"

    @classmethod
    def of(cls, *outputs: Tensor) -> NegativeBinomial:
        log_mean, raw = outputs
        return cls(log_mean, 1 / _above(OVERDISPERSION_FLOOR, raw))

    @classmethod
    def start(cls, mean: Tensor, variance: Tensor) -> tuple[Tensor, ...]:
        mean = mean.clamp(min=_LEAST_MEAN)
        excess = ((variance - mean) / mean.square()).clamp(max=_MOST_OVERDISPERSION)
        return mean.log(), _raw_above(OVERDISPERSION_FLOOR, excess)

    @classmethod
    def slope(cls, mean: Tensor) -> Tensor:
        return 1 / mean.clamp(min=_LEAST_MEAN)

    def gradients(self, outputs: Sequence[Tensor], x: Tensor, weights: Tensor) -> Sequence[Tensor]:
        r, odds = self._r, self._log_odds
        failed = torch.sigmoid(-odds)  # r / (r + mean)
        of_log_mean = weights * (x * failed - r * torch.sigmoid(odds))
        # The logarithms of digamma, which all but cancel where r is large, by what x is away.
        away = (x - self.mean) * failed / r
        of_r = _digamma_beyond_log(x + r) - _digamma_beyond_log(r) + _log_1p(away) - away
        of_r = weights * of_r
        # d r / d raw = -r^2 (1 / r - floor)
        rate = r * (OVERDISPERSION_FLOOR * r - 1)
        return of_log_mean, (of_r * rate).sum_to_size(outputs[1].shape)

    def log_prob(self, x: Tensor) -> Tensor:
        r, n, mean = self._r, self._r + x, self.mean
        ways = _beyond_stirling(n) - _beyond_stirling(r) - _beyond_stirling(x) + (r / n).log()
        # x log(x / n) + r log(r / n) beside their expectations, both from what x is away from it.
        away = x - mean
        low, high = torch.minimum(x, mean), torch.maximum(x, mean)
        of_x = (r / (r + high) * away.abs() / low.clamp(min=TINY)).log1p().copysign(away)
        of_r = (away.abs() / (r + low)).log1p().copysign(away)
        return ways - x * of_x + r * of_r

    @property
    def _log_odds(self) -> Tensor:
        return self.log_mean - self._r.log()

    @property
    def mean(self) -> Tensor:
        return self.log_mean.clamp(max=LOG_CEILING).exp()

    @property
    def variance(self) -> Tensor:
        return self.mean + self.mean.square() / self._r

    def sample(self, generator: torch.Generator) -> Tensor:
        r = self._r.expand_as(self.log_mean)
        return drawn_poisson(self.mean / r * drawn_gamma(r, generator), generator)


@dataclass(frozen=True)
class Categorical(Likelihood):
    """One of several categories, a column of 0 and 1 for each: a softmax of their logits.

    The log density of a variable is spread over its columns: it stands in that of its
    category. ``sizes`` are the numbers of columns of the variables, side by side; without
    any, all columns are those of one.
    """

    logit: Tensor

    parameters: ClassVar[tuple[str, ...]] = ("logit",)
    support: ClassVar[Support] = Support(0.0, 1.0)  # of one of its columns
    reading: ClassVar[Reading] = "category"
    sizes: ClassVar[tuple[int, ...]] = ()

    @classmethod
    def of(cls, *outputs: Tensor) -> Categorical:
        return cls(*outputs)

    @classmethod
    def sized(cls, sizes: tuple[int, ...]) -> type[Likelihood]:
        return type(cls.__name__, (cls,), {"sizes": sizes})

    @classmethod
    def start(cls, mean: Tensor, variance: Tensor) -> tuple[Tensor, ...]:
        return (mean.clamp(min=_LEAST_MEAN).log(),)

    @classmethod
    def slope(cls, mean: Tensor) -> Tensor:
        return 1 / mean.clamp(min=_LEAST_MEAN)

    def gradients(self, outputs: Sequence[Tensor], x: Tensor, weights: Tensor) -> Sequence[Tensor]:
        return (weights * (x - self.mean),)

    def log_prob(self, x: Tensor) -> Tensor:
        return x * self._log_share

    @cached_property  # the density and its gradient both ask for it
    def _log_share(self) -> Tensor:
        logits, of_column = self._by_variable(self.logit)
        return self.logit - logits.logsumexp(-1).index_select(-1, of_column)

    def _by_variable(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values (..., V, widest), filled up with -inf; and of each column its variable, (D,)."""
        sizes = self.sizes or (values.shape[-1],)
        of_column, place = _layout(sizes, values.device)
        filled = values.new_full((*values.shape[:-1], len(sizes) * max(sizes)), -torch.inf)
        filled.index_copy_(-1, place, values)
        return filled.unflatten(-1, (len(sizes), max(sizes))), of_column

    @property
    def mean(self) -> Tensor:
        return self._log_share.exp()

    def slopes_of_mean(self, outputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
        mean, slope = self.mean, slopes[0]
        of_column = self._by_variable(mean)[1]
        changes = mean * slope
        of_variable = changes.new_zeros(*changes.shape[:-1], int(of_column[-1]) + 1)
        of_variable.index_add_(-1, of_column, changes)
        return changes.addcmul_(mean, of_variable.index_select(-1, of_column), value=-1)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)

    @property
    def information(self) -> Tensor:
        """Of the categories of a variable together: their means sum to one."""
        return 1 / self.mean.clamp(min=TINY)

    def sample(self, generator: torch.Generator) -> Tensor:
        # Gumbel's trick: the largest of log p + noise is a draw.
        uniform = drawn(torch.rand, self.logit, generator)
        noise = -torch.log(-torch.log(uniform))  # -inf at 0: never the largest
        noisy = self._log_share + noise
        by_variable, of_column = self._by_variable(noisy)
        return (noisy == by_variable.amax(-1).index_select(-1, of_column)).to(noisy.dtype)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": Gaussian,
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "student_t": StudentT,
    "lognormal": LogNormal,
}


@cache  # for good: a CUDA graph that was captured reads them where they are
@torch.inference_mode(mode=False)
def _layout(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each column its variable, and its place where all variables are the widest."""
    variables = [(i, i * max(sizes) + j) for i, n in enumerate(sizes) for j in range(n)]
    of_column, place = torch.tensor(variables, device=device).T.contiguous()
    return of_column, place


def _beyond_stirling(x: Tensor) -> Tensor:
    """What log gamma(x + 1) exceeds x log x - x by; 0 at 0.

    Log densities of counts are differences of numbers that are a million times as large. With
    the large part left out of each, as here, and met again as a deviance, they keep their
    digits (Loader, Fast and accurate computation of binomial probabilities, 2000).

    Stirling's series serves from 7 on: gamma(x + 1) = gamma(y) / ((x + 1) ... (x + 6)) with
    y = x + 7, and x + 7 - i = y (1 - i / y).
    """
    t = 1 / (x + 7)
    square, linear = t * t, 1 - 7 * t
    series = _polynomial(_STIRLING, square)
    steps = (linear + 6 * square) * (linear + 10 * square) * (linear + 12 * square)
    far = x * (7 / x.clamp(min=TINY)).log1p() - 7
    return far + 0.5 * (LOG_2PI - (t * steps * steps).log()) + t * series


def _digamma_beyond_log(x: Tensor) -> Tensor:
    """digamma(x) - log(x), whose digits are kept where both are large.

    From 7 on by the asymptotic series.
    """
    t = 1 / x.clamp(min=7)
    square = t * t
    series = _polynomial(_DIGAMMA, square)
    return torch.where(x < 7, torch.digamma(x) - x.log(), -t / 2 - square * series)


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """By Horner's rule, the coefficient of the highest power first."""
    value = torch.zeros_like(x)
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


def _log_1p(value: Tensor) -> Tensor:
    """log(1 + value), finite at -1, where a count of 0 multiplies it."""
    return value.clamp(min=_ABOVE_MINUS_ONE).log1p()


def _above(floor: float, raw: Tensor) -> Tensor:
    """floor + exp(raw): unlike with a clamp, the gradient never dies."""
    return raw.clamp(max=LOG_CEILING).exp() + floor


def _raw_above(floor: float, value: Tensor) -> Tensor:
    """The inverse. A raw value far below the floor would take Adam thousands of steps to leave."""
    return (value - floor).clamp(min=0.1 * floor).log()


def drawn(draw: Callable[..., Tensor], like: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers of the shape and dtype of ``like``, drawn where the generator lives."""
    numbers = draw(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
    return numbers.to(like.device)


def drawn_poisson(rate: Tensor, generator: torch.Generator) -> Tensor:
    """Counts of these rates, drawn where the generator lives."""
    return torch.poisson(rate.to(generator.device), generator).to(rate.device)


def drawn_gamma(shape: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma numbers of these shapes and rate 1; torch's own take no generator.

    Marsaglia & Tsang, A simple method for generating gamma variables, 2000: at shapes of at
    least 1, at most one draw in twenty is drawn again. A smaller shape a is that of
    gamma(a + 1) u^(1/a).
    """
    d = torch.where(shape < 1, shape + 1, shape) - 1 / 3
    gamma = torch.full_like(d, torch.nan)
    waits = d.isfinite()
    while waits.any():
        some = d[waits]
        normal = drawn(torch.randn, some, generator)
        cube = (1 + normal / (9 * some).sqrt()) ** 3
        # Of a cube below 0 the logarithm is NaN: it is not accepted.
        bound = 0.5 * normal.square() + some * (1 - cube + cube.log())
        accepted = drawn(torch.rand, some, generator).log() < bound
        gamma[waits] = torch.where(accepted, some * cube, torch.nan)
        waits = gamma.isnan() & d.isfinite()
    boost = drawn(torch.rand, d, generator) ** (1 / shape)
    return torch.where(shape < 1, gamma * boost, gamma)
