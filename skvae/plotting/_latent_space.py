"""Where rows lie in latent space, and how far q(z|x) spreads about each."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from skvae._frames import is_blank
from skvae.plotting._axes import legend_beside, literal, look_of, merged, pyplot, shade, single_axes
from skvae.plotting._model import Function, Model, as_array, of_each_row

# Whole numbers with more values than this are numbers, with fewer they are labels.
_MOST_LABELS = 20

# Above this, two whole floats may be one number.
_MOST_EXACT = 2.0**53

# What is not known of y, among labels and among numbers.
_MISSING = "missing"
_GREY = "0.6"


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
        What the points are coloured by. Text, booleans, whole numbers of at most 20
        values and all that has ``categories`` are labels; other numbers, dates and
        durations (in days) have a colour bar. What is missing is grey.

    component_names : sequence of 2 str, default=("component 0", "component 1")
        Labels of the axes.

    y_name : str, default=None
        What y is.

    categories : sequence, default=None
        The labels of y in their order, if that is another than the alphabet's or that of
        numbers.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    scatters_ : list of PathCollection
        One for each label in their order, or a single one; that of missing ones is last.
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
    ((178, 2), 'component 0 (1.35 nats)')
    """

    def __init__(
        self,
        *,
        mean: np.ndarray,
        std: np.ndarray | None = None,
        y: np.ndarray | None = None,
        component_names: Sequence[str] = ("component 0", "component 1"),
        y_name: str | None = None,
        categories: Sequence[Any] | None = None,
    ) -> None:
        self.mean = mean
        self.std = std
        self.y = y
        self.component_names = component_names
        self.y_name = y_name
        self.categories = categories

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
            for numbers and dates.
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
        self.scatters_: list[Any] = []
        self.spreads_: list[Any] = []
        self.texts_: list[Any] = []
        self.legend_ = self.colorbar_ = None
        draw: dict[str, Any] = {"spread": spread, "n_std": n_std, "spread_kwargs": spread_kwargs}
        y = None if self.y is None else _plain(self.y)
        if y is None:
            look = {"s": 12, "color": "C0"}
            self._add(slice(None), merged(look, scatter_kwargs, "collection"), **draw)
        elif self.categories is not None or _is_categorical(y):
            self._plot_labels(y, names, cmap, scatter_kwargs, draw)
        else:
            self._plot_numbers(y, cmap, scatter_kwargs, draw)
        ax.set(xlabel=self.component_names[0], ylabel=self.component_names[1])
        if is_new:  # both axes have one unit
            ax.set_aspect("equal", adjustable="datalim")
        return self

    def _plot_numbers(
        self,
        y: np.ndarray,
        cmap: Any,
        scatter_kwargs: Mapping[str, Any] | None,
        draw: dict[str, Any],
    ) -> None:
        from matplotlib import colormaps, dates

        of_dates = {}
        if y.dtype.kind == "M":
            y = dates.date2num(y)
            locator = dates.AutoDateLocator()
            of_dates = {"ticks": locator, "format": dates.ConciseDateFormatter(locator)}
        look = {"s": 14, "c": y, "cmap": cmap or "viridis", "plotnonfinite": True}
        keywords = merged(look, scatter_kwargs, "collection")
        if "c" in keywords:  # else the user's colours
            keywords["cmap"] = colormaps.get_cmap(keywords["cmap"]).with_extremes(bad=_GREY)
        else:
            del keywords["cmap"], keywords["plotnonfinite"]
        self._add(slice(None), keywords, **draw)
        if self.scatters_[0].get_array() is not None:
            self.colorbar_ = self.ax_.figure.colorbar(
                self.scatters_[0], ax=self.ax_, label=literal(self.y_name or ""), **of_dates
            )

    def _plot_labels(
        self,
        y: np.ndarray,
        names: str | None,
        cmap: Any,
        scatter_kwargs: Mapping[str, Any] | None,
        draw: dict[str, Any],
    ) -> None:
        from matplotlib import patheffects

        codes, labels = _factorised(y, self.categories)
        colors = _colors(cmap, len(labels))
        outline = [patheffects.withStroke(linewidth=3, foreground=shade(self.ax_, 0))]
        for i, label in enumerate([*labels, _MISSING]):
            rows = codes == i
            if not rows.any():  # nothing is missing
                continue
            look = {"s": 20, **look_of(i, colors)}
            if i == len(labels):
                look |= {"s": 40, "color": _GREY, "marker": "."}
            look |= {"label": literal(label), "linewidth": 0}
            keywords = merged(look, scatter_kwargs, "collection")
            self._add(rows, keywords, **draw)
            self.scatters_[-1].set_label(keywords["label"])  # also if it is ""
            if names == "median":
                place = np.median(self.mean[rows], axis=0)
                self.texts_.append(
                    self.ax_.text(
                        *place, literal(label), ha="center", va="center", weight="bold", zorder=5,
                        path_effects=outline,
                    )
                )  # fmt: skip
        if names == "legend":
            title = None if self.y_name is None else literal(self.y_name)
            self.legend_ = legend_beside(self.ax_, self.scatters_, title)

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
        components: Sequence[int | str] | None = None,
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
        components : pair of int or str, default=None
            By position, or by name as in ``get_feature_names_out``; None takes the first
            two, or twice the only one.
        condition : array-like, DataFrame, label or number, default=None
            That of a ConditionalVAE, of each row or one for all; labels are integrated out
            without.
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
        moments = model.posterior(X, of_each_row(condition, X))
        return cls._of(model, *moments, y, components).plot(
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
        components: Sequence[int] | None = None,
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
        components : pair of int, default=None
            Which columns of mean and std; None takes the first two, or twice the only one.
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
        mean, std = (None if part is None else as_array(part) for part in (mean, std))
        if mean.ndim != 2:
            raise ValueError(
                f"mean has the shape {mean.shape}; it needs (n_samples, n_components)."
            )
        if std is not None and std.shape != mean.shape:
            raise ValueError(f"std has the shape {std.shape}, but mean has {mean.shape}.")
        source = Function(lambda Z: Z, mean.shape[1])
        return cls._of(source, mean, std, y, components).plot(
            ax=ax, spread=spread, n_std=n_std, names=names, cmap=cmap,
            scatter_kwargs=scatter_kwargs, spread_kwargs=spread_kwargs,
        )  # fmt: skip

    @classmethod
    def _of(
        cls,
        source: Model | Function,
        mean: np.ndarray,
        std: np.ndarray | None,
        y: Any,
        components: Sequence[int | str] | None,
    ) -> LatentSpaceDisplay:
        if components is None:
            components = (0, min(1, source.n_components - 1))
        positions = source.positions(components)
        if len(positions) != 2:
            raise ValueError(
                f"components has {len(positions)} entries; a plane has two. Of a model with one "
                "component, components=(0, 0) shows it along a diagonal."
            )
        name, categories = getattr(y, "name", None), _categories(y)
        y = None if y is None else as_array(y)
        if y is not None and y.shape != (len(mean),):
            raise ValueError(
                f"y has the shape {y.shape}; it needs one value for each of the "
                f"{len(mean)} rows of X."
            )
        return cls(
            mean=mean[:, positions],
            std=None if std is None else std[:, positions],
            y=y,
            component_names=[source.component_names[j] for j in positions],
            y_name=None if name is None else str(name),
            categories=categories,
        )


def _categories(y: Any) -> list[Any] | None:
    """Those that a column of pandas or polars declares, in its order."""
    found: Any = getattr(getattr(y, "dtype", None), "categories", None)
    return list(found) if hasattr(found, "__len__") else None


def _plain(y: Any) -> np.ndarray:
    """y as an array; objects that all are numbers, or dates, as these, with NaN or NaT."""
    y = np.asarray(y)
    if y.dtype.kind == "m":
        return np.where(np.isnat(y), np.nan, y / np.timedelta64(1, "D"))
    if y.dtype.kind != "O":
        return y
    is_missing = is_blank(y)
    plain: np.ndarray
    blank: Any
    known = y[~is_missing].tolist()
    if known and all(isinstance(value, Real) and not isinstance(value, bool) for value in known):
        plain, blank = np.empty(len(y)), np.nan
    elif known and all(isinstance(value, datetime.date) for value in known):
        known = [_without_zone(value) for value in known]
        plain, blank = np.empty(len(y), dtype="datetime64[us]"), np.datetime64("NaT")
    else:
        return y
    plain[~is_missing], plain[is_missing] = known, blank
    return plain


def _without_zone(date: datetime.date) -> np.datetime64:
    if isinstance(date, datetime.datetime) and date.tzinfo is not None:
        date = date.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(date.isoformat(), "us")


def _is_categorical(y: np.ndarray) -> bool:
    """Labels, as against numbers and dates."""
    if y.dtype.kind not in "iufM":
        return True
    if y.dtype.kind == "M":
        return False
    values = np.unique(y[np.isfinite(y)])
    return len(values) <= _MOST_LABELS and bool((values == np.round(values)).all())


def _factorised(y: np.ndarray, categories: Sequence[Any] | None) -> tuple[np.ndarray, list[str]]:
    """The label of each row by number, and their texts in order; what is missing comes last.

    Of labels that cannot be compared, the order is that of their texts.
    """
    is_missing = is_blank(y)
    values = (y.astype("datetime64[us]") if y.dtype.kind == "M" else y).tolist()
    found = {value for value, is_gone in zip(values, is_missing, strict=True) if not is_gone}
    if categories is not None:
        labels = [label for label in categories if label in found]
        labels += sorted(found - set(labels), key=str)
    else:
        try:
            labels = sorted(found)
        except TypeError:
            labels = sorted(found, key=str)
    position = {label: i for i, label in enumerate(labels)}
    codes = [
        len(labels) if is_gone else position[value]
        for value, is_gone in zip(values, is_missing, strict=True)
    ]
    return np.array(codes), [_text(label) for label in labels]


def _text(value: Any) -> str:
    """Whole floats without a point."""
    is_whole = isinstance(value, float) and abs(value) <= _MOST_EXACT and value == int(value)
    return str(int(value)) if is_whole else str(value)


def _colors(cmap: Any, n_labels: int) -> list[Any]:
    """Those of a list, to be gone through again and again, or as many from a scale."""
    from matplotlib import colormaps

    if cmap is None:
        cmap = "tab10" if n_labels <= 10 else "tab20"
    cmap = colormaps.get_cmap(cmap)
    if hasattr(cmap, "colors") and cmap.N < 64:
        return [cmap(i) for i in range(cmap.N)]
    return [cmap(i / max(1, n_labels - 1)) for i in range(max(1, n_labels))]


def _ellipses(
    ax: Any, mean: np.ndarray, reach: np.ndarray, colors: Any, given: Mapping[str, Any] | None
) -> Any:
    from matplotlib.collections import EllipseCollection

    width, height = 2 * reach.T
    look = {"facecolor": colors, "edgecolor": "none", "alpha": 0.12}
    keywords = merged(look, given, "collection")
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
    given = {"color" if name == "colors" else name: value for name, value in (given or {}).items()}
    keywords = merged({"color": colors, "linewidth": 0.8, "alpha": 0.4}, given, "collection")
    return LineCollection(list(arms), **{"zorder": 2, **keywords})
