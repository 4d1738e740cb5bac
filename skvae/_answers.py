"""What a fitted model answers, in the units of X; labels that are not given are integrated out.

Axes: ``N`` rows of X, ``D`` columns, ``C`` condition columns, ``M`` combinations of labels,
``Z`` components, ``S`` draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import qmc
from torch import Tensor

from skvae import _inference as inference
from skvae._checks import Place, check_support, check_totals
from skvae._codec import Encoded
from skvae._conditions import Values
from skvae._fitted import Fitted
from skvae._likelihoods import Likelihood
from skvae._messages import listed
from skvae._rows import Rows, has_missing
from skvae._sklearn import to_rows
from skvae._threads import one_thread
from skvae._vae import VAE

#: Draws for p(c|x) where it only weights the labels of a mixture.
N_DRAWS_LABELS = 32


class _Asked(NamedTuple):
    """Rows that a question is about."""

    model: VAE  # in the dtype of X
    x: Encoded  # (N, D')
    c: Tensor | None  # (N, C); None where labels are to be integrated out


@dataclass(frozen=True)
class Answers:
    """The answers of one model.

    X is validated, ``values`` are the columns of its condition, and None if it has none or
    they are not known. ``place`` says in errors what users call a cell.
    """

    fitted: Fitted
    place: Place

    # ---------------------------------------------------------------- of rows of X

    def means(self, X: Any, values: Values | None) -> Tensor:
        """Means of q(z|x), or of the mixture of them where labels are unknown, (N, Z)."""
        model, x, c = self._asked(X, values)
        if c is None:
            return self._mixture(model, x, N_DRAWS_LABELS)[0]
        return inference.means(model, x, c)

    def posterior(self, X: Any, values: Values | None) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of q(z|x), or of its mixture over labels, (N, Z) each."""
        model, x, c = self._asked(X, values)
        if c is None:
            return self._mixture(model, x, N_DRAWS_LABELS)
        return inference.posterior(model, x, c)

    def log_likelihood(self, X: Any, values: Values | None, n_draws: int) -> Tensor:
        """log p(x), or log p(x|c), in nats and in the units of X, (N,)."""
        model, x, c = self._asked(X, values)
        if c is None:
            log_likelihood = torch.logsumexp(self._log_joint(model, x, n_draws), 1)
        else:
            noise = _noise(model, n_draws)
            log_likelihood = inference.scores(model, x, c, noise).log_likelihood
        return log_likelihood + self.fitted.codec.log_jacobian(x).to(log_likelihood)

    def label_shares(self, X: Any, n_draws: int) -> Tensor:
        """p(c|x) of every combination of labels, (N, M)."""
        model, x, c = self._asked(X, None)
        if c is not None:  # there is one alone
            return c.new_ones(len(c), 1)
        return inference.normalised(self._log_joint(model, x, n_draws), 1)

    def effective_sample_size(self, X: Any, values: Values | None, n_draws: int) -> Tensor:
        """Of the draws for every row, (N,); labels that are unknown take their likeliest values."""
        model, x, c = self._asked_with_likeliest(X, values, n_draws)
        return inference.scores(model, x, c, _noise(model, n_draws)).effective_sample_size

    def elbo_terms(self, X: Any, values: Values | None, n_draws: int) -> tuple[Tensor, Tensor]:
        """E_q[log p(x|z)] in the units of X, and KL[q(z|x) || p(z)], (N,) each.

        Labels that are unknown take their likeliest values.
        """
        model, x, c = self._asked_with_likeliest(X, values, n_draws)
        reconstruction, kl = inference.elbo_terms(model, x, c, _noise(model, n_draws))
        return reconstruction + self.fitted.codec.log_jacobian(x).to(reconstruction), kl

    def marginal_kl(self, X: Any, values: Values | None, n_draws: int) -> float:
        """KL[q(z) || p(z)] of the mean of q(z|x) over rows."""
        loc, scale = self.posterior(X, values)
        generator = torch.Generator("cpu").manual_seed(0)
        rows = torch.randint(len(loc), (n_draws,), generator=generator, device="cpu")
        noise = fixed_normals(n_draws, loc.shape[1]).to(loc)
        return inference.marginal_kl(loc, scale, noise, rows.to(loc.device))

    # ------------------------------------------------------------ of missing cells

    def imputed(self, X: Any, values: Values | None, n_draws: int) -> Tensor:
        """X (N, D) with E[x|what is observed] where cells are missing."""
        model, x, c = self._asked(X, values)
        noise, codec = _noise(model, n_draws), self.fitted.codec
        if c is not None:
            means, _ = inference.expected(model, x, c, noise, codec.mean)
            return _completed(x, codec.decode(means, noise.dtype, is_mean=True))
        # The mean over p(c|x), one label at a time.
        means, log_total = noise.new_zeros(()), noise.new_full((len(x),), -torch.inf)
        for m, log_prior in enumerate(self.fitted.conditions.log_prior.tolist()):
            of_label = self._combination(m, len(x), noise)
            given, log_px = inference.expected(model, x, of_label, noise, codec.mean)
            log_joint = log_px + log_prior
            log_total = torch.logaddexp(log_total, log_joint)
            share = (log_joint - log_total).exp()
            # Rows that have no density by any label so far: all of these are alike.
            share = share.masked_fill(log_total == -torch.inf, 1 / (m + 1))
            means = means + share[:, None] * (given - means)
        return _completed(x, codec.decode(means, noise.dtype, is_mean=True))

    def resampled(
        self,
        X: Any,
        values: Values | None,
        n_imputations: int,
        n_draws: int,
        generator: torch.Generator,
    ) -> list[Tensor]:
        """Copies of X (N, D) whose missing cells are drawn from p(x|what is observed)."""
        model, x, c = self._asked(X, values)
        noise, codec = _noise(model, n_draws), self.fitted.codec
        if c is not None:
            draws = inference.resampled(model, x, c, noise, n_imputations, generator)
        else:
            shares = inference.normalised(self._log_joint(model, x, n_draws), 1).cpu()
            labels = torch.multinomial(shares, n_imputations, True, generator=generator).T.numpy()
            draws = torch.cat(
                [
                    inference.resampled(
                        model, x, self._combinations(drawn, noise), noise, 1, generator
                    )
                    for drawn in labels
                ]
            )
        return [_completed(x, codec.decode(draw, noise.dtype)) for draw in draws]

    # ------------------------------------------------------------------------ of z

    def decoded(self, z: Tensor, values: Values | None) -> Tensor:
        """E[x|z] (N, D) in the units of X, averaged over the labels where they are unknown."""
        model, z = self._placed(z)
        codec, c = self.fitted.codec, self._condition(values, len(z), z)
        if c is not None:
            mean = inference.decode(model, z, c, codec.mean)
        else:
            mean = torch.zeros((), dtype=z.dtype, device=z.device)
            for m, share in enumerate(np.exp(self.fitted.conditions.log_prior).tolist()):
                of_label = self._combination(m, len(z), z)
                mean = mean + share * inference.decode(model, z, of_label, codec.mean)
        return codec.decode(mean, z.dtype, is_mean=True)

    def prior_draws(self, n: int, generator: torch.Generator) -> Tensor:
        """z ~ p(z), (n, Z)."""
        shape = (n, self.fitted.model.architecture.n_components)
        dtype = self.fitted.torch_dtype
        return torch.randn(shape, generator=generator, dtype=dtype, device="cpu")

    def drawn(
        self, z: Tensor, values: Values | None, generator: torch.Generator, *, is_mean: bool
    ) -> tuple[Tensor, np.ndarray | None]:
        """x ~ p(x|z) or its mean (N, D), and the number of the labels that were drawn for it."""
        fitted, n_rows = self.fitted, len(z)
        model, z = self._placed(z)
        c = self._condition(values, n_rows, z)
        labels = None
        if c is None:
            share = torch.from_numpy(np.exp(fitted.conditions.log_prior))
            labels = torch.multinomial(share, n_rows, True, generator=generator).numpy()
            c = self._combinations(labels, z)

        def draw(p: Likelihood) -> Tensor:
            return p.sample(generator)

        exposure = None if is_mean else fitted.codec.log_exposure(n_rows, generator)
        exposure = None if exposure is None else exposure.to(z)
        cell = fitted.codec.mean if is_mean else draw
        x = inference.decode(model, z, c, cell, exposure, is_random=not is_mean)
        return fitted.codec.decode(x, z.dtype, is_mean=is_mean), labels

    # ------------------------------------------------------- what these are made of

    @one_thread()  # others would be in the way of those that are to share the rows
    def _asked(self, X: Any, values: Values | None) -> _Asked:
        fitted, x = self.fitted, to_rows(X)
        check_support(x, fitted.codec.families, self.place)
        model = fitted.model_in(x.dtype)
        weight = model.encoder.linear.weight
        with_mask = self.needs_mask(x)
        encoded = fitted.codec.encoded(x, weight.dtype, weight.device, with_mask=with_mask)
        return _Asked(model, encoded, self._condition(values, len(x), weight))

    def _asked_with_likeliest(
        self, X: Any, values: Values | None, n_draws: int
    ) -> tuple[VAE, Encoded, Tensor]:
        """The model, x and c of a question; labels that are unknown take their likeliest values."""
        model, x, c = self._asked(X, values)
        if c is None:
            likeliest = self._log_joint(model, x, n_draws).argmax(1).cpu().numpy()
            c = self._combinations(likeliest, model.encoder.linear.weight)
        return model, x, c

    def needs_mask(self, x: Rows) -> bool:
        """Whether rows of X go to the model with a mask of the cells that are observed."""
        is_missing = has_missing(x)
        if is_missing and self.fitted.codec.is_relative:
            check_totals(x, self.fitted.codec.families, self.place)
        return is_missing or self.fitted.model.architecture.sees_mask

    def _placed(self, z: Tensor) -> tuple[VAE, Tensor]:
        """The model in the dtype of z, and z on its device."""
        model = self.fitted.model_in(z.dtype)
        return model, z.to(model.encoder.linear.weight.device)

    def _condition(self, values: Values | None, n_rows: int, like: Tensor) -> Tensor | None:
        """c (N, C) like another tensor; None where labels are to be integrated out."""
        conditions = self.fitted.conditions
        if values is not None:
            return conditions.tensor(values, n_rows, like.device, like.dtype)
        if conditions.combinations is None:
            raise ValueError(
                f"condition= is required: the numeric condition {listed(conditions.numbers)} "
                "cannot be integrated out as labels can. Pass condition= to this method."
            )
        return self._combination(0, n_rows, like) if len(conditions.log_prior) == 1 else None

    def _combinations(self, numbers: np.ndarray, like: Tensor) -> Tensor:
        """c of the combinations of labels with these numbers, a row for each."""
        combinations = self.fitted.conditions.combinations
        assert combinations is not None
        return torch.from_numpy(combinations[numbers]).to(like)

    def _combination(self, m: int, n_rows: int, like: Tensor) -> Tensor:
        """c of one combination, for all rows."""
        return self._combinations(np.array([m]), like).expand(n_rows, -1)

    def _log_joint(
        self, model: VAE, x: Encoded, n_draws: int, *, only_holes: bool = False
    ) -> Tensor:
        """log p(x, c) of every combination of labels, (N, M)."""
        noise = _noise(model, n_draws)
        return torch.stack(
            [
                inference.scores(
                    model, x, self._combination(m, len(x), noise), noise, only_holes=only_holes
                ).log_likelihood
                + log_prior
                for m, log_prior in enumerate(self.fitted.conditions.log_prior.tolist())
            ],
            1,
        )

    def _mixture(self, model: VAE, x: Encoded, n_draws: int) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of q(z|x, c) averaged over p(c|x), (N, Z) each."""
        # Of complete rows by the encoder alone, as in a graph of ONNX.
        joint = self._log_joint(model, x, n_draws, only_holes=True)
        shares = inference.normalised(joint, 1).T[:, :, None]  # (M, N, 1)
        weight = torch.full_like(shares[0], torch.finfo(shares.dtype).tiny)
        mean = square = shares.new_zeros(())
        # One label at a time: West, Updating mean and variance estimates, 1979.
        for m, share in enumerate(shares):
            loc, scale = inference.posterior(model, x, self._combination(m, len(x), shares))
            weight = weight + share
            step = loc - mean
            mean = mean + step * share / weight
            square = square + share * (scale.square() + step * (loc - mean))
        return mean, square.sqrt()


def _completed(x: Encoded, other: Tensor) -> Tensor:
    """X (N, D), and the other's cells where those of X are missing."""
    given = x.x
    assert isinstance(given, Tensor)  # sparse rows are refused, as they have no missing cells
    return torch.where(given.isnan(), other.to(given), given)


def fixed_normals(n_draws: int, n_components: int) -> Tensor:
    """(S, Z) standard normals, the same in every call: scrambled Sobol points.

    Owen, Randomly permuted (t,m,s)-nets, 1995. They fill the space more evenly than
    random ones, so that fewer serve.
    """
    return torch.from_numpy(_sobol_normals(n_draws, n_components).copy())


@lru_cache(maxsize=8)
def _sobol_normals(n_draws: int, n_components: int) -> np.ndarray:
    sobol = qmc.Sobol(n_components, scramble=True, rng=np.random.default_rng(0))
    points = sobol.random_base2(max(0, math.ceil(math.log2(n_draws))))[:n_draws]
    half = 2.0**-33  # points lie on a grid of 2^-32 that has 0
    normals: np.ndarray = ndtri(points.clip(half, 1 - half))
    return normals


def _noise(model: VAE, n_draws: int) -> Tensor:
    """Fixed normals (S, Z) in the dtype and on the device of a model."""
    return fixed_normals(n_draws, model.architecture.n_components).to(model.encoder.linear.weight)
