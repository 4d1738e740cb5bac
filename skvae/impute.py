"""The VAE as an imputer of missing cells."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.impute import MissingIndicator
from sklearn.utils.validation import check_is_fitted

from skvae._base import BaseVAE
from skvae._conditional import ConditionalVAE
from skvae._conditions import kinds_of_target, read_target
from skvae._deferred import Deferrable
from skvae._docs import LinksToDocs
from skvae._frames import (
    check_names_differ,
    has_categories,
    is_blank,
    joined,
    read_columns,
    received,
)
from skvae._sklearn import HasMethods, Interval, feature_names_in, fit_context
from skvae._state import opened, sealed
from skvae._transformer import VAETransformer

__all__ = ["VAEImputer"]


# Measured by benchmarks/imputation.py: noise in the hidden units and time to learn in spite of
# it serve what one cell says of another, and several draws a posterior of few observed cells.
_DEFAULT = VAETransformer(n_importance_samples=5, dropout=0.2, n_iter_no_change=50)


class VAEImputer(LinksToDocs, Deferrable, TransformerMixin, BaseEstimator):
    """Fill missing cells with what a VAE expects of them, given the rest of their row.

    The model learns from what is observed (the bound is taken over observed cells alone
    [1]_), and its encoder sees which cells are. `transform` fills the others with
    E[x | observed cells], or with the most probable category, by self-normalised
    importance sampling.

    Parameters
    ----------
    estimator : VAETransformer or ConditionalVAE, default=None
        The model, cloned for the fit. None uses a VAETransformer with settings that favour
        imputation: ``n_importance_samples=5``, ``dropout=0.2`` and
        ``n_iter_no_change=50``, and ``likelihood="auto"`` if X has columns of categories
        or strings. A ConditionalVAE takes its condition from its ``condition_columns``, or
        labels from y, which `transform` integrates out.
    sample_posterior : bool, default=False
        Draw the missing cells instead of filling in their mean, so that the completed rows
        vary as complete ones do. For several draws use ``estimator_.sample_missing``.
    n_draws : int, default=512
        Number of draws of z for each row.
    add_indicator : bool, default=False
        Append a column for each column of X that had missing cells in `fit`, which says
        whether its cell is missing.
    random_state : int, RandomState instance or None, default=None
        Seed of the fit, if the estimator has none, and of the draws.

    Attributes
    ----------
    estimator_ : VAETransformer or ConditionalVAE
        The fitted model.
    indicator_ : MissingIndicator or None
        The source of the columns that `add_indicator` appends.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns seen in `fit`. Only set if they are all strings.

    See Also
    --------
    sklearn.impute.IterativeImputer : One regression for each column.
    skvae.VAETransformer.impute : Missing cells filled by a fitted model.

    References
    ----------
    .. [1] P.-A. Mattei and J. Frellsen, "MIWAE: Deep Generative Modelling and Imputation of
       Incomplete Data Sets", ICML 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from skvae.impute import VAEImputer
    >>> X = load_wine().data
    >>> X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    >>> completed = VAEImputer(random_state=0).fit_transform(X)
    >>> bool(np.isnan(completed).any())
    False
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [None, HasMethods(["fit", "impute", "sample_missing"])],
        "sample_posterior": ["boolean"],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "add_indicator": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: VAETransformer | ConditionalVAE | None = None,
        *,
        sample_posterior: bool = False,
        n_draws: int = 512,
        add_indicator: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.sample_posterior = sample_posterior
        self.n_draws = n_draws
        self.add_indicator = add_indicator
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the model on the observed cells of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense, with NaN, None or NA where cells are missing.
        y : array-like of shape (n_samples,), default=None
            Labels: the condition, if the estimator is a ConditionalVAE that takes it from
            y; otherwise ignored.

        Returns
        -------
        self : VAEImputer
            The fitted estimator.
        """
        if issparse(X):
            raise TypeError(
                "X is sparse: what it does not store is 0, and no cell of it is missing. Make it "
                "dense, with NaN where cells are missing."
            )
        X = received(X)
        cache = self._take_cache()
        model: VAETransformer | ConditionalVAE
        if self.estimator is None:
            model = clone(_DEFAULT)
            if cache is not None:
                model._fit_cache = cache
            check_names_differ(X)
            if has_categories(X):
                model.set_params(likelihood="auto")
        else:
            model = clone(self.estimator)
            _check_condition(model, y)
        if model.random_state is None:
            model.set_params(random_state=self.random_state)
        self.estimator_ = model.fit(X, y)
        self.n_features_in_ = model.n_features_in_
        vars(self).pop("feature_names_in_", None)
        if hasattr(model, "feature_names_in_"):
            self.feature_names_in_ = model.feature_names_in_
        self.indicator_ = None
        if self.add_indicator:
            self.indicator_ = MissingIndicator(error_on_new=False).fit(_holes(X))
        return self

    def transform(self, X: Any) -> Any:
        """X with its missing cells filled; the others are kept as they are.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense, with NaN, None or NA where cells are missing.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features_out)
            The completed rows, and with `add_indicator` its columns after them.
        """
        check_is_fitted(self)
        if self.sample_posterior:
            (completed,) = self.estimator_.sample_missing(
                X, n_draws=self.n_draws, random_state=self.random_state
            )
        else:
            completed = self.estimator_.impute(X, n_draws=self.n_draws)
        if self.indicator_ is None:
            return completed
        names = self.get_feature_names_out()[self.n_features_in_ :]
        # A DataFrame, where scikit-learn is configured to give these.
        indicators = np.asarray(self.indicator_.transform(_holes(X)))
        return joined(completed, names, indicators)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns that `transform` gives: those of X, and of the indicator.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the columns of X, if it had none in `fit`.

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        names = feature_names_in(self, input_features)
        if self.indicator_ is None:
            return names
        return np.concatenate([names, self.indicator_.get_feature_names_out(names)])

    def __getstate__(self) -> dict[str, Any]:
        return sealed(self, dict(super().__getstate__()))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(opened(self, state))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        return tags


def _check_condition(model: BaseVAE, y: Any) -> None:
    """What comes from y has to be integrated out where cells are filled, and numbers cannot be."""
    if not isinstance(model, ConditionalVAE) or model.condition_columns is not None or y is None:
        return
    # The model will warn of y.
    if "number" in kinds_of_target(y, read_target(y, len(y), warn=False)):
        raise ValueError(
            "y has numbers that are not labels, and transform fills cells without y: labels can be "
            "integrated out, numbers cannot. Give labels for y; or put the numbers into columns of "
            "X, and name them: VAEImputer(ConditionalVAE(condition_columns=[...]))."
        )


def _holes(X: Any) -> np.ndarray:
    """NaN where a cell of X is missing, whatever its column has for that, and 0 elsewhere."""
    missing = [is_blank(column.values) for column in read_columns(received(X))]
    return np.where(np.column_stack(missing), np.nan, 0.0)
