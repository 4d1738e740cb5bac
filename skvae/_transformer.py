"""The variational autoencoder as a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skvae._base import BaseVAE, BoundTerms, PosteriorMoments
from skvae._docs import ATTRIBUTES, N_COMPONENTS, PARAMETERS, REFERENCES
from skvae._sklearn import fit_context, to_tensor, with_callbacks


class VAETransformer(BaseVAE):
    __doc__ = f"""Variational autoencoder: nonlinear PCA with a likelihood.

    A decoder gives mean and variance of p(x|z) for latent z ~ N(0, I), an encoder the
    means and standard deviations of q(z|x). Both are trained to maximise the evidence
    lower bound [1]_

        log p(x) >= E_q[log p(x|z)] - KL[q(z|x) || p(z)]

    or, with more draws, the importance-weighted bound [2]_ [3]_. Beside each network
    there is a linear map, and one start of the training is the linear model of maximum
    likelihood itself [4]_: the validation bound does not end below that of this model.

    Cells of X may be missing (NaN, None or NA): the bound is then taken over the observed
    cells [5]_. `impute` and `sample_missing` fill them.

    Parameters
    ----------
{N_COMPONENTS}

{PARAMETERS}

    Attributes
    ----------
{ATTRIBUTES}

    See Also
    --------
    ConditionalVAE : Variational autoencoder of X given labels or numbers for every row.
    skvae.impute.VAEImputer : Missing cells filled, as a step of a Pipeline.
    sklearn.decomposition.PCA : The linear model with one variance for all columns.
    sklearn.decomposition.FactorAnalysis : The linear model with one for each column.

    References
    ----------
{REFERENCES}

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skvae import VAETransformer
    >>> X = load_wine().data
    >>> vae = VAETransformer(n_components=2, random_state=0).fit(X)
    >>> vae.transform(X).shape
    (178, 2)
    >>> vae.sample(3).shape
    (3, 13)
    >>> bool(vae.score(X) > -30)
    True
    """

    def __init__(
        self,
        n_components: int = 8,
        *,
        likelihood: str | Mapping[str, Any] | Sequence[tuple[str, Any]] = "gaussian",
        handle_unknown: Literal["error", "missing"] = "error",
        exposure: Literal["total"] | None = None,
        noise_variance: Literal["feature", "shared", "decoder"] | float = "feature",
        beta: float = 1.0,
        n_importance_samples: int = 1,
        hidden_layer_sizes: int | Sequence[int] = (128, 128),
        activation: Literal["silu", "relu", "tanh", "gelu", "elu"] = "silu",
        dropout: float = 0.0,
        alpha: float = 0.0,
        learning_rate: Literal["adaptive", "cosine", "constant"] = "adaptive",
        learning_rate_init: float = 1e-3,
        batch_size: Literal["auto"] | int = "auto",
        max_iter: int = 500,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 30,
        tol: float = 1e-3,
        n_init: int = 1,
        init: Literal["both", "pca", "factor_analysis", "random"] = "both",
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        device: str | torch.device = "auto",
        verbose: bool | int = False,
    ) -> None:
        self.n_components = n_components
        self.likelihood = likelihood
        self.handle_unknown = handle_unknown
        self.exposure = exposure
        self.noise_variance = noise_variance
        self.beta = beta
        self.n_importance_samples = n_importance_samples
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.n_init = n_init
        self.init = init
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the model on X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training rows, at least two. May have missing cells (dense X). Sparse matrices
            are converted to CSR.
        y : None
            Ignored.

        Returns
        -------
        self : VAETransformer
            The fitted estimator.

        Raises
        ------
        ValueError
            For infinite values, a column without any observed cell, values outside the
            likelihood's support, and parameters outside their range.
        """
        given = X, y
        with self._kept_if_it_fails():
            is_first = not self.warm_start or not hasattr(self, "_fitted")
            X, schema = self._read(X, reset=is_first, method="fit")
            self._fit(X, None, schema, given=given)
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Train for one pass over these rows, continuing from the current weights.

        The first call (or a `fit` before it) fixes the scales of the columns, the order of
        the components, and which columns are constant and so not part of the model. There is
        no early stopping.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        y : None
            Ignored.

        Returns
        -------
        self : VAETransformer
            The fitted estimator.
        """
        with self._kept_if_it_fails():
            self._validate_params()  # which scikit-learn leaves out once there is a model
            X, schema = self._read(X, reset=not hasattr(self, "_fitted"), method="partial_fit")
            self._fit(X, None, schema, is_partial=True)
        return self

    def transform(self, X: Any) -> Any:
        """Means of q(z|x).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            In the dtype of X. Never a draw: the same row gives the same features. For rows
            with missing cells, a model fitted on complete rows gives the mode of
            p(z | observed cells).
        """
        X = self._validated(X, "transform")
        return self._output(self._answers.means(X, None), X)

    def posterior(self, X: Any) -> PosteriorMoments:
        """Means and standard deviations of q(z|x).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.

        Returns
        -------
        moments : PosteriorMoments
            Named tuple ``(mean, std)`` of ndarrays of shape (n_samples, n_components).
        """
        X = self._validated(X, "posterior")
        return self._posterior_of(X, None)

    def inverse_transform(
        self,
        Z: Any,
        *,
        mean: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """E[x|z] in the units of X, or the most probable category or bool; or a draw of x.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_components)
            Points of the latent space, such as those that `transform` gives.
        mean : bool, default=True
            False draws x from p(x|z), noise included, in place of E[x|z].
        random_state : int, RandomState instance or None, default=None
            None uses the estimator's `random_state`: if that is an int, repeated calls
            return the same rows; pass a RandomState to get new ones.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            In the dtype of Z; see `likelihood` for when it is a DataFrame.
        """
        check_is_fitted(self)
        z = self._check_components(Z)
        if mean:
            x = self._answers.decoded(z, None)
        else:
            x, _ = self._answers.drawn(z, None, self._generator(random_state), is_mean=False)
        return self._rows(x, Z, is_mean=mean)

    def impute(self, X: Any, *, n_draws: int = 512) -> Any:
        """X with missing cells replaced by E[x | observed cells], or by the most probable category.

        By self-normalised importance sampling (Mattei & Frellsen, MIWAE, 2019): z is drawn
        about the mode of p(z | observed cells), and in part from q(z|x) and the prior, and
        weighted by p(x|z) p(z) of the observed cells over the density of the draws. The
        error falls with the square root of `n_draws`. The model may have been fitted on
        complete rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense, with NaN, None or NA where cells are missing; the others are kept as
            they are.
        n_draws : int, default=512
            Number of draws of z; the same noise serves every row.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            Of the kind that `inverse_transform` gives.
        """
        x = self._validated(X, "impute")
        means = self._answers.imputed(x, None, self._check_count(n_draws))
        return self._rows(means, x, is_mean=True, completed=X)

    def sample_missing(
        self,
        X: Any,
        n_imputations: int = 1,
        *,
        n_draws: int = 512,
        random_state: int | np.random.RandomState | None = None,
    ) -> list[Any]:
        """Copies of X whose missing cells are drawn: multiple imputations.

        z is drawn from an importance sample of p(z | observed cells), according to its
        weights, then the missing cells from p(x|z), noise included. The copies differ as
        much as the model is uncertain of the cells, where `impute` gives their mean.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense, with NaN, None or NA where cells are missing.
        n_imputations : int, default=1
            Number of completed copies of X.
        n_draws : int, default=512
            Number of draws of z for each row, as in `impute`.
        random_state : int, RandomState instance or None, default=None
            None uses the estimator's `random_state`: if that is an int, repeated calls
            return the same rows; pass a RandomState to get new ones.

        Returns
        -------
        copies : list of ndarrays or DataFrames of shape (n_samples, n_features)
            `n_imputations` of them, of the kind that `inverse_transform` gives.
        """
        x = self._validated(X, "sample_missing")
        copies = self._resampled(x, None, n_imputations, n_draws, random_state)
        return [self._rows(copy, x, is_mean=False, completed=X) for copy in copies]

    def sample(
        self,
        n_samples: int = 1,
        *,
        mean: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Draw rows from the model: z from p(z), then x from p(x|z), noise included.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        mean : bool, default=False
            Give E[x|z] in place of a draw of x: smooth, even if the data are noisy.
        random_state : int, RandomState instance or None, default=None
            None uses the estimator's `random_state`: if that is an int, repeated calls
            return the same rows; pass a RandomState to get new ones.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            In the units, dtype and namespace of the X of `fit`; see `likelihood` for when
            it is a DataFrame.
        """
        check_is_fitted(self)
        n_samples = self._check_count(n_samples, "n_samples")
        x, _ = self._sample(n_samples, None, mean, random_state)
        return self._rows(x, None, is_mean=mean)

    def score_samples(self, X: Any, *, n_draws: int = 128) -> Any:
        """log p(x) of each row in nats, by importance sampling.

        Half of the draws of z are about the mode of p(z|x), by the curvature there, and half
        from q(z|x); for rows with missing cells a quarter is from q(z|x) and a quarter from
        the prior (Hesterberg, 1995). The score of such a row is the log density of its
        observed cells.

        Columns that were constant in `fit` are not part of the model: they add nothing,
        whatever their values.

        Comparable with ``PCA.score_samples`` and ``GaussianMixture.score_samples`` on the
        same X: it is a density in the units of X (a probability for bernoulli, categorical
        and counts).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        n_draws : int, default=128
            Number of draws of z. Their estimate is a lower bound in expectation, which
            rises to log p(x) with their number. The same noise serves every row and call,
            so that a row's score depends on the row alone.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,)
            In nats.
        """
        X = self._validated(X, "score_samples")
        n_draws = self._check_count(n_draws)
        return self._output(self._answers.log_likelihood(X, None, n_draws), X)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of ``score_samples(X)``: log p(x) in nats per row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        y : None
            Ignored.

        Returns
        -------
        score : float
            In nats per row.
        """
        return to_tensor(self.score_samples(X)).mean().item()

    def elbo(self, X: Any, *, n_draws: int = 128) -> BoundTerms:
        """The evidence lower bound of each row, split into its two terms.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        n_draws : int, default=128
            Number of draws of z for the expectation.

        Returns
        -------
        terms : BoundTerms
            Named tuple ``(elbo, reconstruction, kl)`` of ndarrays of shape (n_samples,), in
            nats: E_q[log p(x|z)] - KL[q(z|x) || p(z)], and these two terms.
        """
        X = self._validated(X, "elbo")
        return self._elbo_of(X, None, n_draws)

    def effective_sample_size(self, X: Any, *, n_draws: int = 128) -> Any:
        """How many of the draws of ``score_samples`` count: 1 / sum of squared weights.

        Near `n_draws` if these are as good as drawn from the posterior; near 1 if the score
        of a row depends on a single draw and is still too low.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        n_draws : int, default=128
            Number of draws of z for each row, as in `score_samples`.

        Returns
        -------
        effective_sample_size : ndarray of shape (n_samples,)
            Between 1 and `n_draws`.
        """
        X = self._validated(X, "effective_sample_size")
        n_draws = self._check_count(n_draws)
        return self._output(self._answers.effective_sample_size(X, None, n_draws), X)

    def marginal_kl(self, X: Any, *, n_draws: int = 1000) -> float:
        """KL[q(z) || p(z)]: the gap between the aggregate posterior of X and the prior.

        Samples start from p(z), reconstructions from q(z), the mean of q(z|x) over rows.
        With a large gap a model can reconstruct well and sample badly (Hoffman & Johnson,
        ELBO surgery, 2016).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        n_draws : int, default=1000
            Number of draws from q(z); the error falls with its square root.

        Returns
        -------
        kl : float
            In nats.
        """
        X = self._validated(X, "marginal_kl")
        return self._answers.marginal_kl(X, None, self._check_count(n_draws))

    def _validated(self, X: Any, method: str) -> Any:
        """X as a float array, for a method of a fitted model."""
        check_is_fitted(self)
        return self._read(X, reset=False, method=method)[0]
