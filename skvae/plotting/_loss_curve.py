"""How the bound rose in training, and which epoch was the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skvae.plotting._axes import integer_axis, merged, pyplot, shade, single_axes
from skvae.plotting._model import Model


class LossCurveDisplay:
    """Training and validation bound in nats a row, with the best epoch.

    The training bound is the mean over an epoch's steps, with the noise of training; the
    validation bound is that of the weights after the epoch. With another `beta` than 1
    both have it in them.

    Use `from_estimator` or `from_scores`; all parameters are kept as attributes.

    Parameters
    ----------
    training : ndarray of shape (n_epochs,)
        The training bound of each epoch, in nats a row.

    validation : ndarray of shape (n_epochs,), default=None
        The validation bound after each epoch.

    best_epoch : int, default=None
        The epoch that early stopping went back to, from 1; 0 is the start, before training.

    best_bound : float, default=None
        The validation bound of its weights.

    bound_name : str, default="bound"
        What the bound is.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of Line2D
        Training, validation: those that were drawn.
    best_ : Line2D or None
        The mark of the best epoch.
    legend_ : Legend

    See Also
    --------
    ComponentDisplay : What the components tell once training is over.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skvae import VAETransformer
    >>> from skvae.plotting import LossCurveDisplay
    >>> vae = VAETransformer(n_components=2, random_state=0).fit(load_wine().data)
    >>> display = LossCurveDisplay.from_estimator(vae)
    >>> bool(display.validation[display.best_epoch - 1] == display.best_bound)
    True
    """

    def __init__(
        self,
        *,
        training: np.ndarray,
        validation: np.ndarray | None = None,
        best_epoch: int | None = None,
        best_bound: float | None = None,
        bound_name: str = "bound",
    ) -> None:
        self.training = training
        self.validation = validation
        self.best_epoch = best_epoch
        self.best_bound = best_bound
        self.bound_name = bound_name

    def plot(
        self,
        ax: Any = None,
        *,
        score_type: str | None = None,
        line_kwargs: Mapping[str, Any] | None = None,
        best_kwargs: Mapping[str, Any] | None = None,
    ) -> LossCurveDisplay:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a new figure.
        score_type : {"training", "validation", "both"}, default=None
            Which curves; None draws those there are.
        line_kwargs : dict, default=None
            For ``Axes.plot`` of the curves.
        best_kwargs : dict, default=None
            For ``Axes.plot`` of the mark of the best epoch.

        Returns
        -------
        display : LossCurveDisplay

        Raises
        ------
        ValueError
            If the validation bound is asked for and there is none.
        """
        if score_type not in ("training", "validation", "both", None):
            raise ValueError(
                f"score_type={score_type!r} must be 'training', 'validation', 'both' or None."
            )
        if score_type in ("validation", "both") and self.validation is None:
            raise ValueError(
                f"score_type={score_type!r} needs a validation bound, and this fit has none. Fit "
                "with early_stopping=True and 20 rows or more, or draw score_type='training'."
            )
        ax = single_axes(ax, f"{type(self).__name__}.plot", (6.4, 4.2))
        self.ax_, self.figure_ = ax, ax.figure
        self.lines_, self.best_ = [], None
        curves: list[tuple[np.ndarray, dict[str, Any]]] = []
        look: dict[str, Any]
        if score_type != "validation":
            look = {"color": shade(ax, 0.45), "linestyle": "--", "label": "training"}
            curves.append((self.training, look))
        if score_type != "training" and self.validation is not None:
            curves.append((self.validation, {"color": "C0", "label": "validation"}))
        for bounds, look in curves:
            epochs = np.arange(1, len(bounds) + 1)
            look = {"marker": "." if len(bounds) == 1 else None, **look}
            self.lines_ += ax.plot(epochs, bounds, **merged(look, line_kwargs, "line"))
        if self.best_epoch is not None and score_type != "training":
            when = f"epoch {self.best_epoch}" if self.best_epoch else "the start"
            look = {"color": shade(ax, 1), "marker": "o", "markersize": 6, "linestyle": "none"}
            look |= {"label": f"best: {when}, {self.best_bound:.2f} nats", "zorder": 3}
            [self.best_] = ax.plot(
                [self.best_epoch], [self.best_bound], **merged(look, best_kwargs, "line")
            )
        ax.set(xlabel="epoch", ylabel=f"{self.bound_name} (nats a row)")
        integer_axis(ax)
        ax.grid(axis="y", color=shade(ax, 0.1))
        ax.set_axisbelow(True)
        self.legend_ = ax.legend(loc="best", frameon=False)
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        step: str | None = None,
        ax: Any = None,
        score_type: str | None = None,
        line_kwargs: Mapping[str, Any] | None = None,
        best_kwargs: Mapping[str, Any] | None = None,
    ) -> LossCurveDisplay:
        """Draw the curves of the last fit; no rows are needed.

        Parameters
        ----------
        estimator : VAETransformer, ConditionalVAE or Pipeline
            Fitted.
        step : str, default=None
            Which step of a Pipeline; None is the last that is a VAE.
        ax, score_type, line_kwargs, best_kwargs
            As in `plot`.

        Returns
        -------
        display : LossCurveDisplay
        """
        pyplot(f"{cls.__name__}.from_estimator")
        vae = Model.of(estimator, step).vae
        name = "ELBO"
        if vae.n_importance_samples > 1:
            name = f"importance-weighted bound, {vae.n_importance_samples} draws"
        if vae.beta != 1:
            name += f", beta={vae.beta:g}"
        return cls.from_scores(
            vae.loss_curve_, vae.validation_scores_, vae.best_validation_score_, bound_name=name,
            ax=ax, score_type=score_type, line_kwargs=line_kwargs, best_kwargs=best_kwargs,
        )  # fmt: skip

    @classmethod
    def from_scores(
        cls,
        loss_curve: Sequence[float],
        validation_scores: Sequence[float] = (),
        best_validation_score: float | None = None,
        *,
        bound_name: str = "bound",
        ax: Any = None,
        score_type: str | None = None,
        line_kwargs: Mapping[str, Any] | None = None,
        best_kwargs: Mapping[str, Any] | None = None,
    ) -> LossCurveDisplay:
        """Draw the attributes of a fit, or those of several after one another.

        Parameters
        ----------
        loss_curve : sequence of n_epochs float
            Minus the training bounds, as ``loss_curve_``.
        validation_scores : sequence of n_epochs float, default=()
            The validation bounds, as ``validation_scores_``.
        best_validation_score : float, default=None
            The best of these, as ``best_validation_score_``: one of the
            validation scores, or that of the start above all of them. None takes the largest.
        bound_name : str, default="bound"
            What the bound is.
        ax, score_type, line_kwargs, best_kwargs
            As in `plot`.

        Returns
        -------
        display : LossCurveDisplay
        """
        pyplot(f"{cls.__name__}.from_scores")
        validation = np.asarray(validation_scores, dtype=np.float64)
        best = best_validation_score
        if best is None and np.isfinite(validation).any():
            best = float(np.nanmax(validation))
        return cls(
            training=-np.asarray(loss_curve, dtype=np.float64),
            validation=validation if len(validation) else None,
            best_epoch=_epoch_of(best, validation),
            best_bound=None if best is None else float(best),
            bound_name=bound_name,
        ).plot(ax=ax, score_type=score_type, line_kwargs=line_kwargs, best_kwargs=best_kwargs)


def _epoch_of(best: float | None, validation: np.ndarray) -> int | None:
    """The first epoch with the best bound, from 1; 0 if it is above those of all."""
    if best is None or not np.isfinite(validation).any():
        return None
    found = np.flatnonzero(np.isclose(validation, best, rtol=1e-6, atol=0))
    if len(found):
        exact = np.flatnonzero(validation == best)
        return int((exact if len(exact) else found)[0]) + 1
    if best < np.nanmax(validation):
        raise ValueError(
            f"best_validation_score={best:g} is none of validation_scores, nor above all of them, "
            "as that of the start would be. None takes the largest."
        )
    return 0
