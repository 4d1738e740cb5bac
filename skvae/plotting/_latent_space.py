"""Where rows lie in latent space, and how far q(z|x) spreads about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skvae.plotting._axes import merged, pyplot, single_axes
from skvae.plotting._model import Model, Moments, as_array, position_of

# Whole numbers with more values than this are numbers, with fewer they are labels.
_MOST_LABELS = 20

# One for each category, so that they can be told apart without colours.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")


class LatentSpaceDisplay:
    """Two components of every row, with the spread of q(z|x) and coloured by y.

    A point is the mean of q(z|x), an ellipse or a cross its standard deviations. Where
    spreads are as wide as the cloud of points, a component tells little about a row;
    where points of several classes lie within one spread, the model does not tell them
    apart. Both axes are in standard deviations of the prior p(z).

    Use `from_estimator` or `from_posterior`; all parameters are kept as attributes.

    Parameters
    ----------
    mean : ndarray of shape (n_samples, 2)
        Means of q(z|x).

    std : ndarray of shape (n_samples, 2), default=None
        Standard deviations of q(z|x).

    y : ndarray of shape (n_samples,), default=None
        What the points are coloured by. Text, booleans and whole numbers of at most 20
        values are labels; all else are numbers.

    component_names : sequence of 2 str, default=("component 0", "component 1")
        Labels of the axes.

    y_name : str, default=None
        What y is.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    scatters_ : list of PathCollection
        One for each label in their order, or a single one.
    spreads_ : list of Collection
        The ellipses or crosses of each of these; empty without.
    legend_ : Legend or None
    colorbar_ : Colorbar or None
    texts_ : list of Text
        The labels at the medians of their points; empty without.

    See Also
    --------
    ManifoldDisplay : What the model decodes at each place of this plane.
    ComponentDisplay : How much each component tells.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skvae import VAETransformer
    >>> from skvae.plotting import LatentSpaceDisplay
    >>> X, y = load_wine(return_X_y=True)
    >>> vae = VAETransformer(n_components=2, random_state=0).fit(X)
    >>> display = LatentSpaceDisplay.from_estimator(vae, X, y)
    >>> display.mean.shape, display.ax_.get_xlabel()
    ((178, 2), 'component 0 (1.27 nats)')
    """

    def __init__(
        self,
        *,
        mean: np.ndarray,
        std: np.ndarray | None = None,
        y: np.ndarray | None = None,
        component_names: Sequence[str] = ("component 0", "component 1"),
        y_name: str | None = None,
    ) -> None:
        self.mean = mean
        self.std = std
        self.y = y
        self.component_names = component_names
        self.y_name = y_name

    def plot(
        self,
        ax: Any = None,
        *,
        spread: str | None = "ellipse",
        n_std: float = 1.0,
        names: str | None = "legend",
        cmap: Any = None,
        scatter_kwargs: Mapping[str, Any] | None = None,
        spread_kwargs: Mapping[str, Any] | None = None,
    ) -> LatentSpaceDisplay:
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a new figure.
        spread : {"ellipse", "cross"} or None, default="ellipse"
            How to show the standard deviations of q(z|x).
        n_std : float, default=1.0
            Half an ellipse's width, in standard deviations.
        names : {"legend", "median"} or None, default="legend"
            Where labels are written: in a legend, or at the median of their points.
        cmap : str or Colormap, default=None
            Of the labels or numbers; None is "tab10" or "tab20" for labels and "viridis"
            for numbers.
        scatter_kwargs : dict, default=None
            For ``Axes.scatter``.
        spread_kwargs : dict, default=None
            For the collection of ellipses or crosses.

        Returns
        -------
        display : LatentSpaceDisplay
        """
        if spread not in ("ellipse", "cross", None):
            raise ValueError(f"spread={spread!r} must be 'ellipse', 'cross' or None.")
        if names not in ("legend", "median", None):
            raise ValueError(f"names={names!r} must be 'legend', 'median' or None.")
        is_new = ax is None
        ax = single_axes(ax, f"{type(self).__name__}.plot", (6.4, 5.2))
        self.ax_, self.figure_ = ax, ax.figure
        self.scatters_, self.spreads_, self.texts_ = [], [], []
        self.legend_ = self.colorbar_ = None
        draw = {"spread": spread, "n_std": n_std, "spread_kwargs": spread_kwargs}
        if self.y is None:
            self._add(slice(None), merged({"s": 12, "color": "C0"}, scatter_kwargs), **draw)
        elif _is_categorical(self.y):
            self._plot_labels(names, cmap, scatter_kwargs, draw)
        else:
            keywords = {"s": 14, "c": self.y, "cmap": cmap or "viridis", **(scatter_kwargs or {})}
            self._add(slice(None), keywords, **draw)
            self.colorbar_ = ax.figure.colorbar(self.scatters_[0], ax=ax, label=self.y_name)
        ax.set(xlabel=self.component_names[0], ylabel=self.component_names[1])
        if is_new:  # both axes have one unit
            ax.set_aspect("equal", adjustable="datalim")
        return self

    def _plot_labels(
        self,
        names: str | None,
        cmap: Any,
        scatter_kwargs: Mapping[str, Any] | None,
        draw: dict[str, Any],
    ) -> None:
        from matplotlib import colormaps, patheffects

        texts = np.array([_text(value) for value in self.y.tolist()])
        labels = _labels(self.y)
        if cmap is None:
            cmap = "tab10" if len(labels) <= 10 else "tab20"
        cmap = colormaps[cmap] if isinstance(cmap, str) else cmap
        is_listed = cmap.N <= 256 and hasattr(cmap, "colors") and cmap.N < 64
        for i, label in enumerate(labels):
            color = cmap(i % cmap.N if is_listed else i / max(1, len(labels) - 1))
            marker = _MARKERS[i % len(_MARKERS)]
            rows = texts == label
            keywords = {"s": 20, "color": color, "marker": marker, "label": label}
            keywords |= {"linewidths": 0}
            self._add(rows, merged(keywords, scatter_kwargs), **draw)
            if names == "median":
                outline = [patheffects.withStroke(linewidth=3, foreground="white")]
                x, y = np.median(self.mean[rows], axis=0)
                self.texts_.append(
                    self.ax_.text(
                        x, y, label, ha="center", va="center", weight="bold", zorder=5,
                        path_effects=outline,
                    )
                )  # fmt: skip
        if names == "legend":
            self.legend_ = self.ax_.legend(
                title=self.y_name, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0,
                frameon=False, handletextpad=0.2,
            )  # fmt: skip

    def _add(
        self,
        rows: Any,
        scatter: dict[str, Any],
        *,
        spread: str | None,
        n_std: float,
        spread_kwargs: Mapping[str, Any] | None,
    ) -> None:
        """Points of one kind, and behind them their spread in the same colours."""
        mean = self.mean[rows]
        points = self.ax_.scatter(mean[:, 0], mean[:, 1], **{"zorder": 3, **scatter})
        self.scatters_.append(points)
        if spread is None or self.std is None:
            return
        points.update_scalarmappable()
        colors = points.get_facecolor()
        reach = n_std * self.std[rows]
        self.ax_.update_datalim(np.concatenate([mean - reach, mean + reach]))
        drawn = _ellipses if spread == "ellipse" else _crosses
        collection = drawn(self.ax_, mean, reach, colors, spread_kwargs)
        self.ax_.add_collection(collection, autolim=False)
        self.ax_.autoscale_view()
        self.spreads_.append(collection)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        components: Sequence[int | str] = (0, 1),
        condition: Any = None,
        step: str | None = None,
        ax: Any = None,
        spread: str | None = "ellipse",
        n_std: float = 1.0,
        names: str | None = "legend",
        cmap: Any = None,
        scatter_kwargs: Mapping[str, Any] | None = None,
        spread_kwargs: Mapping[str, Any] | None = None,
    ) -> LatentSpaceDisplay:
        """Encode X and draw it.

        Parameters
        ----------
        estimator : VAETransformer, ConditionalVAE or Pipeline
            Fitted. In a Pipeline, X goes through the steps before the VAE.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            What the points are coloured by; it is not given to the model.
        components : pair of int or str, default=(0, 1)
            By position, or by name as in ``get_feature_names_out``.
        condition : array-like or DataFrame, default=None
            That of a ConditionalVAE; labels are integrated out without.
        step : str, default=None
            Which step of a Pipeline; None is the last that is a VAE.
        ax, spread, n_std, names, cmap, scatter_kwargs, spread_kwargs
            As in `plot`.

        Returns
        -------
        display : LatentSpaceDisplay
        """
        pyplot(f"{cls.__name__}.from_estimator")
        model = Model.of(estimator, step)
        positions = model.positions(components)
        return cls._of(
            model.posterior(X, condition), y, positions, model.component_names
        ).plot(
            ax=ax, spread=spread, n_std=n_std, names=names, cmap=cmap,
            scatter_kwargs=scatter_kwargs, spread_kwargs=spread_kwargs,
        )  # fmt: skip

    @classmethod
    def from_posterior(
        cls,
        mean: Any,
        std: Any = None,
        y: Any = None,
        *,
        components: Sequence[int] = (0, 1),
        ax: Any = None,
        spread: str | None = "ellipse",
        n_std: float = 1.0,
        names: str | None = "legend",
        cmap: Any = None,
        scatter_kwargs: Mapping[str, Any] | None = None,
        spread_kwargs: Mapping[str, Any] | None = None,
    ) -> LatentSpaceDisplay:
        """Draw what ``posterior(X)`` gave, or the features of any other model.

        Parameters
        ----------
        mean : array-like of shape (n_samples, n_components)
        std : array-like of shape (n_samples, n_components), default=None
        y : array-like of shape (n_samples,), default=None
            What the points are coloured by.
        components : pair of int, default=(0, 1)
            Which columns of mean and std.
        ax, spread, n_std, names, cmap, scatter_kwargs, spread_kwargs
            As in `plot`.

        Returns
        -------
        display : LatentSpaceDisplay

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.decomposition import PCA
        >>> from skvae.plotting import LatentSpaceDisplay
        >>> X, y = load_wine(return_X_y=True)
        >>> Z = PCA(2, whiten=True).fit_transform(X)
        >>> LatentSpaceDisplay.from_posterior(Z, y=y).ax_.get_xlabel()
        'component 0'
        """
        pyplot(f"{cls.__name__}.from_posterior")
        moments = Moments(*(None if part is None else as_array(part) for part in (mean, std)))
        if moments.std is not None and moments.std.shape != moments.mean.shape:
            raise ValueError(
                f"std has the shape {moments.std.shape}, but mean has {moments.mean.shape}."
            )
        every = [f"component {j}" for j in range(moments.mean.shape[1])]
        positions = [position_of(component, every, "component") for component in components]
        return cls._of(moments, y, positions, every).plot(
            ax=ax, spread=spread, n_std=n_std, names=names, cmap=cmap,
            scatter_kwargs=scatter_kwargs, spread_kwargs=spread_kwargs,
        )  # fmt: skip

    @classmethod
    def _of(
        cls, moments: Moments, y: Any, positions: Sequence[int], component_names: Sequence[str]
    ) -> LatentSpaceDisplay:
        if len(positions) != 2:
            raise ValueError(
                f"components has {len(positions)} entries; a plane has two. Of a model with one "
                "component, components=(0, 0) shows it along a diagonal."
            )
        positions = list(positions)
        name = getattr(y, "name", None)
        y = None if y is None else as_array(y)
        if y is not None and y.shape != (len(moments.mean),):
            raise ValueError(
                f"y has the shape {y.shape}; it needs one value for each of the "
                f"{len(moments.mean)} rows of X."
            )
        return cls(
            mean=moments.mean[:, positions],
            std=None if moments.std is None else moments.std[:, positions],
            y=y,
            component_names=[component_names[j] for j in positions],
            y_name=None if name is None else str(name),
        )


def _is_categorical(y: np.ndarray) -> bool:
    """Labels, as against numbers."""
    if y.dtype.kind not in "iuf":
        return True
    values = np.unique(y[np.isfinite(y)])
    return len(values) <= _MOST_LABELS and bool((values == np.round(values)).all())


def _labels(y: np.ndarray) -> list[str]:
    """The different labels as text, in order; without one of their own, in that of the text."""
    values = {_text(value): value for value in y.tolist()}
    try:
        return sorted(values, key=lambda text: values[text])
    except TypeError:
        return sorted(values)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _ellipses(
    ax: Any, mean: np.ndarray, reach: np.ndarray, colors: Any, given: Mapping[str, Any] | None
) -> Any:
    from matplotlib.collections import EllipseCollection

    width, height = 2 * reach.T
    keywords = merged({"facecolors": colors, "edgecolors": "none", "alpha": 0.12}, given)
    return EllipseCollection(
        width, height, np.zeros(len(mean)), units="xy", offsets=mean,
        offset_transform=ax.transData, **{"zorder": 2, **keywords},
    )  # fmt: skip


def _crosses(
    ax: Any, mean: np.ndarray, reach: np.ndarray, colors: Any, given: Mapping[str, Any] | None
) -> Any:
    from matplotlib.collections import LineCollection

    steps = np.stack([reach * [1, 0], reach * [0, 1]])  # (2, n_samples, 2)
    arms = np.stack([mean - steps, mean + steps], axis=2).reshape(-1, 2, 2)
    colors = np.concatenate([colors, colors]) if len(colors) == len(mean) else colors
    keywords = merged({"colors": colors, "linewidths": 0.8, "alpha": 0.4}, given)
    return LineCollection(arms, **{"zorder": 2, **keywords})
