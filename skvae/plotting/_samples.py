"""Rows that the model draws, beside their means: noisy, not blurry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skvae._conditional import ConditionalVAE
from skvae.plotting._axes import (
    Names,
    checked_image_shape,
    column_names,
    legend_beside,
    limits_of,
    literal,
    look_of,
    merged,
    mosaic_size,
    pyplot,
    several_axes,
    shade,
    show_images,
)
from skvae.plotting._model import Model, aligned, as_array, positions_of, rows_of

_TITLES = (r"samples $x \sim p(x\,|\,%s)$", r"means $\mathrm{E}[x\,|\,%s]$")

# Lines of the picture where the user does not say which conditions to show.
_MOST_CONDITIONS = 10

# Of histograms, if values are no whole numbers in a small range.
_MOST_BINS = 50


class SampleDisplay:
    """Samples x ~ p(x|z), z ~ p(z), beside E[x|z] at the same z.

    What the model takes for the data's noise is in the samples alone: they are what to
    compare with data. Images stand in a line for each condition; of other rows two
    columns are shown as points, or one as histograms, with data behind them if there are
    any.

    Use `from_estimator` or `from_arrays`; all parameters are kept as attributes.

    Parameters
    ----------
    samples : ndarray of shape (n_conditions, n_samples, n_features)
        Draws; the first axis has length 1 without conditions.

    means : ndarray of shape (n_conditions, n_samples, n_features)
        E[x|z] at the same z.

    X : ndarray of shape (n_rows, n_features), default=None
        Data to compare with.

    condition_names : sequence of n_conditions str, default=None
        What each line of samples is given.

    image_shape : tuple of int, default=None
        (height, width) or (height, width, 3) of the image that a row is.

    features : sequence of 1 or 2 int, default=None
        The columns that are shown, where rows are no images; None is the first two, or
        the only one.

    feature_names : ndarray of shape (n_features,), default=None
        Names of the columns.

    Attributes
    ----------
    axes_ : ndarray of Axes of shape (2,)
        Samples and means.
    ax_ : Axes
        The first of them.
    figure_ : matplotlib Figure
    images_ : list of AxesImage
    scatters_ : list of PathCollection
        Those of the samples, then those of the means, in the order of the conditions.
    histograms_ : list of StepPatch
        Those of the samples, then those of the means, where one column is shown.
    legend_ : Legend or None

    See Also
    --------
    ReconstructionDisplay : Means and draws beside the row that z is of.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skvae import ConditionalVAE
    >>> from skvae.plotting import SampleDisplay
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> cvae = ConditionalVAE(n_components=2, random_state=0).fit(X, y)
    >>> display = SampleDisplay.from_estimator(cvae, X, features=(2, 3), n_samples=50)
    >>> display.samples.shape, display.ax_.get_xlabel()
    ((3, 50, 4), 'petal length (cm)')
    """

    def __init__(
        self,
        *,
        samples: np.ndarray,
        means: np.ndarray,
        X: np.ndarray | None = None,
        condition_names: Sequence[str] | None = None,
        image_shape: Sequence[int] | None = None,
        features: Sequence[int] | None = None,
        feature_names: Names | None = None,
    ) -> None:
        self.samples = samples
        self.means = means
        self.X = X
        self.condition_names = condition_names
        self.image_shape = image_shape
        self.features = features
        self.feature_names = feature_names

    def plot(
        self,
        ax: Any = None,
        *,
        imshow_kwargs: Mapping[str, Any] | None = None,
        scatter_kwargs: Mapping[str, Any] | None = None,
        stairs_kwargs: Mapping[str, Any] | None = None,
    ) -> SampleDisplay:
        """Draw samples and means.

        Parameters
        ----------
        ax : matplotlib Axes or array of 2 Axes, default=None
            None makes a new figure; a single one is divided.
        imshow_kwargs : dict, default=None
            For ``Axes.imshow``.
        scatter_kwargs : dict, default=None
            For ``Axes.scatter`` of samples and means.
        stairs_kwargs : dict, default=None
            For ``Axes.stairs`` of their histograms.

        Returns
        -------
        display : SampleDisplay
        """
        image_shape = checked_image_shape(self.image_shape, self.samples.shape[2])
        pictures = [self._lines(part) for part in (self.samples, self.means)]
        n_lines, n_columns = pictures[0].shape[:2]
        features = _positions(self.features, range(self.samples.shape[2]))
        figsize = (9.0, 4.6)
        shared = {"sharex": True, "sharey": len(features) == 2}
        if image_shape is not None:
            width, height = mosaic_size(image_shape, n_lines, n_columns, 0.55)
            names = self.condition_names or ()
            # Room for the names of lines and for the titles of both.
            room = 0.6 + 0.08 * max(map(len, names), default=0)
            figsize = (room + 2 * max(width, 1.8), 0.6 + height)
            shared = {}
        axes = several_axes(ax, f"{type(self).__name__}.plot", 1, 2, figsize=figsize, **shared)
        self.axes_ = axes[0]
        self.ax_ = self.axes_[0]
        self.figure_ = self.ax_.figure
        self.images_: list[Any] = []
        self.scatters_: list[Any] = []
        self.histograms_: list[Any] = []
        self.legend_ = None
        for panel, title in zip(self.axes_, _TITLES, strict=True):
            panel.set_title(title % ("z" if self.condition_names is None else "z, c"))
        if image_shape is None:
            if len(features) == 2:
                self._scatter(features, scatter_kwargs)
            else:
                self._stairs(features[0], stairs_kwargs)
            if self.X is not None or self.condition_names is not None:
                drawn = self.scatters_ or self.histograms_
                self.legend_ = legend_beside(self.axes_[1], drawn[len(self.samples) :])
            return self
        # The means' range: noise beyond it would take the contrast from both.
        limits = limits_of(self.means)
        of_lines = [list(map(literal, self.condition_names or ())), []]
        for panel, rows, labels in zip(self.axes_, pictures, of_lines, strict=True):
            self.images_.append(
                show_images(panel, rows, image_shape, limits, imshow_kwargs, y_labels=labels)
            )
        return self

    def _lines(self, rows: np.ndarray) -> np.ndarray:
        """Without conditions as a square, as far as there are rows for it."""
        if len(rows) > 1 or self.condition_names is not None:
            return rows
        width = int(np.ceil(np.sqrt(rows.shape[1])))
        height = rows.shape[1] // width
        return rows[0, : width * height].reshape(height, width, -1)

    def _looks(self) -> list[dict[str, Any]]:
        """Colour, marker and label of each condition."""
        from matplotlib import rcParams

        colors = [f"C{k}" for k in range(len(rcParams["axes.prop_cycle"]))]
        labels = ["model"] if self.condition_names is None else self.condition_names
        return [look_of(k, colors) | {"label": literal(label)} for k, label in enumerate(labels)]

    def _scatter(self, features: Sequence[int], scatter_kwargs: Mapping[str, Any] | None) -> None:
        i, j = features
        names = column_names(self.feature_names, self.samples.shape[2])
        for panel, part in zip(self.axes_, (self.samples, self.means), strict=True):
            if self.X is not None:
                look = {"s": 10, "color": shade(panel, 0.2), "label": "data", "zorder": 1}
                panel.scatter(self.X[:, i], self.X[:, j], **look)
            for rows, look in zip(part, self._looks(), strict=True):
                look |= {"s": 12, "linewidth": 0.3, "edgecolor": shade(panel, 0), "zorder": 2}
                keywords = merged(look, scatter_kwargs, "collection")
                self.scatters_.append(panel.scatter(rows[:, i], rows[:, j], **keywords))
                self.scatters_[-1].set_label(keywords["label"])  # also if it is ""
            panel.set_xlabel(literal(names[i]))
        self.ax_.set_ylabel(literal(names[j]))

    def _stairs(self, feature: int, stairs_kwargs: Mapping[str, Any] | None) -> None:
        """Histograms over the same bins: data filled, each condition an outline."""
        parts = [part[:, :, feature] for part in (self.samples, self.means)]
        data = np.empty(0) if self.X is None else self.X[:, feature]
        data = data[np.isfinite(data)]
        bins = _bins(np.concatenate([data, parts[0].ravel()]), parts[1].ravel())
        name = column_names(self.feature_names, self.samples.shape[2])[feature]
        for panel, part in zip(self.axes_, parts, strict=True):
            if len(data):
                look = {"color": shade(panel, 0.2), "label": "data", "zorder": 1}
                panel.stairs(*np.histogram(data, bins, density=True), fill=True, **look)
            styles = cycle(["-", "--", ":", "-."])
            for values, look, style in zip(part, self._looks(), styles, strict=False):
                del look["marker"]
                look |= {"linewidth": 1.5, "linestyle": style, "zorder": 2}
                heights, _ = np.histogram(values, bins, density=True)
                keywords = merged(look, stairs_kwargs, "bar")
                self.histograms_.append(panel.stairs(heights, bins, **keywords))
                self.histograms_[-1].set_label(keywords["label"])  # also if it is ""
            panel.set_xlabel(literal(name))
        self.ax_.set_ylabel("density")

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        n_samples: int | None = None,
        condition: Any = None,
        image_shape: Sequence[int] | None = None,
        features: Sequence[int | str] | int | str | None = None,
        random_state: int | np.random.RandomState | None = None,
        step: str | None = None,
        ax: Any = None,
        imshow_kwargs: Mapping[str, Any] | None = None,
        scatter_kwargs: Mapping[str, Any] | None = None,
        stairs_kwargs: Mapping[str, Any] | None = None,
    ) -> SampleDisplay:
        """Draw from the model.

        Parameters
        ----------
        estimator : VAETransformer, ConditionalVAE or Pipeline
            Fitted. In a Pipeline, samples go back through the steps before the VAE, from
            the last, as far as their ``inverse_transform`` can undo them (a mean stays a
            mean if they are linear).
        X : array-like of shape (n_samples, n_features), default=None
            Data to show behind the samples, where rows are no images: with the columns of
            the fit.
        n_samples : int, default=None
            For each condition; None is 6 images of each, or 36 without conditions, and
            otherwise 500 rows in all.
        condition : sequence of labels, numbers or tuples, or DataFrame, default=None
            Of a ConditionalVAE, one line for each, or a single one; None takes the labels
            of the fit, ten at most. Columns of a DataFrame go by their names, as in `fit`.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3), where a row is an image.
        features : int, str or sequence of 1 or 2 of them, default=None
            The columns to show otherwise, by position or name: two as points, one as
            histograms. None takes the first two, or the only one.
        random_state : int, RandomState instance or None, default=None
            None uses the estimator's own.
        step : str, default=None
            Which step of a Pipeline; None is the last that is a VAE.
        ax, imshow_kwargs, scatter_kwargs, stairs_kwargs
            As in `plot`.

        Returns
        -------
        display : SampleDisplay
        """
        pyplot(f"{cls.__name__}.from_estimator")
        model = Model.of(estimator, step)
        if condition is None and isinstance(model.vae, ConditionalVAE):
            seen = getattr(model.vae, "combinations_", None)
            condition = None if seen is None else seen[:_MOST_CONDITIONS]
        conditions = [None] if condition is None else _listed(condition)
        if n_samples is None:
            few, most = (36, 500) if condition is None else (6, max(1, 500 // len(conditions)))
            n_samples = most if image_shape is None else few
        n_rows = n_samples * len(conditions)
        repeated, places = None, np.repeat(np.arange(len(conditions)), n_samples).tolist()
        if hasattr(condition, "columns"):  # which have names to go by
            repeated = rows_of(condition, places)
        elif condition is not None:
            repeated = [conditions[k] for k in places]
        # One seed: the same z for both.
        seed = _seed(random_state, model.vae)
        drawn = [
            model.sample(n_rows, repeated, mean=mean, random_state=seed) for mean in (False, True)
        ]
        rows, (samples, means), names = model.shown(X, *drawn)
        n_features = samples.shape[1]
        shape = len(conditions), n_samples, n_features
        return cls(
            samples=samples.reshape(shape),
            means=means.reshape(shape),
            X=rows,
            condition_names=None if condition is None else [_name(each) for each in conditions],
            image_shape=checked_image_shape(image_shape, n_features),
            features=_positions(features, names) if image_shape is None else None,
            feature_names=names,
        ).plot(
            ax=ax, imshow_kwargs=imshow_kwargs, scatter_kwargs=scatter_kwargs,
            stairs_kwargs=stairs_kwargs,
        )  # fmt: skip

    @classmethod
    def from_arrays(
        cls,
        samples: Any,
        means: Any,
        X: Any = None,
        *,
        image_shape: Sequence[int] | None = None,
        features: Sequence[int | str] | int | str | None = None,
        ax: Any = None,
        imshow_kwargs: Mapping[str, Any] | None = None,
        scatter_kwargs: Mapping[str, Any] | None = None,
        stairs_kwargs: Mapping[str, Any] | None = None,
    ) -> SampleDisplay:
        """Show what any model has drawn.

        Parameters
        ----------
        samples, means : array-like of shape (n_samples, n_features)
            Columns of DataFrames go by their names.
        X : array-like of shape (n_rows, n_features), default=None
            Data to show behind them, where rows are no images.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3), where a row is an image.
        features : int, str or sequence of 1 or 2 of them, default=None
            The columns to show otherwise, as in `from_estimator`.
        ax, imshow_kwargs, scatter_kwargs, stairs_kwargs
            As in `plot`.

        Returns
        -------
        display : SampleDisplay
        """
        pyplot(f"{cls.__name__}.from_arrays")
        (samples, means, X), given = aligned({"samples": samples, "means": means, "X": X})
        if samples.shape != means.shape:
            raise ValueError(f"means has the shape {means.shape}, but samples has {samples.shape}.")
        if samples.ndim != 2:
            raise ValueError(
                f"samples has the shape {samples.shape}; it needs (n_samples, n_features)."
            )
        if X is not None and X.shape[1:] != samples.shape[1:]:
            raise ValueError(
                f"X has the shape {X.shape}; it needs the {samples.shape[1]} columns of samples."
            )
        names = column_names(given, samples.shape[1])
        return cls(
            samples=samples[None],
            means=means[None],
            X=X,
            image_shape=checked_image_shape(image_shape, samples.shape[1]),
            features=_positions(features, names) if image_shape is None else None,
            feature_names=names,
        ).plot(
            ax=ax, imshow_kwargs=imshow_kwargs, scatter_kwargs=scatter_kwargs,
            stairs_kwargs=stairs_kwargs,
        )  # fmt: skip


def _positions(features: Any, names: Sequence[Any] | np.ndarray) -> list[int]:
    """Of the one or two columns to show; None is the first ones."""
    if features is None:
        return list(range(min(2, len(names))))
    positions = positions_of(features, names, "feature")
    if len(positions) not in (1, 2):
        raise ValueError(
            f"features has {len(positions)} entries; one column is shown as histograms, two as "
            "points."
        )
    return positions


def _bins(values: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Edges of bins for values and means: around each whole number if values are no others."""
    low, high = min(values.min(), means.min()), max(values.max(), means.max())
    if (values == np.round(values)).all() and high - low < _MOST_BINS:
        return np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    edges = np.histogram_bin_edges(values, "auto", range=(low, high))
    return edges if len(edges) <= _MOST_BINS else np.linspace(low, high, _MOST_BINS + 1)


def _listed(condition: Any) -> list[Any]:
    """A condition's rows: labels, numbers, or tuples of several; a single one is a row."""
    if np.ndim(condition) == 0:
        return [np.asarray(condition).item()]
    if hasattr(condition, "columns"):  # by column: each keeps its dtype
        rows = list(zip(*(condition[name].to_list() for name in condition.columns), strict=True))
    else:
        is_list = isinstance(condition, (list, tuple))
        rows = condition if is_list else as_array(condition).tolist()
    if not rows:
        raise ValueError(
            "condition has no rows: there is nothing to draw. None takes the labels of the fit."
        )
    return [tuple(row) if isinstance(row, list) else row for row in rows]


def _name(condition: Any) -> str:
    return ", ".join(map(str, condition)) if isinstance(condition, tuple) else str(condition)


def _seed(random_state: Any, vae: Any) -> int:
    """One integer for two calls that have to draw the same z."""
    seed = vae.random_state if random_state is None else random_state
    if isinstance(seed, Integral):
        return int(seed)
    return int(check_random_state(seed).randint(np.iinfo(np.int32).max))
