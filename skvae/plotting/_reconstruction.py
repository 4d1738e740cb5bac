"""Rows, what the model makes of their place in latent space, and with which noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length, check_scalar

from skvae.plotting._axes import (
    Names,
    are_few,
    center_and_scale,
    checked_image_shape,
    column_names,
    draw_panels,
    limits_of,
    mosaic_size,
    pyplot,
    show_images,
    single_axes,
)
from skvae.plotting._model import Model, aligned, first_rows, of_each_row

_TITLES = ("data $x$", r"mean $\mathrm{E}[x\,|\,z]$", r"draw $x \sim p(x\,|\,z)$")


class ReconstructionDisplay:
    """Rows beside E[x|z] and a draw from p(x|z), at z the mean of q(z|x).

    The mean leaves out what the model holds for noise, the draw puts noise of that size
    back: data, and not the mean, should look like the draw. Images have a line for each
    of the three; other rows have a panel each, with their columns along it.

    Use `from_estimator` or `from_arrays`; all parameters are kept as attributes.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
        Rows of data.

    mean : ndarray of shape (n_rows, n_features)
        E[x|z], in the units of X.

    draw : ndarray of shape (n_rows, n_features), default=None
        Draws from p(x|z), in the units of X.

    image_shape : tuple of int, default=None
        (height, width) or (height, width, 3) of the image that a row is; None where it
        is none.

    feature_names : ndarray of shape (n_features,), default=None
        Names of the columns.

    center, scale : ndarray of shape (n_features,), default=None
        Subtracted from the columns, and what they are then divided by, where rows are no
        images; None shows columns as they are.

    Attributes
    ----------
    axes_ : ndarray of Axes of shape (n_panels,)
        A single one for images.
    ax_ : Axes
        The first of them.
    figure_ : matplotlib Figure
    image_ : AxesImage or None
    lines_ : list of list of Line2D
        Of data, mean and draw, for each row; empty for images.
    legend_ : Legend or None

    See Also
    --------
    SampleDisplay : Means and draws beside each other where z is drawn from p(z).

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skvae import VAETransformer
    >>> from skvae.plotting import ReconstructionDisplay
    >>> X = load_wine(as_frame=True).data
    >>> vae = VAETransformer(n_components=4, random_state=0).fit(X)
    >>> display = ReconstructionDisplay.from_estimator(vae, X, n_rows=2)
    >>> display.draw.shape, display.axes_.shape
    ((2, 13), (2,))
    """

    def __init__(
        self,
        *,
        X: np.ndarray,
        mean: np.ndarray,
        draw: np.ndarray | None = None,
        image_shape: Sequence[int] | None = None,
        feature_names: Names | None = None,
        center: np.ndarray | None = None,
        scale: np.ndarray | None = None,
    ) -> None:
        self.X = X
        self.mean = mean
        self.draw = draw
        self.image_shape = image_shape
        self.feature_names = feature_names
        self.center = center
        self.scale = scale

    def plot(
        self,
        ax: Any = None,
        *,
        imshow_kwargs: Mapping[str, Any] | None = None,
        line_kwargs: Mapping[str, Any] | None = None,
    ) -> ReconstructionDisplay:
        """Draw the rows.

        Parameters
        ----------
        ax : matplotlib Axes or array of n_rows Axes, default=None
            None makes a new figure. Where rows are no images, a single one is divided.
        imshow_kwargs : dict, default=None
            For ``Axes.imshow``.
        line_kwargs : dict, default=None
            For ``Axes.plot`` of data, mean and draw.

        Returns
        -------
        display : ReconstructionDisplay
        """
        caller = f"{type(self).__name__}.plot"
        ink = pyplot(caller).rcParams["text.color"]
        self.lines_: list[Any] = []
        self.image_ = self.legend_ = None
        image_shape = checked_image_shape(self.image_shape, self.X.shape[1])
        parts = [part for part in (self.X, self.mean, self.draw) if part is not None]
        if image_shape is not None:
            width, height = mosaic_size(image_shape, len(parts), len(self.X), 0.8)
            ax = single_axes(ax, caller, (1.5 + width, 0.2 + height))
            self.image_ = show_images(
                ax, np.stack(parts), image_shape, limits_of(self.X), imshow_kwargs,
                y_labels=_TITLES[: len(parts)],
            )  # fmt: skip
            self.axes_ = np.array([ax], dtype=object)
        else:
            is_new = ax is None
            unit = "value" if self.scale is None else "standard deviations\nfrom the mean"
            self.axes_, self.lines_ = draw_panels(
                ax, caller, [f"row {i}" for i in range(len(self.X))], self._curves(parts, ink),
                self.feature_names, unit, line_kwargs,
            )  # fmt: skip
            self.legend_ = _legend(self.axes_[0], is_new=is_new)
        self.ax_ = self.axes_[0]
        self.figure_ = self.ax_.figure
        return self

    def _curves(
        self, parts: Sequence[np.ndarray], ink: Any
    ) -> list[list[tuple[np.ndarray, dict[str, Any]]]]:
        """Of each row: data, mean and draw in the units of the picture, and how they look."""
        center = 0.0 if self.center is None else self.center
        scale = 1.0 if self.scale is None else self.scale
        looks = (
            {"color": ink, "linestyle": "none", "marker": "o", "markersize": 4.5},
            {"color": "C0", "linestyle": "-", "linewidth": 1.8},
            {"color": "C1", "linestyle": "none", "marker": "x", "markersize": 5},
        )
        if not are_few(self.X.shape[1]):  # points would hide each other
            looks = (
                {"color": ink, "linewidth": 1.2},
                {"color": "C0", "linewidth": 1.8},
                {"color": "C1", "linewidth": 0.8, "zorder": 1},
            )
        return [
            [
                ((part[i] - center) / scale, {**look, "label": title})
                for part, title, look in zip(parts, _TITLES, looks, strict=False)
            ]
            for i in range(len(self.X))
        ]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        n_rows: int | None = None,
        image_shape: Sequence[int] | None = None,
        standardise: bool = True,
        condition: Any = None,
        random_state: int | np.random.RandomState | None = None,
        step: str | None = None,
        ax: Any = None,
        imshow_kwargs: Mapping[str, Any] | None = None,
        line_kwargs: Mapping[str, Any] | None = None,
    ) -> ReconstructionDisplay:
        """Encode rows, decode them, draw from p(x|z).

        Parameters
        ----------
        estimator : VAETransformer, ConditionalVAE or Pipeline
            Fitted. In a Pipeline, X goes through the steps before the VAE, and what is
            decoded goes back through their ``inverse_transform``, from the last, as far as
            that can be done (a mean stays a mean if they are linear); all is shown as it is
            there.
        X : array-like of shape (n_samples, n_features)
        n_rows : int, default=None
            The first rows of X that are shown; None is ten images, or else three rows.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3), where a row is an image.
        standardise : bool, default=True
            Where rows are no images: show each column less its mean and in units of its
            standard deviation, of all rows of X. False suits columns of one unit, as in a
            spectrum.
        condition : array-like, DataFrame, label or number, default=None
            That of a ConditionalVAE, of each row or one for all; None takes the likeliest
            labels.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws; None uses the estimator's own.
        step : str, default=None
            Which step of a Pipeline; None is the last that is a VAE.
        ax, imshow_kwargs, line_kwargs
            As in `plot`.

        Returns
        -------
        display : ReconstructionDisplay
        """
        pyplot(f"{cls.__name__}.from_estimator")
        model = Model.of(estimator, step)
        condition = of_each_row(condition, X)
        check_consistent_length(X, condition)
        if n_rows is None:
            n_rows = 3 if image_shape is None else 10
        check_scalar(n_rows, "n_rows", Integral, min_val=1)
        moments, condition = model.encode(first_rows(X, n_rows), first_rows(condition, n_rows))
        rows, (mean, draw), names = model.shown(
            X,
            model.decode(moments.mean, condition),
            model.decode(moments.mean, condition, mean=False, random_state=random_state),
        )
        assert rows is not None  # as X is not
        shape = checked_image_shape(image_shape, rows.shape[1])
        center = scale = None
        if standardise and shape is None:
            center, scale = center_and_scale(rows)
        return cls(
            X=rows[:n_rows],
            mean=mean,
            draw=draw,
            image_shape=shape,
            feature_names=names,
            center=center,
            scale=scale,
        ).plot(ax=ax, imshow_kwargs=imshow_kwargs, line_kwargs=line_kwargs)

    @classmethod
    def from_arrays(
        cls,
        X: Any,
        mean: Any,
        draw: Any = None,
        *,
        image_shape: Sequence[int] | None = None,
        ax: Any = None,
        imshow_kwargs: Mapping[str, Any] | None = None,
        line_kwargs: Mapping[str, Any] | None = None,
    ) -> ReconstructionDisplay:
        """Show rows beside what any model made of them.

        Parameters
        ----------
        X, mean : array-like of shape (n_rows, n_features)
            Data and their reconstructions; the names of a DataFrame's columns are kept, and
            columns of several go by their names.
        draw : array-like of shape (n_rows, n_features), default=None
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3), where a row is an image.
        ax, imshow_kwargs, line_kwargs
            As in `plot`.

        Returns
        -------
        display : ReconstructionDisplay
        """
        pyplot(f"{cls.__name__}.from_arrays")
        (X, mean, draw), names = aligned({"X": X, "mean": mean, "draw": draw})
        if X.ndim != 2:
            raise ValueError(f"X has the shape {X.shape}; it needs (n_rows, n_features).")
        for name, part in {"mean": mean, "draw": draw}.items():
            if part is not None and part.shape != X.shape:
                raise ValueError(f"{name} has the shape {part.shape}, but X has {X.shape}.")
        return cls(
            X=X,
            mean=mean,
            draw=draw,
            image_shape=checked_image_shape(image_shape, X.shape[1]),
            feature_names=None if names is None else column_names(names, X.shape[1]),
        ).plot(ax=ax, imshow_kwargs=imshow_kwargs, line_kwargs=line_kwargs)


def _legend(ax: Any, *, is_new: bool) -> Any:
    """Above the panels of a new figure; within those of others, whose surroundings are not ours."""
    if is_new:  # in the middle, and above the title of the panel
        return ax.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, borderaxespad=1.6
        )
    look = {"fontsize": "small", "handlelength": 1.2, "borderaxespad": 0.2}
    legend = ax.legend(loc="best", ncols=3, **look)
    if legend.get_window_extent().width > ax.get_window_extent().width:
        legend = ax.legend(loc="upper right", **look)
    return legend
