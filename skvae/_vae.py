"""The variational autoencoder: q(z|x, c), p(x|z, c), and K of them stacked into one.

Axes: ``(S, K, B, D)`` = draws, models, rows, columns; ``Z`` components, ``C`` condition
columns (0 without a condition), ``P`` parameters of a likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from skvae._bounds import Terms
from skvae._joint import Parts, family_of, named_columns
from skvae._likelihoods import LIKELIHOODS, Likelihood
from skvae._linear_start import LinearModel
from skvae._networks import Perceptron
from skvae._rows import Chosen, Rows, mean_rows

#: Wide enough for any posterior (the variance floor of the likelihood holds it above
#: exp(-11) for up to a thousand columns), narrow enough that nothing overflows.
LOG_SCALE_RANGE = (-14.0, 7.0)

# The decoder's outputs start near the column means: a random start begins at the
# model that explains nothing rather than at one that is wrong.
_HEAD_GAIN = 0.1


# Of a start of other likelihoods than gaussian ones. An output follows the column by at most so
# many for a standard deviation of it: logits and logarithms of rare things, whose slope is
# steeper, would overshoot.
_STEEPEST = 2.0
_LEAST_VARIANCE = 1e-8
_MAX_ROWS = 10_000


@dataclass(frozen=True)
class Architecture:
    """Sizes and names: all it takes to build a network of the same shape.

    ``noise`` says where the likelihood's dispersion comes from: a parameter for each
    column ("feature"), one for all of a family ("shared"), the decoder ("decoder"); a
    number is the variance of the families that have one in units of the column's, and for
    the others "feature".

    A row of x has the ``n_features`` columns that the likelihood explains first, then the
    logarithms of the counts among them, which come first and of which the encoder sees the
    logarithms alone; and then, where cells are missing, the mask of those that are
    observed, 1 or 0. Missing cells are 0. With ``sees_mask`` the encoder sees it too. With
    ``has_exposure`` the last column is a logarithm that is added to the first output for every
    count: a row has so many times the counts.
    """

    n_features: int
    n_components: int
    n_conditions: int = 0
    hidden_layer_sizes: tuple[int, ...] = (128, 128)
    activation: str = "silu"
    likelihood: str | Parts = "gaussian"
    noise: Literal["feature", "shared", "decoder"] | float = "feature"
    sees_mask: bool = False
    has_exposure: bool = False

    @cached_property  # asked for in every step
    def n_counts(self) -> int:
        """Columns that are counts."""
        return sum(
            len(range(*columns.indices(self.n_features)))
            for name, columns in named_columns(self.likelihood)
            if LIKELIHOODS[name].reading == "count"
        )

    @property
    def n_seen(self) -> int:
        """Columns that the encoder sees, but for those of the condition."""
        return self.n_features * (1 + self.sees_mask)

    @property
    def family(self) -> type[Likelihood]:
        return family_of(self.likelihood, None if isinstance(self.noise, str) else self.noise)

    @property
    def is_standardised(self) -> bool:
        """Whether encoder and likelihood have the same columns, of mean 0 and variance 1."""
        readings = {LIKELIHOODS[name].reading for name, _ in named_columns(self.likelihood)}
        return readings <= {"standardised", "log"}

    @property
    def bits(self) -> slice:
        """The columns in which values between 0 and 1 are probabilities of bits."""
        for name, columns in named_columns(self.likelihood):
            if LIKELIHOODS[name].is_bits:
                return slice(*columns.indices(self.n_features))
        return slice(0, 0)

    @property
    def n_dispersions(self) -> int:
        """Parameters of the likelihood after the first, those that are learned."""
        return len(self.family.parameters) - 1

    @property
    def n_decoded(self) -> int:
        """Parameters of the likelihood which the decoder gives: P."""
        return 1 + (self.n_dispersions if self.noise == "decoder" else 0)


class Posterior(NamedTuple):
    """q(z|x) = N(loc, exp(log_scale)^2), both ``(K, B, Z)``."""

    loc: Tensor
    log_scale: Tensor

    @classmethod
    def of(cls, encoded: Tensor) -> Posterior:
        """From the encoder's outputs, (K, B, 2, Z)."""
        loc, log_scale = encoded.unbind(2)
        return cls(loc, log_scale.clamp(*LOG_SCALE_RANGE))

    def rsample(self, noise: Tensor) -> Tensor:
        """The reparameterisation trick: standard normal noise (S, K, B, Z) -> z."""
        return torch.addcmul(self.loc, self.log_scale.exp(), noise)

    def log_density(self, z: Tensor) -> Tensor:
        """(S, K, B, Z) -> (S, K, B), but for the constant of all normal densities."""
        deviation = (z - self.loc) * (-self.log_scale).exp()
        return self.log_peak - 0.5 * deviation.square_().sum(-1)

    @property
    def log_peak(self) -> Tensor:
        """The log density at ``loc``, (K, B), but for that constant."""
        return -self.log_scale.sum(-1)


class VAE(nn.Module):
    """K variational autoencoders of one architecture; a lone model is K = 1."""

    def __init__(
        self, architecture: Architecture, n_models: int = 1, device: str | torch.device = "cpu"
    ) -> None:
        super().__init__()
        a = architecture
        self.architecture = a
        n_features, hidden = a.n_features, a.hidden_layer_sizes
        self.encoder = Perceptron(
            n_models,
            a.n_conditions + a.n_seen,
            hidden,
            (2, a.n_components),
            a.activation,
            device,
        )
        self.decoder = Perceptron(
            n_models,
            a.n_conditions + a.n_components,
            hidden[::-1],
            (a.n_decoded, n_features),
            a.activation,
            device,
        )
        n_free = 0 if a.noise == "decoder" else a.n_dispersions
        width = len(named_columns(a.likelihood)) if a.noise == "shared" else n_features
        self.dispersion = nn.Parameter(  # (K, P - 1 or 0, D or 1 for each family)
            torch.zeros(n_models, n_free, width, dtype=torch.float32, device=device)
        )

    def encode(self, x: Tensor, c: Tensor) -> Posterior:
        """(K, B, D), (K, B, C) -> q(z|x, c)."""
        return Posterior.of(self.encoder(join(c, seen(x, self.architecture))))

    def encode_mean(self, x: Tensor, c: Tensor) -> Tensor:
        """The means of q(z|x, c) alone, (K, B, Z)."""
        return self.encoder.first(join(c, seen(x, self.architecture)))

    def decode(self, z: Tensor, c: Tensor, log_exposure: Tensor | None = None) -> Likelihood:
        """(S, K, B, Z), (K, B, C), (K, B, 1) -> p(x|z, c), its parameters (S, K, B, D)."""
        return self.architecture.family.of(*self.outputs(z, c, log_exposure))

    def outputs(self, z: Tensor, c: Tensor, log_exposure: Tensor | None = None) -> list[Tensor]:
        """What the likelihood is made of: (S, K, B, D) from the decoder, then dispersions."""
        decoded = by_draw(self.decoder(decoder_inputs(z, c)), len(z))
        expose(decoded, log_exposure, self.architecture)
        return [*decoded.unbind(3), *self.dispersions()]

    def outputs_and_slopes(
        self, z: Tensor, c: Tensor, log_exposure: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """``outputs`` of z (1, K, B, Z), and the derivatives of those of the decoder in z.

        They are (Z, K, B, D) each: components stand where draws do.
        """
        decoded, jacobian = self.decoder.with_jacobian(decoder_inputs(z, c), z.shape[-1])
        by_cell = decoded[None]
        expose(by_cell, log_exposure, self.architecture)
        slopes = jacobian.movedim(2, 0)
        return [*by_cell.unbind(3), *self.dispersions()], list(slopes.unbind(3))

    def terms(self, x: Tensor, c: Tensor, noise: Tensor) -> Terms:
        """(K, B, D), (K, B, C), (S, K, B, Z) -> what the bounds are made of."""
        q = self.encode(x, c)
        z = q.rsample(noise)
        p = self.decode(z, c, log_exposure(x, self.architecture))
        log_px = log_prob_observed(p, x, self.architecture)
        return Terms(log_px, z, q.loc, q.log_scale)

    def dispersions(self) -> list[Tensor]:
        """The likelihood's outputs that do not come from the decoder.

        Each is (1, K, 1, D), or has one column for each family that shares it.
        """
        return list(self.dispersion[None, :, :, None].unbind(2))

    @torch.no_grad()
    def randomise(
        self, generator: torch.Generator, mean: Tensor, variance: Tensor | None = None
    ) -> VAE:
        """A lone model's random start: the decoder at the column means, and variances (or 1)."""
        variance = torch.ones_like(mean) if variance is None else variance
        self.encoder.randomise(generator, _HEAD_GAIN)
        self.decoder.randomise(generator, _HEAD_GAIN)
        self._start(self.architecture.family.start(mean, variance))
        return self

    @torch.no_grad()
    def linearise(self, linear: LinearModel, x: Rows | None = None) -> VAE:
        """Become exactly this linear model, all hidden layers disconnected (lone models).

        The linear model is one of the columns that the encoder sees. Where the likelihood
        explains others, rows x (N, D + E) show how its outputs follow.
        """
        a = self.architecture
        decoder = _Decoder.of(linear) if x is None else _Decoder.fitted(linear, x, a)
        for network in (self.encoder, self.decoder):
            network.linear.weight.zero_()
            if network.head is not None:
                network.head.weight.zero_()
        n_used = linear.loadings.shape[1]
        # x = A'c + b + W z + e, and q(z|x, c) = N(G (x - A'c - b), scale^2)
        self.decoder.linear.weight[0, : a.n_conditions, 0] = decoder.coefficients
        self.decoder.linear.weight[0, a.n_conditions :, 0][:n_used] = decoder.loadings.T
        first, *rest = a.family.start(decoder.mean, decoder.variance)
        self._start((first + decoder.shift, *rest))
        gain = linear.gain.T  # (D, Z)
        last = a.n_conditions + a.n_features
        self.encoder.linear.weight[0, a.n_conditions : last, 0, :n_used] = gain
        self.encoder.linear.weight[0, : a.n_conditions, 0, :n_used] = -linear.coefficients @ gain
        bias = self.encoder.linear.bias
        assert bias is not None
        bias.zero_()
        bias[0, 0, :n_used] = -linear.mean @ gain
        bias[0, 1, :n_used] = linear.scale.log()
        return self

    def _start(self, outputs: tuple[Tensor, ...]) -> None:
        """Set the decoder's bias and the dispersion to these outputs, each ``(D,)``."""
        bias = self.decoder.linear.bias
        assert bias is not None
        n_decoded = self.architecture.n_decoded
        bias[0] = torch.stack(outputs[:n_decoded])
        if self.dispersion.shape[1]:
            free = torch.stack(outputs[n_decoded:])
            if self.architecture.noise == "shared":
                families = named_columns(self.architecture.likelihood)
                free = torch.stack([free[:, columns].mean(1) for _, columns in families], 1)
            self.dispersion[0] = free


class _Decoder(NamedTuple):
    """A linear model on the scale of the likelihood's first output."""

    coefficients: Tensor  # (C, D)
    loadings: Tensor  # (D, Z)
    mean: Tensor  # (D,)
    variance: Tensor  # (D,)
    shift: Tensor  # (D,)     from the output of this mean to the one without a condition

    @classmethod
    def of(cls, linear: LinearModel) -> _Decoder:
        """Where the likelihood's first output is the mean of what the encoder sees."""
        coefficients, mean, loadings, variance = linear[:4]
        return cls(coefficients, loadings, mean, variance, torch.zeros_like(mean))

    @classmethod
    def fitted(cls, linear: LinearModel, x: Rows, architecture: Architecture) -> _Decoder:
        """Where it is another: to first order, about the column means."""
        a, n_counts = architecture, architecture.n_counts
        every = max(1, len(x) // _MAX_ROWS)
        x = Chosen(x, torch.arange(0, len(x), every, device=x.device))

        def average(of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
            def read(rows: Tensor) -> tuple[Tensor, Tensor | None]:
                rows = rows.double()
                inputs = seen_values(rows, a).roll(n_counts, 1)  # counts first, as in values
                return of(rows, inputs), observed(rows, a)

            return mean_rows(x, read)

        mean, inputs_mean = average(lambda rows, _: explained(rows, a)), average(lambda _, i: i)
        covariance = average(lambda rows, i: deviation(rows, mean, a) * (i - inputs_mean))
        variance = average(lambda rows, _: deviation(rows, mean, a).square())
        variance = variance.clamp(min=_LEAST_VARIANCE)
        inputs_variance = average(lambda _, i: (i - inputs_mean).square())
        inputs_variance = inputs_variance.clamp(min=_LEAST_VARIANCE)
        slope = a.family.slope(mean).minimum(_STEEPEST * variance.rsqrt())
        slope = slope * covariance / inputs_variance
        left = linear.noise_variance.roll(n_counts) / inputs_variance
        return cls(
            slope * linear.coefficients.roll(n_counts, 1),
            slope[:, None] * linear.loadings.roll(n_counts, 0),
            mean,
            left * variance,
            slope * (linear.mean.roll(n_counts) - inputs_mean),
        )


def explained(x: Tensor, architecture: Architecture) -> Tensor:
    """The columns that the likelihood explains, (..., D)."""
    return x[..., : architecture.n_features]


def seen(x: Tensor, architecture: Architecture) -> Tensor:
    """The columns that the encoder sees, (..., D), or (..., 2 D) with the mask."""
    first = architecture.n_counts
    return x[..., first : first + architecture.n_seen]


def seen_values(x: Tensor, architecture: Architecture) -> Tensor:
    """The columns that the encoder sees, (..., D), without the mask."""
    first = architecture.n_counts
    return x[..., first : first + architecture.n_features]


def observed(x: Tensor, architecture: Architecture) -> Tensor | None:
    """The mask of the columns that the likelihood explains, (..., D); None: all are there."""
    first = architecture.n_counts + architecture.n_features
    is_complete = x.shape[-1] == first + architecture.has_exposure
    return None if is_complete else x[..., first : first + architecture.n_features]


def log_exposure(x: Tensor, architecture: Architecture) -> Tensor | None:
    """What is added to the first output for counts, (..., 1); None: nothing."""
    return x[..., -1:] if architecture.has_exposure else None


def expose(decoded: Tensor, log_exposure: Tensor | None, architecture: Architecture) -> None:
    """Add it to the decoder's outputs, (S, K, B, P, D)."""
    if log_exposure is not None:
        decoded[..., 0, : architecture.n_counts] += log_exposure


def deviation(x: Tensor, mean: Tensor, architecture: Architecture) -> Tensor:
    """What the likelihood explains, less its mean (D,); of counts less that at their exposure."""
    deviation, exposed = explained(x, architecture) - mean, log_exposure(x, architecture)
    if exposed is not None:
        counts = slice(architecture.n_counts)
        deviation[..., counts] -= mean[counts] * (exposed.exp() - 1)
    return deviation


def log_prob_observed(p: Likelihood, x: Tensor, architecture: Architecture) -> Tensor:
    """The log density of the observed cells of x (K, B, D...), (S, K, B)."""
    cells, mask = p.log_prob(explained(x, architecture)), observed(x, architecture)
    return cells.sum(-1) if mask is None else (cells * mask).sum(-1)


def join(c: Tensor, x: Tensor) -> Tensor:
    """[c, x] along the last axis; x itself, uncopied, without a condition."""
    return torch.cat((c, x), -1) if c.shape[-1] else x


def decoder_inputs(z: Tensor, c: Tensor) -> Tensor:
    """(S, K, B, Z), (K, B, C) -> (K, S B, C + Z): all draws are rows to the network."""
    return join(c.expand(len(z), *c.shape), z).transpose(0, 1).flatten(1, 2)


def by_draw(rows: Tensor, n_draws: int) -> Tensor:
    """(K, S B, ...) -> (S, K, B, ...)."""
    n_models, n_rows, *shape = rows.shape
    return rows.view(n_models, n_draws, n_rows // n_draws, *shape).transpose(0, 1)


State = Mapping[str, Tensor]


def widest(architectures: Sequence[Architecture]) -> Architecture:
    """The architecture that all of these fit into."""
    layers = zip(*(a.hidden_layer_sizes for a in architectures), strict=True)
    return replace(
        architectures[0],
        n_components=max(a.n_components for a in architectures),
        hidden_layer_sizes=tuple(max(sizes) for sizes in layers),
    )


def stack_states(states: Sequence[State], architecture: Architecture) -> dict[str, Tensor]:
    """States of lone models -> one of K, smaller ones padded with zeros at the tail of each axis.

    The models may differ in ``n_components`` and in the hidden sizes; ``architecture`` is the
    widest. Padded units and components stay at zero: their inputs and outputs are zero and the
    activations have act(0) = 0, so every gradient is exactly 0 (noise of padded components has
    to be 0 too).
    """
    return {
        name: torch.cat([pad(state[name], (1, *shape[1:])) for state in states])
        for name, shape in _shapes(architecture, states[0]).items()
    }


def pick(state: State, k: int, architecture: Architecture) -> dict[str, Tensor]:
    """The k-th model's part of a stacked state, cut to its architecture (a copy)."""
    return {
        name: state[name][k : k + 1][tuple(slice(n) for n in shape)].clone()
        for name, shape in _shapes(architecture, state).items()
    }


def _shapes(architecture: Architecture, state: State) -> dict[str, tuple[int, ...]]:
    """The shapes that a lone model's part of this state has.

    A state is laid out like the parameters, or is none of them (Adam's step count).
    """
    parameters = _parameter_shapes(architecture)
    return {name: parameters.get(name, (1, *t.shape[1:])) for name, t in state.items()}


@lru_cache(maxsize=256)
def _parameter_shapes(architecture: Architecture) -> Mapping[str, tuple[int, ...]]:
    """The shapes of a lone model's parameters, kept: to make a model takes longer than a step."""
    parameters = VAE(architecture, device="meta").state_dict()
    return {name: tuple(t.shape) for name, t in parameters.items()}


def from_state(architecture: Architecture, state: State) -> VAE:
    """A lone model with these weights, on their device and in their dtype."""
    like = next(iter(state.values()))
    model = VAE(architecture, like.shape[0], device="meta")
    model.load_state_dict(dict(state), assign=True)
    return model


def cast(model: VAE, dtype: torch.dtype) -> VAE:
    """A lone model with the same weights in another dtype."""
    state = {name: t.to(dtype) for name, t in model.state_dict().items()}
    return from_state(model.architecture, state)


def pad(t: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros at the tail of every axis until ``t`` has this shape."""
    widths = [w for n, target in zip(t.shape, shape, strict=True) for w in (target - n, 0)]
    return functional.pad(t, widths[::-1])


def reorder_components(
    state: State, architecture: Architecture, order: Tensor
) -> dict[str, Tensor]:
    """A lone model's state (or its gradients' moments) with the components in this order."""
    n_conditions = architecture.n_conditions
    rows = torch.arange(n_conditions + architecture.n_components, device=order.device)
    rows[n_conditions:] = n_conditions + order
    first = "hidden.0" if architecture.hidden_layer_sizes else "linear"
    reordered = dict(state)
    for name, t in state.items():
        if name.startswith(("encoder.linear", "encoder.head")):
            reordered[name] = t.index_select(-1, order)
        elif name in ("decoder.linear.weight", f"decoder.{first}.weight"):
            reordered[name] = t.index_select(1, rows)
    return reordered
