"""The conditional variational autoencoder: q(z|x, c) and p(x|z, c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from numbers import Integral
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skvae._base import BaseVAE, BoundTerms, PosteriorMoments
from skvae._conditions import (
    Condition,
    Values,
    columns_named,
    kinds_of,
    kinds_of_target,
    read_condition,
    read_target,
    warn_of_many_labels,
)
from skvae._docs import ATTRIBUTES, N_COMPONENTS, PARAMETERS, REFERENCES
from skvae._fitted import Fitted
from skvae._frames import as_array, check_names_differ, received
from skvae._messages import changed_error, listed
from skvae._preparing import Request
from skvae._reading import METHODS_OF_FIT
from skvae._schema import Schema
from skvae._sklearn import (
    check_feature_names,
    check_n_features,
    columns_at,
    fit_context,
    from_tensor,
    is_dispatched,
    to_numpy,
    to_tensor,
    with_callbacks,
)


class ConditionalVAE(BaseVAE):
    __doc__ = f"""Variational autoencoder of X given a condition c for every row.

    Encoder and decoder both see c: q(z|x, c) and p(x|z, c), so z captures what c does
    not, and x can be drawn for a chosen c [7]_.

    The condition comes from one place: the keyword `condition` of `fit` (labels, numbers
    or a DataFrame of both; floats are numbers, all else are labels), the columns of X
    named in `condition_columns`, or, with neither, `y`.

    Labels may be omitted after `fit`: they are then integrated out, with p(c|x)
    proportional to p(c) p(x|c), where p(c) is the share of c in the rows of the first
    `fit` or `partial_fit`. So the model can be a step of a Pipeline, whose `transform` has
    no y. Numeric conditions cannot be integrated out and must always be given. The
    features capture what the condition does not: to predict the condition itself, use
    `condition_proba` or the features of `VAETransformer`.

    In a Pipeline or search, pass `condition` with
    ``sklearn.set_config(enable_metadata_routing=True)``; the estimator requests it by
    default, without `set_fit_request`.

    A category has to be seen in `fit` to be used later: in a cross-validation with sorted
    labels, pass ``cv=StratifiedKFold()``.

    Cells of X may be missing (NaN, None or NA), except in `condition_columns`: the bound is
    then taken over the observed cells [5]_. `impute` and `sample_missing` fill them.

    Parameters
    ----------
{N_COMPONENTS}

    condition_columns : str, int or list of these, default=None
        Columns of X that are the condition, by name or position; the others are modelled.
        Outputs have the width of X, with the condition in its columns. In a float array
        every condition column is numeric: pass a DataFrame with an integer, string or
        category column for labels. X must be dense.

{PARAMETERS}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The categories of the condition. Only set if it is a single column of labels.

    categories_ : list of ndarray
        The categories of each condition column that holds labels. Only set if there is one.

    combinations_ : list of tuple
        The combinations of labels seen in `fit`: the columns of `condition_proba`. Only
        set if all condition columns are labels.

    condition_prior_ : ndarray of shape (n_combinations,)
        p(c) of each entry of `combinations_`: its share in the rows of the first `fit` or
        `partial_fit`. Only set if all condition columns are labels.

{ATTRIBUTES}

    See Also
    --------
    VAETransformer : Variational autoencoder of X without a condition.

    References
    ----------
{REFERENCES}
    .. [7] K. Sohn, H. Lee and X. Yan, "Learning Structured Output Representation using
       Deep Conditional Generative Models", NeurIPS 2015.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skvae import ConditionalVAE
    >>> X, y = load_iris(return_X_y=True)
    >>> vae = ConditionalVAE(n_components=2, random_state=0).fit(X, y)
    >>> vae.sample(condition=[0, 0, 2]).shape
    (3, 4)
    >>> vae.condition_proba(X).shape
    (150, 3)
    """

    __metadata_request__fit: ClassVar = {"condition": True}
    __metadata_request__partial_fit: ClassVar = {"condition": True}
    __metadata_request__transform: ClassVar = {"condition": True}
    __metadata_request__inverse_transform: ClassVar = {
        "condition": True,
        "Z": UNUSED,
        "mean": UNUSED,
        "random_state": UNUSED,
    }
    __metadata_request__score: ClassVar = {"condition": True}

    _parameter_constraints: ClassVar = {
        **BaseVAE._parameter_constraints,
        "condition_columns": ["array-like", str, Integral, None],
    }

    # What a fit leaves behind of the condition; the last four are there if it has labels.
    _source: str
    _condition_at: list[int]
    categories_: list[np.ndarray]
    combinations_: list[tuple[Any, ...]]
    condition_prior_: Any
    classes_: np.ndarray

    def __init__(
        self,
        n_components: int = 8,
        *,
        condition_columns: Sequence[int | str] | int | str | None = None,
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
        self.condition_columns = condition_columns
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
    def fit(self, X: Any, y: Any = None, *, condition: Any = None) -> Self:
        """Train the model on X given its condition.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training rows, at least two. May have missing cells (dense X). Sparse matrices
            are converted to CSR.
        y : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
            The condition, if neither `condition` nor `condition_columns` is given: numbers
            if it is a continuous target, otherwise labels. Whole numbers are labels, even
            as floats; to have them read as numbers, pass them as `condition`, as floats.
        condition : array-like or DataFrame, default=None
            The condition, of shape (n_samples,) or (n_samples, n_columns): floats are
            numbers, all else are labels. No value may be missing.

        Returns
        -------
        self : ConditionalVAE
            The fitted estimator.

        Raises
        ------
        ValueError
            For infinite values, a column without any observed cell, values outside the
            likelihood's support, and parameters outside their range; for missing values in
            the condition, and for no condition or two of them.
        """
        with self._kept_if_it_fails():
            return self._fit_conditional(X, y, condition, is_partial=False)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, *, condition: Any = None) -> Self:
        """Train for one pass over these rows, continuing from the current weights.

        The first call (or a `fit` before it) fixes the scales of the columns, the order of
        the components, which columns are constant and so not part of the model, whether
        `score` takes y as the condition, and the categories of the condition with their
        shares p(c). There is no early stopping.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        y : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
            The condition, as in `fit`.
        condition : array-like or DataFrame, default=None
            The condition, as in `fit`.

        Returns
        -------
        self : ConditionalVAE
            The fitted estimator.
        """
        with self._kept_if_it_fails():
            return self._fit_conditional(X, y, condition, is_partial=True)

    def fit_transform(self, X: Any, y: Any = None, *, condition: Any = None) -> Any:
        """``fit(X, y, condition=condition).transform(X, condition=condition)``.

        A condition taken from y is not used for the transformation: new rows come without
        y, and features computed with it would not be comparable with theirs.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        y : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
            The condition, as in `fit`.
        condition : array-like or DataFrame, default=None
            The condition, as in `fit`.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            Means of q(z|x, c), as `transform` gives them.
        """
        return self.fit(X, y, condition=condition).transform(X, condition=condition)

    def transform(self, X: Any, *, condition: Any = None) -> Any:
        """Means of q(z|x, c), or of their mixture over p(c|x) if labels are not given.

        The mixture weighs labels by p(c|x) as estimated from 32 draws of z from q(z|x, c),
        for rows with missing cells also about the mode of p(z | observed cells, c).
        `condition_proba`, with 128 draws that are also about the mode, is more exact.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        condition : array-like or DataFrame, default=None
            The condition of each row, as in `fit`. None integrates labels out, unless X
            contains them (`condition_columns`).

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            In the dtype of X. Never a draw: the same row gives the same features. For rows
            with missing cells, a model fitted on complete rows gives the mode of
            p(z | observed cells, c).
        """
        X, values = self._validated(X, condition, "transform")
        return self._output(self._answers.means(X, values), X)

    def posterior(self, X: Any, *, condition: Any = None) -> PosteriorMoments:
        """Means and standard deviations of q(z|x, c), or of their mixture over p(c|x).

        The mixture is that of `transform`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        condition : array-like or DataFrame, default=None
            The condition of each row, as in `fit`. None integrates labels out, unless X
            contains them (`condition_columns`).

        Returns
        -------
        moments : PosteriorMoments
            Named tuple ``(mean, std)`` of ndarrays of shape (n_samples, n_components).
        """
        X, values = self._validated(X, condition, "posterior")
        return self._posterior_of(X, values)

    def inverse_transform(
        self,
        Z: Any,
        *,
        condition: Any = None,
        mean: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """E[x|z, c] in the units of X, or the most probable category or bool; or a draw of x.

        Without a condition the mean is averaged over p(c), and for a draw a label is drawn
        for each row. With a condition other than the row's own it is a counterfactual.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_components)
            Points of the latent space, such as those that `transform` gives.
        condition : array-like or DataFrame, default=None
            The condition of each row, as in `fit`.
        mean : bool, default=True
            False draws x from p(x|z, c), noise included, in place of E[x|z, c].
        random_state : int, RandomState instance or None, default=None
            None uses the estimator's `random_state`: if that is an int, repeated calls
            return the same rows; pass a RandomState to get new ones.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            In the dtype of Z; see `likelihood` for when it is a DataFrame. The columns
            named in `condition_columns` hold the condition; if it was not given, the labels
            that were drawn or, for a mean, the most frequent ones.
        """
        check_is_fitted(self)
        z = self._check_components(Z)
        values = None if condition is None else read_condition(condition, len(z))
        if mean:
            x, drawn = self._answers.decoded(z, values), None
        else:
            generator = self._generator(random_state)
            x, drawn = self._answers.drawn(z, values, generator, is_mean=False)
        return self._assemble(x, self._labels(values, drawn, len(z)), Z, mean)

    def impute(self, X: Any, *, condition: Any = None, n_draws: int = 512) -> Any:
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
        condition : array-like or DataFrame, default=None
            The condition of each row, as in `fit`. None integrates labels out, unless X
            contains them (`condition_columns`).
        n_draws : int, default=512
            Number of draws of z; the same noise serves every row.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            Of the kind that `inverse_transform` gives.
        """
        x, values = self._validated(X, condition, "impute")
        means = self._answers.imputed(x, values, self._check_count(n_draws))
        given = [] if values is None else self._fitted.conditions.ordered(values)
        return self._assemble(means, given, x, True, completed=X)

    def sample_missing(
        self,
        X: Any,
        n_imputations: int = 1,
        *,
        condition: Any = None,
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
        condition : array-like or DataFrame, default=None
            The condition of each row, as in `fit`. None integrates labels out, unless X
            contains them (`condition_columns`).
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
        x, values = self._validated(X, condition, "sample_missing")
        copies = self._resampled(x, values, n_imputations, n_draws, random_state)
        given = [] if values is None else self._fitted.conditions.ordered(values)
        return [self._assemble(copy, given, x, False, completed=X) for copy in copies]

    def sample(
        self,
        n_samples: int = 1,
        *,
        condition: Any = None,
        mean: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Draw rows from the model: z from p(z), then x from p(x|z, c), noise included.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows. With a condition of several rows one row is drawn for each, and
            `n_samples` may be omitted; a condition of one row applies to all samples.
        condition : array-like, DataFrame, str or number, default=None
            The condition of the samples; a single value is a condition of one row. None
            draws labels according to `condition_prior_`. The drawn labels are not returned
            (except in `condition_columns`); to know them, draw them yourself:
            ``c = rng.choice(vae.classes_, 100, p=vae.condition_prior_)``.
        mean : bool, default=False
            Give E[x|z, c] in place of a draw of x: smooth, even if the data are noisy.
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
        values = None
        if condition is not None:
            values = read_condition(condition)
            n_given = len(values[0][1])
            if n_given == 1:
                values = [(name, column.repeat(n_samples)) for name, column in values]
            elif n_samples not in (1, n_given):
                raise ValueError(
                    f"n_samples={n_samples}, but condition has {n_given} rows. A row is drawn for "
                    "each row of the condition: leave n_samples out, or repeat the condition."
                )
            n_samples = max(n_samples, n_given)
        x, drawn = self._sample(n_samples, values, mean, random_state)
        return self._assemble(x, self._labels(values, drawn, n_samples), None, mean)

    def score_samples(self, X: Any, *, condition: Any = None, n_draws: int = 128) -> Any:
        """log p(x|c) of each row in nats; without a condition log p(x), labels summed out.

        By importance sampling, as in ``VAETransformer.score_samples``.

        scikit-learn's metadata routing does not reach this method: pass `condition` to it
        directly.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        condition : array-like or DataFrame, default=None
            The condition of each row, as in `fit`. None integrates labels out, unless X
            contains them (`condition_columns`).
        n_draws : int, default=128
            Number of draws of z. Their estimate is a lower bound in expectation, which
            rises with their number. The same noise serves every row and call, so that a
            row's score depends on the row alone.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,)
            In nats.
        """
        X, values = self._validated(X, condition, "score_samples")
        n_draws = self._check_count(n_draws)
        return self._output(self._answers.log_likelihood(X, values, n_draws), X)

    def score(self, X: Any, y: Any = None, *, condition: Any = None) -> float:
        """Mean of ``score_samples``, in nats per row.

        With a condition this is log p(x|c), without one log p(x), labels summed out; only
        the latter is comparable with ``PCA.score`` and ``VAETransformer.score``.
        Cross-validation passes y, and so gives the former if `fit` took the condition from
        y.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        y : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
            Used as the condition if `fit` took it from y; otherwise ignored.
        condition : array-like or DataFrame, default=None
            The condition of each row, as in `fit`. None integrates labels out, unless X
            contains them (`condition_columns`).

        Returns
        -------
        score : float
            In nats per row.
        """
        check_is_fitted(self)
        if condition is None and y is not None and self._source == "target":
            condition = y
        return to_tensor(self.score_samples(X, condition=condition)).mean().item()

    def condition_proba(self, X: Any, *, n_draws: int = 128) -> Any:
        """p(c|x) of labels, proportional to p(c) p(x|c).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        n_draws : int, default=128
            Number of draws of z for p(x|c).

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Columns are in the order of `classes_`, or for several columns of labels in that
            of `combinations_`.

        Raises
        ------
        ValueError
            If part of the condition is numeric, or X contains it (`condition_columns`).
        """
        check_is_fitted(self)
        if self._source == "columns":
            raise ValueError(
                "condition_proba is not defined with condition_columns: X already contains the "
                f"condition, in {self._names_beside()}."
            )
        if self._fitted.conditions.combinations is None:
            raise ValueError(
                "condition_proba gives p(c|x) for labels, but the condition is numeric in "
                f"{listed(self._fitted.conditions.numbers)}. Fit with labels, or discretise it "
                "(KBinsDiscretizer)."
            )
        X, _ = self._validated(X, None, "condition_proba")
        return self._output(self._answers.label_shares(X, self._check_count(n_draws)), X)

    def elbo(self, X: Any, *, condition: Any = None, n_draws: int = 128) -> BoundTerms:
        """The evidence lower bound of each row given c, split into its two terms.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        condition : array-like or DataFrame, default=None
            The condition of each row, as in `fit`. None takes the most probable labels,
            unless X contains them (`condition_columns`).
        n_draws : int, default=128
            Number of draws of z for the expectation.

        Returns
        -------
        terms : BoundTerms
            Named tuple ``(elbo, reconstruction, kl)`` of ndarrays of shape (n_samples,), in
            nats: E_q[log p(x|z, c)] - KL[q(z|x, c) || p(z)], and these two terms.
        """
        X, values = self._validated(X, condition, "elbo")
        return self._elbo_of(X, values, n_draws)

    def effective_sample_size(self, X: Any, *, condition: Any = None, n_draws: int = 128) -> Any:
        """How many of the draws of ``score_samples`` count: 1 / sum of squared weights.

        Near `n_draws` if these are as good as drawn from the posterior; near 1 if the score
        of a row depends on a single draw and is still too low.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        condition : array-like or DataFrame, default=None
            The condition of each row, as in `fit`. None takes the most probable labels,
            unless X contains them (`condition_columns`).
        n_draws : int, default=128
            Number of draws of z for each row, as in `score_samples`.

        Returns
        -------
        effective_sample_size : ndarray of shape (n_samples,)
            Between 1 and `n_draws`.
        """
        X, values = self._validated(X, condition, "effective_sample_size")
        n_draws = self._check_count(n_draws)
        return self._output(self._answers.effective_sample_size(X, values, n_draws), X)

    def marginal_kl(self, X: Any, *, condition: Any = None, n_draws: int = 1000) -> float:
        """KL[q(z) || p(z)]: the gap between the aggregate posterior of X and the prior.

        Where labels are integrated out, the mixture of each row is replaced by the normal
        distribution with its mean and variance.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            May have missing cells (dense X). Sparse matrices are converted to CSR.
        condition : array-like or DataFrame, default=None
            The condition of each row, as in `fit`. None integrates labels out, unless X
            contains them (`condition_columns`).
        n_draws : int, default=1000
            Number of draws from q(z); the error falls with its square root.

        Returns
        -------
        kl : float
            In nats.
        """
        X, values = self._validated(X, condition, "marginal_kl")
        return self._answers.marginal_kl(X, values, self._check_count(n_draws))

    # -------------------------------------------------------- where the condition is

    def _fit_conditional(self, X: Any, y: Any, condition: Any, *, is_partial: bool) -> Self:
        given = X, y
        goes_on = hasattr(self, "_fitted") and (is_partial or self.warm_start)
        if is_partial:
            self._validate_params()  # which scikit-learn leaves out once there is a model
        method = "partial_fit" if is_partial else "fit"
        X, in_columns, schema = self._split_columns(X, reset=not goes_on, method=method)
        found = self._condition_of_fit(given, condition, in_columns, X.shape[0])
        if goes_on:  # whether score(X, y) is given y is settled
            found = found._replace(source=self._source)
        elif not self._is_noted:
            warn_of_many_labels(found)
        self._fit(X, found, schema, is_partial=is_partial, given=None if is_partial else given)
        return self

    def _condition_of_fit(
        self, given: tuple[Any, Any], condition: Any, in_columns: Values | None, n_rows: int
    ) -> Condition:
        """The condition of the rows, from the one place where it is.

        ``given`` are the user's X and y, ``in_columns`` the columns of X that are the condition.
        """
        X, y = given
        if condition is not None and in_columns is not None:
            raise ValueError(
                f"condition= was given, and condition_columns={self.condition_columns!r} "
                "too. The condition comes from one place: leave one of them out."
            )
        if in_columns is not None:
            beside = _part(X, self._condition_at) if hasattr(X, "columns") else X
            return Condition(in_columns, kinds_of(beside, in_columns), "columns")
        if condition is not None:
            values = read_condition(condition, n_rows)
            return Condition(values, kinds_of(condition, values), "keyword")
        if y is not None:
            values = read_target(y, n_rows, warn=not self._is_noted)
            return Condition(values, kinds_of_target(y, values), "target")
        raise ValueError(
            f"{type(self).__name__} requires y to be passed, but the target y is None: it "
            "needs a condition for every row. Pass fit(X, y), fit(X, condition=...), or name "
            "condition_columns of X. Without any condition, use VAETransformer."
        )

    def _left_behind_of_condition(self, fitted: Fitted, request: Request) -> dict[str, Any]:
        assert request.condition is not None
        found: dict[str, Any] = {"_source": request.condition.source}
        conditions = fitted.conditions
        if conditions.labels:
            found["categories_"] = conditions.labels
        if conditions.combinations is not None:
            every = np.arange(len(conditions.log_prior))
            labels = [column.tolist() for column in conditions.values(every)]
            found["combinations_"] = list(zip(*labels, strict=True))
            prior = np.exp(conditions.log_prior).astype(fitted.dtype)
            found["condition_prior_"] = from_tensor(torch.from_numpy(prior), request.X)
            if len(labels) == 1:
                found["classes_"] = conditions.labels[0]
        return found

    def _names_beside(self) -> str:
        """The columns of X that are the condition, as users call them."""
        return listed([column.name for column in self._fitted.conditions.columns])

    def _validated(self, X: Any, condition: Any, method: str) -> tuple[Any, Values | None]:
        """Validated X without its condition, and the condition's columns if there are any."""
        check_is_fitted(self)
        X, values, _ = self._split_columns(X, reset=False, method=method)
        if condition is None:
            return X, values
        if values is not None:
            raise ValueError(
                "condition= was given, but the model has it from condition_columns of X: "
                f"{self._names_beside()}. Leave condition= out; for another condition, change "
                "these columns of X."
            )
        return X, read_condition(condition, X.shape[0])

    def _split_columns(
        self, X: Any, *, reset: bool, method: str
    ) -> tuple[Any, Values | None, Schema | None]:
        """X as a float array without the condition's columns, these, and the schema of X."""
        given, X = X, received(X)
        if not reset and method in METHODS_OF_FIT:
            self._check_condition_columns()
        is_inside = self.condition_columns is not None if reset else bool(self._condition_at)
        table = self._checked_table(X, reset=reset) if is_inside else X
        if reset:
            self._condition_at = self._positions(table) if is_inside else []
        if not is_inside:
            X, schema = self._read(X, reset=reset, method=method)
            return X, None, schema
        others = _others(self._condition_at, table.shape[1])
        if not others:
            raise ValueError(
                f"condition_columns={self.condition_columns!r} are all the columns of X; "
                "none is left to model."
            )
        # Of a masked array integers stay labels, though received as floats.
        beside = given if isinstance(given, np.ma.MaskedArray) else table
        values = _columns_of_condition(beside, self._condition_at)
        if self._is_plain(reset):
            rest = _part(table, others)
            return self._floats(rest, reset=reset, method=method, is_part=True), values, None
        rest, schema = self._read(X, reset=reset, method=method, modelled=others)
        return rest, values, schema

    def _checked_table(self, X: Any, *, reset: bool) -> Any:
        """X as a table of rows whose columns can be taken apart."""
        if issparse(X):
            raise TypeError(
                "X is sparse, and condition_columns names columns of it. Give the condition by "
                "itself, with condition=; or make X dense: X.toarray()."
            )
        check_names_differ(X)
        check_feature_names(self, X, reset=reset)
        table = X if hasattr(X, "columns") or is_dispatched(X) else as_array(X)
        if table.shape[0] == 0 or len(table.shape) != 2:
            raise ValueError(
                f"X has the shape {tuple(table.shape)}; it has to be a table with rows."
            )
        check_n_features(self, table, reset=reset)
        return table

    def _position_in_X(self, column: int) -> int:
        if not self._condition_at:
            return column
        return _others(self._condition_at, self.n_features_in_)[column]

    def _check_condition_columns(self) -> None:
        """A model that goes on has its condition where it was."""
        names = list(getattr(self, "feature_names_in_", ()))
        given = columns_named(self.condition_columns)
        asked = [names.index(column) if column in names else column for column in given]
        n = self.n_features_in_
        asked = [c % n if isinstance(c, Integral) and -n <= int(c) < n else c for c in asked]
        if asked != self._condition_at:
            raise changed_error([f"condition_columns was {self._condition_at} and is {given}"])

    def _positions(self, table: Any) -> list[int]:
        if isinstance(self.condition_columns, Set | Mapping):
            raise ValueError(
                f"condition_columns={self.condition_columns!r} is a "
                f"{type(self.condition_columns).__name__}; columns of a condition have an order. "
                "Give a list of names or positions."
            )
        given = columns_named(self.condition_columns)
        # A bool counts as an integer, but in a list it would be part of a mask.
        if not all(isinstance(c, str | Integral) and not isinstance(c, bool) for c in given):
            raise ValueError(
                f"condition_columns={self.condition_columns!r} must be names (str) or positions "
                "(int) of columns of X, for instance 'batch' or [0, 1]."
            )
        if not given:
            raise ValueError(
                "condition_columns is an empty list. Name columns of X, or take the condition from "
                "y or condition=: condition_columns=None."
            )
        names = list(getattr(table, "columns", []))
        if not all(isinstance(name, str) for name in names):
            names = []
        positions = []
        for column in given:
            if isinstance(column, str):
                if column not in names:
                    raise ValueError(
                        f"condition_columns names {column!r}, which is not a column of X"
                        + (
                            f": {names}."
                            if names
                            else " (its columns have no names that are strings; use positions)."
                        )
                    )
                positions.append(names.index(column))
            else:
                if not -table.shape[1] <= column < table.shape[1]:
                    raise ValueError(
                        f"condition_columns has the position {column}, but X has "
                        f"{table.shape[1]} columns."
                    )
                positions.append(int(column) % table.shape[1])
        if len(set(positions)) < len(positions):
            raise ValueError(f"condition_columns={self.condition_columns!r} names a column twice.")
        return positions

    def _labels(
        self, values: Values | None, drawn: np.ndarray | None, n_rows: int
    ) -> Sequence[np.ndarray]:
        """The condition of decoded rows: the given one, else that drawn, else the most frequent."""
        conditions = self._fitted.conditions
        if values is not None:
            return conditions.ordered(values)
        if drawn is None:
            drawn = np.full(n_rows, int(np.argmax(conditions.log_prior)))
        return conditions.values(drawn)

    def _assemble(
        self,
        x: Tensor,
        condition: Sequence[np.ndarray],
        like: Any,
        is_mean: bool,
        *,
        completed: Any = None,
    ) -> Any:
        """Decoded columns, and the condition in its own where X has them."""
        positions = self._condition_at
        if not positions:
            return self._rows(x, like, is_mean=is_mean, completed=completed)
        if self._fitted.schema is not None:
            beside = dict(zip(positions, condition, strict=True))
            return self._rows(x, like, is_mean=is_mean, beside=beside, completed=completed)
        others, shape = _others(positions, self.n_features_in_), (len(x), self.n_features_in_)
        for dtype in (x.dtype, torch.float64):
            if not all(_is_exact(column, dtype) for column in condition):
                continue
            full = x.new_empty(shape, dtype=dtype)
            full[:, others] = x.to(dtype)
            for position, column in zip(positions, condition, strict=True):
                full[:, position] = to_tensor(column).to(full)
            return self._output(full, like)
        table = np.empty(shape, object)
        table[:, others] = to_numpy(x)
        for position, column in zip(positions, condition, strict=True):
            table[:, position] = column
        return table

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.condition_columns is None
        tags.input_tags.sparse &= self.condition_columns is None
        return tags


def _others(positions: Sequence[int], n_columns: int) -> list[int]:
    """The columns that are not at these positions: those that are modelled."""
    return [i for i in range(n_columns) if i not in positions]


def _part(table: Any, positions: Sequence[int]) -> Any:
    """A DataFrame or array of these columns alone."""
    if hasattr(table, "columns"):
        return table[[table.columns[i] for i in positions]]
    return columns_at(table, positions)


def _columns_of_condition(table: Any, positions: Sequence[int]) -> Values:
    """These columns as those of a condition; in an array they have made up names."""
    if hasattr(table, "columns"):
        names = [table.columns[i] for i in positions]
        named = [(str(name), table[name]) for name in names]
    else:
        named = [(f"x{i}", table[:, i]) for i in positions]
    return [read_condition(column, names=[name])[0] for name, column in named]


def _is_exact(values: np.ndarray, dtype: torch.dtype) -> bool:
    """Whether these are themselves in this dtype: the large number of a day or a batch may not be.

    Floats are, to rounding, if they are not beyond what it holds.
    """
    name = str(dtype).removeprefix("torch.")
    if values.dtype.kind == "f":
        return bool((np.abs(values) <= np.finfo(name).max).all())
    if values.dtype.kind not in "iu":
        return values.dtype.kind == "b"
    return bool((values.astype(name).astype(values.dtype) == values).all())
