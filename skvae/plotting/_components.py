"""How much each component tells: the scree plot of a VAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from skvae._verdict import ACTIVE_NATS
from skvae.plotting._axes import integer_axis, merged, pyplot, shade, single_axes
from skvae.plotting._model import Model, Moments, as_array, of_each_row


class ComponentDisplay:
    """KL[q(z_j|x) || p(z_j)] of each component in nats, averaged over rows.

    What the explained variance is to PCA: how much a component tells about a row. One
    below the threshold is not in use, its features are noise.

    Use `from_estimator` or `from_posterior`; all parameters are kept as attributes.

    Parameters
    ----------
    kl : ndarray of shape (n_components,)
        In nats a row.

    threshold : float, default=0.01
        Nats from which on a component is in use.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bars_ : BarContainer
    threshold_ : Line2D
    legend_ : Legend

    See Also
    --------
    TraversalDisplay : What each component does to a row.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skvae import VAETransformer
    >>> from skvae.plotting import ComponentDisplay
    >>> vae = VAETransformer(n_components=4, random_state=0).fit(load_wine().data)
    >>> display = ComponentDisplay.from_estimator(vae)
    >>> display.kl.shape, display.ax_.get_ylabel()
    ((4,), 'KL[q(z|x) || p(z)] (nats a row)')
    """

    def __init__(self, *, kl: np.ndarray, threshold: float = ACTIVE_NATS) -> None:
        self.kl = kl
        self.threshold = threshold

    def plot(
        self,
        ax: Any = None,
        *,
        log: bool = False,
        bar_kwargs: Mapping[str, Any] | None = None,
        threshold_kwargs: Mapping[str, Any] | None = None,
    ) -> ComponentDisplay:
        """Draw a bar for each component.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a new figure.
        log : bool, default=False
            Whether nats have a logarithmic scale: for components near the threshold.
        bar_kwargs : dict, default=None
            For ``Axes.bar``.
        threshold_kwargs : dict, default=None
            For ``Axes.axhline``.

        Returns
        -------
        display : ComponentDisplay
        """
        ax = single_axes(ax, f"{type(self).__name__}.plot", (6.4, 4.2))
        self.ax_, self.figure_ = ax, ax.figure
        kl = np.asarray(self.kl)
        is_active = kl > self.threshold
        look: dict[str, Any] = {"color": ["C0" if active else shade(ax, 0) for active in is_active]}
        look |= {"edgecolor": ["C0" if active else shade(ax, 0.5) for active in is_active]}
        self.bars_ = ax.bar(np.arange(len(kl)), kl, **merged(look, bar_kwargs, "bar"))
        look = {"color": shade(ax, 1), "linewidth": 1, "linestyle": ":"}
        look["label"] = (
            f"{is_active.sum()} of {len(kl)} above {self.threshold:g} nats; "
            f"{kl.sum():.2f} nats in all"
        )
        self.threshold_ = ax.axhline(self.threshold, **merged(look, threshold_kwargs, "line"))
        ax.set_ylim(0, 1.18 * max(kl.max(), self.threshold))  # room for the legend
        if log:
            ax.set_yscale("log")
            low = min(self.threshold, kl[kl > 0].min(initial=1))
            ax.set_ylim(low / 3, 5 * max(kl.max(), self.threshold))
        ax.set(xlabel="component", ylabel="KL[q(z|x) || p(z)] (nats a row)")
        integer_axis(ax)
        self.legend_ = ax.legend(loc="best", frameon=False)
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        condition: Any = None,
        step: str | None = None,
        ax: Any = None,
        log: bool = False,
        bar_kwargs: Mapping[str, Any] | None = None,
        threshold_kwargs: Mapping[str, Any] | None = None,
    ) -> ComponentDisplay:
        """Of the rows of the fit, or of others.

        Parameters
        ----------
        estimator : VAETransformer, ConditionalVAE or Pipeline
            Fitted. In a Pipeline, X goes through the steps before the VAE.
        X : array-like of shape (n_samples, n_features), default=None
            None takes ``kl_per_component_``, which is of the training rows.
        condition : array-like, DataFrame, label or number, default=None
            That of a ConditionalVAE, of each row or one for all; None takes the likeliest
            labels.
        step : str, default=None
            Which step of a Pipeline; None is the last that is a VAE.
        ax, log, bar_kwargs, threshold_kwargs
            As in `plot`.

        Returns
        -------
        display : ComponentDisplay
        """
        pyplot(f"{cls.__name__}.from_estimator")
        model = Model.of(estimator, step)
        if X is None and condition is not None:
            raise ValueError("condition= was given without X. Give both, or none.")
        kl = model.kl if X is None else _kl(model.encode(X, of_each_row(condition, X))[0])
        return cls(kl=kl).plot(
            ax=ax, log=log, bar_kwargs=bar_kwargs, threshold_kwargs=threshold_kwargs
        )

    @classmethod
    def from_posterior(
        cls,
        mean: Any,
        std: Any,
        *,
        ax: Any = None,
        log: bool = False,
        bar_kwargs: Mapping[str, Any] | None = None,
        threshold_kwargs: Mapping[str, Any] | None = None,
    ) -> ComponentDisplay:
        """Of means and standard deviations of q(z|x), as ``posterior(X)`` gives them.

        Parameters
        ----------
        mean, std : array-like of shape (n_samples, n_components)
        ax, log, bar_kwargs, threshold_kwargs
            As in `plot`.

        Returns
        -------
        display : ComponentDisplay
        """
        pyplot(f"{cls.__name__}.from_posterior")
        moments = Moments(as_array(mean), as_array(std))
        if moments.mean.ndim != 2 or moments.std.shape != moments.mean.shape:
            raise ValueError(
                f"mean has the shape {moments.mean.shape} and std {moments.std.shape}; both need "
                "(n_samples, n_components), as posterior(X) gives them."
            )
        if not (np.isfinite(moments.mean).all() and (moments.std > 0).all()):
            raise ValueError(
                "means must be finite and standard deviations above 0: a component without any "
                "spread would tell infinitely many nats."
            )
        return cls(kl=_kl(moments)).plot(
            ax=ax, log=log, bar_kwargs=bar_kwargs, threshold_kwargs=threshold_kwargs
        )


def _kl(moments: Moments) -> np.ndarray:
    """KL[N(mean, std^2) || N(0, 1)], the mean over rows, ``(n_components,)``."""
    mean, std = moments
    return (0.5 * (mean**2 + std**2 - 1) - np.log(std)).mean(axis=0)
