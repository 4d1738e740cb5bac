"""Rows that the model draws, beside their means: noisy, not blurry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skvae._conditional import ConditionalVAE
from skvae.plotting._axes import (
    checked_image_shape,
    limits_of,
    merged,
    names_or_numbers,
    pyplot,
    several_axes,
    show_images,
)
from skvae.plotting._model import Model, as_array, position_of

_TITLES = (r"samples $x \sim p(x\,|\,%s)$", r"means $\mathrm{E}[x\,|\,%s]$")

# Lines of the picture where the user does not say which conditions to show.
_MOST_CONDITIONS = 10

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")


class SampleDisplay:
    """Samples x ~ p(x|z), z ~ p(z), beside E[x|z] at the same z.

    What the model takes for the data's noise is in the samples alone: they are what to
    compare with data. Images stand in a line for each condition; of other rows two
    columns are shown, with data behind them if there are any.

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

    features : pair of int, default=(0, 1)
        The two columns that are shown, where rows are no images.

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
    legend_ : Legend or None

    See Also
    --------
    ReconstructionDisplay : The same where z is that of a row.

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
        features: Sequence[int] = (0, 1),
        feature_names: Sequence[str] | None = None,
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

        Returns
        -------
        display : SampleDisplay
        """
        image_shape = checked_image_shape(self.image_shape, self.samples.shape[2])
        pictures = [self._lines(part) for part in (self.samples, self.means)]
        n_lines, n_columns = pictures[0].shape[:2]
        figsize = (9.0, 4.6)
        if image_shape is not None:
            figsize = (1.4 + 1.1 * n_columns, 0.6 + 0.55 * n_lines)
        shared = {} if image_shape is not None else {"sharex": True, "sharey": True}
        axes = several_axes(ax, f"{type(self).__name__}.plot", 1, 2, figsize=figsize, **shared)
        self.axes_ = axes[0]
        self.ax_ = self.axes_[0]
        self.figure_ = self.ax_.figure
        self.images_, self.scatters_, self.legend_ = [], [], None
        for panel, title in zip(self.axes_, _TITLES, strict=True):
            panel.set_title(title % ("z" if self.condition_names is None else "z, c"))
        if image_shape is None:
            self._scatter(scatter_kwargs)
            return self
        # The means' range: noise beyond it would take the contrast from both.
        limits = limits_of(self.means)
        names = [()] * 2 if self.condition_names is None else [self.condition_names, ()]
        for panel, rows, labels in zip(self.axes_, pictures, names, strict=True):
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

    def _scatter(self, scatter_kwargs: Mapping[str, Any] | None) -> None:
        i, j = self.features
        names = names_or_numbers(self.feature_names, self.samples.shape[2])
        for panel, part in zip(self.axes_, (self.samples, self.means), strict=True):
            if self.X is not None:
                look = {"s": 10, "color": "0.8", "label": "data", "zorder": 1}
                panel.scatter(self.X[:, i], self.X[:, j], **look)
            for k, rows in enumerate(part):
                look = {"s": 12, "color": f"C{k % 10}", "marker": _MARKERS[k % len(_MARKERS)]}
                look |= {"linewidths": 0.3, "edgecolors": "white", "zorder": 2}
                look["label"] = "model" if self.condition_names is None else self.condition_names[k]
                self.scatters_.append(
                    panel.scatter(rows[:, i], rows[:, j], **merged(look, scatter_kwargs))
                )
            panel.set_xlabel(names[i])
        self.ax_.set_ylabel(names[j])
        if self.X is not None or self.condition_names is not None:
            self.legend_ = self.axes_[1].legend(
                loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False,
                handletextpad=0.2,
            )  # fmt: skip

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        n_samples: int | None = None,
        condition: Any = None,
        image_shape: Sequence[int] | None = None,
        features: Sequence[int | str] = (0, 1),
        random_state: int | np.random.RandomState | None = None,
        step: str | None = None,
        ax: Any = None,
        imshow_kwargs: Mapping[str, Any] | None = None,
        scatter_kwargs: Mapping[str, Any] | None = None,
    ) -> SampleDisplay:
        """Draw from the model.

        Parameters
        ----------
        estimator : VAETransformer, ConditionalVAE or Pipeline
            Fitted. In a Pipeline, samples go back through the steps before the VAE if all
            have ``inverse_transform`` (a mean stays a mean if they are linear); otherwise
            they are shown as the VAE sees them.
        X : array-like of shape (n_samples, n_features), default=None
            Data to show behind the samples, where rows are no images.
        n_samples : int, default=None
            For each condition; None is 6 images of each, or 36 without conditions, and
            otherwise 500 rows in all.
        condition : sequence of labels, numbers or tuples, default=None
            Of a ConditionalVAE, one line for each; None takes the labels of the fit, ten
            at most.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3), where a row is an image.
        features : pair of int or str, default=(0, 1)
            The columns to show otherwise, by position or name.
        random_state : int, RandomState instance or None, default=None
            None uses the estimator's own.
        step : str, default=None
            Which step of a Pipeline; None is the last that is a VAE.
        ax, imshow_kwargs, scatter_kwargs
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
        repeated = None
        if condition is not None:
            repeated = [each for each in conditions for _ in range(n_samples)]
        n_rows = n_samples * len(conditions)
        # One seed: the same z for both.
        seed = _seed(random_state, model.vae)
        samples, means = (
            model.sample(n_rows, repeated, mean=mean, random_state=seed) for mean in (False, True)
        )
        n_features = samples.shape[1]
        names = model.feature_names(n_features)
        if image_shape is None:
            features = [position_of(feature, names.tolist(), "feature") for feature in features]
        shape = len(conditions), n_samples, n_features
        return cls(
            samples=samples.reshape(shape),
            means=means.reshape(shape),
            X=None if X is None else model.shown(X),
            condition_names=None if condition is None else [_name(each) for each in conditions],
            image_shape=checked_image_shape(image_shape, n_features),
            features=features,
            feature_names=names,
        ).plot(ax=ax, imshow_kwargs=imshow_kwargs, scatter_kwargs=scatter_kwargs)

    @classmethod
    def from_arrays(
        cls,
        samples: Any,
        means: Any,
        X: Any = None,
        *,
        image_shape: Sequence[int] | None = None,
        features: Sequence[int] = (0, 1),
        ax: Any = None,
        imshow_kwargs: Mapping[str, Any] | None = None,
        scatter_kwargs: Mapping[str, Any] | None = None,
    ) -> SampleDisplay:
        """Show what any model has drawn.

        Parameters
        ----------
        samples, means : array-like of shape (n_samples, n_features)
        X : array-like of shape (n_rows, n_features), default=None
            Data to show behind them, where rows are no images.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3), where a row is an image.
        features : pair of int, default=(0, 1)
            The columns to show otherwise.
        ax, imshow_kwargs, scatter_kwargs
            As in `plot`.

        Returns
        -------
        display : SampleDisplay
        """
        pyplot(f"{cls.__name__}.from_arrays")
        names = [str(name) for name in samples.columns] if hasattr(samples, "columns") else None
        samples, means = as_array(samples), as_array(means)
        if samples.shape != means.shape:
            raise ValueError(f"means has the shape {means.shape}, but samples has {samples.shape}.")
        every = names_or_numbers(names, samples.shape[1])
        return cls(
            samples=samples[None],
            means=means[None],
            X=None if X is None else as_array(X),
            image_shape=checked_image_shape(image_shape, samples.shape[1]),
            features=[position_of(feature, every, "feature") for feature in features],
            feature_names=names,
        ).plot(ax=ax, imshow_kwargs=imshow_kwargs, scatter_kwargs=scatter_kwargs)


def _listed(condition: Any) -> list[Any]:
    """A condition's rows: labels, numbers, or tuples of several."""
    rows = as_array(condition).tolist() if not isinstance(condition, (list, tuple)) else condition
    return [tuple(row) if isinstance(row, list) else row for row in rows]


def _name(condition: Any) -> str:
    return ", ".join(map(str, condition)) if isinstance(condition, tuple) else str(condition)


def _seed(random_state: Any, vae: Any) -> int:
    """One integer for two calls that have to draw the same z."""
    seed = vae.random_state if random_state is None else random_state
    if isinstance(seed, Integral):
        return int(seed)
    return int(check_random_state(seed).randint(np.iinfo(np.int32).max))
