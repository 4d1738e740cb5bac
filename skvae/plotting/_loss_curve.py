"""How the bound rose in training, and which epoch's weights were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skvae.plotting._axes import integer_axis, merged, pyplot, shade, single_axes
from skvae.plotting._model import Model


class LossCurveDisplay:
    """Training and validation bound in nats a row, with the epoch that was kept.

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

    kept_epoch : int, default=None
        The epoch whose weights were kept, from 1; 0 is the start, before training.

    kept_bound : float, default=None
        The validation bound of the weights that were kept.

    bound_name : str, default="bound"
        What the bound is.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of Line2D
        Training, validation: those that were drawn.
    kept_ : Line2D or None
        The mark of the epoch that was kept.
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
    >>> bool(display.validation[display.kept_epoch - 1] == display.kept_bound)
    True
    """

    def __init__(
        self,
        *,
        training: np.ndarray,
        validation: np.ndarray | None = None,
        kept_epoch: int | None = None,
        kept_bound: float | None = None,
        bound_name: str = "bound",
    ) -> None:
        self.training = training
        self.validation = validation
        self.kept_epoch = kept_epoch
        self.kept_bound = kept_bound
        self.bound_name = bound_name

    def plot(
        self,
        ax: Any = None,
        *,
        score_type: str | None = None,
        line_kwargs: Mapping[str, Any] | None = None,
        kept_kwargs: Mapping[str, Any] | None = None,
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
        kept_kwargs : dict, default=None
            For ``Axes.plot`` of the mark of the epoch that was kept.

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
        self.lines_, self.kept_ = [], None
        curves = []
        if score_type != "validation":
            look = {"color": shade(ax, 0.45), "linestyle": "--", "label": "training"}
            curves.append((self.training, look))
        if score_type != "training" and self.validation is not None:
            curves.append((self.validation, {"color": "C0", "label": "validation"}))
        for bounds, look in curves:
            epochs = np.arange(1, len(bounds) + 1)
            look = {"marker": "." if len(bounds) == 1 else None, **look}
            self.lines_ += ax.plot(epochs, bounds, **merged(look, line_kwargs, "line"))
        if self.kept_epoch is not None and score_type != "training":
            when = f"epoch {self.kept_epoch}" if self.kept_epoch else "the start"
            look = {"color": shade(ax, 1), "marker": "o", "markersize": 6, "linestyle": "none"}
            look |= {"label": f"kept: {when}, {self.kept_bound:.2f} nats", "zorder": 3}
            [self.kept_] = ax.plot(
                [self.kept_epoch], [self.kept_bound], **merged(look, kept_kwargs, "line")
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
        kept_kwargs: Mapping[str, Any] | None = None,
    ) -> LossCurveDisplay:
        """Draw the curves of the last fit; no rows are needed.

        Parameters
        ----------
        estimator : VAETransformer, ConditionalVAE or Pipeline
            Fitted.
        step : str, default=None
            Which step of a Pipeline; None is the last that is a VAE.
        ax, score_type, line_kwargs, kept_kwargs
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
            ax=ax, score_type=score_type, line_kwargs=line_kwargs, kept_kwargs=kept_kwargs,
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
        kept_kwargs: Mapping[str, Any] | None = None,
    ) -> LossCurveDisplay:
        """Draw the attributes of a fit, or those of several after one another.

        Parameters
        ----------
        loss_curve : sequence of n_epochs float
            Minus the training bounds, as ``loss_curve_``.
        validation_scores : sequence of n_epochs float, default=()
            The validation bounds, as ``validation_scores_``.
        best_validation_score : float, default=None
            That of the weights that were kept, as ``best_validation_score_``: one of the
            validation scores, or that of the start above all of them. None takes the largest.
        bound_name : str, default="bound"
            What the bound is.
        ax, score_type, line_kwargs, kept_kwargs
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
            kept_epoch=_epoch_of(best, validation),
            kept_bound=None if best is None else float(best),
            bound_name=bound_name,
        ).plot(ax=ax, score_type=score_type, line_kwargs=line_kwargs, kept_kwargs=kept_kwargs)


def _epoch_of(best: float | None, validation: np.ndarray) -> int | None:
    """The first epoch with the bound that was kept, from 1; 0 if it is above those of all."""
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
